//! What can be wrong with a file, always with its path.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use lizmon_pki::pem::PemError;

/// Why a file or folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaFileError {
    /// A file that has to exist does not.
    #[error("{} is missing: put it back", .0.display())]
    Missing(PathBuf),
    /// A new file would replace one that exists.
    #[error("{} already exists: move it away, or choose another folder", .0.display())]
    AlreadyExists(PathBuf),
    /// The content is not what belongs there.
    #[error("{} is not a valid file of this CA: {why}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// PEM that is damaged, or encrypted without a known passphrase, or something else.
    #[error("{} cannot be used", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where, and why.
        source: PemError,
    },
    /// The operating system reported an error.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A symbolic link, or a file, where a folder belongs.
    #[error("{} is a symbolic link or not a folder: move it away", .0.display())]
    NotAFolder(PathBuf),
    /// A secret that other users can read, or a folder that they can write into.
    #[error(
        "{} can be read or written by other users (mode {mode:04o}): run `chmod {wanted} {}`", .path.display(), .path.display()
    )]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode to set, as chmod takes it.
        wanted: &'static str,
        /// Whether it belongs to another user than the one who runs this program.
        is_foreign: bool,
    },
}

impl CaFileError {
    /// For `map_err` after an I/O call.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// For `map_err` after reading PEM.
    pub(crate) fn pem(path: &Path) -> impl FnOnce(PemError) -> Self {
        let path = path.to_owned();
        move |source| Self::Pem { path, source }
    }

    pub(crate) fn invalid(path: &Path, why: &'static str) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            why,
        }
    }

    /// Whether only writing is impossible here, so that a caller that only reads can go on. A
    /// secret that others can read is its owner's problem alone.
    pub(crate) fn is_write_failure(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
            ),
            Self::Exposed { is_foreign, .. } => *is_foreign,
            _ => false,
        }
    }
}
