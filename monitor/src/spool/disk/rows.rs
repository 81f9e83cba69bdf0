//! Logs and records as rows: each with a checksum, which covers a record's producer and number too.

use lizmon_protocol::sample::{EncodedSamples, Epoch, ProducerId, Record, Seq};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::backend::{LogChange, LogState, StoredLog, StoredRecord, values_bytes};
use super::super::ranges::Ranges;
use super::database::SELECT_LOG;

const INSERT_LOG: &str = "INSERT INTO producer_log(state, crc, producer) VALUES (?1, ?2, ?3)";
const UPDATE_LOG: &str = "UPDATE producer_log SET state = ?1, crc = ?2 WHERE id = ?3";
const UPSERT_RECORD: &str =
    "INSERT OR REPLACE INTO record(log, seq, epoch, crc, samples) VALUES (?1, ?2, ?3, ?4, ?5)";

/// All logs, oldest first.
pub(super) fn load(database: &Connection) -> rusqlite::Result<Vec<StoredLog>> {
    let mut statement = database.prepare(&format!("{SELECT_LOG} ORDER BY id"))?;
    let mut rows = statement.query([])?;
    let mut logs = Vec::new();
    while let Some(row) = rows.next()? {
        // A damaged state is as good as none: a repair has put the rest in order.
        if let Some(state) = read_log_state(row)? {
            let (stored, bytes) = inventory(database, row.get(0)?, state.producer)?;
            let stored_next = state.next;
            logs.push(StoredLog {
                state,
                stored,
                bytes,
                stored_next,
            });
        }
    }
    Ok(logs)
}

/// Which records are there and sound, and what they cost.
fn inventory(
    database: &Connection,
    log_id: i64,
    producer: ProducerId,
) -> rusqlite::Result<(Ranges, u64)> {
    let mut statement = database.prepare_cached(
        "SELECT seq, epoch, crc, samples FROM record WHERE log = ?1 ORDER BY seq",
    )?;
    let mut rows = statement.query([log_id])?;
    let (mut stored, mut bytes) = (Ranges::default(), 0);
    while let Some(row) = rows.next()? {
        if let Some(record) = sound_columns(row, 0, producer) {
            stored.insert(record.seq, record.seq);
            bytes += values_bytes(record.samples.len() as u64);
        }
    }
    Ok((stored, bytes))
}

/// Makes all changes in one transaction. Returns the bytes that were freed.
pub(super) fn commit(database: &Connection, changes: &[LogChange<'_>]) -> rusqlite::Result<u64> {
    // Not as rusqlite's transaction, whose statements are parsed each time.
    database.prepare_cached("BEGIN")?.execute([])?;
    let committed = change_all(database, changes).and_then(|freed| {
        database.prepare_cached("COMMIT")?.execute([])?;
        Ok(freed)
    });
    // SQLite has rolled back by itself after some errors.
    if committed.is_err() && !database.is_autocommit() {
        database.execute_batch("ROLLBACK")?;
    }
    committed
}

fn change_all(database: &Connection, changes: &[LogChange<'_>]) -> rusqlite::Result<u64> {
    let mut freed = 0;
    for change in changes {
        let log_id = upsert_log(database, &change.state)?;
        let below = match change.is_finished {
            true => i64::MAX,
            false => change.state.first as i64,
        };
        freed += remove_records(database, log_id, below)?;
        if change.is_finished {
            database
                .prepare_cached("DELETE FROM producer_log WHERE id = ?1")?
                .execute([log_id])?;
            continue;
        }
        for record in &change.append {
            upsert_record(database, log_id, change.state.producer, record)?;
        }
    }
    Ok(freed)
}

/// Without RETURNING: SQLite makes a table in memory for that, with each statement.
fn remove_records(database: &Connection, log_id: i64, below: i64) -> rusqlite::Result<u64> {
    let (records, bytes): (i64, i64) = database
        .prepare_cached(
            "SELECT count(*), ifnull(sum(length(samples)), 0) FROM record WHERE log = ?1 AND seq < ?2",
        )?
        .query_row([log_id, below], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if records == 0 {
        return Ok(0);
    }
    database
        .prepare_cached("DELETE FROM record WHERE log = ?1 AND seq < ?2")?
        .execute([log_id, below])?;
    Ok(records.unsigned_abs() * values_bytes(0) + bytes.unsigned_abs())
}

/// Writes a log's state. Returns its id.
pub(super) fn upsert_log(database: &Connection, state: &LogState) -> rusqlite::Result<i64> {
    let json = serde_json::to_string(state)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let crc = log_crc(state.producer, &json);
    if let Some(log_id) = find_log(database, state.producer)? {
        database
            .prepare_cached(UPDATE_LOG)?
            .execute(params![json, crc, log_id])?;
        return Ok(log_id);
    }
    database
        .prepare_cached(INSERT_LOG)?
        .execute(params![json, crc, state.producer.as_bytes()])?;
    Ok(database.last_insert_rowid())
}

fn find_log(database: &Connection, producer: ProducerId) -> rusqlite::Result<Option<i64>> {
    database
        .prepare_cached("SELECT id FROM producer_log WHERE producer = ?1")?
        .query_row([producer.as_bytes()], |row| row.get(0))
        .optional()
}

pub(super) fn upsert_record(
    database: &Connection,
    log_id: i64,
    producer: ProducerId,
    record: &StoredRecord,
) -> rusqlite::Result<()> {
    let (seq, epoch, samples) = (
        record.seq.get(),
        record.epoch.secs(),
        record.values.as_str(),
    );
    let crc = record_crc(producer, seq, epoch, samples.as_bytes());
    database.prepare_cached(UPSERT_RECORD)?.execute(params![
        log_id,
        seq as i64,
        epoch as i64,
        crc,
        samples
    ])?;
    Ok(())
}

/// The first so many sound records from `from` to `to`, ascending.
pub(super) fn read(
    database: &Connection,
    producer: ProducerId,
    from: u64,
    to: u64,
    records_max: usize,
) -> rusqlite::Result<Vec<StoredRecord>> {
    let Some(log_id) = find_log(database, producer)? else {
        return Ok(Vec::new());
    };
    let mut statement = database.prepare_cached(
        "SELECT seq, epoch, crc, samples FROM record WHERE log = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![log_id, from as i64, to as i64])?;
    let mut found = Vec::new();
    while found.len() < records_max
        && let Some(row) = rows.next()?
    {
        found.extend(read_record(row, 0, producer));
    }
    Ok(found)
}

/// The columns seq, epoch, crc and samples from `column` on; none where they are not what was
/// written.
pub(super) fn read_record(
    row: &Row<'_>,
    column: usize,
    producer: ProducerId,
) -> Option<StoredRecord> {
    let columns = sound_columns(row, column, producer)?;
    let samples = std::str::from_utf8(columns.samples).ok()?;
    Some(Record {
        seq: Seq::new(columns.seq)?,
        epoch: Epoch::new(columns.epoch)?,
        values: EncodedSamples::from_json(samples).ok()?,
    })
}

/// A record whose checksum is right.
struct RecordColumns<'a> {
    seq: u64,
    epoch: u64,
    samples: &'a [u8],
}

fn sound_columns<'a>(
    row: &'a Row<'_>,
    column: usize,
    producer: ProducerId,
) -> Option<RecordColumns<'a>> {
    let number = |at: usize| u64::try_from(row.get::<_, i64>(column + at).ok()?).ok();
    let (seq, epoch, crc) = (number(0)?, number(1)?, number(2)?);
    let samples = row.get_ref(column + 3).ok()?.as_bytes().ok()?;
    let is_sound = u64::from(record_crc(producer, seq, epoch, samples)) == crc;
    is_sound.then_some(RecordColumns {
        seq,
        epoch,
        samples,
    })
}

/// The columns id, producer, state and crc; none where they are not what was written.
pub(super) fn read_log_state(row: &Row<'_>) -> rusqlite::Result<Option<LogState>> {
    let Ok(producer) = row.get::<_, [u8; 16]>(1) else {
        return Ok(None);
    };
    let producer = ProducerId::from_bytes(producer);
    let json = row.get_ref(2)?.as_bytes().unwrap_or_default();
    let text = std::str::from_utf8(json).unwrap_or_default();
    let is_sound = row.get::<_, i64>(3).ok() == Some(log_crc(producer, text).into());
    let state: Option<LogState> = serde_json::from_str(text).ok();
    Ok(state.filter(|state| is_sound && state.producer == producer))
}

fn record_crc(producer: ProducerId, seq: u64, epoch: u64, samples: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(producer.as_bytes());
    crc.update(&seq.to_le_bytes());
    crc.update(&epoch.to_le_bytes());
    crc.update(samples);
    crc.finalize()
}

fn log_crc(producer: ProducerId, json: &str) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(producer.as_bytes());
    crc.update(json.as_bytes());
    crc.finalize()
}
