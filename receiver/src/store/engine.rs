//! A whole store, and what keeps it in order.

use super::damage::Damage;
use super::error::StoreError;
use super::history::{HistoryReader, HistoryRetention, StoredChunk};
use super::journal::JournalStore;
use super::members::{Members, SharedTrust};
use super::shard::{Fence, Shard};
use super::signing::GroupRefusal;
use super::state::{ShardState, StateStore};

/// How much space a store takes up, and how much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUsage {
    /// What it takes up: bytes.
    pub bytes: u64,
    /// What is left for it: bytes.
    pub free_bytes: u64,
}

/// A store that several processes use at the same time.
pub trait SharedStore: Store + Members + SharedTrust {}

impl<S: Store + Members + SharedTrust> SharedStore for S {}

/// A journal and a state, and what keeps them in order.
pub trait Store: JournalStore + StateStore + Send {
    /// A small durable write: shows whether anything can be stored.
    fn probe(&mut self) -> Result<(), StoreError>;

    /// An error if what is stored would not be there at the next start, as far as that shows
    /// without a write. To be called every second or so.
    fn check(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Gives back space that is no longer needed, a little at a time. To be called every second or
    /// so.
    fn reclaim(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What reads the history, in other threads.
    fn history(&self) -> Result<Box<dyn HistoryReader>, StoreError>;

    /// Removes a little of what is no longer kept of the history. To be called every second or so,
    /// while the clock is steady.
    fn expire_history(
        &mut self,
        _retention: &HistoryRetention,
        _now: u64,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// All of the history of these shards, for a copy.
    fn all_chunks(
        &mut self,
        shards: &[Shard],
        each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Replaces a damaged store by a new one that holds these states and an empty journal. `fences`
    /// are for the same shards, which are all there are; `fault` is what was wrong with the old
    /// one. The history stays, as far as it can be read.
    fn rebuild(
        &mut self,
        fences: &[Fence],
        states: Vec<ShardState>,
        fault: &str,
        now: u64,
    ) -> Result<(), StoreError>;

    /// What could not be read, of late.
    fn damage(&self) -> &[Damage] {
        &[]
    }

    /// What is wrong with it, and was accepted when it was opened.
    fn warnings(&self) -> &[String] {
        &[]
    }

    /// How many groups of its journal were not given to a reader since it was opened, and why not.
    fn refused_groups(&self) -> Vec<(GroupRefusal, u64)> {
        Vec::new()
    }

    /// How much space it takes up and has, if that is known.
    fn usage(&self) -> Option<StoreUsage> {
        None
    }
}

/// An empty store, marked as incomplete, that a copy fills. Whoever else opens it is refused.
pub(super) trait CopyTarget: Store {
    /// Everything is there: from now on it is a store as any other. Nothing of it may get lost any
    /// more when this returns.
    fn complete_copy(&mut self) -> Result<(), StoreError>;

    /// Writes chunks of one shard's history in the place of what is there.
    fn put_chunks(&mut self, fence: Fence, chunks: &[StoredChunk]) -> Result<(), StoreError>;

    /// Removes all of the history of a shard, which an interrupted copy may have left.
    fn clear_chunks(&mut self, fence: Fence) -> Result<(), StoreError>;
}
