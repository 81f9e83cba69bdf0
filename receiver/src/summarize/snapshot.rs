//! Reads a store's summaries, and gives all of them as they are stored.

use super::Summarizer;
use super::host::LoadedSeries;
use crate::store::{EvictedHour, Shard, ShardCount, Store, StoreError, StoredHost};

impl Summarizer {
    /// Loads what is committed of these shards. The journals after their cursors are to be read
    /// next.
    pub(crate) fn load(
        &mut self,
        store: &mut dyn Store,
        shards: &[Shard],
        now: u64,
    ) -> Result<(), StoreError> {
        let mut loaded = LoadedSeries::default();
        for state in store.load_into(shards, now, &mut loaded)? {
            self.clock = self.clock.or(state.clock);
            self.restore(state, &mut loaded);
        }
        Ok(())
    }

    /// Everything of the hosts that are in this shard of a store with so many.
    pub(crate) fn hosts_of(&self, count: ShardCount, shard: Shard) -> Vec<StoredHost> {
        let mut hosts = Vec::new();
        for of_shard in self.table.shards() {
            let named = of_shard.iter();
            let named = named.filter(|(name, _)| count.shard_of(name) == shard);
            hosts.extend(named.map(|(name, host)| host.snapshot(name)));
        }
        hosts
    }

    /// Hours of them that are in no ring any more, and may not be in the store's history yet.
    pub(crate) fn evicted_of(&self, count: ShardCount, shard: Shard) -> Vec<EvictedHour> {
        let mut evicted = Vec::new();
        for of_shard in self.table.shards() {
            let named = of_shard.iter();
            let named = named.filter(|(name, _)| count.shard_of(name) == shard);
            evicted.extend(named.flat_map(|(name, host)| host.evicted_hours(name)));
        }
        evicted
    }
}
