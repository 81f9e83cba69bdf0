//! A keep on disk: SQLite in a folder that one process uses.
//!
//! ```text
//! spool.db      producer_log(id, producer, state, crc)      all of a tape but its records, as JSON
//!               record(log, seq, epoch, crc, samples)
//! lock          stored while the folder is used; holds the notes: which numbers are taken
//! spool.db.damaged-1 …    what could not be used any more, the newest first
//! spool.db.other-1 …      what was filled for another host or on another machine, the newest last
//! ```
//!
//! Each commit is synced, and there is one a second. A record's checksum covers its producer and number too. A file that SQLite
//! finds damaged is copied, as far as it can be read, into a new one, and set aside. A disk that is full or fails at the start is
//! tried again whenever the spool asks for it.

mod checkpoints;
mod repair;

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use lizmon_protocol::sample::ProducerId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tracing::debug;

use self::checkpoints::LockFile;
use super::backend::{
    BackendContents, BackendError, LogChange, LogState, SeqCheckpoint, SpoolBackend, StoredLog,
    StoredRecord,
};
use super::ranges::Ranges;

const VERSION: i64 = 1;
/// Statements kept prepared: all there are.
const STATEMENTS: usize = 12;
/// SQLite's page cache: a few pages change each second.
const CACHE_KIB: i64 = 256;
/// The log is written back when it has so many pages: 1 MiB.
const WAL_PAGES: i64 = 256;
const WAL_BYTES: i64 = WAL_PAGES * 4096;

const SCHEMA: &str = "
    CREATE TABLE producer_log(id INTEGER PRIMARY KEY, producer BLOB NOT NULL UNIQUE, state TEXT NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE record(
        log INTEGER NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL, crc INTEGER NOT NULL, samples TEXT NOT NULL,
        PRIMARY KEY(log, seq)) WITHOUT ROWID;
";
const UPSERT_LOG: &str = "INSERT INTO producer_log(producer, state, crc) VALUES (?1, ?2, ?3)
    ON CONFLICT(producer) DO UPDATE SET state = excluded.state, crc = excluded.crc RETURNING id";
const UPSERT_RECORD: &str =
    "INSERT OR REPLACE INTO record(log, seq, epoch, crc, samples) VALUES (?1, ?2, ?3, ?4, ?5)";

/// Why a folder cannot hold a spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("the spool `{}` is in use by another process: end it, or give --spool another folder", .0.display())]
    Locked(PathBuf),
    /// The folder or its lock cannot be made or opened.
    #[error("cannot use `{}` for the spool: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later version of lizmon wrote it. It is left as it is.
    #[error("the spool `{}` was written by a newer lizmon, version {found}; this one knows {known}: use the newer program, or give --spool another folder", folder.display())]
    Newer {
        /// Where.
        folder: PathBuf,
        /// The version of what is there.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database cannot be used, and that is not its own fault.
    #[error("cannot open the spool's database in `{}`: {source}", folder.display())]
    Database {
        /// Where.
        folder: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether it is the disk's state, which may pass, and not a wrong folder or one in use.
    fn is_disk_failure(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Newer { .. } => false,
            Self::Folder { source, .. } => {
                is_full(source)
                    || source.kind() == io::ErrorKind::ReadOnlyFilesystem
                    || source.raw_os_error() == Some(EIO)
            }
            Self::Database { .. } => true,
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Newer { .. } => false,
            Self::Folder { source, .. } => is_full(source),
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::DiskFull)
            }
        }
    }
}

/// The disk itself fails: the same number on every Unix.
const EIO: i32 = 5;

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A folder for a spool, locked and with a database in it as soon as the disk lets it.
#[derive(Debug)]
pub struct DiskBackend {
    folder: PathBuf,
    opened: Option<OpenDatabase>,
}

#[derive(Debug)]
struct OpenDatabase {
    database: Connection,
    lock: LockFile,
}

impl DiskBackend {
    /// Opens the spool in `folder`, or makes a new one. What is damaged is mended, at the cost of what cannot be read. A disk in
    /// trouble is no error yet.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let opened = match OpenDatabase::open(folder) {
            Ok(opened) => Some(opened),
            Err(error) if error.is_disk_failure() => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            folder: folder.to_owned(),
            opened,
        })
    }

    fn opened(&mut self) -> Result<&mut OpenDatabase, BackendError> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => OpenDatabase::open(&self.folder).map_err(|error| match error.is_full() {
                true => BackendError::Full(error.into()),
                false => BackendError::Failed(error.into()),
            })?,
        };
        Ok(self.opened.insert(opened))
    }

    /// Does it once more on a mended database where SQLite finds this one damaged. Where it cannot be mended now, whoever needs it
    /// next tries again.
    fn with_repair<T>(
        &mut self,
        attempt: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        match attempt(&mut self.opened()?.database) {
            Err(error) if is_damage(&error) => {
                debug!("the spool's database is damaged: {error}");
                let damaged = self.opened.take();
                let repaired = damaged.map(|damaged| damaged.repaired(&self.folder));
                self.opened = repaired.transpose().map_err(backend_error)?;
                attempt(&mut self.opened()?.database).map_err(backend_error)
            }
            done => done.map_err(backend_error),
        }
    }
}

impl OpenDatabase {
    fn open(folder: &Path) -> Result<Self, OpenError> {
        make_folder(folder)?;
        let mut lock = LockFile::take(folder)?;
        if let Some(found) = repair::newer_version(folder) {
            return Err(OpenError::Newer {
                folder: folder.to_owned(),
                found,
                known: VERSION,
            });
        }
        let checkpoints = lock.read_checkpoints();
        let database =
            repair::open_or_repair(folder, &checkpoints).map_err(|source| OpenError::Database {
                folder: folder.to_owned(),
                source,
            })?;
        Ok(Self { database, lock })
    }

    /// The same with a new database, made of what can be read of this one.
    fn repaired(self, folder: &Path) -> rusqlite::Result<Self> {
        let Self { database, mut lock } = self;
        drop(database);
        let checkpoints = lock.read_checkpoints();
        let database = repair::repair(folder, &checkpoints)?;
        Ok(Self { database, lock })
    }
}

impl SpoolBackend for DiskBackend {
    fn load(&mut self) -> Result<BackendContents, BackendError> {
        let logs = self.with_repair(load)?;
        let checkpoints = self.opened()?.lock.read_checkpoints();
        Ok(BackendContents { logs, checkpoints })
    }

    fn note(&mut self, checkpoints: &[SeqCheckpoint], durable: bool) -> Result<(), BackendError> {
        let lock = &mut self.opened()?.lock;
        lock.write_checkpoints(checkpoints, durable)
            .map_err(|error| match is_full(&error) {
                true => BackendError::Full(error.into()),
                false => BackendError::Failed(error.into()),
            })
    }

    fn commit(&mut self, changes: &[LogChange<'_>]) -> Result<u64, BackendError> {
        self.with_repair(|database| commit(database, changes))
    }

    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<StoredRecord>, BackendError> {
        self.with_repair(|database| read(database, producer, from, to, records_max))
    }

    fn set_aside(&mut self, logs: &[LogState]) -> Result<String, BackendError> {
        let folder = self.folder.clone();
        self.opened()?;
        let Some(OpenDatabase { database, lock }) = self.opened.take() else {
            return Err(BackendError::Failed("the spool is not open".into()));
        };
        // With its log written back the file is whole by itself.
        database
            .close()
            .map_err(|(_, error)| backend_error(error))?;
        let (database, place) = repair::set_aside(&folder, logs).map_err(backend_error)?;
        self.opened = Some(OpenDatabase { database, lock });
        Ok(place.display().to_string())
    }

    fn is_persistent(&self) -> bool {
        true
    }
}

fn backend_error(error: rusqlite::Error) -> BackendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BackendError::Full(error.into()),
        _ => BackendError::Failed(error.into()),
    }
}

/// SQLite says that what it reads is no database of its own making.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(
        error,
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

fn load(database: &mut Connection) -> rusqlite::Result<Vec<StoredLog>> {
    let mut statement =
        database.prepare("SELECT id, producer, state, crc FROM producer_log ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut logs = Vec::new();
    while let Some(row) = rows.next()? {
        // A state that is damaged is like one that never was: mending has put the rest in order.
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
    log: i64,
    producer: ProducerId,
) -> rusqlite::Result<(Ranges, u64)> {
    let mut statement = database.prepare_cached(
        "SELECT seq, epoch, crc, samples FROM record WHERE log = ?1 ORDER BY seq",
    )?;
    let mut rows = statement.query([log])?;
    let (mut stored, mut bytes) = (Ranges::default(), 0);
    while let Some(row) = rows.next()? {
        if let Some(kept) = read_record(row, 0, producer) {
            stored.insert(kept.seq, kept.seq);
            bytes += kept.bytes();
        }
    }
    Ok((stored, bytes))
}

fn commit(database: &mut Connection, changes: &[LogChange<'_>]) -> rusqlite::Result<u64> {
    let transaction = database.transaction()?;
    let mut freed = 0;
    for LogChange {
        state,
        ended,
        append,
    } in changes
    {
        let json = serde_json::to_string(state).map_err(not_sql)?;
        let crc = log_crc(state.producer, &json);
        let log: i64 = transaction
            .prepare_cached(UPSERT_LOG)?
            .query_row(params![state.producer.as_bytes(), json, crc], |row| {
                row.get(0)
            })?;
        let below = if *ended { i64::MAX } else { state.first as i64 };
        freed += forget(&transaction, log, below)?;
        if *ended {
            transaction
                .prepare_cached("DELETE FROM producer_log WHERE id = ?1")?
                .execute([log])?;
            continue;
        }
        for kept in append {
            insert_record(&transaction, log, state.producer, kept)?;
        }
    }
    transaction.commit()?;
    Ok(freed)
}

fn forget(database: &Connection, log: i64, below: i64) -> rusqlite::Result<u64> {
    let mut statement = database.prepare_cached(
        "DELETE FROM record WHERE log = ?1 AND seq < ?2 RETURNING length(samples)",
    )?;
    let mut rows = statement.query([log, below])?;
    let mut freed = 0;
    while let Some(row) = rows.next()? {
        freed += StoredRecord::bytes_of(row.get::<_, i64>(0)?.unsigned_abs());
    }
    Ok(freed)
}

fn insert_record(
    database: &Connection,
    log: i64,
    producer: ProducerId,
    kept: &StoredRecord,
) -> rusqlite::Result<()> {
    let crc = record_crc(producer, kept.seq, kept.epoch, &kept.values);
    let samples = std::str::from_utf8(&kept.values).map_err(not_sql)?;
    database.prepare_cached(UPSERT_RECORD)?.execute(params![
        log,
        kept.seq as i64,
        kept.epoch as i64,
        crc,
        samples
    ])?;
    Ok(())
}

fn not_sql(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

fn read(
    database: &Connection,
    producer: ProducerId,
    from: u64,
    to: u64,
    records_max: usize,
) -> rusqlite::Result<Vec<StoredRecord>> {
    let log: Option<i64> = database
        .prepare_cached("SELECT id FROM producer_log WHERE producer = ?1")?
        .query_row([producer.as_bytes()], |row| row.get(0))
        .optional()?;
    let Some(log) = log else {
        return Ok(Vec::new());
    };
    let mut statement = database.prepare_cached(
        "SELECT seq, epoch, crc, samples FROM record WHERE log = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![log, from as i64, to as i64])?;
    let mut found = Vec::new();
    while found.len() < records_max
        && let Some(row) = rows.next()?
    {
        found.extend(read_record(row, 0, producer));
    }
    Ok(found)
}

/// The columns seq, epoch, crc and samples from `column` on; none where they are not what was written.
fn read_record(
    row: &rusqlite::Row<'_>,
    column: usize,
    producer: ProducerId,
) -> Option<StoredRecord> {
    let number = |at: usize| u64::try_from(row.get::<_, i64>(column + at).ok()?).ok();
    let (seq, epoch, crc) = (number(0)?, number(1)?, number(2)?);
    let values = row.get_ref(column + 3).ok()?.as_bytes().ok()?;
    let is_sound = u64::from(record_crc(producer, seq, epoch, values)) == crc;
    is_sound.then(|| StoredRecord {
        seq,
        epoch,
        values: values.into(),
    })
}

/// The columns id, producer, state and crc; none where they are not what was written.
fn read_log_state(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<LogState>> {
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

fn record_crc(producer: ProducerId, seq: u64, epoch: u64, values: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(producer.as_bytes());
    crc.update(&seq.to_le_bytes());
    crc.update(&epoch.to_le_bytes());
    crc.update(values);
    crc.finalize()
}

fn log_crc(producer: ProducerId, json: &str) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(producer.as_bytes());
    crc.update(json.as_bytes());
    crc.finalize()
}

fn make_folder(folder: &Path) -> Result<(), OpenError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(|source| OpenError::Folder {
        path: folder.to_owned(),
        source,
    })
}

/// What is measured is nobody else's business.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options
}

#[cfg(test)]
mod tests;
