//! The default store: SQLite in one file of the data folder, written ahead, synced at every commit.
//!
//! ```text
//! meta(key, value)                                        version, number of shards
//! journal(position, groups)                               what record.rs wrote
//! shard(id, cursor)                                       what of the journal is in the tables below
//! host(id, name, shard, last_epoch, certificate_end)
//! series(id, host, label)
//! bucket(series, tier, slot, start, stats)                a ring: a later interval replaces the one at its slot
//! producer(host, producer, duplicate, last_taken, ranges, dropped)   dropped as JSON: [[from, to, why]…]
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use lizmon_protocol::sample::ProducerId;
use lizmon_summary::Bucket;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};

use super::{
    HostState, KeptBucket, KeptProducer, Position, SHARDS, ShardChanges, State, Store, StoreError,
    shard_of,
};

const VERSION: i64 = 1;
const FILE: &str = "lizmon.db";
const LOCK: &str = "lock";
/// Statements kept prepared: all there are.
const STATEMENTS: usize = 32;
/// So many free pages (4 KiB each) stay for what comes next, and at least a quarter of the file: what grows and shrinks all day need not
/// be cut off and made anew all day.
const FREE_PAGES_KEPT: i64 = 256;
/// How many pages are given back at a time: what waits behind it waits for some milliseconds.
const TIDIED_PAGES_MAX: i64 = 256;
/// Fewer are not worth a sync.
const TIDIED_PAGES_MIN: i64 = 64;
/// A database that cannot give back pages is made anew when it is opened, if it is no larger: that takes a second or so.
const REMADE_BYTES_MAX: i64 = 256 << 20;
/// To what the log of what is written ahead is cut off after a large commit.
const LOG_BYTES_KEPT: i64 = 16 << 20;

const SCHEMA: &str = "
    CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE journal(position INTEGER PRIMARY KEY AUTOINCREMENT, groups BLOB NOT NULL);
    CREATE TABLE shard(id INTEGER PRIMARY KEY, cursor INTEGER NOT NULL);
    CREATE TABLE host(
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, shard INTEGER NOT NULL,
        last_epoch INTEGER NOT NULL, certificate_end INTEGER NOT NULL);
    CREATE TABLE series(
        id INTEGER PRIMARY KEY, host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE,
        label TEXT NOT NULL, UNIQUE(host, label));
    CREATE TABLE bucket(
        series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE,
        tier INTEGER NOT NULL, slot INTEGER NOT NULL, start INTEGER NOT NULL, stats BLOB NOT NULL,
        PRIMARY KEY(series, tier, slot)) WITHOUT ROWID;
    CREATE TABLE producer(
        host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE, producer BLOB NOT NULL,
        duplicate INTEGER NOT NULL, last_taken INTEGER NOT NULL, ranges BLOB NOT NULL, dropped TEXT NOT NULL,
        PRIMARY KEY(host, producer)) WITHOUT ROWID;
";

/// SQLite in a folder that is locked for as long as this lives.
#[derive(Debug)]
pub struct EmbeddedStore {
    connection: Connection,
    _lock: File,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, or makes a new one.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        make_folder(folder)?;
        let lock = lock(folder)?;
        let file = folder.join(FILE);
        // Made before SQLite does: its journal files take over this one's mode.
        private(&file, OpenOptions::new().create(true).append(true)).map_err(|source| {
            StoreError::Folder {
                file: file.clone(),
                what: "cannot make the database",
                source,
            }
        })?;
        let connection = connect(&file).map_err(|error| match error {
            StoreError::Database(source) => StoreError::Open {
                cure: cure(&source),
                file,
                source,
            },
            known => known,
        })?;
        Ok(Self {
            connection,
            _lock: lock,
        })
    }
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(file)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Before the first page is written; in a database that is there already it changes nothing by itself.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    write_ahead(&connection, file)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    migrate(&mut connection)?;
    remake_if_it_cannot_shrink(&connection, file)?;
    Ok(connection)
}

/// What to do about a database that cannot be opened.
fn cure(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on its disk, then start again",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "it is damaged: put a backup in its place, or move it away with its -wal and -shm to begin anew"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has locked it: end that one"
        }
        _ => "see that its disk works and that its folder can be written to",
    }
}

/// Elsewhere, on some network file systems, SQLite goes on with another journal without a word.
fn write_ahead(connection: &Connection, file: &Path) -> Result<(), StoreError> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(StoreError::NotWrittenAhead {
        file: file.to_owned(),
        mode,
    })
}

/// A database of earlier days keeps every page that it ever had. Where there is no room to make it anew it goes on so.
fn remake_if_it_cannot_shrink(connection: &Connection, file: &Path) -> Result<(), StoreError> {
    const INCREMENTAL: i64 = 2;
    let file = file.display();
    if pragma(connection, "auto_vacuum")? == INCREMENTAL {
        return Ok(());
    }
    let bytes = pragma(connection, "page_count")? * pragma(connection, "page_size")?;
    if bytes > REMADE_BYTES_MAX {
        tracing::warn!(
            "{file} cannot shrink; to make it anew, end the receiver and run: sqlite3 {file} 'PRAGMA auto_vacuum = 2; VACUUM'"
        );
        return Ok(());
    }
    match connection.execute_batch("VACUUM") {
        Ok(()) => tracing::info!("{file} was made anew, so that it can shrink"),
        Err(error) => tracing::warn!(%error, "{file} cannot be made anew, and does not shrink"),
    }
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

impl Store for EmbeddedStore {
    fn append(&mut self, group: &[u8]) -> Result<Position, StoreError> {
        self.connection
            .prepare_cached("INSERT INTO journal(groups) VALUES (?1)")?
            .execute([group])?;
        Ok(self.connection.last_insert_rowid() as u64)
    }

    fn read_after(
        &mut self,
        after: Position,
        each: &mut dyn FnMut(Position, &[u8]),
    ) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT position, groups FROM journal WHERE position > ?1 ORDER BY position",
        )?;
        let mut rows = statement.query([after as i64])?;
        while let Some(row) = rows.next()? {
            let group = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            each(row.get::<_, i64>(0)? as u64, group);
        }
        Ok(())
    }

    fn load(&mut self) -> Result<State, StoreError> {
        let mut state = State {
            cursors: vec![0; usize::from(SHARDS)],
            hosts: Vec::new(),
        };
        let mut shards = self.connection.prepare("SELECT id, cursor FROM shard")?;
        let mut rows = shards.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(cursor) = state.cursors.get_mut(row.get::<_, u16>(0)? as usize) {
                *cursor = row.get::<_, i64>(1)? as u64;
            }
        }
        let mut hosts = self
            .connection
            .prepare("SELECT id, name, last_epoch, certificate_end FROM host ORDER BY id")?;
        let mut rows = hosts.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            state.hosts.push(HostState {
                name: row.get(1)?,
                last_epoch: row.get::<_, i64>(2)? as u64,
                certificate_end: row.get::<_, i64>(3)? as u64,
                buckets: self.buckets_of(id)?,
                producers: self.producers_of(id)?,
            });
        }
        Ok(state)
    }

    fn commit(&mut self, changes: &ShardChanges) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for host in &changes.hosts {
            save_host(&transaction, host)?;
        }
        for (host, label) in &changes.ended_series {
            transaction
                .prepare_cached(
                    "DELETE FROM series WHERE label = ?2 AND host = (SELECT id FROM host WHERE name = ?1)",
                )?
                .execute(params![host, label])?;
        }
        for host in &changes.ended_hosts {
            transaction
                .prepare_cached("DELETE FROM host WHERE name = ?1")?
                .execute([host])?;
        }
        transaction
            .prepare_cached("INSERT INTO shard(id, cursor) VALUES (?1, ?2) ON CONFLICT(id) DO UPDATE SET cursor = excluded.cursor")?
            .execute(params![changes.shard, changes.cursor as i64])?;
        transaction
            .prepare_cached("DELETE FROM journal WHERE position <= ?1")?
            .execute([changes.drop_through as i64])?;
        Ok(transaction.commit()?)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        let free = pragma(&self.connection, "freelist_count")?;
        let kept = FREE_PAGES_KEPT.max(pragma(&self.connection, "page_count")? / 4);
        let pages = (free - kept).min(TIDIED_PAGES_MAX);
        if pages >= TIDIED_PAGES_MIN {
            // Each page is given back with a row of the answer, and the file is cut off by the checkpoint.
            let connection = &self.connection;
            connection.pragma(None, "incremental_vacuum", pages, |_| Ok(()))?;
            connection.pragma(None, "wal_checkpoint", "PASSIVE", |_| Ok(()))?;
        }
        Ok(())
    }
}

impl EmbeddedStore {
    fn buckets_of(&self, host: i64) -> Result<Vec<KeptBucket>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT label, tier, slot, start, stats FROM series JOIN bucket ON series = id WHERE host = ?1",
        )?;
        let mut rows = statement.query([host])?;
        let mut buckets = Vec::new();
        while let Some(row) = rows.next()? {
            let start = row.get::<_, i64>(3)? as u64;
            let stats = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
            match decode_bucket(start, stats) {
                Some(bucket) => {
                    buckets.push(KeptBucket {
                        label: row.get(0)?,
                        tier: usize::from(row.get::<_, u8>(1)?),
                        slot: usize::from(row.get::<_, u16>(2)?),
                        bucket,
                    });
                }
                None => tracing::error!(
                    host,
                    start,
                    "an interval in the store is damaged and left out"
                ),
            }
        }
        Ok(buckets)
    }

    fn producers_of(&self, host: i64) -> Result<Vec<KeptProducer>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT producer, duplicate, last_taken, ranges, dropped FROM producer WHERE host = ?1",
        )?;
        let mut rows = statement.query([host])?;
        let mut producers = Vec::new();
        while let Some(row) = rows.next()? {
            producers.push(KeptProducer {
                producer: ProducerId::from_bytes(row.get(0)?),
                duplicate: row.get::<_, i64>(1)? as u64,
                last_taken: row.get::<_, i64>(2)? as u64,
                ranges: decode_ranges(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?),
                dropped: decode_dropped(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?),
            });
        }
        Ok(producers)
    }
}

fn save_host(transaction: &Transaction<'_>, host: &HostState) -> Result<(), StoreError> {
    let id: i64 = transaction
        .prepare_cached(
            "INSERT INTO host(name, shard, last_epoch, certificate_end) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT(name) DO UPDATE SET last_epoch = excluded.last_epoch, certificate_end = excluded.certificate_end
             RETURNING id",
        )?
        .query_row(
            params![host.name, shard_of(&host.name), host.last_epoch as i64, host.certificate_end as i64],
            |row| row.get(0),
        )?;
    let mut known: Option<(&str, i64)> = None;
    for kept in &host.buckets {
        // The intervals of one series stand together.
        let series = match known {
            Some((label, series)) if label == &*kept.label => series,
            _ => series_id(transaction, id, &kept.label)?,
        };
        known = Some((&kept.label, series));
        transaction
            .prepare_cached(
                "INSERT INTO bucket(series, tier, slot, start, stats) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT(series, tier, slot) DO UPDATE SET start = excluded.start, stats = excluded.stats",
            )?
            .execute(params![series, kept.tier as i64, kept.slot as i64, kept.bucket.start as i64, encode_bucket(&kept.bucket)])?;
    }
    transaction
        .prepare_cached("DELETE FROM producer WHERE host = ?1")?
        .execute([id])?;
    for kept in &host.producers {
        transaction
            .prepare_cached(
                "INSERT INTO producer(host, producer, duplicate, last_taken, ranges, dropped)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                id,
                kept.producer.as_bytes(),
                kept.duplicate as i64,
                kept.last_taken as i64,
                encode_ranges(&kept.ranges),
                serde_json::to_string(&kept.dropped).unwrap_or_else(|_| "[]".to_owned()),
            ])?;
    }
    Ok(())
}

fn series_id(transaction: &Transaction<'_>, host: i64, label: &str) -> Result<i64, StoreError> {
    let found = transaction
        .prepare_cached("SELECT id FROM series WHERE host = ?1 AND label = ?2")?
        .query_row(params![host, label], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction
        .prepare_cached("INSERT INTO series(host, label) VALUES (?1, ?2)")?
        .execute(params![host, label])?;
    Ok(transaction.last_insert_rowid())
}

/// Count, sum, min and max, little-endian. Not as SQLite's REAL: that keeps -0.0 as 0.
fn encode_bucket(bucket: &Bucket) -> [u8; 32] {
    let mut stats = [0; 32];
    stats[..8].copy_from_slice(&bucket.count.to_le_bytes());
    stats[8..16].copy_from_slice(&bucket.sum.to_le_bytes());
    stats[16..24].copy_from_slice(&bucket.min.to_le_bytes());
    stats[24..].copy_from_slice(&bucket.max.to_le_bytes());
    stats
}

fn decode_bucket(start: u64, stats: &[u8]) -> Option<Bucket> {
    let (words, rest) = stats.as_chunks::<8>();
    let [count, sum, min, max] = words.try_into().ok().filter(|_| rest.is_empty())?;
    Some(Bucket {
        start,
        count: u64::from_le_bytes(count),
        sum: f64::from_le_bytes(sum),
        min: f64::from_le_bytes(min),
        max: f64::from_le_bytes(max),
    })
}

fn encode_ranges(ranges: &[(u64, u64)]) -> Vec<u8> {
    ranges
        .iter()
        .flat_map(|(from, to)| [from.to_le_bytes(), to.to_le_bytes()])
        .flatten()
        .collect()
}

fn decode_ranges(bytes: &[u8]) -> Vec<(u64, u64)> {
    let (pairs, _) = bytes.as_chunks::<16>();
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    pairs
        .iter()
        .map(|pair| (word(&pair[..8]), word(&pair[8..])))
        .collect()
}

/// What is no JSON of dropped ranges was damaged: then the numbers show as missing again, and nothing is miscounted.
fn decode_dropped(text: &str) -> Vec<(u64, u64, Box<str>)> {
    serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::error!(%error, "dropped ranges in the store are damaged and left out");
        Vec::new()
    })
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let is_new = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
        row.get::<_, i64>(0)
    })? == 0;
    if is_new {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute(
            "INSERT INTO meta VALUES ('version', ?1), ('shards', ?2)",
            params![VERSION, SHARDS],
        )?;
        for shard in 0..SHARDS {
            transaction.execute("INSERT INTO shard(id, cursor) VALUES (?1, 0)", [shard])?;
        }
    }
    let found: i64 =
        transaction.query_row("SELECT value FROM meta WHERE key = 'version'", [], |row| {
            row.get(0)
        })?;
    if found != VERSION {
        return Err(StoreError::Version {
            found,
            known: VERSION,
        });
    }
    Ok(transaction.commit()?)
}

fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| StoreError::Folder {
        file: folder.to_owned(),
        what: "cannot make the data folder",
        source,
    })
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path: PathBuf = folder.join(LOCK);
    let failed = |source| StoreError::Folder {
        file: path.clone(),
        what: "cannot lock the data folder",
        source,
    };
    let file = private(&path, OpenOptions::new().create(true).append(true)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Opens a file that, if it is made now, is its owner's alone.
fn private(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests;
