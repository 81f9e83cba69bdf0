//! The history of the stores in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::super::history::{
    ChunkKey, ChunkQuery, ChunkSource, ChunksOfHost, HistoryRetention, OwnedKey, StoredChunk, plan,
};
use super::super::state::ShardChanges;

/// Chunks by host, label, tier and start.
pub(super) type MemoryChunks = BTreeMap<OwnedKey, Vec<u8>>;

struct Source<'a>(&'a MemoryChunks);

impl ChunkSource for Source<'_> {
    type Error = Infallible;

    fn read(&mut self, key: &ChunkKey<'_>) -> Result<Option<Vec<u8>>, Infallible> {
        let key = (key.host.into(), key.label.into(), key.tier, key.start);
        Ok(self.0.get(&key).cloned())
    }

    fn ending_after(&mut self, host: &str, from: u64) -> Result<ChunksOfHost, Infallible> {
        let keys = self.0.keys().filter(|(of, ..)| **of == *host);
        let later = keys.filter(|(.., tier, start)| start + ChunkKey::span_secs(*tier) > from);
        Ok(later
            .map(|(_, label, tier, start)| (label.clone(), *tier, *start))
            .collect())
    }

    fn damaged(&mut self, _key: &ChunkKey<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Does what a commit says of the history.
pub(super) fn apply_to_chunks(chunks: &mut MemoryChunks, changes: &ShardChanges) {
    let Ok(planned) = plan(changes, &mut Source(chunks));
    for change in planned {
        let StoredChunk {
            host,
            label,
            tier,
            start,
            bytes,
        } = change.chunk;
        match change.is_removed {
            true => drop(chunks.remove(&(host, label, tier, start))),
            false => drop(chunks.insert((host, label, tier, start), bytes)),
        }
    }
}

/// Answers a query.
pub(super) fn read_chunks(chunks: &MemoryChunks, query: &ChunkQuery<'_>) -> Vec<(u64, Vec<u8>)> {
    let of_series = chunks.iter().filter(|((host, label, tier, start), _)| {
        (&**host, &**label, *tier) == (query.host, query.label, query.tier)
            && start + ChunkKey::span_secs(*tier) > query.from
            && *start < query.to
    });
    of_series
        .map(|((.., start), bytes)| (*start, bytes.clone()))
        .take(query.chunks_max)
        .collect()
}

/// Removes what is no longer kept.
pub(super) fn expire_chunks(chunks: &mut MemoryChunks, retention: &HistoryRetention, now: u64) {
    chunks.retain(|(.., tier, start), _| {
        start + ChunkKey::span_secs(*tier) > retention.ended_by(*tier, now)
    });
}

/// The chunks as they are stored.
pub(super) fn stored_chunks(chunks: &MemoryChunks) -> impl Iterator<Item = StoredChunk> {
    let stored = chunks.iter();
    stored.map(|((host, label, tier, start), bytes)| StoredChunk {
        host: host.clone(),
        label: label.clone(),
        tier: *tier,
        start: *start,
        bytes: bytes.clone(),
    })
}
