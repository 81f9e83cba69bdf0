//! A store in memory that can be told to fail, and to forget what was not synced: the seam for tests of everything
//! above it. Opened again on the same [`Disk`], it has what was durable and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{HostState, KeptBucket, Position, SHARDS, ShardChanges, State, Store, StoreError};

/// What survives the process: shared by the stores that are opened on it one after another.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    next: Position,
    journal: BTreeMap<Position, Vec<u8>>,
    cursors: BTreeMap<u16, Position>,
    hosts: BTreeMap<String, HostState>,
    fails: bool,
}

impl Disk {
    /// From now on every write fails, or none does.
    pub fn set_failing(&self, fails: bool) {
        self.contents().fails = fails;
    }

    /// How many groups the journal holds.
    pub fn journal_len(&self) -> usize {
        self.contents().journal.len()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result<MutexGuard<'_, Contents>, StoreError> {
        let contents = self.contents();
        if contents.fails {
            Err(StoreError::Injected)
        } else {
            Ok(contents)
        }
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
        let mut contents = self.disk.writable()?;
        contents.next += 1;
        let position = contents.next;
        contents.journal.insert(position, group.to_vec());
        Ok(position)
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

    fn load(&mut self) -> Result<State, StoreError> {
        let contents = self.disk.contents();
        let cursors = (0..SHARDS)
            .map(|shard| contents.cursors.get(&shard).copied().unwrap_or(0))
            .collect();
        Ok(State {
            cursors,
            hosts: contents.hosts.values().cloned().collect(),
        })
    }

    fn commit(&mut self, changes: &ShardChanges) -> Result<(), StoreError> {
        let mut contents = self.disk.writable()?;
        for host in &changes.hosts {
            let kept = contents.hosts.entry(host.name.clone()).or_default();
            let is_replaced = |old: &KeptBucket| {
                host.buckets
                    .iter()
                    .any(|new| (&new.label, new.tier, new.slot) == (&old.label, old.tier, old.slot))
            };
            kept.buckets.retain(|old| !is_replaced(old));
            kept.buckets.extend(host.buckets.iter().cloned());
            *kept = HostState {
                buckets: std::mem::take(&mut kept.buckets),
                ..host.clone()
            };
        }
        for (host, label) in &changes.ended_series {
            if let Some(host) = contents.hosts.get_mut(host) {
                host.buckets.retain(|kept| kept.label != *label);
            }
        }
        for host in &changes.ended_hosts {
            contents.hosts.remove(host);
        }
        contents.cursors.insert(changes.shard, changes.cursor);
        contents.journal = contents.journal.split_off(&(changes.drop_through + 1));
        Ok(())
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
}
