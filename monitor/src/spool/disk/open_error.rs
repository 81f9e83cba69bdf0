//! Why a folder cannot hold a spool.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why a folder cannot hold a spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("the spool `{}` is in use by another process: end it, or give --spool another folder", .0.display())]
    Locked(PathBuf),
    /// The folder or its lock file cannot be made or opened.
    #[error("cannot use `{}` for the spool: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A later version of lizmon wrote it. It is left as it is.
    #[error("the spool `{}` was written by a newer lizmon, version {found}; this one knows {known}: use the newer program, or give --spool another folder", folder.display())]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// The version that was found.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// The database cannot be opened, though it is not damaged.
    #[error("cannot open the spool's database in `{}`: {source}", folder.display())]
    Database {
        /// The folder.
        folder: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether the disk fails, which may pass, rather than that the folder is wrong or in use.
    pub(super) fn is_disk_failure(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Newer { .. } => false,
            Self::Folder { source, .. } => {
                is_full(source)
                    || source.kind() == io::ErrorKind::ReadOnlyFilesystem
                    || source.raw_os_error() == Some(EIO)
            }
            Self::Database { .. } => true,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Newer { .. } => false,
            Self::Folder { source, .. } => is_full(source),
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::DiskFull)
            }
        }
    }
}

/// The disk itself fails: the same number on every Unix.
const EIO: i32 = 5;

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
