//! The state: what summarizing the journal up to a shard's cursor has come to.

use lizmon_protocol::sample::ProducerId;
use lizmon_summary::Series;

use super::document::{DocumentKind, StoredDocument};
use super::error::StoreError;
use super::history::{EvictedHour, HistoryRetention};
use super::shard::{Fence, Position, Shard};
use crate::clock::StoredClock;

/// The committed state of each shard, changed by the one who holds the shard's latest [`Fence`].
///
/// # In Redis
///
/// - [`acquire`](Self::acquire) takes a lease: a script that, where the lease in `lizmon:{p}:meta`
///   has ended by the server's `TIME` or is the caller's, writes the new owner and the lease's end
///   and increments the epoch. Shards that another process owns are left out of the answer.
/// - [`renew`](Self::renew) moves the lease's end; [`release`](Self::release) ends it.
/// - [`load`](Self::load) reads the shard's keys, which share one slot with its journal, and again
///   if there was a commit meanwhile.
/// - [`commit`](Self::commit) is one script, so it takes effect whole or not at all: it compares
///   owner, epoch, the lease's end, the identifier of the commit before this one, and what stands at
///   the cursor in the journal, and ends with [`ErrorKind::Fenced`](super::ErrorKind::Fenced) if one
///   is not as it must be; then it writes
///   hosts with their delivery sets, series, writers, clock and cursor, and trims the journal
///   before the cursor (`XTRIM … MINID`). The entry at the cursor stays, so that a reader can tell
///   whether the journal continues there. An owner that was paused beyond its lease therefore
///   changes nothing, nor does one whose last commit, or part of what it read, was lost in a
///   failover. A commit that took effect already is not repeated.
pub trait StateStore {
    /// Makes the caller the owner of these shards, as far as they are free. Fences given before for
    /// them no longer work.
    fn acquire(&mut self, shards: &[Shard]) -> Result<Vec<Fence>, StoreError>;

    /// Keeps these shards for a while longer. Returns those that the caller still owns. To be
    /// called every second or so.
    fn renew(&mut self, fences: &[Fence]) -> Result<Vec<Fence>, StoreError> {
        Ok(fences.to_vec())
    }

    /// Gives up these shards, so that other processes need not wait to acquire them.
    fn release(&mut self, _fences: &[Fence]) -> Result<(), StoreError> {
        Ok(())
    }

    /// How far another process has committed this shard. `None` where no other process commits.
    fn committed(&mut self, _shard: Shard) -> Result<Option<Position>, StoreError> {
        Ok(None)
    }

    /// The committed state of these shards, in their order, as far as it can be read:
    /// [`Store::damage`](super::Store::damage) tells what cannot. Any process may read it; one that
    /// has acquired the shard reads its latest.
    fn load(&mut self, shards: &[Shard], now: u64) -> Result<Vec<ShardState>, StoreError>;

    /// The same, but a store may give the series to `sink`, and leave them out of the hosts: there are
    /// very many, and nothing else keeps them twice.
    fn load_into(
        &mut self,
        shards: &[Shard],
        now: u64,
        _sink: &mut dyn SeriesSink,
    ) -> Result<Vec<ShardState>, StoreError> {
        self.load(shards, now)
    }

    /// The documents of this kind that these hosts have, as they are stored now; of the shard itself
    /// for an empty name. For who does not own the shard: empty where no other process can.
    fn documents(
        &mut self,
        _shard: Shard,
        _hosts: &[&str],
        _kind: DocumentKind,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(Vec::new())
    }

    /// Replaces what has changed in one shard, and its cursor, in one transaction. The shard's
    /// journal up to the cursor is no longer needed. Refused if the shard was acquired again after
    /// this fence.
    fn commit(&mut self, fence: Fence, changes: &ShardChanges) -> Result<(), StoreError>;

    /// The same for several shards: where the store can, in one transaction. After an error some may
    /// be committed; to commit those again changes nothing.
    fn commit_all(&mut self, changes: &[(Fence, ShardChanges)]) -> Result<(), StoreError> {
        changes
            .iter()
            .try_for_each(|(fence, changes)| self.commit(*fence, changes))
    }
}

/// Takes the series of hosts while they are loaded, one after another, in any order and from any
/// thread.
pub trait SeriesSink: Send {
    /// A series.
    fn take(&mut self, host: &str, label: &str, series: Series);

    /// What was given so far is void: the store was damaged, and is read again.
    fn clear(&mut self);
}

/// Everything that was committed of one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardState {
    /// Which shard.
    pub shard: Shard,
    /// The last position whose effect is in the state.
    pub cursor: Position,
    /// Its hosts.
    pub hosts: Vec<StoredHost>,
    /// What its last owner knew of the clock.
    pub clock: Option<StoredClock>,
    /// The shard's own documents.
    pub documents: Vec<StoredDocument>,
    /// Hours that are no longer in their rings, nor in the history yet: only of a state that
    /// [`Store::rebuild`](super::Store::rebuild) is to write.
    pub evicted: Vec<EvictedHour>,
}

/// What is stored of one host, or has changed of it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct StoredHost {
    /// Its node name.
    pub name: String,
    /// The greatest epoch of its samples.
    pub last_epoch: u64,
    /// When the certificate it last reported with ends.
    pub certificate_end: u64,
    /// Samples that were removed because they were ahead of a steady clock, and when that was last.
    pub removed: RemovedSamples,
    /// Its series; in a change those that changed.
    pub series: Vec<StoredSeries>,
    /// Whether these are all there are: any others that are stored go.
    pub is_whole: bool,
    /// The producers that numbered its records.
    pub producers: Vec<StoredProducer>,
    /// Its documents; in a change those that changed.
    pub documents: Vec<StoredDocument>,
}

/// What was removed from a host's summaries because it was ahead of a steady clock.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RemovedSamples {
    /// How many samples, over all labels.
    pub samples: u64,
    /// When that was last: epoch seconds; 0 if it never was.
    pub at: u64,
}

/// One series of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSeries {
    /// Which series.
    pub label: Box<str>,
    /// All of it. Its marks say which intervals differ from what was committed before; of what is
    /// loaded, none does.
    pub series: Series,
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredProducer {
    /// Its identifier.
    pub producer: ProducerId,
    /// The sequence numbers that have arrived, as inclusive ranges.
    pub ranges: Vec<(u64, u64)>,
    /// The sequence numbers that it dropped, and why.
    pub dropped: Vec<(u64, u64, Box<str>)>,
    /// How many records were duplicates.
    pub duplicate: u64,
    /// How many records arrived as a repair.
    pub repaired: u64,
    /// When something last came from it.
    pub last_taken: u64,
}

/// What has changed in one shard since its last commit.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct ShardChanges {
    /// The last position whose effect is in the state, with these changes.
    pub cursor: Position,
    /// For every changed host its properties, its changed series, and all its producers.
    pub hosts: Vec<StoredHost>,
    /// Series with nothing left in any window: host and label.
    pub ended_series: Vec<(String, Box<str>)>,
    /// Hosts of which nothing is left.
    pub ended_hosts: Vec<String>,
    /// What is known of the clock, if that is to be stored.
    pub clock: Option<StoredClock>,
    /// The shard's own documents that changed.
    pub documents: Vec<StoredDocument>,
    /// Hosts of which everything that starts at a time or later is removed from the history, and
    /// these times: before `evicted` is added.
    pub cuts: Vec<(String, u64)>,
    /// Hours that the state no longer has, and the history gets.
    pub evicted: Vec<EvictedHour>,
    /// How long the history is kept.
    pub retention: HistoryRetention,
}
