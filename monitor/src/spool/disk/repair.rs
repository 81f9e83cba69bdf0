//! Repairs a damaged database: what can be read is copied to a new one, and the damaged one is set
//! aside.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::slice;

use rusqlite::{Connection, Row};
use tracing::warn;

use super::super::backend::{LogState, SeqCheckpoint};
use super::database::{SELECT_LOG, SELECT_RECORD, connect, from_io, open};
use super::files::{remove_all, rename_all};
use super::rows::{read_log_state, read_record, upsert_log, upsert_record};

pub(super) const FILE: &str = "spool.db";
/// Made during a repair; it is complete once the old database has been moved away.
const NEW: &str = "spool.db.new";
/// Damaged databases that were set aside, the newest as 1.
const DAMAGED: &str = "spool.db.damaged";
/// Databases of another host or machine. None is ever removed, for its records are nowhere else.
const OTHER: &str = "spool.db.other";
/// How many damaged databases are kept for an operator who wants to know what happened.
const DAMAGED_MAX: usize = 3;

/// Opens the database of a folder, or makes one, or repairs it.
pub(super) fn open_or_repair(
    folder: &Path,
    checkpoints: &[SeqCheckpoint],
) -> rusqlite::Result<Connection> {
    let file = folder.join(FILE);
    let new = folder.join(NEW);
    // The old one is moved away only after the new one is complete.
    if new.exists() && !file.exists() {
        // A write-ahead log that is left of the old one would be taken for the new one's.
        remove_all(&file);
        rename_all(&new, &file).map_err(from_io)?;
    } else {
        remove_all(&new);
    }
    match open(&file) {
        Err(error) if is_damaged(&error) => {
            warn!("the spool's database is damaged: {error}");
            repair(folder, checkpoints)
        }
        opened => opened,
    }
}

/// Moves the database to where it is not used, and makes a new one with these logs. Returns where
/// the old one is.
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
        insert_closed_log(&transaction, state.clone())?;
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

/// Copies what can be read to a new database, which replaces the damaged one.
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
    let aside = next_damaged_name(folder);
    rename_all(&file, &aside).map_err(from_io)?;
    rename_all(&new, &file).map_err(from_io)?;
    warn!(
        records = rescued,
        "repaired the spool: the readable records were copied to a new database, and the damaged one was moved to {}",
        aside.display()
    );
    open(&file)
}

/// Whether the file is damaged, rather than that the disk fails or another process uses it.
fn is_damaged(error: &rusqlite::Error) -> bool {
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

/// Returns how many records were copied. What cannot be read is left out; what cannot be written is
/// an error.
fn copy(
    damaged: &Connection,
    rescue: &Connection,
    checkpoints: &[SeqCheckpoint],
) -> rusqlite::Result<u64> {
    let mut logs = HashMap::new();
    each_row(damaged, &format!("{SELECT_LOG} ORDER BY id"), |row| {
        if let (Ok(old_id), Ok(Some(state))) = (row.get::<_, i64>(0), read_log_state(row)) {
            let producer = state.producer;
            logs.insert(old_id, (producer, insert_closed_log(rescue, state)?));
        }
        Ok(true)
    })?;
    // A log whose row cannot be read may be one of a checkpoint: its records' checksums tell.
    let mut unread = Vec::new();
    for checkpoint in checkpoints {
        let producer = checkpoint.producer;
        if logs.values().all(|(known, _)| *known != producer) {
            unread.push((producer, insert_closed_log(rescue, checkpoint.to_state())?));
        }
    }
    let key_of = |row: &Row<'_>| Some((row.get::<_, i64>(0).ok()?, row.get::<_, i64>(1).ok()?));
    let (mut copied, mut reached) = (0, None);
    let mut copy_row = |row: &Row<'_>| {
        let log_id = row.get::<_, i64>(0).ok();
        let candidates = match log_id.and_then(|log_id| logs.get(&log_id)) {
            Some(known) => slice::from_ref(known),
            None => &unread,
        };
        for (producer, log_id) in candidates {
            if let Some(record) = read_record(row, 1, *producer) {
                upsert_record(rescue, *log_id, *producer, &record)?;
                copied += 1;
                break;
            }
        }
        Ok::<_, rusqlite::Error>(())
    };
    let ascending = format!("{SELECT_RECORD} ORDER BY log, seq");
    each_row(damaged, &ascending, |row| {
        reached = key_of(row).or(reached);
        copy_row(row).map(|()| true)
    })?;
    // Where that ended at a damaged page, what is behind it is read from the other end.
    let descending = format!("{SELECT_RECORD} ORDER BY log DESC, seq DESC");
    each_row(damaged, &descending, |row| {
        if key_of(row) <= reached {
            return Ok(false);
        }
        copy_row(row).map(|()| true)
    })?;
    Ok(copied)
}

/// Calls `each` with every row that can be read, until it returns false; only its errors are
/// errors.
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

/// Writes a log to the new database. It gets no more records, unless a process knows its next
/// number.
fn insert_closed_log(rescue: &Connection, mut state: LogState) -> rusqlite::Result<i64> {
    state.active = false;
    upsert_log(rescue, &state)
}

fn next_damaged_name(folder: &Path) -> PathBuf {
    let place = |number: usize| folder.join(format!("{DAMAGED}-{number}"));
    remove_all(&place(DAMAGED_MAX));
    for number in (1..DAMAGED_MAX).rev() {
        // One that cannot be moved away is replaced.
        let _replaced = rename_all(&place(number), &place(number + 1));
    }
    place(1)
}
