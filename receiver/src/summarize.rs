//! The summaries, and the one way they change: `journal -> apply -> commit(what changed, cursor)`.
//!
//! [`SummaryTable`] is divided into the store's shards, each behind a lock that is held for one
//! submission or one answer. The [`Summarizer`] alone writes. Where one process has the whole store
//! it lives in the journal's thread: a client that is answered after a submission was applied sees
//! it. Where several processes share the store it applies what it reads of their journals
//! ([`group`]), and commits only the shards that it owns.
//!
//! What apply does depends on the journal alone, never on a clock: replaying the journal after a
//! shard's cursor onto the shard's committed state gives the same summaries, to the bit. A sequence
//! number that a producer has used before changes nothing, in a replay as the first time.

mod commits;
mod documents;
pub mod group;
mod host;
mod metric_kinds;
mod reads;
mod reporters;
mod snapshot;
mod table;

use std::sync::{Arc, RwLockReadGuard};

use lizmon_protocol::sample::BatchAnswer;

use self::host::LoadedSeries;

pub(crate) use self::commits::SHARDS_AT_ONCE_MAX;
pub use self::documents::Documents;
pub use self::host::{HostSummaries, ProducerState};
pub use self::metric_kinds::{MetricKinds, SaidKinds};
pub use self::reporters::{Reporters, is_recent};
pub use self::table::{HOST_SERIES_MAX, HostMap, ReadMark, SummaryTable};
use crate::clock::StoredClock;
use crate::store::record::{SubmissionView, read_group};
use crate::store::{
    DocumentKind, ErrorKind, Fence, HistoryRetention, JournalRead, Position, Shard, ShardCount,
    ShardState, Store, StoreError,
};

/// A shard's part of the writer's work.
#[derive(Debug, Default)]
struct ShardProgress {
    /// The right to commit it; none while it is only read.
    fence: Option<Fence>,
    /// Whether what is in memory is what the store has up to `applied`, so that it is read on and
    /// may be committed.
    is_loaded: bool,
    /// The last position that was applied.
    applied: Position,
    /// The append that brought the first change since the last commit; none if there is no change.
    changed_since: Option<u64>,
    /// The shard's own.
    documents: Documents,
}

/// Why a store that another process summarizes is not opened.
#[derive(Debug, thiserror::Error)]
#[error("other processes own {0} of the store's shards")]
struct ShardsOwned(usize);

/// The one writer of a [`SummaryTable`].
#[derive(Debug)]
pub struct Summarizer {
    table: Arc<SummaryTable>,
    progress: Vec<ShardProgress>,
    /// How many appends were applied.
    appends: u64,
    next_sweep: usize,
    /// What is known of the clock, to be stored with the next commit.
    clock: Option<StoredClock>,
    /// How long the history is kept.
    retention: HistoryRetention,
}

impl Summarizer {
    /// The summaries as the store has them: its state, and the journal after it.
    pub fn open(store: &mut dyn Store, now: u64) -> Result<Self, StoreError> {
        let count = store.shard_count();
        let shards: Vec<Shard> = count.all().collect();
        let fences = store.acquire(&shards)?;
        if fences.len() < shards.len() {
            let owned = ShardsOwned(shards.len() - fences.len());
            return Err(StoreError::new(ErrorKind::InUse, owned));
        }
        let mut summarizer = Self::empty(count);
        for fence in fences {
            summarizer.own(fence);
        }
        summarizer.load(store, &shards, now)?;
        summarizer.read_on(store).complete()?;
        Ok(summarizer)
    }

    /// Nothing is loaded yet.
    pub(crate) fn empty(count: ShardCount) -> Self {
        Self {
            progress: count.all().map(|_| ShardProgress::default()).collect(),
            table: Arc::new(SummaryTable::new(count)),
            appends: 0,
            next_sweep: 0,
            clock: None,
            retention: HistoryRetention::default(),
        }
    }

    /// Keeps the history for so long.
    #[must_use]
    pub fn keeping(self, retention: HistoryRetention) -> Self {
        Self { retention, ..self }
    }

    /// How long the history is kept.
    pub fn retention(&self) -> &HistoryRetention {
        &self.retention
    }

    /// From now on this commits the shard.
    fn own(&mut self, fence: Fence) {
        self.progress[fence.shard().index()].fence = Some(fence);
    }

    /// Puts what was committed of a shard in the place of what is in memory. The journal after its
    /// cursor is to be read next.
    fn restore(&mut self, state: ShardState, loaded: &mut LoadedSeries) {
        let hosts = state.hosts.into_iter();
        let hosts: HostMap = hosts.map(|host| loaded.restore(host)).collect();
        let progress = &mut self.progress[state.shard.index()];
        *progress = ShardProgress {
            fence: progress.fence,
            is_loaded: true,
            applied: state.cursor,
            documents: Documents::restore(state.documents),
            ..ShardProgress::default()
        };
        *self.table.write(state.shard) = hosts;
    }

    /// Loads a shard again, beside what is in memory until it has been read on: readers see no gap.
    fn reload(&mut self, store: &mut dyn Store, shard: Shard, now: u64) -> Result<(), StoreError> {
        let mut apart = Self::empty(store.shard_count());
        apart.progress[shard.index()].fence = self.progress[shard.index()].fence;
        apart.load(store, &[shard], now)?;
        apart.read_on(store).complete()?;
        let mut progress = std::mem::take(&mut apart.progress[shard.index()]);
        progress.changed_since = progress.changed_since.map(|_| self.appends);
        self.progress[shard.index()] = progress;
        *self.table.write(shard) = std::mem::take(&mut *apart.table.write(shard));
        let through = self.progress[shard.index()].applied;
        self.table.set_reloaded(shard, through);
        Ok(())
    }

    /// How many series a shard has.
    fn series_of(&self, shard: Shard) -> usize {
        let hosts = self.table.read(shard);
        hosts.values().map(|host| host.series.len()).sum()
    }

    /// What is in memory is no longer what the store has, or not all that must be committed: it is
    /// shown to readers until it is loaded again.
    fn set_unloaded(&mut self, shard: Shard) {
        self.progress[shard.index()].is_loaded = false;
    }

    /// From now on somebody else commits the shard. It is read on if it `stays`.
    fn disown(&mut self, shard: Shard, stays: bool) {
        let progress = &mut self.progress[shard.index()];
        progress.fence = None;
        progress.changed_since = None;
        if !stays {
            progress.is_loaded = false;
            *self.table.write(shard) = HostMap::new();
        }
    }

    /// The shards that it commits and that have changed by a group through `through`, the oldest
    /// change first.
    fn changed(&self, through: u64) -> Vec<Fence> {
        let changed = self.progress.iter().filter_map(|progress| {
            let since = progress.changed_since?;
            let fence = progress.fence.filter(|_| progress.is_loaded)?;
            (since <= through).then_some((since, fence))
        });
        let mut changed: Vec<_> = changed.collect();
        changed.sort_by_key(|(since, fence)| (*since, fence.shard()));
        changed.into_iter().map(|(_, fence)| fence).collect()
    }

    /// How many shards have changed since they were committed.
    pub(crate) fn changed_shards(&self) -> usize {
        let changed = self.progress.iter();
        changed
            .filter(|progress| progress.changed_since.is_some())
            .count()
    }

    /// Reads the journals on, and applies what is new.
    pub(crate) fn read_on(&mut self, store: &mut dyn Store) -> JournalRead {
        let loaded = self.progress.iter().zip((0..).map(Shard::new));
        let after: Vec<_> = loaded
            .filter(|(progress, _)| progress.is_loaded)
            .map(|(progress, shard)| (shard, progress.applied))
            .collect();
        let mut damaged = 0_u64;
        let read = store.read_after(&after, &mut |_, position, bytes| match read_group(bytes) {
            Ok(submissions) => {
                self.begin_group();
                for submission in submissions {
                    self.apply(position, &submission);
                }
            }
            Err(_) => damaged += 1,
        });
        for (shard, position) in &read.through {
            let applied = &mut self.progress[shard.index()].applied;
            *applied = position.max(applied).to_owned();
            self.table.set_read_through(*shard, *position);
        }
        if damaged > 0 {
            tracing::error!(
                groups = damaged,
                "skipped damaged journal groups: the samples in them are lost"
            );
        }
        read
    }

    /// The summaries, for readers.
    pub fn table(&self) -> Arc<SummaryTable> {
        self.table.clone()
    }

    /// The hosts of a shard.
    pub(crate) fn shard_hosts(&self, shard: Shard) -> RwLockReadGuard<'_, HostMap> {
        self.table.read(shard)
    }

    /// The shard of a host.
    pub(crate) fn shard_of(&self, host: &str) -> Shard {
        self.table.shard_of(host)
    }

    /// While this commits a shard: which time of owning it this is, and how often it was loaded
    /// again. What was read of its documents before another such time is out of date.
    pub(crate) fn generation(&self, shard: Shard) -> Option<(u64, u64)> {
        let progress = &self.progress[shard.index()];
        let fence = progress.fence.filter(|_| progress.is_loaded)?;
        Some((fence.epoch(), self.table.read_mark(shard).reloads))
    }

    /// Starts a group: what is applied from now on was appended together.
    pub fn begin_group(&mut self) {
        self.appends += 1;
    }

    /// How many appends were applied since the start.
    pub fn appends(&self) -> u64 {
        self.appends
    }

    /// Counts a submission that is at `position` in the journal of its host's shard.
    pub fn apply(&mut self, position: Position, submission: &SubmissionView<'_>) -> BatchAnswer {
        let shard = self.table.shard_of(submission.host);
        let mut hosts = self.table.write(shard);
        let document = submission.document();
        let has_effect =
            !submission.is_empty() || document.is_some() || submission.dropped().next().is_some();
        let answer = if let Some(host) = hosts.get_mut(submission.host) {
            host.take(position, submission, document)
        } else if has_effect {
            let host = hosts.entry(submission.host.into()).or_default();
            host.take(position, submission, document)
        } else {
            BatchAnswer::default()
        };
        drop(hosts);
        let applied = &mut self.progress[shard.index()].applied;
        *applied = position.max(*applied);
        self.mark_changed(shard, self.appends);
        answer
    }

    /// Counts records that are in the journal already.
    pub fn note_duplicates(&mut self, submission: &SubmissionView<'_>) {
        if submission.is_empty() {
            return;
        }
        let shard = self.table.shard_of(submission.host);
        let mut hosts = self.table.write(shard);
        let producer = submission
            .producer
            .and_then(|producer| hosts.get_mut(submission.host)?.producers.get_mut(&producer));
        if let Some(producer) = producer {
            producer.duplicate += submission.len() as u64;
        }
        if let Some(host) = hosts.get_mut(submission.host) {
            host.is_changed = true;
        }
        drop(hosts);
        self.mark_changed(shard, self.appends + 1);
    }

    /// Replaces a document of a host that this commits. Without effect if the host is unknown.
    pub fn set_document(&mut self, host: &str, kind: DocumentKind, body: &[u8]) {
        let shard = self.table.shard_of(host);
        let mut hosts = self.table.write(shard);
        let found = hosts.get_mut(host);
        let is_changed = found.is_some_and(|host| host.set_document(kind, body));
        drop(hosts);
        if is_changed {
            self.mark_changed(shard, self.appends);
        }
    }

    /// A shard's own documents.
    pub fn shard_documents(&self, shard: Shard) -> &Documents {
        &self.progress[shard.index()].documents
    }

    /// Replaces one of them.
    pub fn set_shard_document(&mut self, shard: Shard, kind: DocumentKind, body: &[u8]) {
        let appends = self.appends;
        let progress = &mut self.progress[shard.index()];
        if progress.fence.is_some() && progress.documents.set(kind, body) {
            progress.changed_since.get_or_insert(appends);
        }
    }

    fn mark_changed(&mut self, shard: Shard, append: u64) {
        let progress = &mut self.progress[shard.index()];
        if progress.fence.is_some() {
            progress.changed_since.get_or_insert(append);
        }
    }

    /// What was known of the clock when that was last stored.
    pub fn stored_clock(&self) -> Option<StoredClock> {
        self.clock
    }

    /// Stores this of the clock with the next commit.
    pub fn note_clock(&mut self, clock: StoredClock) {
        self.clock = Some(clock);
    }

    /// Stores now what is known of the clock: there may have been nothing to commit for long.
    pub fn store_clock(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        match self.progress.iter().find_map(|progress| progress.fence) {
            Some(fence) => self.commit(store, fence, None, true),
            None => Ok(()),
        }
    }

    /// How many appends are not in what was committed.
    pub fn uncommitted(&self) -> u64 {
        let changed = self.progress.iter();
        let oldest = changed.filter_map(|progress| progress.changed_since).min();
        oldest.map_or(0, |oldest| (self.appends + 1).saturating_sub(oldest))
    }

    /// Writes everything there is into a new store, in the place of one that is damaged for
    /// `fault`.
    pub fn rebuild(
        &mut self,
        store: &mut dyn Store,
        fault: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        let progress = self.progress.iter();
        let fences: Vec<_> = progress.filter_map(|progress| progress.fence).collect();
        let states = fences.iter().map(|fence| {
            let shard = fence.shard();
            let progress = &self.progress[shard.index()];
            let hosts = self.table.read(shard);
            let evicted = hosts.iter();
            let evicted = evicted.flat_map(|(name, host)| host.evicted_hours(name));
            ShardState {
                shard,
                cursor: progress.applied,
                evicted: evicted.collect(),
                hosts: hosts
                    .iter()
                    .map(|(name, host)| host.snapshot(name))
                    .collect(),
                clock: self.clock,
                documents: progress.documents.all(),
            }
        });
        let states = states.collect();
        store.rebuild(&fences, states, fault, now)?;
        for fence in fences {
            let progress = &mut self.progress[fence.shard().index()];
            progress.changed_since = None;
            progress.documents.clear_changed();
            let mut hosts = self.table.write(fence.shard());
            for host in hosts.values_mut() {
                host.forget_changes(true);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
