//! The history in SQLite: written with each commit, read over connections of its own.

use std::path::{Path, PathBuf};

use lizmon_protocol::history::HistoryTier;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::error::StoreError;
use super::super::history::{
    ChunkKey, ChunkQuery, ChunkSource, ChunksOfHost, HistoryReader, HistoryRetention, StoredChunk,
    plan,
};
use super::super::shard::Shard;
use super::super::state::ShardChanges;
use super::connection::{connect_read_only, no_checkpoint_on_close};
use super::error::EmbeddedError;
use super::files;

/// How often what has ended is looked for: seconds.
const EXPIRE_EVERY_SECS: u64 = 3_600;
/// How many series are looked at in one step: some milliseconds, for which requests wait.
const SERIES_PER_STEP: usize = 64;

/// The number of a tier in the tables. It never changes.
pub(super) fn tier_number(tier: HistoryTier) -> i64 {
    match tier {
        HistoryTier::ByHour => 1,
        HistoryTier::ByDay => 2,
    }
}

/// The tier with this number.
pub(super) fn tier_of(number: i64) -> Option<HistoryTier> {
    let mut tiers = HistoryTier::ALL.into_iter();
    tiers.find(|tier| tier_number(*tier) == number)
}

struct Source<'a> {
    transaction: &'a Transaction<'a>,
    file: &'a Path,
}

impl ChunkSource for Source<'_> {
    type Error = EmbeddedError;

    fn read(&mut self, key: &ChunkKey<'_>) -> Result<Option<Vec<u8>>, EmbeddedError> {
        let found = self.transaction.prepare_cached(
            "SELECT body FROM history WHERE tier = ?3 AND start = ?4
             AND series = (SELECT id FROM history_series WHERE host = ?1 AND label = ?2)",
        )?;
        let found = { found }
            .query_row(
                params![key.host, key.label, tier_number(key.tier), key.start as i64],
                |row| row.get(0),
            )
            .optional()?;
        Ok(found)
    }

    fn ending_after(&mut self, host: &str, from: u64) -> Result<ChunksOfHost, EmbeddedError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT label, tier, start FROM history_series JOIN history ON series = id
             WHERE host = ?1 AND tier = ?2 AND start > ?3",
        )?;
        let mut all = Vec::new();
        for tier in HistoryTier::ALL {
            let after = from.saturating_sub(ChunkKey::span_secs(tier));
            let rows = statement
                .query_map(params![host, tier_number(tier), signed(after)], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(2)? as u64))
                })?;
            for row in rows {
                let (label, start) = row?;
                all.push((label, tier, start));
            }
        }
        Ok(all)
    }

    /// The store is made again of what can be read, and says what cannot.
    fn damaged(&mut self, key: &ChunkKey<'_>) -> Result<(), EmbeddedError> {
        let ChunkKey {
            host,
            label,
            tier,
            start,
        } = key;
        Err(EmbeddedError::Damaged {
            file: self.file.to_owned(),
            what: format!("history of {host} {label} {} from {start}", tier.as_str()),
        })
    }
}

/// Writes what a commit says of the history.
pub(super) fn save(
    transaction: &Transaction<'_>,
    file: &Path,
    changes: &ShardChanges,
) -> Result<(), EmbeddedError> {
    if changes.evicted.is_empty() && changes.cuts.is_empty() {
        return Ok(());
    }
    for change in plan(changes, &mut Source { transaction, file })? {
        match change.is_removed {
            true => remove_chunk(transaction, &change.chunk.key())?,
            false => save_chunk(transaction, &change.chunk)?,
        }
    }
    Ok(())
}

/// Writes a chunk in the place of what is there.
pub(super) fn save_chunk(
    transaction: &Transaction<'_>,
    chunk: &StoredChunk,
) -> Result<(), EmbeddedError> {
    let series = series_id(transaction, &chunk.host, &chunk.label)?;
    transaction
        .prepare_cached(
            "INSERT INTO history(series, tier, start, body) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT(series, tier, start) DO UPDATE SET body = excluded.body",
        )?
        .execute(params![
            series,
            tier_number(chunk.tier),
            chunk.start as i64,
            chunk.bytes
        ])?;
    Ok(())
}

fn remove_chunk(transaction: &Transaction<'_>, key: &ChunkKey<'_>) -> Result<(), EmbeddedError> {
    transaction
        .prepare_cached(
            "DELETE FROM history WHERE tier = ?3 AND start = ?4
             AND series = (SELECT id FROM history_series WHERE host = ?1 AND label = ?2)",
        )?
        .execute(params![
            key.host,
            key.label,
            tier_number(key.tier),
            key.start as i64
        ])?;
    Ok(())
}

fn series_id(transaction: &Transaction<'_>, host: &str, label: &str) -> Result<i64, EmbeddedError> {
    let found = transaction
        .prepare_cached("SELECT id FROM history_series WHERE host = ?1 AND label = ?2")?
        .query_row(params![host, label], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction
        .prepare_cached("INSERT INTO history_series(host, label) VALUES (?1, ?2)")?
        .execute(params![host, label])?;
    Ok(transaction.last_insert_rowid())
}

/// A time as it is stored. One past all dates is not stored anywhere.
fn signed(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX)
}

/// Where the search for what has ended is.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// The last series that was looked at; 0 between two rounds.
    series: i64,
    /// When the round began: epoch seconds.
    began_at: u64,
}

impl Expiry {
    /// Removes what is no longer kept of the next series. Each has its turn once an hour, or as
    /// often as all of them can be looked at.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        retention: &HistoryRetention,
        now: u64,
    ) -> Result<(), EmbeddedError> {
        if self.series == 0 {
            let is_due = !(self.began_at..self.began_at + EXPIRE_EVERY_SECS).contains(&now);
            if !is_due {
                return Ok(());
            }
            self.began_at = now;
        }
        let transaction = connection.transaction()?;
        let series: Vec<i64> = transaction
            .prepare_cached("SELECT id FROM history_series WHERE id > ?1 ORDER BY id LIMIT ?2")?
            .query_map(params![self.series, SERIES_PER_STEP as i64], |row| {
                row.get(0)
            })?
            .collect::<Result<_, _>>()?;
        for id in &series {
            for tier in HistoryTier::ALL {
                let ended = retention.ended_by(tier, now);
                // The last interval of a chunk ends with it.
                let Some(last) = ended.checked_sub(ChunkKey::span_secs(tier)) else {
                    continue;
                };
                transaction
                    .prepare_cached(
                        "DELETE FROM history WHERE series = ?1 AND tier = ?2 AND start <= ?3",
                    )?
                    .execute(params![id, tier_number(tier), signed(last)])?;
            }
            transaction
                .prepare_cached(
                    "DELETE FROM history_series WHERE id = ?1
                     AND NOT EXISTS (SELECT 1 FROM history WHERE series = ?1)",
                )?
                .execute([id])?;
        }
        transaction.commit()?;
        self.series = match series.len() < SERIES_PER_STEP {
            true => 0,
            false => series.last().copied().unwrap_or(0),
        };
        Ok(())
    }
}

/// Reads the folder's database over a connection for each question: the file may be replaced while
/// the receiver runs.
#[derive(Debug)]
pub(super) struct EmbeddedHistory {
    file: PathBuf,
}

impl EmbeddedHistory {
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            file: files::database(folder),
        }
    }

    fn open(&self) -> Result<Connection, EmbeddedError> {
        let connection = connect_read_only(&self.file)?;
        no_checkpoint_on_close(&connection)?;
        Ok(connection)
    }

    fn read(&self, query: &ChunkQuery<'_>) -> Result<Vec<(u64, Vec<u8>)>, EmbeddedError> {
        let connection = self.open()?;
        let mut statement = connection.prepare(
            "SELECT start, body FROM history
             WHERE series = (SELECT id FROM history_series WHERE host = ?1 AND label = ?2)
             AND tier = ?3 AND start > ?4 AND start < ?5 ORDER BY start LIMIT ?6",
        )?;
        // -1 for what begins at 0.
        let after = match query.from.checked_sub(ChunkKey::span_secs(query.tier)) {
            Some(after) => signed(after),
            None => -1,
        };
        let rows = statement.query_map(
            params![
                query.host,
                query.label,
                tier_number(query.tier),
                after,
                signed(query.to),
                query.chunks_max as i64
            ],
            |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)),
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn has_host(&self, host: &str) -> Result<bool, EmbeddedError> {
        let connection = self.open()?;
        let sql = "SELECT EXISTS (SELECT 1 FROM history_series WHERE host = ?1)";
        Ok(connection.query_row(sql, [host], |row| row.get(0))?)
    }
}

impl HistoryReader for EmbeddedHistory {
    fn chunks(&self, query: &ChunkQuery<'_>) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        Ok(self.read(query)?)
    }

    fn knows(
        &self,
        _shard: Shard,
        host: &str,
        _retention: &HistoryRetention,
        _now: u64,
    ) -> Result<bool, StoreError> {
        Ok(self.has_host(host)?)
    }
}

/// Gives every chunk of hosts that `is_asked` for, as it is stored.
pub(super) fn all_chunks(
    connection: &Connection,
    is_asked: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let read = || {
        let mut statement = connection.prepare("SELECT id, host, label FROM history_series")?;
        let rows = statement.query_map([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, Box<str>>(1)?,
                row.get::<_, Box<str>>(2)?,
            ))
        })?;
        rows.collect::<Result<Vec<_>, _>>()
    };
    let series = read().map_err(EmbeddedError::from)?;
    for (id, host, label) in series.into_iter().filter(|(_, host, _)| is_asked(host)) {
        let read = || {
            let sql = "SELECT tier, start, body FROM history WHERE series = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([id], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                ))
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        for (tier, start, bytes) in read().map_err(EmbeddedError::from)? {
            let Some(tier) = tier_of(tier) else { continue };
            each(StoredChunk {
                host: host.clone(),
                label: label.clone(),
                tier,
                start: start as u64,
                bytes,
            })?;
        }
    }
    Ok(())
}
