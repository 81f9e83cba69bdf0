//! Which chunks a commit changes, and to what. Pure: the store reads and writes them.

use std::collections::{BTreeMap, BTreeSet};

use lizmon_protocol::history::HistoryTier;

use super::super::state::ShardChanges;
use super::chunk::{Chunk, ChunkKey};
use super::{EvictedHour, HistoryRetention, StoredChunk};

/// Where the present chunks come from.
pub(in crate::store) trait ChunkSource {
    /// Why they cannot be read.
    type Error;

    /// The bytes of a chunk, if there is one.
    fn read(&mut self, key: &ChunkKey<'_>) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Labels, tiers and starts of the chunks of a host that end after `from`.
    fn ending_after(&mut self, host: &str, from: u64) -> Result<ChunksOfHost, Self::Error>;

    /// A chunk is not what was written. An error, or the chunk is begun again.
    fn damaged(&mut self, key: &ChunkKey<'_>) -> Result<(), Self::Error>;
}

/// A chunk as it is after the commit; without bytes it goes.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) struct ChunkChange {
    pub(in crate::store) chunk: StoredChunk,
    pub(in crate::store) is_removed: bool,
}

/// Host, label, tier and start of a chunk.
pub(in crate::store) type OwnedKey = (Box<str>, Box<str>, HistoryTier, u64);
/// Label, tier and start of the chunks of a host.
pub(in crate::store) type ChunksOfHost = Vec<(Box<str>, HistoryTier, u64)>;

struct Planner<'a, S> {
    source: &'a mut S,
    chunks: BTreeMap<OwnedKey, Chunk>,
    changed: BTreeSet<OwnedKey>,
}

/// The keys that [`plan`] reads for evicted hours: a store may fetch them together before.
pub(in crate::store) fn needed_keys(changes: &ShardChanges) -> BTreeSet<OwnedKey> {
    let keys = changes.evicted.iter().flat_map(|evicted| {
        let tiers = kept_tiers(&changes.retention);
        tiers.map(|tier| key_of(evicted, tier))
    });
    keys.collect()
}

/// The chunks that change, and to what.
pub(in crate::store) fn plan<S: ChunkSource>(
    changes: &ShardChanges,
    source: &mut S,
) -> Result<Vec<ChunkChange>, S::Error> {
    let mut planner = Planner {
        source,
        chunks: BTreeMap::new(),
        changed: BTreeSet::new(),
    };
    for (host, from) in &changes.cuts {
        planner.cut(host, *from)?;
    }
    for evicted in &changes.evicted {
        for tier in kept_tiers(&changes.retention) {
            planner.add(evicted, tier)?;
        }
    }
    Ok(planner.finish())
}

fn kept_tiers(retention: &HistoryRetention) -> impl Iterator<Item = HistoryTier> {
    let retention = *retention;
    let tiers = HistoryTier::ALL.into_iter();
    tiers.filter(move |tier| retention.secs(*tier) > 0)
}

fn key_of(evicted: &EvictedHour, tier: HistoryTier) -> OwnedKey {
    let start = ChunkKey::start_of(tier, evicted.bucket.start);
    (evicted.host.clone(), evicted.label.clone(), tier, start)
}

fn borrowed(key: &OwnedKey) -> ChunkKey<'_> {
    ChunkKey {
        host: &key.0,
        label: &key.1,
        tier: key.2,
        start: key.3,
    }
}

impl<S: ChunkSource> Planner<'_, S> {
    fn chunk(&mut self, key: &OwnedKey) -> Result<&mut Chunk, S::Error> {
        if !self.chunks.contains_key(key) {
            let borrowed = borrowed(key);
            let chunk = match self.source.read(&borrowed)? {
                None => Chunk::default(),
                Some(bytes) => match Chunk::decode(&borrowed, &bytes) {
                    Some(chunk) => chunk,
                    None => {
                        self.source.damaged(&borrowed)?;
                        Chunk::default()
                    }
                },
            };
            self.chunks.insert(key.clone(), chunk);
        }
        Ok(self.chunks.entry(key.clone()).or_default())
    }

    fn add(&mut self, evicted: &EvictedHour, tier: HistoryTier) -> Result<(), S::Error> {
        let key = key_of(evicted, tier);
        let chunk = self.chunk(&key)?;
        match tier {
            HistoryTier::ByHour => chunk.add_hour(&borrowed(&key), &evicted.bucket),
            HistoryTier::ByDay => chunk.add_to_day(&borrowed(&key), &evicted.bucket),
        }
        self.changed.insert(key);
        Ok(())
    }

    /// Removes what starts at `from` or later. A day that began before, and whose hours are known,
    /// is made again of those that are left.
    fn cut(&mut self, host: &str, from: u64) -> Result<(), S::Error> {
        let mut found = self.source.ending_after(host, from)?;
        // Hours before days.
        found.sort_by_key(|(label, tier, start)| (label.clone(), tier.width_secs(), *start));
        for (label, tier, start) in found {
            let key: OwnedKey = (host.into(), label.clone(), tier, start);
            let chunk = self.chunk(&key)?;
            let removed = chunk.cut(from);
            if removed.is_empty() {
                continue;
            }
            let left = chunk.clone();
            self.changed.insert(key);
            if tier == HistoryTier::ByHour && start < from {
                let first = ChunkKey::start_of(HistoryTier::ByDay, start);
                let day: OwnedKey = (host.into(), label, HistoryTier::ByDay, first);
                let chunk = self.chunk(&day)?;
                chunk.take_out_of_day(&borrowed(&day), &removed, &left);
                self.changed.insert(day);
            }
        }
        Ok(())
    }

    fn finish(self) -> Vec<ChunkChange> {
        let Self {
            mut chunks,
            changed,
            ..
        } = self;
        let change = |key: OwnedKey| {
            let chunk = chunks.remove(&key)?;
            let bytes = chunk.encode(&borrowed(&key));
            let (host, label, tier, start) = key;
            Some(ChunkChange {
                is_removed: chunk.is_empty(),
                chunk: StoredChunk {
                    host,
                    label,
                    tier,
                    start,
                    bytes,
                },
            })
        };
        changed.into_iter().filter_map(change).collect()
    }
}
