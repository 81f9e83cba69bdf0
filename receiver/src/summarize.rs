//! The numbers, and the one way they change: `journal -> apply -> commit(what changed, cursor)`.
//!
//! [`SummaryTable`] is divided into the store's shards, each behind a lock that is held for one
//! submission or one answer. The [`Summarizer`] alone writes; it lives in the journal's thread.
//! Readers read the same memory, so a client that is answered after a submission was applied sees
//! it.
//!
//! What apply does depends on the journal alone, never on a clock: replaying the journal after a
//! shard's cursor onto the shard's committed state gives the same numbers, to the bit. A number
//! that a producer has used before changes nothing, in a replay as the first time.

mod host;
mod table;

use std::collections::HashSet;
use std::sync::Arc;

use lizmon_protocol::sample::BatchAnswer;
use lizmon_summary::Series;

pub use self::host::{HostSummaries, ProducerState};
pub use self::table::{HostMap, SummaryTable};
use crate::clock::StoredClock;
use crate::store::record::{SubmissionView, read_group};
use crate::store::{
    ErrorKind, Fence, Position, Shard, ShardChanges, ShardState, Store, StoreError,
};

/// A shard's part of the writer's work.
#[derive(Debug)]
struct ShardProgress {
    /// The right to commit it.
    fence: Fence,
    /// The last position that was applied.
    applied: Position,
    /// The append that brought the first change since the last commit; none if there is no change.
    changed_since: Option<u64>,
    /// The hosts that have changed.
    changed_hosts: HashSet<Box<str>>,
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
}

impl Summarizer {
    /// The numbers as the store has them: its state, and the journal after it.
    pub fn open(store: &mut dyn Store, now: u64) -> Result<Self, StoreError> {
        let count = store.shard_count();
        let shards: Vec<Shard> = count.all().collect();
        let fences = store.acquire(&shards)?;
        if fences.len() < shards.len() {
            let owned = ShardsOwned(shards.len() - fences.len());
            return Err(StoreError::new(ErrorKind::InUse, owned));
        }
        let states = store.load(&fences, now)?;
        let clock = states.iter().find_map(|state| state.clock);
        let cursors: Vec<_> = states
            .iter()
            .map(|state| (state.shard, state.cursor))
            .collect();
        let table = Arc::new(SummaryTable::new(count));
        let progress = fences
            .into_iter()
            .zip(&cursors)
            .map(|(fence, (_, cursor))| ShardProgress {
                fence,
                applied: *cursor,
                changed_since: None,
                changed_hosts: HashSet::new(),
            });
        let mut summarizer = Self {
            progress: progress.collect(),
            table,
            appends: 0,
            next_sweep: 0,
            clock,
        };
        for state in states {
            let mut hosts = summarizer.table.write(state.shard);
            hosts.extend(state.hosts.into_iter().map(host::restore));
        }
        summarizer.replay(store, &cursors)?;
        Ok(summarizer)
    }

    fn replay(
        &mut self,
        store: &mut dyn Store,
        cursors: &[(Shard, Position)],
    ) -> Result<(), StoreError> {
        let mut damaged = 0_u64;
        store.read_after(cursors, &mut |_, position, group| match read_group(group) {
            Ok(submissions) => {
                self.begin_group();
                for submission in submissions {
                    self.apply(position, &submission);
                }
            }
            Err(_) => damaged += 1,
        })?;
        if damaged > 0 {
            tracing::error!(
                groups = damaged,
                "skipped damaged journal groups: the samples in them are lost"
            );
        }
        Ok(())
    }

    /// The numbers, for readers.
    pub fn table(&self) -> Arc<SummaryTable> {
        self.table.clone()
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
        let has_effect = !submission.is_empty() || submission.dropped().next().is_some();
        if has_effect && !hosts.contains_key(submission.host) {
            hosts.insert(submission.host.into(), HostSummaries::default());
        }
        let mut answer = BatchAnswer {
            accepted: 0,
            duplicate: 0,
        };
        if let Some(host) = hosts.get_mut(submission.host) {
            host.certificate_end = submission.certificate_end;
            host.last_received = host.last_received.max(submission.taken_at);
            answer = host.apply(submission);
        }
        drop(hosts);
        let applied = &mut self.progress[shard.index()].applied;
        *applied = position.max(*applied);
        self.mark_changed(shard, self.appends, submission.host);
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
        drop(hosts);
        self.mark_changed(shard, self.appends + 1, submission.host);
    }

    fn mark_changed(&mut self, shard: Shard, append: u64, host: &str) {
        let progress = &mut self.progress[shard.index()];
        progress.changed_since.get_or_insert(append);
        if !progress.changed_hosts.contains(host) {
            progress.changed_hosts.insert(host.into());
        }
    }

    /// Commits the shard whose first change is oldest, if an append through `through` brought it.
    /// Says whether there was one. What has ended by `expiry` is left out; without one nothing is,
    /// whatever the clock says.
    pub fn commit_oldest(
        &mut self,
        store: &mut dyn Store,
        through: u64,
        expiry: Option<u64>,
    ) -> Result<bool, StoreError> {
        let changed = self.progress.iter().filter_map(|progress| {
            let since = progress.changed_since?;
            (since <= through).then(|| (since, progress.fence.shard()))
        });
        match changed.min() {
            Some((_, shard)) => self.commit(store, shard, expiry, false).map(|()| true),
            None => Ok(false),
        }
    }

    /// Commits the next shard in turn, changed or not, so that what has ended leaves memory and
    /// store by itself.
    pub fn sweep_next(&mut self, store: &mut dyn Store, now: u64) -> Result<(), StoreError> {
        let shard = self.progress[self.next_sweep].fence.shard();
        self.next_sweep = (self.next_sweep + 1) % self.progress.len();
        if self.table.read(shard).is_empty() {
            return Ok(());
        }
        self.commit(store, shard, Some(now), false)
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
        self.commit(store, self.progress[0].fence.shard(), None, true)
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
        let states = self.progress.iter().map(|progress| {
            let shard = progress.fence.shard();
            let hosts = self.table.read(shard);
            let hosts = hosts.iter().map(|(name, host)| host.snapshot(name));
            ShardState {
                shard,
                cursor: progress.applied,
                hosts: hosts.collect(),
                clock: self.clock,
            }
        });
        let states = states.collect();
        let fences: Vec<_> = self
            .progress
            .iter()
            .map(|progress| progress.fence)
            .collect();
        store.rebuild(&fences, states, fault, now)?;
        for progress in &mut self.progress {
            progress.changed_since = None;
            progress.changed_hosts = HashSet::new();
            let mut hosts = self.table.write(progress.fence.shard());
            for series in hosts.values_mut().flat_map(|host| host.series.values_mut()) {
                series.clear_dirty();
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        store: &mut dyn Store,
        shard: Shard,
        expiry: Option<u64>,
        is_forced: bool,
    ) -> Result<(), StoreError> {
        let changes = self.changes_of(shard, expiry);
        let progress = &mut self.progress[shard.index()];
        let ends = changes.ended_hosts.len() + changes.ended_series.len();
        let is_unchanged = progress.changed_since.is_none() && changes.hosts.is_empty();
        if is_unchanged && ends == 0 && !is_forced {
            return Ok(());
        }
        store.commit(progress.fence, &changes)?;
        progress.changed_since = None;
        progress.changed_hosts = HashSet::new();
        let mut hosts = self.table.write(shard);
        for changed in &changes.hosts {
            if let Some(host) = hosts.get_mut(&*changed.name) {
                host.is_truncated = false;
                host.series.values_mut().for_each(Series::clear_dirty);
            }
        }
        for (host, label) in &changes.ended_series {
            if let Some(host) = hosts.get_mut(&**host) {
                host.series.remove(label);
            }
        }
        for host in &changes.ended_hosts {
            hosts.remove(&**host);
        }
        for host in hosts.values_mut() {
            host.drop_expired_producers(expiry);
        }
        Ok(())
    }

    /// What a commit of this shard has to write. Changes nothing: the commit may fail.
    fn changes_of(&self, shard: Shard, expiry: Option<u64>) -> ShardChanges {
        let hosts = self.table.read(shard);
        let progress = &self.progress[shard.index()];
        let mut changes = ShardChanges {
            cursor: progress.applied,
            clock: self.clock,
            ..ShardChanges::default()
        };
        for (name, host) in hosts.iter() {
            if expiry.is_some_and(|now| host.is_expired(now)) {
                changes.ended_hosts.push(name.to_string());
                continue;
            }
            if progress.changed_hosts.contains(name) || host.has_expired_producer(expiry) {
                changes.hosts.push(host.changes(name, expiry));
            }
            let ended = host
                .series
                .iter()
                .filter(|(_, series)| expiry.is_some_and(|now| series.is_empty_at(now)));
            changes
                .ended_series
                .extend(ended.map(|(label, _)| (name.to_string(), label.clone())));
        }
        changes
    }
}

#[cfg(test)]
mod tests;
