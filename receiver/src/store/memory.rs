//! A store in memory that can be told to fail, and to forget what was not synced: the seam for tests of everything
//! above it. Opened again on the same [`Disk`], it has what was durable and nothing else.
//!
//! Whoever tests decides the [`Fate`] of every write, and calls [`Disk::crash`] when the process above is to be thought
//! dead: before the store is opened again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::KeptClock;

use super::{HostState, KeptBucket, Position, SHARDS, ShardChanges, State, Store, StoreError};

/// What survives the process: shared by the stores that are opened on it one after another.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Contents>>);

/// What becomes of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is durable.
    Done,
    /// It fails and leaves nothing: a full disk.
    Fails,
    /// Its sync fails. The next good write goes over it; if a crash comes first, it may be there afterwards.
    Unsynced,
    /// The process dies in the middle, and nothing of it is there.
    CrashBefore,
    /// The process dies in the middle. A group is there in part; a commit, being a transaction, is not.
    CrashTorn,
    /// The process dies right after it became durable, before anyone was told.
    CrashAfter,
}

/// A write as it was asked for.
#[derive(Debug)]
enum Write {
    Append(Vec<u8>),
    Commit(ShardChanges),
}

#[derive(Default)]
struct Contents {
    next: Position,
    journal: BTreeMap<Position, Vec<u8>>,
    cursors: BTreeMap<u16, Position>,
    hosts: BTreeMap<String, HostState>,
    clock: Option<KeptClock>,
    fails: bool,
    damaged: bool,
    fates: Option<Box<dyn FnMut() -> Fate + Send>>,
    crashed: bool,
    unsynced: Option<Write>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("journal", &self.journal.len())
            .field("hosts", &self.hosts.len())
            .field("crashed", &self.crashed)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// From now on every write fails, or none does.
    pub fn set_failing(&self, fails: bool) {
        self.contents().fails = fails;
    }

    /// From now on every write finds what is stored damaged, until a new store is put in its place.
    pub fn damage(&self) {
        self.contents().damaged = true;
    }

    /// How many groups the journal holds.
    pub fn journal_len(&self) -> usize {
        self.contents().journal.len()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every write asks here what becomes of it.
    pub fn set_fates(&self, fates: impl FnMut() -> Fate + Send + 'static) {
        self.contents().fates = Some(Box::new(fates));
    }

    /// Whether a write was told to crash: its process must be thought dead, and everything fails until [`Disk::crash`].
    pub fn is_crashed(&self) -> bool {
        self.contents().crashed
    }

    /// The process above is dead. `is_unsynced_there`: whether a write whose sync failed turns out to be on the disk.
    pub fn crash(&self, is_unsynced_there: bool) {
        let mut contents = self.contents();
        contents.crashed = false;
        if let Some(write) = contents.unsynced.take().filter(|_| is_unsynced_there) {
            contents.apply(&write);
        }
    }

    /// Makes a write durable, or whatever else its fate is.
    fn write(&self, write: Write) -> Result<Position, StoreError> {
        let mut contents = self.contents();
        if contents.fails || contents.crashed {
            return Err(StoreError::Injected);
        }
        if contents.damaged {
            return Err(StoreError::Damaged {
                file: "memory".into(),
                what: "as a test wishes".to_owned(),
            });
        }
        let fate = contents.fates.as_mut().map_or(Fate::Done, |fate| fate());
        contents.crashed = matches!(fate, Fate::CrashBefore | Fate::CrashTorn | Fate::CrashAfter);
        match (fate, write) {
            (Fate::Done, write) => {
                contents.unsynced = None;
                contents.apply(&write);
                return Ok(contents.next);
            }
            (Fate::CrashAfter, write) => {
                contents.unsynced = None;
                contents.apply(&write);
            }
            (Fate::CrashTorn, Write::Append(mut group)) => {
                contents.unsynced = None;
                group.truncate(group.len() / 2);
                contents.apply(&Write::Append(group));
            }
            (Fate::Unsynced, write) => contents.unsynced = Some(write),
            (Fate::Fails | Fate::CrashBefore | Fate::CrashTorn, _) => (),
        }
        Err(StoreError::Injected)
    }
}

impl Contents {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(group) => {
                self.next += 1;
                self.journal.insert(self.next, group.clone());
            }
            Write::Commit(changes) => self.commit(changes),
        }
    }

    fn commit(&mut self, changes: &ShardChanges) {
        for host in &changes.hosts {
            let kept = self.hosts.entry(host.name.clone()).or_default();
            let is_replaced = |old: &KeptBucket| {
                host.buckets
                    .iter()
                    .any(|new| (&new.label, new.tier, new.slot) == (&old.label, old.tier, old.slot))
            };
            kept.buckets
                .retain(|old| !host.is_whole && !is_replaced(old));
            kept.buckets.extend(host.buckets.iter().cloned());
            *kept = HostState {
                buckets: std::mem::take(&mut kept.buckets),
                is_whole: false,
                ..host.clone()
            };
        }
        for (host, label) in &changes.ended_series {
            if let Some(host) = self.hosts.get_mut(host) {
                host.buckets.retain(|kept| kept.label != *label);
            }
        }
        for host in &changes.ended_hosts {
            self.hosts.remove(host);
        }
        self.clock = changes.clock.or(self.clock);
        self.cursors.insert(changes.shard, changes.cursor);
        self.journal = self.journal.split_off(&(changes.drop_through + 1));
    }
}

/// A store on such a disk.
#[derive(Debug)]
pub struct MemoryStore {
    disk: Disk,
}

impl MemoryStore {
    /// Opens what is on the disk.
    pub fn open(disk: Disk) -> Self {
        Self { disk }
    }
}

impl Store for MemoryStore {
    fn append(&mut self, group: &[u8]) -> Result<Position, StoreError> {
        self.disk.write(Write::Append(group.to_vec()))
    }

    fn read_after(
        &mut self,
        after: Position,
        each: &mut dyn FnMut(Position, &[u8]),
    ) -> Result<(), StoreError> {
        for (position, group) in self.disk.contents().journal.range(after + 1..) {
            each(*position, group);
        }
        Ok(())
    }

    fn load(&mut self, _now: u64) -> Result<State, StoreError> {
        let contents = self.disk.contents();
        let cursors = (0..SHARDS)
            .map(|shard| contents.cursors.get(&shard).copied().unwrap_or(0))
            .collect();
        Ok(State {
            cursors,
            hosts: contents.hosts.values().cloned().collect(),
            clock: contents.clock,
        })
    }

    fn commit(&mut self, changes: &ShardChanges) -> Result<(), StoreError> {
        self.disk.write(Write::Commit(changes.clone())).map(drop)
    }

    fn replace(&mut self, state: &State, _fault: &str, _now: u64) -> Result<(), StoreError> {
        let mut contents = self.disk.contents();
        if contents.fails || contents.crashed {
            return Err(StoreError::Injected);
        }
        contents.journal.clear();
        contents.cursors = (0..).zip(state.cursors.iter().copied()).collect();
        let hosts = state.hosts.iter().cloned();
        contents.hosts = hosts.map(|host| (host.name.clone(), host)).collect();
        contents.clock = state.clock;
        contents.damaged = false;
        Ok(())
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        let contents = self.disk.contents();
        match contents.fails || contents.crashed {
            true => Err(StoreError::Injected),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract() {
        let disk = Disk::default();
        super::super::contract::check(&mut || MemoryStore::open(disk.clone()));
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let disk = Disk::default();
        let mut store = MemoryStore::open(disk.clone());
        disk.set_failing(true);
        assert!(store.append(b"group").is_err());
        assert!(store.commit(&ShardChanges::default()).is_err());
        disk.set_failing(false);
        assert_eq!(disk.journal_len(), 0);
    }

    #[test]
    fn every_write_has_its_fate() {
        // What the writer is told, and how many groups are there after a crash: unsynced ones lost, or found.
        for (fate, is_told_done, left_without, left_with) in [
            (Fate::Done, true, 2, 2),
            (Fate::Fails, false, 1, 1),
            (Fate::Unsynced, false, 1, 2),
            (Fate::CrashBefore, false, 1, 1),
            (Fate::CrashTorn, false, 2, 2),
            (Fate::CrashAfter, false, 2, 2),
        ] {
            for (is_unsynced_there, left) in [(false, left_without), (true, left_with)] {
                let disk = Disk::default();
                let mut store = MemoryStore::open(disk.clone());
                assert_eq!(store.append(b"first").unwrap(), 1);
                disk.set_fates(move || fate);
                assert_eq!(store.append(b"second").is_ok(), is_told_done, "{fate:?}");
                assert_eq!(
                    disk.is_crashed(),
                    !matches!(fate, Fate::Done | Fate::Fails | Fate::Unsynced)
                );
                if disk.is_crashed() {
                    disk.set_fates(|| Fate::Done);
                    assert!(store.append(b"of the dead").is_err());
                }
                disk.crash(is_unsynced_there);
                assert_eq!(disk.journal_len(), left, "{fate:?}");
            }
        }
    }

    #[test]
    fn an_unsynced_write_is_there_only_if_nothing_came_after_it() {
        for (is_followed, is_there) in [(false, true), (true, false)] {
            let disk = Disk::default();
            disk.set_fates(|| Fate::Unsynced);
            let mut store = MemoryStore::open(disk.clone());
            assert!(store.append(b"ghost").is_err());
            disk.set_fates(|| Fate::Done);
            if is_followed {
                store.commit(&ShardChanges::default()).unwrap();
            }
            disk.crash(true);
            assert_eq!(disk.journal_len() == 1, is_there);
        }
    }
}
