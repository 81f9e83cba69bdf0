//! Errors of the ledger, in words that say what to do: SQLite's own are numbers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ErrorCode;

use crate::files::CaFileError;

/// How long a process waits for another one that holds the write lock.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a ledger cannot be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file itself, or a certificate in it.
    #[error(transparent)]
    File(#[from] CaFileError),
    /// SQLite reported an error.
    #[error("the ledger {} cannot be used", .path.display())]
    Database {
        /// The ledger.
        path: PathBuf,
        /// Why, and what to do.
        source: LedgerFailure,
    },
    /// A schema that this program does not know.
    #[error(
        "the ledger {} has schema version {found}, this program knows {known}: use the version of lizmon that wrote it", .path.display()
    )]
    UnsupportedVersion {
        /// The ledger.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The one that this program knows.
        known: u32,
    },
}

impl LedgerError {
    /// Whether only writing is impossible here, so that a caller that only reads can go on.
    pub(crate) fn is_write_failure(&self) -> bool {
        match self {
            Self::File(error) => error.is_write_failure(),
            Self::Database { source, .. } => matches!(
                source,
                LedgerFailure::DiskFull | LedgerFailure::ReadOnly | LedgerFailure::Disk
            ),
            Self::UnsupportedVersion { .. } => false,
        }
    }
}

/// What SQLite reported, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerFailure {
    /// No space left.
    #[error("its disk is full: free some space there, and try again")]
    DiskFull,
    /// No permission, or a medium that is read-only.
    #[error(
        "it or its folder cannot be written: is the disk mounted read-only, or does it belong to another user?"
    )]
    ReadOnly,
    /// Damaged pages or rows.
    #[error(
        "it is damaged: stop what uses it, and put the last backup back, with `lizctl restore DIR`"
    )]
    Damaged,
    /// Not an SQLite file.
    #[error(
        "it is not a ledger: put the right file back, or the last backup, with `lizctl restore DIR`"
    )]
    NotALedger,
    /// Another process holds the lock.
    #[error("another program has locked it for {} s: look for a lizctl or liz-ca that hangs", BUSY_TIMEOUT.as_secs())]
    Busy,
    /// The disk fails.
    #[error("its disk reports errors: see the system's log")]
    Disk,
    /// Anything else.
    #[error("SQLite reported an error")]
    Sqlite(#[source] rusqlite::Error),
}

/// An error of the ledger that the user knows by this path.
pub(super) fn failed(path: &Path, error: rusqlite::Error) -> LedgerError {
    LedgerError::Database {
        source: failure(path, error),
        path: path.to_owned(),
    }
}

fn failure(path: &Path, error: rusqlite::Error) -> LedgerFailure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LedgerFailure::DiskFull,
        // SQLite reports a full disk like this where it cannot create or grow a file beside the
        // ledger.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(path) => {
            LedgerFailure::DiskFull
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            LedgerFailure::ReadOnly
        }
        Some(ErrorCode::DatabaseCorrupt) => LedgerFailure::Damaged,
        Some(ErrorCode::NotADatabase) => LedgerFailure::NotALedger,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerFailure::Busy,
        Some(ErrorCode::SystemIoFailure) => LedgerFailure::Disk,
        Some(_) => LedgerFailure::Sqlite(error),
        // Not from SQLite but from a row: a type or a word that we never write.
        None if is_row_error(&error) => LedgerFailure::Damaged,
        None => LedgerFailure::Sqlite(error),
    }
}

fn is_row_error(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as Sqlite;
    matches!(
        error,
        Sqlite::InvalidColumnType(..)
            | Sqlite::FromSqlConversionFailure(..)
            | Sqlite::IntegralValueOutOfRange(..)
            | Sqlite::Utf8Error(..)
    )
}

/// Whether the disk has no space or no inode left for the user who runs this program.
#[cfg(unix)]
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|disk| disk.f_bavail == 0 || disk.f_favail == 0 && disk.f_files > 0)
}

#[cfg(not(unix))]
fn is_full(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn sqlite_error_codes_become_words() {
        let cases = [
            (ffi::SQLITE_FULL, "full"),
            (ffi::SQLITE_READONLY, "cannot be written"),
            (ffi::SQLITE_READONLY_DIRECTORY, "cannot be written"),
            (ffi::SQLITE_CANTOPEN, "cannot be written"),
            (ffi::SQLITE_CORRUPT, "damaged"),
            (ffi::SQLITE_CORRUPT_INDEX, "damaged"),
            (ffi::SQLITE_NOTADB, "not a ledger"),
            (ffi::SQLITE_BUSY, "another program"),
            (ffi::SQLITE_IOERR_SHMSIZE, "its disk"),
            (ffi::SQLITE_IOERR_WRITE, "its disk"),
        ];
        for (code, expected) in cases {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let words = failure(Path::new("."), error).to_string();
            assert!(words.contains(expected), "{code}: {words}");
            assert!(!words.contains(&code.to_string()), "{words}");
        }
        let row = rusqlite::Error::InvalidColumnType(1, "name".into(), rusqlite::types::Type::Null);
        assert!(matches!(
            failure(Path::new("."), row),
            LedgerFailure::Damaged
        ));
    }
}
