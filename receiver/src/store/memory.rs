//! A store in memory: the test double of everything above. It can be told to fail, and to forget
//! what was not synced. Opened again on the same [`MemoryDisk`], it has what was durable and
//! nothing else.
//!
//! A test decides the [`WriteOutcome`] of every write, and calls [`MemoryDisk::crash`] when the
//! process above has died, so before the store is opened again.
//!
//! [`shared`] is the same for a store that several processes share, on an [`engine`] with leases, a
//! clock and failovers.

pub mod engine;
mod history;
pub mod shared;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::document::StoredDocument;
use super::engine::Store;
use super::error::{ErrorKind, StoreError};
use super::history::{ChunkQuery, HistoryReader, HistoryRetention, StoredChunk};
use super::journal::{JournalRead, JournalStore};
use super::shard::{Fence, Position, Shard, ShardCount};
use super::state::{ShardChanges, ShardState, StateStore, StoredHost, StoredSeries};
use crate::clock::StoredClock;

use self::history::{MemoryChunks, apply_to_chunks, expire_chunks, read_chunks, stored_chunks};

const SHARDS: ShardCount = ShardCount::new(NonZeroU16::new(64).unwrap());

/// What survives the process: shared by the stores that are opened on it one after another.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Contents>>);

/// A copy of what was durable at one time.
#[derive(Debug, Clone)]
pub struct MemoryBackup {
    journals: BTreeMap<Shard, ShardJournal>,
    cursors: BTreeMap<Shard, Position>,
    hosts: BTreeMap<String, StoredHost>,
    clock: Option<StoredClock>,
    documents: BTreeMap<Shard, Vec<StoredDocument>>,
    chunks: MemoryChunks,
}

/// What becomes of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is durable.
    Done,
    /// It fails and leaves nothing: a full disk.
    Fails,
    /// Its sync fails. The next good write overwrites it; if a crash comes first, it may be there
    /// afterwards.
    Unsynced,
    /// The process dies in the middle, and nothing of it is there.
    CrashBefore,
    /// The process dies in the middle. Of several groups half are there, and the next one in part;
    /// a commit, being a transaction, is not.
    CrashTorn,
    /// The process dies right after it became durable, before anyone was told.
    CrashAfter,
}

/// A fault that a test asked for.
#[derive(Debug, thiserror::Error)]
enum InjectedFault {
    #[error("the store was told to fail")]
    Failure,
    #[error("memory is damaged: as a test wishes")]
    Damage,
    #[error("the shard was acquired again")]
    Fenced,
}

impl From<InjectedFault> for StoreError {
    fn from(fault: InjectedFault) -> Self {
        let kind = match fault {
            InjectedFault::Failure => ErrorKind::Unavailable,
            InjectedFault::Damage => ErrorKind::Damaged,
            InjectedFault::Fenced => ErrorKind::Fenced,
        };
        Self::new(kind, fault)
    }
}

/// A write as it was asked for.
#[derive(Debug)]
enum Write {
    Append(Vec<(Shard, Vec<u8>)>),
    Commit(Shard, Box<ShardChanges>),
}

#[derive(Default)]
struct Contents {
    journals: BTreeMap<Shard, ShardJournal>,
    cursors: BTreeMap<Shard, Position>,
    epochs: BTreeMap<Shard, u64>,
    hosts: BTreeMap<String, StoredHost>,
    clock: Option<StoredClock>,
    documents: BTreeMap<Shard, Vec<StoredDocument>>,
    chunks: MemoryChunks,
    fails: bool,
    damaged: bool,
    outcomes: Option<Box<dyn FnMut() -> WriteOutcome + Send>>,
    crashed: bool,
    unsynced: Option<Write>,
}

#[derive(Debug, Clone, Default)]
struct ShardJournal {
    last: u64,
    groups: BTreeMap<Position, Vec<u8>>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("groups", &self.group_count())
            .field("hosts", &self.hosts.len())
            .field("crashed", &self.crashed)
            .finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// From now on every write fails, or none does.
    pub fn set_failing(&self, fails: bool) {
        self.contents().fails = fails;
    }

    /// From now on every write finds what is stored damaged, until a new store is put in its place.
    pub fn damage(&self) {
        self.contents().damaged = true;
    }

    /// How many groups the journals hold.
    pub fn journal_len(&self) -> usize {
        self.contents().group_count()
    }

    /// From now on this decides what becomes of every write.
    pub fn set_outcomes(&self, outcomes: impl FnMut() -> WriteOutcome + Send + 'static) {
        self.contents().outcomes = Some(Box::new(outcomes));
    }

    /// Whether a write is set to crash: its process must be thought dead, and everything fails
    /// until [`MemoryDisk::crash`].
    pub fn is_crashed(&self) -> bool {
        self.contents().crashed
    }

    /// The process above is dead. `is_unsynced_there`: whether a write whose sync failed turns out
    /// to be on the disk.
    pub fn crash(&self, is_unsynced_there: bool) {
        let mut contents = self.contents();
        contents.crashed = false;
        if let Some(write) = contents.unsynced.take().filter(|_| is_unsynced_there) {
            contents.apply(&write);
        }
    }

    /// Copies what is durable.
    pub fn backup(&self) -> MemoryBackup {
        let contents = self.contents();
        MemoryBackup {
            journals: contents.journals.clone(),
            cursors: contents.cursors.clone(),
            hosts: contents.hosts.clone(),
            clock: contents.clock,
            documents: contents.documents.clone(),
            chunks: contents.chunks.clone(),
        }
    }

    /// Forgets what became durable after that copy was made. The process above is dead.
    pub fn restore(&self, backup: MemoryBackup) {
        let mut contents = self.contents();
        contents.unsynced = None;
        contents.journals = backup.journals;
        contents.cursors = backup.cursors;
        contents.hosts = backup.hosts;
        contents.clock = backup.clock;
        contents.documents = backup.documents;
        contents.chunks = backup.chunks;
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn group_count(&self) -> usize {
        let journals = self.journals.values();
        journals.map(|journal| journal.groups.len()).sum()
    }

    fn check(&self) -> Result<(), InjectedFault> {
        match self.fails || self.crashed {
            true => Err(InjectedFault::Failure),
            false => Ok(()),
        }
    }

    fn check_fence(&self, fence: Fence) -> Result<(), InjectedFault> {
        match self.epochs.get(&fence.shard()) {
            Some(epoch) if *epoch == fence.epoch() => Ok(()),
            _ => Err(InjectedFault::Fenced),
        }
    }

    /// Makes a write durable, or whatever else becomes of it. The positions of what was appended.
    fn write(&mut self, write: Write) -> Result<Vec<Position>, InjectedFault> {
        self.check()?;
        if self.damaged {
            return Err(InjectedFault::Damage);
        }
        let outcome = self.outcomes.as_mut();
        let outcome = outcome.map_or(WriteOutcome::Done, |decide| decide());
        self.crashed = matches!(
            outcome,
            WriteOutcome::CrashBefore | WriteOutcome::CrashTorn | WriteOutcome::CrashAfter
        );
        match (outcome, write) {
            (WriteOutcome::Done, write) => {
                self.unsynced = None;
                return Ok(self.apply(&write));
            }
            (WriteOutcome::CrashAfter, write) => {
                self.unsynced = None;
                self.apply(&write);
            }
            (WriteOutcome::CrashTorn, Write::Append(mut groups)) => {
                self.unsynced = None;
                groups.truncate(groups.len() / 2 + 1);
                if let Some((_, group)) = groups.last_mut() {
                    group.truncate(group.len() / 2);
                }
                self.apply(&Write::Append(groups));
            }
            (WriteOutcome::Unsynced, write) => self.unsynced = Some(write),
            (WriteOutcome::Fails | WriteOutcome::CrashBefore | WriteOutcome::CrashTorn, _) => (),
        }
        Err(InjectedFault::Failure)
    }

    fn apply(&mut self, write: &Write) -> Vec<Position> {
        match write {
            Write::Append(groups) => groups
                .iter()
                .map(|(shard, group)| self.append(*shard, group))
                .collect(),
            Write::Commit(shard, changes) => {
                self.commit(*shard, changes);
                Vec::new()
            }
        }
    }

    fn append(&mut self, shard: Shard, group: &[u8]) -> Position {
        let journal = self.journals.entry(shard).or_default();
        journal.last += 1;
        let position = Position::new(journal.last);
        journal.groups.insert(position, group.to_owned());
        position
    }

    fn commit(&mut self, shard: Shard, changes: &ShardChanges) {
        apply_to_hosts(&mut self.hosts, changes);
        apply_to_chunks(&mut self.chunks, changes);
        self.clock = changes.clock.or(self.clock);
        let documents = self.documents.entry(shard).or_default();
        apply_to_documents(documents, &changes.documents);
        self.cursors.insert(shard, changes.cursor);
        if let Some(journal) = self.journals.get_mut(&shard) {
            journal.groups = journal.groups.split_off(&changes.cursor.next());
        }
    }

    fn load(&self, shard: Shard) -> ShardState {
        let hosts = self.hosts.values();
        let hosts = hosts.filter(|host| SHARDS.shard_of(&host.name) == shard);
        ShardState {
            shard,
            cursor: self.cursors.get(&shard).copied().unwrap_or_default(),
            hosts: hosts.cloned().collect(),
            clock: self.clock,
            documents: self.documents.get(&shard).cloned().unwrap_or_default(),
            evicted: Vec::new(),
        }
    }
}

/// Replaces what has changed of these hosts.
fn apply_to_hosts(hosts: &mut BTreeMap<String, StoredHost>, changes: &ShardChanges) {
    for host in &changes.hosts {
        let stored = hosts.entry(host.name.clone()).or_default();
        let is_replaced = |label: &str| host.series.iter().any(|new| *new.label == *label);
        stored
            .series
            .retain(|old| !host.is_whole && !is_replaced(&old.label));
        stored.series.extend(host.series.iter().map(committed));
        apply_to_documents(&mut stored.documents, &host.documents);
        *stored = StoredHost {
            series: std::mem::take(&mut stored.series),
            documents: std::mem::take(&mut stored.documents),
            is_whole: false,
            ..host.clone()
        };
    }
    for (host, label) in &changes.ended_series {
        if let Some(host) = hosts.get_mut(host) {
            host.series.retain(|stored| stored.label != *label);
        }
    }
    for host in &changes.ended_hosts {
        hosts.remove(host);
    }
}

fn committed(series: &StoredSeries) -> StoredSeries {
    let mut committed = series.clone();
    committed.series.clear_dirty();
    committed
}

fn apply_to_documents(stored: &mut Vec<StoredDocument>, changed: &[StoredDocument]) {
    for document in changed {
        stored.retain(|old| old.kind != document.kind);
        if !document.body.is_empty() {
            stored.push(document.clone());
        }
    }
    stored.sort_by_key(|document| document.kind);
}

/// A store on such a disk.
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
}

impl MemoryStore {
    /// Opens what is on the disk.
    pub fn open(disk: MemoryDisk) -> Self {
        Self { disk }
    }
}

impl JournalStore for MemoryStore {
    fn shard_count(&self) -> ShardCount {
        SHARDS
    }

    fn append(&mut self, groups: &[(Shard, &[u8])]) -> Vec<Result<Position, StoreError>> {
        let owned = groups
            .iter()
            .map(|(shard, group)| (*shard, group.to_vec()))
            .collect();
        match self.disk.contents().write(Write::Append(owned)) {
            Ok(positions) => positions.into_iter().map(Ok).collect(),
            Err(fault) => vec![Err(fault.into()); groups.len()],
        }
    }

    fn read_after(
        &mut self,
        after: &[(Shard, Position)],
        each: &mut dyn FnMut(Shard, Position, &[u8]),
    ) -> JournalRead {
        let contents = self.disk.contents();
        let mut read = JournalRead::default();
        for (shard, after) in after {
            let groups = contents.journals.get(shard).map(|journal| &journal.groups);
            let groups = groups
                .into_iter()
                .flat_map(|groups| groups.range(after.next()..));
            let last = groups.clone().next_back();
            for (position, group) in groups {
                each(*shard, *position, group);
            }
            read.through.extend(last.map(|(last, _)| (*shard, *last)));
        }
        read
    }
}

impl StateStore for MemoryStore {
    fn acquire(&mut self, shards: &[Shard]) -> Result<Vec<Fence>, StoreError> {
        let mut contents = self.disk.contents();
        let acquire = |shard: &Shard| {
            let epoch = contents.epochs.entry(*shard).or_default();
            *epoch += 1;
            Fence::new(*shard, *epoch)
        };
        Ok(shards.iter().map(acquire).collect())
    }

    fn load(&mut self, shards: &[Shard], _now: u64) -> Result<Vec<ShardState>, StoreError> {
        let contents = self.disk.contents();
        Ok(shards.iter().map(|shard| contents.load(*shard)).collect())
    }

    fn commit(&mut self, fence: Fence, changes: &ShardChanges) -> Result<(), StoreError> {
        let mut contents = self.disk.contents();
        contents.check_fence(fence)?;
        contents.write(Write::Commit(fence.shard(), Box::new(changes.clone())))?;
        Ok(())
    }
}

/// Reads what is on the disk.
#[derive(Debug)]
struct DiskHistory(MemoryDisk);

impl HistoryReader for DiskHistory {
    fn chunks(&self, query: &ChunkQuery<'_>) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let contents = self.0.contents();
        contents.check()?;
        Ok(read_chunks(&contents.chunks, query))
    }

    fn knows(
        &self,
        _shard: Shard,
        host: &str,
        _retention: &HistoryRetention,
        _now: u64,
    ) -> Result<bool, StoreError> {
        let contents = self.0.contents();
        contents.check()?;
        Ok(contents.chunks.keys().any(|(of, ..)| **of == *host))
    }
}

impl Store for MemoryStore {
    fn history(&self) -> Result<Box<dyn HistoryReader>, StoreError> {
        Ok(Box::new(DiskHistory(self.disk.clone())))
    }

    fn expire_history(&mut self, retention: &HistoryRetention, now: u64) -> Result<(), StoreError> {
        let mut contents = self.disk.contents();
        contents.check()?;
        expire_chunks(&mut contents.chunks, retention, now);
        Ok(())
    }

    fn all_chunks(
        &mut self,
        shards: &[Shard],
        each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let chunks: Vec<_> = stored_chunks(&self.disk.contents().chunks).collect();
        let is_asked = |chunk: &StoredChunk| shards.contains(&SHARDS.shard_of(&chunk.host));
        chunks.into_iter().filter(is_asked).try_for_each(each)
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        Ok(self.disk.contents().check()?)
    }

    fn rebuild(
        &mut self,
        fences: &[Fence],
        states: Vec<ShardState>,
        _fault: &str,
        _now: u64,
    ) -> Result<(), StoreError> {
        let mut contents = self.disk.contents();
        contents.check()?;
        for fence in fences {
            contents.check_fence(*fence)?;
        }
        for journal in contents.journals.values_mut() {
            journal.groups.clear();
        }
        contents.hosts.clear();
        contents.clock = states.iter().find_map(|state| state.clock);
        for state in states {
            let journal = contents.journals.entry(state.shard).or_default();
            journal.last = journal.last.max(state.cursor.get());
            contents.cursors.insert(state.shard, state.cursor);
            contents.documents.insert(state.shard, state.documents);
            let history = ShardChanges {
                evicted: state.evicted,
                ..ShardChanges::default()
            };
            apply_to_chunks(&mut contents.chunks, &history);
            let hosts = state.hosts.into_iter();
            let by_name = hosts.map(|host| (host.name.clone(), host));
            contents.hosts.extend(by_name);
        }
        contents.damaged = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{append, fence};
    use super::*;

    const SHARD: Shard = Shard::new(3);

    #[test]
    fn keeps_the_contract() {
        let disk = MemoryDisk::default();
        super::super::contract::check(&mut || MemoryStore::open(disk.clone()));
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let disk = MemoryDisk::default();
        let mut store = MemoryStore::open(disk.clone());
        let fence = fence(&mut store, SHARD);
        disk.set_failing(true);
        assert!(append(&mut store, SHARD, b"group").is_err());
        assert!(store.commit(fence, &ShardChanges::default()).is_err());
        disk.set_failing(false);
        assert_eq!(disk.journal_len(), 0);
    }

    #[test]
    fn every_write_has_its_outcome() {
        // What the writer is told, and how many groups are there after a crash: unsynced ones lost,
        // or found.
        for (outcome, is_told_done, left_without, left_with) in [
            (WriteOutcome::Done, true, 2, 2),
            (WriteOutcome::Fails, false, 1, 1),
            (WriteOutcome::Unsynced, false, 1, 2),
            (WriteOutcome::CrashBefore, false, 1, 1),
            (WriteOutcome::CrashTorn, false, 2, 2),
            (WriteOutcome::CrashAfter, false, 2, 2),
        ] {
            for (is_unsynced_there, left) in [(false, left_without), (true, left_with)] {
                let disk = MemoryDisk::default();
                let mut store = MemoryStore::open(disk.clone());
                let mut append = |group| append(&mut store, SHARD, group);
                assert_eq!(append(b"first").unwrap(), Position::new(1));
                disk.set_outcomes(move || outcome);
                assert_eq!(append(b"second").is_ok(), is_told_done, "{outcome:?}");
                assert_eq!(
                    disk.is_crashed(),
                    !matches!(
                        outcome,
                        WriteOutcome::Done | WriteOutcome::Fails | WriteOutcome::Unsynced
                    )
                );
                if disk.is_crashed() {
                    disk.set_outcomes(|| WriteOutcome::Done);
                    assert!(append(b"of the dead").is_err());
                }
                disk.crash(is_unsynced_there);
                assert_eq!(disk.journal_len(), left, "{outcome:?}");
            }
        }
    }

    #[test]
    fn an_unsynced_write_is_there_only_if_nothing_came_after_it() {
        for (is_followed, is_there) in [(false, true), (true, false)] {
            let disk = MemoryDisk::default();
            disk.set_outcomes(|| WriteOutcome::Unsynced);
            let mut store = MemoryStore::open(disk.clone());
            assert!(append(&mut store, SHARD, b"ghost").is_err());
            disk.set_outcomes(|| WriteOutcome::Done);
            if is_followed {
                let fence = fence(&mut store, SHARD);
                store.commit(fence, &ShardChanges::default()).unwrap();
            }
            disk.crash(true);
            assert_eq!(disk.journal_len() == 1, is_there);
        }
    }
}
