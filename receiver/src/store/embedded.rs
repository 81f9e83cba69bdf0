//! The default store: SQLite in one file of the data folder, in WAL mode, synced at every commit.
//!
//! ```text
//! meta(key, value)                                        version, number of shards, identifier, fencing epoch
//! journal(position, groups, sum)                          what batch.rs encodes
//! shard(id, cursor, sum)                                  what of the journal is in the tables below
//! host(id, name, last_epoch, certificate_end, sum)
//! series(id, host, label, body)                           all of it: see series_body.rs
//! bucket(series, tier, slot, start, stats)                empty: versions before had a row for each interval
//! producer(host, producer, duplicate, repaired, last_taken, ranges, dropped, sum)   dropped as JSON: [[from, to, why]…]
//! removed(host, samples, at)                              what was removed because it was ahead of the clock
//! document(host, shard, kind, body, sum)                  of a host, or of a shard where there is none
//! clock(id, boot, wall_offset, since, floor, floor_at)    what is known of the clock: one row
//! history_series(id, host, label)                         of what is kept longer: it outlives host and series
//! history(series, tier, start, body)                      hours of a day, days of four weeks: see ../history/chunk.rs
//! damage(found_at, host, label, start, stop, what)        what could not be read
//! ```
//!
//! The disk is not trusted: each row has a checksum, SQLite's own check verifies the file's
//! structure, and the WAL is verified frame by frame. Where something is damaged, `recovery` builds
//! a new database of all that can be read. `shard_again` and `producer_again` are second copies of
//! `shard` and `producer`.
//!
//! All shards share one journal table and one sync. The folder is locked by one process, so a fence
//! fails only where that process acquired the shard twice; the epoch is stored, so that it rises
//! over restarts all the same.

pub mod backup;
mod batch;
mod bucket_key;
mod checksum;
mod connection;
mod copying;
mod error;
mod files;
mod history;
mod integrity;
mod open;
mod read;
mod recovery;
mod reshard;
mod rows;
mod schema;
mod series_body;
mod upgrade;
mod wal;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::TryRecvError;

use rusqlite::{Connection, Transaction, params};

use self::batch::Backlog;
use self::connection::{connect_to_nothing, no_checkpoint_on_close, pragma, with_cure};
use self::error::EmbeddedError;
use self::history::{EmbeddedHistory, Expiry};
use self::integrity::{BackgroundCheck, structure};
use self::open::{fault_of_files, is_ours, open_file};
use self::read::{Groups, ScanMode, ScanResult, Snapshot};
use self::recovery::NewDatabase;
use self::schema::SHARDS;
use super::damage::Damage;
use super::engine::{Store, StoreUsage};
use super::error::StoreError;
use super::history::{HistoryReader, HistoryRetention, StoredChunk};
use super::journal::{JournalRead, JournalStore};
use super::shard::{Fence, Position, Shard, ShardCount};
use super::state::{SeriesSink, ShardChanges, ShardState, StateStore};

/// How many free pages (4 KiB each) are kept for what comes next, at least; besides, a quarter of
/// the file: a file that grows and shrinks all day need not be truncated and extended all day.
const FREE_PAGES_KEPT: i64 = 256;
/// How many pages are given back at a time: requests that wait for this wait some milliseconds.
const RECLAIMED_PAGES_MAX: i64 = 256;
/// Fewer are not worth a sync.
const RECLAIMED_PAGES_MIN: i64 = 64;
/// A database up to this size is checked before the receiver is ready, which takes some 20 ms; a
/// larger one while it serves.
const CHECKED_AT_START_BYTES_MAX: u64 = 8 << 20;

/// Makes the folder if it is missing, and locks it for as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    files::make_folder(folder)?;
    Ok(files::lock(folder)?)
}

/// Whether there is a store in this folder, or was one.
pub(super) fn is_there(folder: &Path) -> bool {
    files::is_there(folder)
}

/// SQLite in a folder that is locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct EmbeddedStore {
    connection: Connection,
    folder: PathBuf,
    /// The store's identifier.
    id: String,
    /// The last position that was used. None is used twice.
    last: Position,
    backlog: Backlog,
    /// Reused for each row of the journal.
    row: Vec<u8>,
    epoch: u64,
    is_epoch_stored: bool,
    /// By shard, the epoch of the fence that works; 0 if none does.
    owners: Vec<u64>,
    /// What could not be read.
    damage: Vec<Damage>,
    /// Which file is open, to notice when the next start would open another one.
    file_id: Option<files::FileId>,
    checking: Option<BackgroundCheck>,
    expiry: Expiry,
    _lock: File,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, or creates it. A damaged one is recovered as far as possible:
    /// see [`Store::damage`].
    #[cfg(test)]
    pub(crate) fn open(folder: &Path, now: u64) -> Result<Self, StoreError> {
        Ok(Self::open_locked(folder, lock(folder)?, now)?)
    }

    /// The same in a folder that is locked already: see [`lock`].
    pub(crate) fn open_in(folder: &Path, lock: File, now: u64) -> Result<Self, StoreError> {
        Ok(Self::open_locked(folder, lock, now)?)
    }

    fn open_locked(folder: &Path, lock: File, now: u64) -> Result<Self, EmbeddedError> {
        files::refuse_incomplete(folder)?;
        Self::open_unchecked(folder, lock, now)
    }

    fn open_unchecked(folder: &Path, lock: File, now: u64) -> Result<Self, EmbeddedError> {
        files::finish_replacing(folder)?;
        let file = files::database(folder);
        if let Some(fault) = fault_of_files(folder)? {
            recovery::recover(folder, &fault, now)?;
        }
        upgrade::upgrade(folder, now)?;
        let opened = match open_file(folder) {
            Err(error) if error.is_damage() && is_ours(folder) => {
                recovery::recover(folder, &in_full(error), now)?;
                open_file(folder)
            }
            opened => opened,
        }
        .map_err(|error| with_cure(error, &file))?;
        files::mark(folder, &opened.id)?;
        Ok(Self {
            connection: opened.connection,
            id: opened.id,
            last: opened.last,
            backlog: Backlog::new(SHARDS, opened.is_journal_empty),
            row: Vec::new(),
            epoch: opened.epoch,
            is_epoch_stored: true,
            owners: vec![0; SHARDS.get()],
            damage: Vec::new(),
            file_id: files::file_id(&file),
            folder: folder.to_owned(),
            checking: None,
            expiry: Expiry::default(),
            _lock: lock,
        })
    }

    /// Makes a new database while this one is open: `make` gets the folder, and nothing is open in
    /// it.
    fn remake(
        &mut self,
        make: impl FnOnce(&Path) -> Result<(), EmbeddedError>,
    ) -> Result<(), EmbeddedError> {
        self.checking = None;
        no_checkpoint_on_close(&self.connection)?;
        let old = std::mem::replace(&mut self.connection, connect_to_nothing()?);
        // What it cannot finish any more is noticed when the file is read.
        let _closed = old.close();
        let made = make(&self.folder);
        let opened = open_file(&self.folder)?;
        (self.connection, self.id, self.last) = (opened.connection, opened.id, opened.last);
        self.backlog = Backlog::new(SHARDS, opened.is_journal_empty);
        self.is_epoch_stored = false;
        self.file_id = files::file_id(&files::database(&self.folder));
        made
    }

    /// Reads everything, and of the journal which rows are still needed.
    fn read(&mut self, now: u64, sink: Option<&mut dyn SeriesSink>) -> ScanResult {
        let backlog = &mut self.backlog;
        let note = &mut |cursors: &[Position], position, row: &[u8]| {
            for (shard, _) in batch::sections(row).flatten() {
                if cursors
                    .get(shard.index())
                    .is_none_or(|cursor| position > *cursor)
                {
                    backlog.add(shard, position);
                }
            }
        };
        let scanned = match sink {
            Some(sink) => read::everything_into(&self.connection, now, sink, note),
            None => read::everything(&self.connection, ScanMode::Fast, now, note),
        };
        self.backlog.complete();
        scanned
    }

    /// What is wrong with what was just read.
    fn fault(&self, scanned: &ScanResult) -> Result<Option<String>, EmbeddedError> {
        if let Some(first) = scanned.damage.first() {
            return Ok(Some(first.to_string()));
        }
        if self.bytes() > CHECKED_AT_START_BYTES_MAX {
            return Ok(None);
        }
        Ok(structure(&self.connection, "integrity_check")?)
    }

    fn bytes(&self) -> u64 {
        let file = files::database(&self.folder);
        std::fs::metadata(file).map_or(0, |found| found.len())
    }

    fn load_all(
        &mut self,
        now: u64,
        mut sink: Option<&mut dyn SeriesSink>,
    ) -> Result<Snapshot, EmbeddedError> {
        let mut scanned = self.read(now, sink.as_mut().map(|sink| &mut **sink as _));
        if let Some(fault) = self.fault(&scanned)? {
            self.remake(|folder| recovery::recover(folder, &fault, now))?;
            if let Some(sink) = &mut sink {
                sink.clear();
            }
            scanned = self.read(now, sink.as_mut().map(|sink| &mut **sink as _));
            if let Some(what) = self.fault(&scanned)? {
                let file = files::database(&self.folder);
                return Err(EmbeddedError::Damaged { file, what });
            }
        }
        self.damage = scanned.known;
        if self.bytes() > CHECKED_AT_START_BYTES_MAX {
            self.checking = Some(BackgroundCheck::start(&files::database(&self.folder))?);
        }
        Ok(scanned.snapshot)
    }

    fn check_fence(&self, fence: Fence) -> Result<(), EmbeddedError> {
        match self.owners.get(fence.shard().index()) {
            Some(epoch) if *epoch == fence.epoch() => Ok(()),
            _ => Err(EmbeddedError::Fenced { fence }),
        }
    }

    fn append_row(&mut self, groups: &[(Shard, &[u8])]) -> Result<Position, EmbeddedError> {
        let position = self.last.next();
        batch::encode(groups, &mut self.row);
        rows::save_row(&self.connection, position, &self.row)?;
        self.last = position;
        for (shard, _) in groups {
            self.backlog.add(*shard, position);
        }
        Ok(position)
    }

    fn save(&mut self, all: &[(Fence, &ShardChanges)]) -> Result<(), EmbeddedError> {
        let mut backlog = self.backlog.clone();
        let file = files::database(&self.folder);
        let transaction = self.connection.transaction()?;
        for (fence, changes) in all {
            let shard = fence.shard();
            save_hosts(&transaction, changes)?;
            history::save(&transaction, &file, changes)?;
            rows::save_cursor(&transaction, shard, changes.cursor)?;
            rows::save_documents(&transaction, "", shard, &changes.documents)?;
            if let Some(clock) = &changes.clock {
                rows::save_clock(&transaction, clock)?;
            }
            backlog.commit(shard, changes.cursor);
        }
        if !self.is_epoch_stored {
            schema::save_epoch(&transaction, self.epoch)?;
        }
        transaction
            .prepare_cached("DELETE FROM journal WHERE position <= ?1")?
            .execute([backlog.trim_through(self.last).get() as i64])?;
        transaction.commit()?;
        self.is_epoch_stored = true;
        self.backlog = backlog;
        Ok(())
    }

    fn give_back_pages(&self) -> rusqlite::Result<()> {
        let free = pragma(&self.connection, "freelist_count")?;
        let kept = FREE_PAGES_KEPT.max(pragma(&self.connection, "page_count")? / 4);
        let pages = (free - kept).min(RECLAIMED_PAGES_MAX);
        if pages >= RECLAIMED_PAGES_MIN {
            // Each page is given back with a row of the answer, and the checkpoint truncates the
            // file.
            let connection = &self.connection;
            connection.pragma(None, "incremental_vacuum", pages, |_| Ok(()))?;
            connection.pragma(None, "wal_checkpoint", "PASSIVE", |_| Ok(()))?;
        }
        Ok(())
    }

    fn check_file(&mut self) -> Result<(), EmbeddedError> {
        let file = files::database(&self.folder);
        if files::file_id(&file) != self.file_id {
            let what = "it was removed, moved or replaced while it was open".to_owned();
            return Err(EmbeddedError::Damaged { file, what });
        }
        match self.checking.as_ref().map(BackgroundCheck::verdict) {
            None | Some(Err(TryRecvError::Empty)) => Ok(()),
            Some(Ok(Some(what))) => {
                self.checking = None;
                Err(EmbeddedError::Damaged { file, what })
            }
            Some(Ok(None) | Err(TryRecvError::Disconnected)) => {
                self.checking = None;
                Ok(())
            }
        }
    }
}

fn save_hosts(transaction: &Transaction<'_>, changes: &ShardChanges) -> Result<(), EmbeddedError> {
    for host in &changes.hosts {
        rows::save_host(transaction, host)?;
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
        transaction
            .prepare_cached("DELETE FROM document WHERE host = ?1")?
            .execute([host])?;
    }
    Ok(())
}

fn states_of(snapshot: Snapshot, shards: &[Shard]) -> Vec<ShardState> {
    let mut states = snapshot.into_states();
    let load = |shard: &Shard| states.get_mut(shard.index())?.take();
    shards.iter().filter_map(load).collect()
}

fn in_full(error: EmbeddedError) -> String {
    StoreError::from(error).in_full()
}

impl JournalStore for EmbeddedStore {
    fn shard_count(&self) -> ShardCount {
        SHARDS
    }

    fn append(&mut self, groups: &[(Shard, &[u8])]) -> Vec<Result<Position, StoreError>> {
        if groups.is_empty() {
            return Vec::new();
        }
        let appended = self.append_row(groups).map_err(StoreError::from);
        vec![appended; groups.len()]
    }

    fn read_after(
        &mut self,
        after: &[(Shard, Position)],
        each: &mut dyn FnMut(Shard, Position, &[u8]),
    ) -> JournalRead {
        // Of a shard that is not named, nothing.
        let mut cursors = vec![Position::new(u64::MAX); SHARDS.get()];
        for (shard, position) in after {
            if let Some(cursor) = cursors.get_mut(shard.index()) {
                *cursor = *position;
            }
        }
        let first = after.iter().map(|(_, position)| *position).min();
        let Some(first) = first else {
            return JournalRead::default();
        };
        let mut through = BTreeMap::new();
        let read = rows::read_rows(&self.connection, first, &mut |position, row| {
            for section in batch::sections(row) {
                let (shard, group) = section?;
                if cursors
                    .get(shard.index())
                    .is_some_and(|cursor| position > *cursor)
                {
                    each(shard, position, group);
                    through.insert(shard, position);
                }
            }
            Some(())
        });
        let error = match read {
            Ok(Ok(())) => {
                return JournalRead {
                    through: through.into_iter().collect(),
                    ..JournalRead::default()
                };
            }
            Ok(Err(position)) => {
                let file = files::database(&self.folder);
                let what = format!("the journal at {position}");
                EmbeddedError::Damaged { file, what }
            }
            Err(error) => EmbeddedError::from(error),
        };
        JournalRead::failed(after, &error.into())
    }
}

impl StateStore for EmbeddedStore {
    fn acquire(&mut self, shards: &[Shard]) -> Result<Vec<Fence>, StoreError> {
        // Stored by the next commit: nothing may be written to a database that was not read yet.
        self.epoch += 1;
        self.is_epoch_stored = false;
        let mut fences = Vec::new();
        for shard in shards {
            if let Some(owner) = self.owners.get_mut(shard.index()) {
                *owner = self.epoch;
                fences.push(Fence::new(*shard, self.epoch));
            }
        }
        Ok(fences)
    }

    fn load(&mut self, shards: &[Shard], now: u64) -> Result<Vec<ShardState>, StoreError> {
        Ok(states_of(self.load_all(now, None)?, shards))
    }

    fn load_into(
        &mut self,
        shards: &[Shard],
        now: u64,
        sink: &mut dyn SeriesSink,
    ) -> Result<Vec<ShardState>, StoreError> {
        Ok(states_of(self.load_all(now, Some(sink))?, shards))
    }

    fn commit(&mut self, fence: Fence, changes: &ShardChanges) -> Result<(), StoreError> {
        self.check_fence(fence)?;
        Ok(self.save(&[(fence, changes)])?)
    }

    fn commit_all(&mut self, changes: &[(Fence, ShardChanges)]) -> Result<(), StoreError> {
        for (fence, _) in changes {
            self.check_fence(*fence)?;
        }
        let changes: Vec<_> = { changes.iter() }
            .map(|(fence, changes)| (*fence, changes))
            .collect();
        Ok(self.save(&changes)?)
    }
}

impl Store for EmbeddedStore {
    fn probe(&mut self) -> Result<(), StoreError> {
        Ok(schema::probe(&self.connection).map_err(EmbeddedError::from)?)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        Ok(self.check_file()?)
    }

    fn reclaim(&mut self) -> Result<(), StoreError> {
        Ok(self.give_back_pages().map_err(EmbeddedError::from)?)
    }

    fn history(&self) -> Result<Box<dyn HistoryReader>, StoreError> {
        Ok(Box::new(EmbeddedHistory::of(&self.folder)))
    }

    fn expire_history(&mut self, retention: &HistoryRetention, now: u64) -> Result<(), StoreError> {
        Ok(self.expiry.step(&mut self.connection, retention, now)?)
    }

    fn all_chunks(
        &mut self,
        shards: &[Shard],
        each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let is_asked = |host: &str| shards.contains(&SHARDS.shard_of(host));
        history::all_chunks(&self.connection, &is_asked, each)
    }

    fn rebuild(
        &mut self,
        fences: &[Fence],
        mut states: Vec<ShardState>,
        fault: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        for fence in fences {
            self.check_fence(*fence)?;
        }
        let mut damage = vec![recovery::summary(fault, &[], now)];
        damage.append(&mut self.damage);
        self.damage = damage.clone();
        let evicted = states.iter_mut();
        let evicted = evicted.flat_map(|state| std::mem::take(&mut state.evicted));
        let evicted: Vec<_> = evicted.collect();
        let snapshot = Snapshot::of(states);
        let highest = snapshot.cursors.iter().copied().max().unwrap_or_default();
        let (id, groups) = (self.id.clone(), Groups::new());
        let (last, epoch) = (self.last.max(highest), self.epoch);
        self.remake(|folder| {
            let new = NewDatabase {
                id: &id,
                snapshot: &snapshot,
                evicted: &evicted,
                groups: &groups,
                last,
                epoch,
                damage: &damage,
            };
            recovery::replace(folder, &new, now).map(drop)
        })?;
        Ok(())
    }

    fn damage(&self) -> &[Damage] {
        &self.damage
    }

    fn usage(&self) -> Option<StoreUsage> {
        let file = files::database(&self.folder);
        let size = |file: &Path| std::fs::metadata(file).map_or(0, |found| found.len());
        Some(StoreUsage {
            bytes: size(&file) + size(&files::with(&file, files::WAL)),
            free_bytes: files::free_bytes(&self.folder)?,
        })
    }
}

#[cfg(test)]
mod tests;
