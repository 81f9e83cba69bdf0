//! What can go wrong with SQLite in a folder. Callers of the store learn its kind and its words.

use std::path::PathBuf;

use super::super::error::{ErrorKind, StoreError};
use super::super::shard::Fence;

/// Why the embedded store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmbeddedError {
    /// The database refused: a full disk, a failed read or write.
    #[error("the database cannot be used")]
    Database(#[from] rusqlite::Error),
    /// The database cannot be opened.
    #[error("cannot open {file}: {cure}", file = file.display())]
    Open {
        /// Which database.
        file: PathBuf,
        /// What to do about it.
        cure: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The folder or a file in it cannot be used.
    #[error("{file}: {what}", file = file.display())]
    Folder {
        /// Which file or folder.
        file: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// Why it could not.
        source: std::io::Error,
    },
    /// Another process uses the folder.
    #[error("{folder}: another receiver is using this folder; stop it, or give this one a --data of its own", folder = folder.display())]
    Locked {
        /// Which folder.
        folder: PathBuf,
    },
    /// A file system on which SQLite has no write-ahead log.
    #[error(
        "{file}: SQLite's WAL mode is not available here, the journal mode stays `{mode}`: put --data on a local file system", file = file.display()
    )]
    NotWrittenAhead {
        /// Which database.
        file: PathBuf,
        /// What SQLite says instead of `wal`.
        mode: String,
    },
    /// A store of another version. It is left alone.
    #[error(
        "{file}: the store has version {found}, this program reads {known}: use the program that wrote it, or move the file away to start with an empty store",
        file = file.display()
    )]
    Version {
        /// Which database.
        file: PathBuf,
        /// The store's version.
        found: i64,
        /// The version this program reads.
        known: i64,
    },
    /// A database of another program. It is left alone.
    #[error(
        "{file}: another program's database; move it away, or give the receiver a --data of its own", file = file.display()
    )]
    Foreign {
        /// Which database.
        file: PathBuf,
    },
    /// A copy into the folder was interrupted.
    #[error(
        "{file}: this store is incomplete: a copy into it was interrupted; run `lizctl store copy` again", file = file.display()
    )]
    CopyIncomplete {
        /// The mark.
        file: PathBuf,
    },
    /// A copy goes into a folder without a store.
    #[error(
        "{file}: this folder holds a store already: choose another folder, or move the file and lizmon.id away", file = file.display()
    )]
    NotEmpty {
        /// Which database.
        file: PathBuf,
    },
    /// A database that says what it cannot be.
    #[error("{file} is damaged: {what}", file = file.display())]
    Damaged {
        /// Which database.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A commit by a process that no longer owns the shard.
    #[error("shard {} was acquired again since epoch {}", fence.shard().number(), fence.epoch())]
    Fenced {
        /// The fence that no longer works.
        fence: Fence,
    },
}

impl EmbeddedError {
    /// Whether what is stored is at fault.
    pub(super) fn is_damage(&self) -> bool {
        self.kind() == ErrorKind::Damaged
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Database(error) if is_damage(error) => ErrorKind::Damaged,
            Self::Locked { .. } => ErrorKind::InUse,
            Self::Version { .. }
            | Self::Foreign { .. }
            | Self::CopyIncomplete { .. }
            | Self::NotEmpty { .. } => ErrorKind::Incompatible,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Database(_)
            | Self::Open { .. }
            | Self::Folder { .. }
            | Self::NotWrittenAhead { .. } => ErrorKind::Unavailable,
        }
    }
}

impl From<EmbeddedError> for StoreError {
    fn from(error: EmbeddedError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Whether it is the file's own fault that it cannot be used, and not the disk's or another
/// process's.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    match error {
        rusqlite::Error::SqliteFailure(..) => matches!(
            error.sqlite_error_code(),
            Some(
                Code::DatabaseCorrupt
                    | Code::NotADatabase
                    | Code::Unknown
                    | Code::ConstraintViolation
                    | Code::TypeMismatch
            )
        ),
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::QueryReturnedNoRows => true,
        _ => false,
    }
}
