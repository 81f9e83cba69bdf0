//! What is wrong with a ledger, in words that help: SQLite's own name a number.

use std::path::Path;

use rusqlite::ErrorCode;

use super::BUSY_TIMEOUT;
use crate::error::Error;

/// Why a ledger cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerFailure {
    /// No room.
    #[error("its disk is full: free some room there, and do this again")]
    DiskFull,
    /// No permission, or a medium that is read-only.
    #[error(
        "it or its folder cannot be written: is the disk mounted read-only, or does it belong to another user?"
    )]
    ReadOnly,
    /// Pages or rows that are not what was written.
    #[error(
        "it is damaged: stop what uses it, and put the last backup back, with `lizctl restore DIR`"
    )]
    Damaged,
    /// Another file in its place.
    #[error(
        "it is no ledger: put the right file back, or the last backup, with `lizctl restore DIR`"
    )]
    NotALedger,
    /// Somebody holds it.
    #[error("another program has held it for {} s: find the lizctl or liz-ca that does not go on", BUSY_TIMEOUT.as_secs())]
    Busy,
    /// A disk that does not do what it should.
    #[error("its disk does not read or write: the system's log says why")]
    Disk,
    /// Anything else.
    #[error("SQLite refuses")]
    Sqlite(#[source] rusqlite::Error),
}

/// The error of a ledger that the user knows by this path.
pub(super) fn failed(path: &Path, error: rusqlite::Error) -> Error {
    Error::Ledger {
        source: flaw(path, error),
        path: path.to_owned(),
    }
}

fn flaw(path: &Path, error: rusqlite::Error) -> LedgerFailure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LedgerFailure::DiskFull,
        // A file of SQLite's beside it that cannot be made or grown says neither that nor why.
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
        // Not SQLite but what stands in a row: a type or a word that we never wrote.
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

/// Whether the disk has no room, or no file more, for who runs this program.
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
    fn sqlites_numbers_become_words() {
        let cases = [
            (ffi::SQLITE_FULL, "full"),
            (ffi::SQLITE_READONLY, "cannot be written"),
            (ffi::SQLITE_READONLY_DIRECTORY, "cannot be written"),
            (ffi::SQLITE_CANTOPEN, "cannot be written"),
            (ffi::SQLITE_CORRUPT, "damaged"),
            (ffi::SQLITE_CORRUPT_INDEX, "damaged"),
            (ffi::SQLITE_NOTADB, "no ledger"),
            (ffi::SQLITE_BUSY, "another program"),
            (ffi::SQLITE_IOERR_SHMSIZE, "its disk"),
            (ffi::SQLITE_IOERR_WRITE, "its disk"),
        ];
        for (code, expected) in cases {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let words = flaw(Path::new("."), error).to_string();
            assert!(words.contains(expected), "{code}: {words}");
            assert!(!words.contains(&code.to_string()), "{words}");
        }
        let row = rusqlite::Error::InvalidColumnType(1, "name".into(), rusqlite::types::Type::Null);
        assert!(matches!(flaw(Path::new("."), row), LedgerFailure::Damaged));
    }
}
