//! The summaries of all hosts in memory.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::host::HostSummaries;
use crate::store::{Shard, ShardCount};

/// One shard's hosts.
pub type HostMap = HashMap<Box<str>, HostSummaries>;

/// The summaries of all hosts, shared by one writer and any number of readers.
#[derive(Debug)]
pub struct SummaryTable {
    count: ShardCount,
    shards: Vec<RwLock<HostMap>>,
}

impl SummaryTable {
    pub(super) fn new(count: ShardCount) -> Self {
        Self {
            count,
            shards: count.all().map(|_| RwLock::default()).collect(),
        }
    }

    /// The shard of a host.
    pub fn shard_of(&self, host: &str) -> Shard {
        self.count.shard_of(host)
    }

    /// The shard of this host, locked for reading.
    pub fn shard_with(&self, host: &str) -> RwLockReadGuard<'_, HostMap> {
        self.read(self.shard_of(host))
    }

    /// Every shard in turn, locked for reading.
    pub fn shards(&self) -> impl Iterator<Item = RwLockReadGuard<'_, HostMap>> {
        self.count.all().map(|shard| self.read(shard))
    }

    /// Notes by how much a host's clock is ahead of the time its monitor stamps samples with.
    pub fn note_clock(&self, host: &str, ahead_secs: i64, now: u64) {
        let mut hosts = self.write(self.shard_of(host));
        if let Some(host) = hosts.get_mut(host) {
            host.clock = Some((ahead_secs, now));
        }
    }

    // A panic under the lock ended its request alone; each number it left is valid by itself.
    pub(super) fn read(&self, shard: Shard) -> RwLockReadGuard<'_, HostMap> {
        self.shards[shard.index()]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, shard: Shard) -> RwLockWriteGuard<'_, HostMap> {
        self.shards[shard.index()]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
