//! How a database is opened.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::error::EmbeddedError;
use super::wal::PAGE_BYTES;

/// Statements kept prepared: all there are.
const STATEMENTS: usize = 32;
/// WAL size limit: the file is truncated to this after a large commit.
pub(super) const WAL_BYTES_KEPT: i64 = 16 << 20;

/// Opens a database to write to it.
pub(super) fn connect(file: &Path) -> Result<Connection, EmbeddedError> {
    let connection = Connection::open(file)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // These two take effect before the first page is written; in an existing database they change
    // nothing.
    connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    write_ahead(&connection, file)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    Ok(connection)
}

/// Opens a database to read it. Others may be writing to it.
pub(super) fn connect_read_only(file: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// A connection to no file, for the moment between two databases.
pub(super) fn connect_to_nothing() -> rusqlite::Result<Connection> {
    Connection::open_in_memory()
}

/// Has this connection not checkpoint when it is closed, which the last connection of a database
/// does otherwise.
pub(super) fn no_checkpoint_on_close(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map(drop)
}

/// The value of a pragma.
pub(super) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// On some network file systems SQLite silently keeps another journal mode.
pub(super) fn write_ahead(connection: &Connection, file: &Path) -> Result<(), EmbeddedError> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(EmbeddedError::NotWrittenAhead {
        file: file.to_owned(),
        mode,
    })
}

/// The same error; of SQLite's own, with what to do about it.
pub(super) fn with_cure(error: EmbeddedError, file: &Path) -> EmbeddedError {
    match error {
        EmbeddedError::Database(source) => EmbeddedError::Open {
            cure: cure(&source),
            file: file.to_owned(),
            source,
        },
        known => known,
    }
}

/// What to do about a database that cannot be opened.
fn cure(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on its disk, then start again",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "it is not a lizmon database: move it away to start with an empty one, or restore a backup with `liz-receiver restore`"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has locked it: stop that program"
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            "check that this user may read and write it and its folder"
        }
        _ => "check that its disk works and that its folder is writable",
    }
}
