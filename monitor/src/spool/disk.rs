//! A keep on disk: SQLite in a folder that one process uses.
//!
//! ```text
//! spool.db      tape(id, producer, state, crc)      all of a tape but its records, as JSON
//!               record(tape, seq, epoch, crc, samples)
//! lock          held while the folder is used; holds the notes: which numbers are taken
//! spool.db.damaged-1 …    what could not be used any more, the newest first
//! spool.db.other-1 …      what was filled for another host or on another machine, the newest last
//! ```
//!
//! Each commit is synced, and there is one a second. A record's checksum covers its producer and number too. A file that SQLite
//! finds damaged is copied, as far as it can be read, into a new one, and set aside. A disk that is full or fails at the start is
//! tried again whenever the spool asks for it.

mod mend;
mod notes;

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use lizmon_protocol::sample::ProducerId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tracing::debug;

use self::notes::Lock;
use super::keep::{Change, Found, Keep, KeepError, Kept, Loaded, Note, TapeState};
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
    CREATE TABLE tape(id INTEGER PRIMARY KEY, producer BLOB NOT NULL UNIQUE, state TEXT NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE record(
        tape INTEGER NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL, crc INTEGER NOT NULL, samples TEXT NOT NULL,
        PRIMARY KEY(tape, seq)) WITHOUT ROWID;
";
const SET_TAPE: &str = "INSERT INTO tape(producer, state, crc) VALUES (?1, ?2, ?3)
    ON CONFLICT(producer) DO UPDATE SET state = excluded.state, crc = excluded.crc RETURNING id";
const SET_RECORD: &str =
    "INSERT OR REPLACE INTO record(tape, seq, epoch, crc, samples) VALUES (?1, ?2, ?3, ?4, ?5)";

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
    fn is_disk_trouble(&self) -> bool {
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
pub struct Disk {
    folder: PathBuf,
    opened: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    database: Connection,
    lock: Lock,
}

impl Disk {
    /// Opens the spool in `folder`, or makes a new one. What is damaged is mended, at the cost of what cannot be read. A disk in
    /// trouble is no error yet.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let opened = match Opened::open(folder) {
            Ok(opened) => Some(opened),
            Err(error) if error.is_disk_trouble() => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            folder: folder.to_owned(),
            opened,
        })
    }

    fn opened(&mut self) -> Result<&mut Opened, KeepError> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => Opened::open(&self.folder).map_err(|error| match error.is_full() {
                true => KeepError::Full(error.into()),
                false => KeepError::Failed(error.into()),
            })?,
        };
        Ok(self.opened.insert(opened))
    }

    /// Does it once more on a mended database where SQLite finds this one damaged. Where it cannot be mended now, whoever needs it
    /// next tries again.
    fn try_or_mend<T>(
        &mut self,
        attempt: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeepError> {
        match attempt(&mut self.opened()?.database) {
            Err(error) if is_damage(&error) => {
                debug!("the spool's database is damaged: {error}");
                let damaged = self.opened.take();
                let mended = damaged.map(|damaged| damaged.mended(&self.folder));
                self.opened = mended.transpose().map_err(keep_error)?;
                attempt(&mut self.opened()?.database).map_err(keep_error)
            }
            done => done.map_err(keep_error),
        }
    }
}

impl Opened {
    fn open(folder: &Path) -> Result<Self, OpenError> {
        make_folder(folder)?;
        let mut lock = Lock::take(folder)?;
        if let Some(found) = mend::newer_version(folder) {
            return Err(OpenError::Newer {
                folder: folder.to_owned(),
                found,
                known: VERSION,
            });
        }
        let notes = lock.read_notes();
        let database =
            mend::open_or_mend(folder, &notes).map_err(|source| OpenError::Database {
                folder: folder.to_owned(),
                source,
            })?;
        Ok(Self { database, lock })
    }

    /// The same with a new database, made of what can be read of this one.
    fn mended(self, folder: &Path) -> rusqlite::Result<Self> {
        let Self { database, mut lock } = self;
        drop(database);
        let notes = lock.read_notes();
        let database = mend::mend(folder, &notes)?;
        Ok(Self { database, lock })
    }
}

impl Keep for Disk {
    fn load(&mut self) -> Result<Loaded, KeepError> {
        let tapes = self.try_or_mend(load)?;
        let notes = self.opened()?.lock.read_notes();
        Ok(Loaded { tapes, notes })
    }

    fn note(&mut self, notes: &[Note], durable: bool) -> Result<(), KeepError> {
        let lock = &mut self.opened()?.lock;
        lock.write_notes(notes, durable)
            .map_err(|error| match is_full(&error) {
                true => KeepError::Full(error.into()),
                false => KeepError::Failed(error.into()),
            })
    }

    fn commit(&mut self, changes: &[Change<'_>]) -> Result<u64, KeepError> {
        self.try_or_mend(|database| commit(database, changes))
    }

    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<Kept>, KeepError> {
        self.try_or_mend(|database| read(database, producer, from, to, records_max))
    }

    fn set_aside(&mut self, tapes: &[TapeState]) -> Result<String, KeepError> {
        let folder = self.folder.clone();
        self.opened()?;
        let Some(Opened { database, lock }) = self.opened.take() else {
            return Err(KeepError::Failed("the spool is not open".into()));
        };
        // With its log written back the file is whole by itself.
        database.close().map_err(|(_, error)| keep_error(error))?;
        let (database, place) = mend::set_aside(&folder, tapes).map_err(keep_error)?;
        self.opened = Some(Opened { database, lock });
        Ok(place.display().to_string())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

fn keep_error(error: rusqlite::Error) -> KeepError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => KeepError::Full(error.into()),
        _ => KeepError::Failed(error.into()),
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

fn load(database: &mut Connection) -> rusqlite::Result<Vec<Found>> {
    let mut statement =
        database.prepare("SELECT id, producer, state, crc FROM tape ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut tapes = Vec::new();
    while let Some(row) = rows.next()? {
        // A state that is damaged is like one that never was: mending has put the rest in order.
        if let Some(state) = read_state(row)? {
            let (held, bytes) = inventory(database, row.get(0)?, state.producer)?;
            let kept_next = state.next;
            tapes.push(Found {
                state,
                held,
                bytes,
                kept_next,
            });
        }
    }
    Ok(tapes)
}

/// Which records are there and sound, and what they cost.
fn inventory(
    database: &Connection,
    tape: i64,
    producer: ProducerId,
) -> rusqlite::Result<(Ranges, u64)> {
    let mut statement = database.prepare_cached(
        "SELECT seq, epoch, crc, samples FROM record WHERE tape = ?1 ORDER BY seq",
    )?;
    let mut rows = statement.query([tape])?;
    let (mut held, mut bytes) = (Ranges::default(), 0);
    while let Some(row) = rows.next()? {
        if let Some(kept) = read_record(row, 0, producer) {
            held.insert(kept.seq, kept.seq);
            bytes += kept.bytes();
        }
    }
    Ok((held, bytes))
}

fn commit(database: &mut Connection, changes: &[Change<'_>]) -> rusqlite::Result<u64> {
    let transaction = database.transaction()?;
    let mut freed = 0;
    for Change {
        state,
        ended,
        append,
    } in changes
    {
        let json = serde_json::to_string(state).map_err(not_sql)?;
        let crc = state_crc(state.producer, &json);
        let tape: i64 = transaction
            .prepare_cached(SET_TAPE)?
            .query_row(params![state.producer.as_bytes(), json, crc], |row| {
                row.get(0)
            })?;
        let below = if *ended { i64::MAX } else { state.first as i64 };
        freed += forget(&transaction, tape, below)?;
        if *ended {
            transaction
                .prepare_cached("DELETE FROM tape WHERE id = ?1")?
                .execute([tape])?;
            continue;
        }
        for kept in append {
            set_record(&transaction, tape, state.producer, kept)?;
        }
    }
    transaction.commit()?;
    Ok(freed)
}

fn forget(database: &Connection, tape: i64, below: i64) -> rusqlite::Result<u64> {
    let mut statement = database.prepare_cached(
        "DELETE FROM record WHERE tape = ?1 AND seq < ?2 RETURNING length(samples)",
    )?;
    let mut rows = statement.query([tape, below])?;
    let mut freed = 0;
    while let Some(row) = rows.next()? {
        freed += Kept::bytes_of(row.get::<_, i64>(0)?.unsigned_abs());
    }
    Ok(freed)
}

fn set_record(
    database: &Connection,
    tape: i64,
    producer: ProducerId,
    kept: &Kept,
) -> rusqlite::Result<()> {
    let crc = record_crc(producer, kept.seq, kept.epoch, &kept.values);
    let samples = std::str::from_utf8(&kept.values).map_err(not_sql)?;
    database.prepare_cached(SET_RECORD)?.execute(params![
        tape,
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
) -> rusqlite::Result<Vec<Kept>> {
    let tape: Option<i64> = database
        .prepare_cached("SELECT id FROM tape WHERE producer = ?1")?
        .query_row([producer.as_bytes()], |row| row.get(0))
        .optional()?;
    let Some(tape) = tape else {
        return Ok(Vec::new());
    };
    let mut statement = database.prepare_cached(
        "SELECT seq, epoch, crc, samples FROM record WHERE tape = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![tape, from as i64, to as i64])?;
    let mut found = Vec::new();
    while found.len() < records_max
        && let Some(row) = rows.next()?
    {
        found.extend(read_record(row, 0, producer));
    }
    Ok(found)
}

/// The columns seq, epoch, crc and samples from `column` on; none where they are not what was written.
fn read_record(row: &rusqlite::Row<'_>, column: usize, producer: ProducerId) -> Option<Kept> {
    let number = |at: usize| u64::try_from(row.get::<_, i64>(column + at).ok()?).ok();
    let (seq, epoch, crc) = (number(0)?, number(1)?, number(2)?);
    let values = row.get_ref(column + 3).ok()?.as_bytes().ok()?;
    let is_sound = u64::from(record_crc(producer, seq, epoch, values)) == crc;
    is_sound.then(|| Kept {
        seq,
        epoch,
        values: values.into(),
    })
}

/// The columns id, producer, state and crc; none where they are not what was written.
fn read_state(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<TapeState>> {
    let Ok(producer) = row.get::<_, [u8; 16]>(1) else {
        return Ok(None);
    };
    let producer = ProducerId::from_bytes(producer);
    let json = row.get_ref(2)?.as_bytes().unwrap_or_default();
    let text = std::str::from_utf8(json).unwrap_or_default();
    let is_sound = row.get::<_, i64>(3).ok() == Some(state_crc(producer, text).into());
    let state: Option<TapeState> = serde_json::from_str(text).ok();
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

fn state_crc(producer: ProducerId, json: &str) -> u32 {
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
