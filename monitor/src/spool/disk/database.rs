//! Opens a database: its settings, its schema and its version.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::files::{has_wal, private};

pub(super) const VERSION: i64 = 1;
/// `liz` and a byte for the version, where a database says which program's it is.
const APPLICATION: i64 = 0x6c69_7a00;
/// Statements kept prepared: all there are.
const STATEMENTS: usize = 12;
/// SQLite's page cache: a few pages change each second.
const CACHE_KIB: i64 = 256;
/// The write-ahead log is checkpointed when it has so many pages: 1 MiB.
const WAL_PAGES: i64 = 256;
/// WAL size limit.
const WAL_BYTES: i64 = WAL_PAGES * 4096;

const SCHEMA: &str = "
    CREATE TABLE producer_log(
        id INTEGER PRIMARY KEY, producer BLOB NOT NULL UNIQUE, state TEXT NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE record(
        log INTEGER NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL, crc INTEGER NOT NULL, samples TEXT NOT NULL,
        PRIMARY KEY(log, seq)) WITHOUT ROWID;
";

/// All columns of a log.
pub(super) const SELECT_LOG: &str = "SELECT id, producer, state, crc FROM producer_log";
/// All columns of a record.
pub(super) const SELECT_RECORD: &str = "SELECT log, seq, epoch, crc, samples FROM record";

/// Opens a database without a look at what is in it.
pub(super) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    // Made before SQLite makes it: the other files get its mode.
    private(OpenOptions::new().create(true).append(true))
        .open(file)
        .map_err(from_io)?;
    let database = Connection::open(file)?;
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    // The lock file keeps other processes out, so SQLite needs no shared memory; it must be told
    // before anything else.
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    database.pragma_update(None, "cache_size", -CACHE_KIB)?;
    database.pragma_update(None, "mmap_size", 0)?;
    Ok(database)
}

/// Opens a database, or makes a new one. One that is damaged or not a spool is an error.
pub(super) fn open(file: &Path) -> rusqlite::Result<Connection> {
    let database = connect(file)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    // As FULL with a write-ahead log; on a file system that cannot have one, the folder is synced
    // as well.
    database.pragma_update(None, "synchronous", "EXTRA")?;
    database.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    database.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    check(&database)?;
    Ok(database)
}

/// A new file gets its tables; any other must be undamaged, and a spool.
fn check(database: &Connection) -> rusqlite::Result<()> {
    let tables: i64 =
        database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if tables == 0 && version == 0 {
        let application = APPLICATION + VERSION;
        let schema = format!(
            "BEGIN; {SCHEMA} PRAGMA application_id = {application}; PRAGMA user_version = {VERSION}; COMMIT;"
        );
        return database.execute_batch(&schema);
    }
    let verdict: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let queries = [SELECT_LOG, SELECT_RECORD];
    let has_columns = queries.iter().all(|query| database.prepare(query).is_ok());
    if verdict == "ok" && version == VERSION && has_columns {
        return Ok(());
    }
    Err(sqlite_error(rusqlite::ffi::SQLITE_CORRUPT, verdict))
}

/// The version of a database that a later program wrote; none where this program may use or repair
/// it. The file stays as it is, bit for bit, and so does its write-ahead log.
pub(super) fn newer_version(file: &Path) -> Option<i64> {
    let (version, application) = match has_wal(file) {
        true => version_with_log(file)?,
        false => version_in_head(file)?,
    };
    is_newer(version, application).then_some(version)
}

/// The version is stored twice, so that a flipped bit in one of them does not make it a later
/// program's. The oldest databases have only the first.
fn is_newer(version: i64, application: i64) -> bool {
    let is_one_bit_off = (version ^ VERSION).count_ones() == 1;
    let is_ours = application == APPLICATION + VERSION;
    version > VERSION && !(is_one_bit_off && is_ours)
}

/// As SQLite reads it. It leaves a write-ahead log as it is, but would make one that is not there.
fn version_with_log(file: &Path) -> Option<(i64, i64)> {
    let database = connect(file).ok()?;
    let no_checkpoint_on_close = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    database.set_db_config(no_checkpoint_on_close, true).ok()?;
    let pragma = |name| database.pragma_query_value(None, name, |row| row.get(0));
    pragma("user_version")
        .ok()
        .zip(pragma("application_id").ok())
}

/// As the file itself says: <https://sqlite.org/fileformat.html#the_database_header>.
fn version_in_head(file: &Path) -> Option<(i64, i64)> {
    let mut head = [0; 72];
    fs::File::open(file).ok()?.read_exact(&mut head).ok()?;
    let is_database = head.starts_with(b"SQLite format 3\0");
    let [.., a, b, c, d, _, _, _, _, e, f, g, h] = head;
    let word = |bytes| i64::from(i32::from_be_bytes(bytes));
    is_database.then(|| (word([a, b, c, d]), word([e, f, g, h])))
}

pub(super) fn from_io(error: io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => rusqlite::ffi::SQLITE_FULL,
        _ => rusqlite::ffi::SQLITE_IOERR,
    };
    sqlite_error(code, error.to_string())
}

fn sqlite_error(code: i32, text: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(text))
}
