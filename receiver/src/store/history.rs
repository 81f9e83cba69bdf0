//! What is kept of series longer than their rings: hours and days.
//!
//! An hour that leaves its ring ([`EvictedHour`]), or that is left when its series ends, is added
//! to the history, and to its day, in the transaction of the commit that no longer has it. So every
//! sample is in exactly one place, the ring or the history, and memory does not grow with what is
//! kept.
//!
//! ```text
//! ring of a series ──evicted hours──> commit ──plan──> chunks: a day of hours, 28 days of days
//!        │                                                │
//!        └────────────────── query ───────────────────────┘
//! ```
//!
//! Stores keep chunks ([`Chunk`]) and do not know what is in them. That an hour is added again
//! changes nothing: a chunk has at most one of each hour, the one with more samples, and a day says
//! which hours it has. A reader that finds an hour in the ring and in the history as well, because
//! a commit came in between, counts it once.

mod chunk;
mod plan;

use lizmon_protocol::history::HistoryTier;
use lizmon_summary::Bucket;

pub use self::chunk::{Chunk, ChunkKey, DaySummary};
pub(super) use self::plan::{ChunkChange, ChunkSource, ChunksOfHost, OwnedKey, needed_keys, plan};
use super::error::StoreError;
use super::shard::Shard;

/// For how long closed hours are kept if `--keep-hours` does not say.
pub const KEEP_HOURS_SECS: u64 = 31 * 86_400;
/// For how long closed days are kept if `--keep-days` does not say.
pub const KEEP_DAYS_SECS: u64 = 400 * 86_400;

/// For how long intervals are kept after their end; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRetention {
    /// Hours: seconds.
    pub hours_secs: u64,
    /// Days: seconds.
    pub days_secs: u64,
}

impl Default for HistoryRetention {
    fn default() -> Self {
        Self {
            hours_secs: KEEP_HOURS_SECS,
            days_secs: KEEP_DAYS_SECS,
        }
    }
}

impl HistoryRetention {
    /// For how long the intervals of this tier are kept: seconds.
    pub fn secs(&self, tier: HistoryTier) -> u64 {
        match tier {
            HistoryTier::ByHour => self.hours_secs,
            HistoryTier::ByDay => self.days_secs,
        }
    }

    /// Intervals that end by then are no longer kept.
    pub fn ended_by(&self, tier: HistoryTier, now: u64) -> u64 {
        match self.secs(tier) {
            0 => u64::MAX,
            secs => now.saturating_sub(secs),
        }
    }
}

/// An hour that is no longer in its ring.
#[derive(Debug, Clone, PartialEq)]
pub struct EvictedHour {
    /// Its host.
    pub host: Box<str>,
    /// Its series.
    pub label: Box<str>,
    /// What it holds.
    pub bucket: Bucket,
}

/// A stored chunk: whose it is, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredChunk {
    /// Its host.
    pub host: Box<str>,
    /// Its series.
    pub label: Box<str>,
    /// The width of its intervals.
    pub tier: HistoryTier,
    /// Where it starts: epoch seconds.
    pub start: u64,
    /// What [`Chunk::encode`] made.
    pub bytes: Vec<u8>,
}

impl StoredChunk {
    /// Which chunk it is.
    pub fn key(&self) -> ChunkKey<'_> {
        ChunkKey {
            host: &self.host,
            label: &self.label,
            tier: self.tier,
            start: self.start,
        }
    }
}

/// Which chunks of a series are read: those of one tier that hold intervals with an epoch in
/// `from < epoch <= to`.
#[derive(Debug, Clone, Copy)]
pub struct ChunkQuery<'a> {
    /// Its shard.
    pub shard: Shard,
    /// Its host.
    pub host: &'a str,
    /// Its label.
    pub label: &'a str,
    /// The width of the intervals.
    pub tier: HistoryTier,
    /// The exclusive start.
    pub from: u64,
    /// The inclusive end.
    pub to: u64,
    /// How many chunks at most: the first ones.
    pub chunks_max: usize,
}

/// Reads the history while others write to the store. Blocks.
pub trait HistoryReader: Send + Sync + std::fmt::Debug {
    /// The start and the bytes of these chunks, the oldest first.
    fn chunks(&self, query: &ChunkQuery<'_>) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;

    /// Whether there is anything of this host, of what is kept at `now`.
    fn knows(
        &self,
        shard: Shard,
        host: &str,
        retention: &HistoryRetention,
        now: u64,
    ) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests;
