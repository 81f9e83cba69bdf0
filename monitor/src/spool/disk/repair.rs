//! A database that is damaged: what can be read goes into a new one, the old one is set aside.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::slice;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Row, params};
use tracing::warn;

use super::{
    CACHE_KIB, LogState, SCHEMA, STATEMENTS, SeqCheckpoint, UPSERT_LOG, VERSION, WAL_BYTES,
    WAL_PAGES, insert_record, log_crc, not_sql, private, read_log_state, read_record,
};

const FILE: &str = "spool.db";
/// Made while mending; complete once the old one has gone.
const NEW: &str = "spool.db.new";
/// Set aside, the newest as 1.
const DAMAGED: &str = "spool.db.damaged";
/// Another host's or machine's: none is ever removed, for its records are nowhere else.
const OTHER: &str = "spool.db.other";
/// How many are kept for whoever wants to know what happened.
const DAMAGED_MAX: usize = 3;
/// SQLite's companions of a file: the file itself first.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// Opens the database of a folder, or makes one, or mends it.
pub(super) fn open_or_repair(
    folder: &Path,
    checkpoints: &[SeqCheckpoint],
) -> rusqlite::Result<Connection> {
    let file = folder.join(FILE);
    let new = folder.join(NEW);
    // The old one is moved away only after the new one is whole.
    if new.exists() && !file.exists() {
        // A log that is left of the old one would be taken for the new one's.
        remove_all(&file);
        rename_all(&new, &file).map_err(from_io)?;
    } else {
        remove_all(&new);
    }
    match open(&file) {
        Err(error) if is_own_fault(&error) => {
            warn!("the spool's database is damaged: {error}");
            repair(folder, checkpoints)
        }
        opened => opened,
    }
}

/// `liz` and a byte for the version, where a database says which program's it is.
const APPLICATION: i64 = 0x6c69_7a00;

/// The version of a database that a later program wrote; none where it is ours to use or to mend. The file stays as it is, bit for bit, and
/// so does its log.
pub(super) fn newer_version(folder: &Path) -> Option<i64> {
    let file = folder.join(FILE);
    let log = fs::metadata(with(&file, COMPANIONS[1]));
    let (version, application) = match log.is_ok_and(|log| log.len() > 0) {
        true => version_with_log(&file)?,
        false => version_in_head(&file)?,
    };
    is_newer(version, application).then_some(version)
}

/// The version stands at two places, so that a flipped bit in one of them does not make it a later program's. Those from before
/// have the first alone.
fn is_newer(version: i64, application: i64) -> bool {
    let is_one_bit_off = (version ^ VERSION).count_ones() == 1;
    let says_ours = application == APPLICATION + VERSION;
    version > VERSION && !(is_one_bit_off && says_ours)
}

/// As SQLite reads it, which leaves a log that is there as it is, and would make one that is not.
fn version_with_log(file: &Path) -> Option<(i64, i64)> {
    let database = connect(file).ok()?;
    let only_look = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    database.set_db_config(only_look, true).ok()?;
    let says = |name| database.pragma_query_value(None, name, |row| row.get(0));
    says("user_version").ok().zip(says("application_id").ok())
}

/// As the file itself says it: <https://sqlite.org/fileformat.html#the_database_header>.
fn version_in_head(file: &Path) -> Option<(i64, i64)> {
    let mut head = [0; 72];
    fs::File::open(file).ok()?.read_exact(&mut head).ok()?;
    let is_database = head.starts_with(b"SQLite format 3\0");
    let [.., a, b, c, d, _, _, _, _, e, f, g, h] = head;
    let word = |bytes| i64::from(i32::from_be_bytes(bytes));
    is_database.then(|| (word([a, b, c, d]), word([e, f, g, h])))
}

/// Moves the database where it is kept and not used, and makes a new one with these tapes. Where the old one is now.
pub(super) fn set_aside(
    folder: &Path,
    logs: &[LogState],
) -> rusqlite::Result<(Connection, PathBuf)> {
    let file = folder.join(FILE);
    let new = folder.join(NEW);
    remove_all(&new);
    let mut database = open(&new)?;
    let transaction = database.transaction()?;
    for state in logs {
        insert_log(&transaction, state.clone())?;
    }
    transaction.commit()?;
    database.close().map_err(|(_, error)| error)?;
    let place = (1..)
        .map(|number: u64| folder.join(format!("{OTHER}-{number}")))
        .find(|place| !place.exists())
        .unwrap_or_else(|| folder.join(OTHER));
    rename_all(&file, &place).map_err(from_io)?;
    rename_all(&new, &file).map_err(from_io)?;
    Ok((open(&file)?, place))
}

/// Copies what can be read into a new database, and puts that in the place of the old one.
pub(super) fn repair(folder: &Path, checkpoints: &[SeqCheckpoint]) -> rusqlite::Result<Connection> {
    let file = folder.join(FILE);
    let new = folder.join(NEW);
    remove_all(&new);
    let mut rescue = open(&new)?;
    let transaction = rescue.transaction()?;
    let rescued = match connect(&file) {
        Ok(damaged) => copy(&damaged, &transaction, checkpoints)?,
        Err(_) => 0,
    };
    transaction.commit()?;
    rescue.close().map_err(|(_, error)| error)?;
    let aside = make_place_aside(folder);
    rename_all(&file, &aside).map_err(from_io)?;
    rename_all(&new, &file).map_err(from_io)?;
    warn!(
        "what could be read of the spool, {rescued} records, is in a new database; the damaged one is {}",
        aside.display()
    );
    open(&file)
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    // Made before SQLite does: its companions take over this one's mode.
    private(OpenOptions::new().create(true).append(true))
        .open(file)
        .map_err(from_io)?;
    let database = Connection::open(file)?;
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    // The folder's lock keeps others out already; so SQLite needs no shared memory, if it is told before anything else.
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    database.pragma_update(None, "cache_size", -CACHE_KIB)?;
    database.pragma_update(None, "mmap_size", 0)?;
    Ok(database)
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let database = connect(file)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    // As FULL where there is a log; where a file system cannot have one, the folder is synced as well.
    database.pragma_update(None, "synchronous", "EXTRA")?;
    database.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    database.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    check(&database)?;
    Ok(database)
}

/// A new file gets its tables; any other must be whole, and ours.
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
    let has_columns = COLUMNS.iter().all(|query| database.prepare(query).is_ok());
    if verdict == "ok" && version == VERSION && has_columns {
        return Ok(());
    }
    Err(sqlite_error(rusqlite::ffi::SQLITE_CORRUPT, verdict))
}

const COLUMNS: [&str; 2] = [
    "SELECT id, producer, state, crc FROM producer_log",
    "SELECT log, seq, epoch, crc, samples FROM record",
];

/// Whether it is the file's own fault that it cannot be opened, and not the disk's or another process's.
fn is_own_fault(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    !matches!(
        error.sqlite_error_code(),
        Some(
            Code::DiskFull
                | Code::SystemIoFailure
                | Code::CannotOpen
                | Code::OutOfMemory
                | Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::PermissionDenied
        )
    )
}

/// How many records could be copied. What cannot be read is left out; what cannot be written is an error.
fn copy(
    damaged: &Connection,
    rescue: &Connection,
    checkpoints: &[SeqCheckpoint],
) -> rusqlite::Result<u64> {
    let mut logs = HashMap::new();
    each_row(damaged, &format!("{} ORDER BY id", COLUMNS[0]), |row| {
        if let (Ok(old), Ok(Some(state))) = (row.get::<_, i64>(0), read_log_state(row)) {
            let producer = state.producer;
            logs.insert(old, (producer, insert_log(rescue, state)?));
        }
        Ok(true)
    })?;
    // A tape whose row cannot be read may be a note's: its records' checksums tell.
    let mut noted = Vec::new();
    for note in checkpoints {
        if logs.values().all(|(known, _)| *known != note.producer) {
            noted.push((note.producer, insert_log(rescue, note.to_state())?));
        }
    }
    let place_of = |row: &Row<'_>| Some((row.get::<_, i64>(0).ok()?, row.get::<_, i64>(1).ok()?));
    let (mut copied, mut reached) = (0, None);
    let mut copy_row = |row: &Row<'_>| {
        let log = row.get::<_, i64>(0).ok();
        let candidates = match log.and_then(|log| logs.get(&log)) {
            Some(known) => slice::from_ref(known),
            None => &noted,
        };
        for (producer, log) in candidates {
            if let Some(kept) = read_record(row, 1, *producer) {
                insert_record(rescue, *log, *producer, &kept)?;
                copied += 1;
                break;
            }
        }
        Ok::<_, rusqlite::Error>(())
    };
    let up = format!("{} ORDER BY log, seq", COLUMNS[1]);
    each_row(damaged, &up, |row| {
        reached = place_of(row).or(reached);
        copy_row(row).map(|()| true)
    })?;
    let down = format!("{} ORDER BY log DESC, seq DESC", COLUMNS[1]);
    each_row(damaged, &down, |row| {
        if place_of(row) <= reached {
            return Ok(false);
        }
        copy_row(row).map(|()| true)
    })?;
    Ok(copied)
}

/// Calls `each` with every row that can be read, until it has enough; only its errors are errors.
fn each_row(
    damaged: &Connection,
    query: &str,
    mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let Ok(mut statement) = damaged.prepare(query) else {
        return Ok(());
    };
    let Ok(mut rows) = statement.query([]) else {
        return Ok(());
    };
    while let Ok(Some(row)) = rows.next() {
        if !each(row)? {
            break;
        }
    }
    Ok(())
}

/// A tape in the new database. It gets no more records, unless by a process that knows its next number.
fn insert_log(rescue: &Connection, mut state: LogState) -> rusqlite::Result<i64> {
    state.active = false;
    let json = serde_json::to_string(&state).map_err(not_sql)?;
    let crc = log_crc(state.producer, &json);
    rescue.query_row(
        UPSERT_LOG,
        params![state.producer.as_bytes(), json, crc],
        |row| row.get(0),
    )
}

fn make_place_aside(folder: &Path) -> PathBuf {
    let place = |number: usize| folder.join(format!("{DAMAGED}-{number}"));
    remove_all(&place(DAMAGED_MAX));
    for number in (1..DAMAGED_MAX).rev() {
        // What cannot be moved out of the way is replaced.
        let _replaced = rename_all(&place(number), &place(number + 1));
    }
    place(1)
}

fn rename_all(from: &Path, to: &Path) -> io::Result<()> {
    for companion in COMPANIONS {
        match fs::rename(with(from, companion), with(to, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
    }
    Ok(())
}

fn remove_all(file: &Path) {
    for companion in COMPANIONS {
        // What is not there need not go; what cannot be removed shows when its name is used.
        let _gone = fs::remove_file(with(file, companion));
    }
}

fn with(file: &Path, companion: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(companion);
    name.into()
}

fn from_io(error: io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => rusqlite::ffi::SQLITE_FULL,
        _ => rusqlite::ffi::SQLITE_IOERR,
    };
    sqlite_error(code, error.to_string())
}

fn sqlite_error(code: i32, text: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(text))
}
