//! A backend on disk: SQLite in a folder that one process uses.
//!
//! ```text
//! spool.db      producer_log(id, producer, state, crc)      all of a log but its records, as JSON
//!               record(log, seq, epoch, crc, samples)       samples: the JSON that is sent
//! lock          held while the folder is used; it has the checkpoints: which numbers are assigned
//! spool.db.damaged-1 …    damaged databases, the newest first
//! spool.db.other-1 …      databases of another host or machine, the newest last
//! ```
//!
//! Each commit is synced, and there is one a second. A database that SQLite finds damaged is
//! copied, as far as it can be read, and set aside. A disk that is full or fails at the start is
//! tried again whenever the spool asks for it.

mod checkpoints;
mod database;
mod files;
mod open_error;
mod repair;
mod rows;

use std::path::{Path, PathBuf};

use lizmon_protocol::sample::ProducerId;
use rusqlite::{Connection, ErrorCode};
use tracing::debug;

use self::checkpoints::LockFile;
use self::open_error::is_full;
use super::backend::{
    BackendContents, BackendError, LogChange, LogState, SeqCheckpoint, SpoolBackend, StoredRecord,
};

pub use self::open_error::OpenError;

/// A folder for a spool. It is locked and has a database as soon as the disk allows that.
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
    /// Opens the spool in `folder`, or makes a new one. Damage is repaired, at the cost of what
    /// cannot be read. A failure of the disk is no error yet.
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

    /// Where SQLite finds the database damaged, does it once more on the repaired one. If it cannot
    /// be repaired now, the next call tries again.
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
        files::make_folder(folder)?;
        let mut lock = LockFile::take(folder)?;
        if let Some(found) = database::newer_version(&folder.join(repair::FILE)) {
            return Err(OpenError::Newer {
                folder: folder.to_owned(),
                found,
                known: database::VERSION,
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
        let logs = self.with_repair(|database| rows::load(database))?;
        let checkpoints = self.opened()?.lock.read_checkpoints();
        Ok(BackendContents { logs, checkpoints })
    }

    fn checkpoint(
        &mut self,
        checkpoints: &[SeqCheckpoint],
        durable: bool,
    ) -> Result<(), BackendError> {
        let lock = &mut self.opened()?.lock;
        lock.write_checkpoints(checkpoints, durable)
            .map_err(|error| match is_full(&error) {
                true => BackendError::Full(error.into()),
                false => BackendError::Failed(error.into()),
            })
    }

    fn commit(&mut self, changes: &[LogChange<'_>]) -> Result<u64, BackendError> {
        self.with_repair(|database| rows::commit(database, changes))
    }

    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<StoredRecord>, BackendError> {
        self.with_repair(|database| rows::read(database, producer, from, to, records_max))
    }

    fn set_aside(&mut self, logs: &[LogState]) -> Result<String, BackendError> {
        let folder = self.folder.clone();
        self.opened()?;
        let Some(OpenDatabase { database, lock }) = self.opened.take() else {
            return Err(BackendError::Failed("the spool is not open".into()));
        };
        // This checkpoints the write-ahead log, so that the file is complete by itself.
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

/// Whether SQLite says that it did not write what it reads.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(
        error,
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

#[cfg(test)]
mod tests;
