//! The history, which is copied as it is stored: a little at a time, because it is large.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::engine::{CopyTarget, Store};
use super::super::error::StoreError;
use super::super::history::{Chunk, StoredChunk};
use super::super::shard::{Fence, Shard};

/// How many chunks are written at once: less than 1 MB.
const CHUNKS_AT_ONCE: usize = 512;

/// What a part of a history comes to, whatever its order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct HistoryDigest {
    chunks: u64,
    sum: u64,
    /// Hours and days.
    pub(super) intervals: u64,
}

impl HistoryDigest {
    fn add(&mut self, chunk: &StoredChunk, decoded: &Chunk) {
        let mut hasher = DefaultHasher::new();
        chunk.hash(&mut hasher);
        self.chunks += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
        self.intervals += decoded.intervals().count() as u64;
    }
}

/// Copies the history of the hosts that belong to these shards of the target. `damage` gets what
/// cannot be read.
pub(super) fn copy(
    source: &mut dyn Store,
    target: &mut dyn CopyTarget,
    fences: &[Fence],
    damage: &mut Vec<String>,
) -> Result<HistoryDigest, StoreError> {
    for fence in fences {
        target.clear_chunks(*fence)?;
    }
    let shards: Vec<_> = fences.iter().map(|fence| fence.shard()).collect();
    let count = target.shard_count();
    let mut digest = HistoryDigest::default();
    let mut waiting = vec![Vec::new(); fences.len()];
    each_chunk(source, count, &shards, &mut |chunk| {
        let Some(decoded) = Chunk::decode(&chunk.key(), &chunk.bytes) else {
            let StoredChunk { host, label, .. } = &chunk;
            let (tier, start) = (chunk.tier.as_str(), chunk.start);
            damage.push(format!(
                "{host} {label}: its history {tier} from {start} is lost"
            ));
            return Ok(());
        };
        digest.add(&chunk, &decoded);
        let shard = count.shard_of(&chunk.host);
        let of_shard = fences.iter().zip(&mut waiting);
        for (fence, waiting) in of_shard.filter(|(fence, _)| fence.shard() == shard) {
            waiting.push(chunk.clone());
            if waiting.len() >= CHUNKS_AT_ONCE {
                // A lease may end meanwhile; the next commit would tell.
                target.renew(&[*fence])?;
                target.put_chunks(*fence, waiting)?;
                waiting.clear();
            }
        }
        Ok(())
    })?;
    for (fence, waiting) in fences.iter().zip(&waiting) {
        target.put_chunks(*fence, waiting)?;
    }
    Ok(digest)
}

/// What the history of these shards comes to, as it can be read back.
pub(super) fn digest(
    target: &mut dyn CopyTarget,
    shards: &[Shard],
) -> Result<HistoryDigest, StoreError> {
    let mut digest = HistoryDigest::default();
    target.all_chunks(shards, &mut |chunk| {
        let decoded = Chunk::decode(&chunk.key(), &chunk.bytes).unwrap_or_default();
        digest.add(&chunk, &decoded);
        Ok(())
    })?;
    Ok(digest)
}

/// Gives the chunks of hosts that belong to these shards of a store with `count`.
fn each_chunk(
    source: &mut dyn Store,
    count: super::super::shard::ShardCount,
    shards: &[Shard],
    each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let of_source = source.shard_count();
    let asked: Vec<_> = match of_source == count {
        true => shards.to_vec(),
        false => of_source.all().collect(),
    };
    source.all_chunks(
        &asked,
        &mut |chunk| match shards.contains(&count.shard_of(&chunk.host)) {
            true => each(chunk),
            false => Ok(()),
        },
    )
}
