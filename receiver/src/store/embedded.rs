//! The default store: SQLite in one file of the data folder, written ahead, synced at every commit.
//!
//! ```text
//! meta(key, value)                                        version, number of shards, the store's own name
//! journal(position, groups, sum)                          what record.rs wrote
//! shard(id, cursor, sum)                                  what of the journal is in the tables below
//! host(id, name, last_epoch, certificate_end, sum)
//! series(id, host, label)
//! bucket(series, tier, slot, start, stats)                a ring: a later interval replaces the one at its slot
//! producer(host, producer, duplicate, last_taken, ranges, dropped, sum)   dropped as JSON: [[from, to, why]…]
//! removed(host, samples, at)                              what was taken out because it lay ahead of the clock
//! clock(id, boot, wall_offset, since, floor, floor_at)    what is known of the clock: one row
//! damage(found_at, host, label, start, stop, what)        what could not be read any more
//! ```
//!
//! The disk is not believed: what is read is judged by its checksum, the file's structure by SQLite's own check, and what is
//! written ahead frame by frame. Where something is damaged, `rescue` makes a new database of all that can be read.
//! `shard_again` and `producer_again` say again what `shard` and `producer` say.

pub mod care;
mod files;
pub(super) mod read;
mod rescue;
mod rows;
mod schema;
mod wal;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, InterruptHandle, OptionalExtension, params};
use uuid::Uuid;

use self::read::{Groups, How};
use self::rescue::Contents;
use self::schema::Whose;
use self::wal::Log;
use super::damage::Damage;
use super::{Position, Room, ShardChanges, State, Store, StoreError};

/// Statements kept prepared: all there are.
const STATEMENTS: usize = 32;
/// So many free pages (4 KiB each) stay for what comes next, and at least a quarter of the file: what grows and shrinks all day need not
/// be cut off and made anew all day.
const FREE_PAGES_KEPT: i64 = 256;
/// How many pages are given back at a time: what waits behind it waits for some milliseconds.
const TIDIED_PAGES_MAX: i64 = 256;
/// Fewer are not worth a sync.
const TIDIED_PAGES_MIN: i64 = 64;
/// To what the log of what is written ahead is cut off after a large commit.
const LOG_BYTES_KEPT: i64 = 16 << 20;
/// A database that is no larger is checked before the receiver is ready, which takes some 20 ms; a larger one while it serves.
const CHECKED_AT_START_BYTES_MAX: u64 = 8 << 20;

/// SQLite in a folder that is locked for as long as this lives.
#[derive(Debug)]
pub struct EmbeddedStore {
    connection: Connection,
    folder: PathBuf,
    /// What the store calls itself.
    id: String,
    /// The last position that was used. None is used twice.
    last: Position,
    /// What could not be read any more.
    damage: Vec<Damage>,
    /// Which file is open, to see that it is still the one that the next start opens.
    identity: Option<files::Identity>,
    checking: Option<Checking>,
    _lock: File,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, or makes a new one. A damaged one is mended as far as it goes: see [`Store::damage`].
    pub fn open(folder: &Path, now: u64) -> Result<Self, StoreError> {
        files::make_folder(folder)?;
        let lock = files::lock(folder)?;
        files::finish_replacing(folder)?;
        let file = files::database(folder);
        if let Some(fault) = fault_of_files(folder)? {
            rescue::rescue(folder, &fault, now)?;
        }
        let Opened {
            connection,
            id,
            last,
        } = match open_file(folder) {
            Err(error) if error.is_damage() && is_ours(folder) => {
                rescue::rescue(folder, &error.in_full(), now)?;
                open_file(folder)
            }
            opened => opened,
        }
        .map_err(|error| with_cure(error, &file))?;
        files::mark(folder, &id)?;
        Ok(Self {
            connection,
            id,
            last,
            damage: Vec::new(),
            identity: files::identity(&file),
            folder: folder.to_owned(),
            checking: None,
            _lock: lock,
        })
    }

    /// Makes a new database while this one is open: `make` gets the folder, and nothing is open in it.
    fn remake(
        &mut self,
        make: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.checking = None;
        leave_as_it_is(&self.connection)?;
        let old = std::mem::replace(&mut self.connection, rescue::nowhere()?);
        // What it cannot finish any more is seen when the file is read.
        let _closed = old.close();
        let made = make(&self.folder);
        let opened = open_file(&self.folder)?;
        (self.connection, self.id, self.last) = (opened.connection, opened.id, opened.last);
        self.identity = files::identity(&files::database(&self.folder));
        made
    }

    fn read(&self, how: How, now: u64) -> read::Reading {
        read::everything(&self.connection, how, now, &mut |_, _| ())
    }

    /// What is wrong with what was just read.
    fn fault(&self, reading: &read::Reading) -> Result<Option<String>, StoreError> {
        if let Some(first) = reading.damage.first() {
            return Ok(Some(first.to_string()));
        }
        if self.bytes() > CHECKED_AT_START_BYTES_MAX {
            return Ok(None);
        }
        Ok(read::structure(&self.connection, "integrity_check")?)
    }

    fn bytes(&self) -> u64 {
        let file = files::database(&self.folder);
        std::fs::metadata(file).map_or(0, |found| found.len())
    }
}

/// What is wrong with the files that can be seen without SQLite, which would go on with what is left, and say nothing.
fn fault_of_files(folder: &Path) -> Result<Option<String>, StoreError> {
    let file = files::database(folder);
    let name = files::FILE;
    let was_there = files::was_marked(folder);
    match std::fs::symlink_metadata(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(was_there.then(|| format!("{name} is missing, and was here before")));
        }
        Err(error) => return Err(files::failed(&file, "cannot be looked at")(error)),
        Ok(found) if was_there && found.is_file() && found.len() < wal::PAGE_BYTES as u64 => {
            let words = if found.len() == 0 { "empty" } else { "cut off" };
            return Ok(Some(format!("{name} is {words}, and was not before")));
        }
        Ok(_) => (),
    }
    // A folder in its place, or one that may not be read, is named when it is opened.
    let log = Log::open(&file).ok().flatten();
    Ok(log.and_then(|log| log.fault()))
}

/// Whether a file that SQLite does not understand is a store of ours.
fn is_ours(folder: &Path) -> bool {
    files::was_marked(folder) || rescue::says_it_is_ours(&files::database(folder))
}

/// The last connection that is closed moves what is written ahead into the database: this one does not.
fn leave_as_it_is(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map(drop)
}

struct Opened {
    connection: Connection,
    id: String,
    last: Position,
}

/// Opens the folder's database, or makes a new one.
fn open_file(folder: &Path) -> Result<Opened, StoreError> {
    let file = files::database(folder);
    // Made before SQLite does: its journal files take over this one's mode.
    files::private(&file, OpenOptions::new().read(true).append(true).create(true)).map_err(
        files::failed(&file, "cannot open the database: see that it is a file, and that this user may read and write it and its folder"),
    )?;
    let probe = Connection::open(&file)?;
    leave_as_it_is(&probe)?;
    // Nothing is written to what is not ours.
    let damaged = |what: &str| {
        let (file, what) = (file.clone(), what.to_owned());
        Err(StoreError::Damaged { file, what })
    };
    match schema::whose(&probe)? {
        Whose::Nobodys if files::was_marked(folder) => {
            return damaged("there is nothing in it, and was before");
        }
        Whose::Ours | Whose::Nobodys => (),
        Whose::OfVersion(found) => {
            let known = schema::VERSION;
            return Err(StoreError::Version { file, found, known });
        }
        Whose::Foreign => return Err(StoreError::Foreign { file }),
        Whose::Damaged => return damaged("what it says of its version"),
    }
    drop(probe);
    let mut connection = connect(&file)?;
    if schema::whose(&connection)? == Whose::Nobodys {
        let id = files::marked(folder).unwrap_or_else(|| Uuid::new_v4().to_string());
        schema::make(&mut connection, &id)?;
    }
    let id = connection.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| {
        row.get(0)
    })?;
    let last = connection
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'journal'",
            [],
            |row| row.get::<_, i64>(0),
        )
        .optional()?
        .unwrap_or(0) as u64;
    Ok(Opened {
        connection,
        id,
        last,
    })
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(file)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Before the first page is written; in a database that is there already they change nothing by themselves.
    connection.pragma_update(None, "page_size", wal::PAGE_BYTES as i64)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    write_ahead(&connection, file)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    Ok(connection)
}

fn with_cure(error: StoreError, file: &Path) -> StoreError {
    match error {
        StoreError::Database(source) => StoreError::Open {
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
            "it is no database of lizmon's: move it away to begin anew, or put a backup in its place with `liz-receiver restore`"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has locked it: end that one"
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            "see that this user may read and write it and its folder"
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

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

impl Store for EmbeddedStore {
    fn append(&mut self, group: &[u8]) -> Result<Position, StoreError> {
        let position = self.last + 1;
        rows::save_group(&self.connection, position, group)?;
        self.last = position;
        Ok(position)
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

    fn load(&mut self, now: u64) -> Result<State, StoreError> {
        let mut reading = self.read(How::Once, now);
        if let Some(fault) = self.fault(&reading)? {
            self.remake(|folder| rescue::rescue(folder, &fault, now))?;
            reading = self.read(How::Once, now);
            if let Some(what) = self.fault(&reading)? {
                let file = files::database(&self.folder);
                return Err(StoreError::Damaged { file, what });
            }
        }
        self.damage = reading.known;
        if self.bytes() > CHECKED_AT_START_BYTES_MAX {
            self.checking = Checking::start(&files::database(&self.folder))?;
        }
        Ok(reading.state)
    }

    fn commit(&mut self, changes: &ShardChanges) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for host in &changes.hosts {
            rows::save_host(&transaction, host)?;
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
        rows::save_cursor(&transaction, changes.shard, changes.cursor)?;
        if let Some(clock) = &changes.clock {
            rows::save_clock(&transaction, clock)?;
        }
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

    fn replace(&mut self, state: &State, fault: &str, now: u64) -> Result<(), StoreError> {
        let mut damage = vec![rescue::summary(fault, &[], now)];
        damage.append(&mut self.damage);
        self.damage = damage.clone();
        let last = state.cursors.iter().copied().max().unwrap_or(0);
        let (id, groups) = (self.id.clone(), Groups::new());
        self.remake(|folder| {
            let contents = Contents {
                id: &id,
                state,
                groups: &groups,
                last,
                damage: &damage,
            };
            rescue::replace(folder, &contents).map(drop)
        })
    }

    fn look(&mut self) -> Result<(), StoreError> {
        let file = files::database(&self.folder);
        if files::identity(&file) != self.identity {
            let what = "it was removed, moved or replaced while it was open".to_owned();
            return Err(StoreError::Damaged { file, what });
        }
        match self.checking.as_ref().map(Checking::verdict) {
            None | Some(Err(TryRecvError::Empty)) => Ok(()),
            Some(Ok(Some(what))) => {
                self.checking = None;
                Err(StoreError::Damaged { file, what })
            }
            Some(Ok(None) | Err(TryRecvError::Disconnected)) => {
                self.checking = None;
                Ok(())
            }
        }
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('probed', 1 + coalesce((SELECT value FROM meta WHERE key = 'probed'), 0))")?
            .execute([])?;
        Ok(())
    }

    fn damage(&self) -> &[Damage] {
        &self.damage
    }

    fn room(&self) -> Option<Room> {
        let file = files::database(&self.folder);
        let size = |file: &Path| std::fs::metadata(file).map_or(0, |found| found.len());
        Some(Room {
            bytes: size(&file) + size(&files::with(&file, files::WAL)),
            free_bytes: files::free_bytes(&self.folder)?,
        })
    }
}

/// A large database, checked while it is used.
struct Checking {
    verdict: Receiver<Option<String>>,
    interrupt: InterruptHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Checking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checking").finish_non_exhaustive()
    }
}

impl Checking {
    fn start(file: &Path) -> Result<Option<Self>, StoreError> {
        let connection = read::to_read(file)?;
        let interrupt = connection.get_interrupt_handle();
        let (sender, verdict) = sync_channel(1);
        let check = move || {
            // What cannot be checked, a disk that fails, is seen by whoever writes.
            if let Ok(found) = read::structure(&connection, "quick_check") {
                let _nobody_waits = sender.send(found);
            }
        };
        let thread = std::thread::Builder::new()
            .name("check".to_owned())
            .spawn(check)
            .map_err(files::failed(file, "cannot be checked"))?;
        Ok(Some(Self {
            verdict,
            interrupt,
            thread: Some(thread),
        }))
    }

    fn verdict(&self) -> Result<Option<String>, TryRecvError> {
        self.verdict.try_recv()
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.interrupt.interrupt();
        if let Some(Err(_)) = self.thread.take().map(std::thread::JoinHandle::join) {
            tracing::error!("the check of the database panicked");
        }
    }
}

#[cfg(test)]
mod tests;
