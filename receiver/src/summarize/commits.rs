//! Commits: what of a shard has changed goes into the store, with the position that it is as of.

use lizmon_summary::Series;

use super::{ShardProgress, Summarizer};
use crate::store::{EvictedHour, Fence, Position, Shard, ShardChanges, Store, StoreError};

/// How much longer than its owner a process keeps what has ended of a shard: the owner adds it to
/// the history when it next sweeps the shard, which takes some minutes.
const LEFT_TO_OWNER_SECS: u64 = 1_800;

/// How many shards are committed at once where nobody need wait for each: one sync serves them all,
/// and requests wait for it.
pub(crate) const SHARDS_AT_ONCE_MAX: usize = 32;

/// How many series the shards have at most that are committed together in turn: writing them takes
/// less time than a sync.
const SERIES_TOGETHER_MAX: usize = 64;

impl Summarizer {
    /// Commits these shards now, as far as they have changed.
    pub(crate) fn commit_shards(
        &mut self,
        store: &mut dyn Store,
        shards: &[Shard],
    ) -> Result<(), StoreError> {
        let fences = shards.iter();
        let fences = fences.filter_map(|shard| self.progress[shard.index()].fence);
        self.commit_together(store, &fences.collect::<Vec<_>>(), None)
    }

    /// With one sync.
    fn commit_together(
        &mut self,
        store: &mut dyn Store,
        fences: &[Fence],
        expiry: Option<u64>,
    ) -> Result<(), StoreError> {
        let changes = |fence: &Fence| {
            let changes = self.changes_to_commit(*fence, expiry, false)?;
            Some((*fence, changes))
        };
        let changes: Vec<_> = fences.iter().filter_map(changes).collect();
        if changes.is_empty() {
            return Ok(());
        }
        store.commit_all(&changes)?;
        for (fence, changes) in &changes {
            self.settle(fence.shard(), changes, expiry);
        }
        Ok(())
    }

    /// Commits everything that has changed.
    pub fn commit_changed(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let shards: Vec<_> = { self.changed(u64::MAX).into_iter() }
            .map(Fence::shard)
            .collect();
        shards
            .chunks(SHARDS_AT_ONCE_MAX)
            .try_for_each(|shards| self.commit_shards(store, shards))
    }

    /// Commits the shard whose first change is oldest, if an append through `through` brought it, and
    /// those after it as long as all are small, `shards_max` at most: requests wait for a sync more
    /// than for some rows. Returns how many there were. What has ended by `expiry` is left out;
    /// without one nothing is, whatever the clock says.
    pub fn commit_oldest(
        &mut self,
        store: &mut dyn Store,
        through: u64,
        expiry: Option<u64>,
        shards_max: usize,
    ) -> Result<usize, StoreError> {
        let mut series = 0;
        let small = |fence: &Fence| {
            let is_first = series == 0;
            series += self.series_of(fence.shard()).max(1);
            is_first || series <= SERIES_TOGETHER_MAX
        };
        let oldest = self.changed(through).into_iter().take(shards_max);
        let oldest: Vec<_> = oldest.take_while(small).collect();
        self.commit_together(store, &oldest, expiry)?;
        Ok(oldest.len())
    }

    /// The shard whose turn it is to be swept.
    pub(super) fn next_sweep(&self) -> Shard {
        Shard::new(self.next_sweep as u16)
    }

    /// Commits the next shard in turn, changed or not, so that what has ended leaves memory and
    /// store by itself.
    pub fn sweep_next(&mut self, store: &mut dyn Store, now: u64) -> Result<(), StoreError> {
        let shard = self.next_sweep();
        let ShardProgress {
            fence, is_loaded, ..
        } = self.progress[shard.index()];
        self.next_sweep = (self.next_sweep + 1) % self.progress.len();
        if !is_loaded || self.table.read(shard).is_empty() {
            return Ok(());
        }
        match fence {
            Some(fence) => self.commit(store, fence, Some(now), false),
            // Its owner commits it; here it only leaves memory.
            None => {
                let committed = store.committed(shard)?;
                let before = now.saturating_sub(LEFT_TO_OWNER_SECS);
                self.forget(shard, &self.changes_of(shard, Some(before)), Some(now));
                self.forget_evicted(shard, committed);
                self.pack(shard);
                Ok(())
            }
        }
    }

    /// What its owner packs at each commit.
    fn pack(&self, shard: Shard) {
        let mut hosts = self.table.write(shard);
        let series = hosts.values_mut().flat_map(|host| host.series.values_mut());
        series.for_each(Series::pack);
    }

    /// What another process has added to the history is no longer needed here.
    fn forget_evicted(&self, shard: Shard, committed: Option<Position>) {
        let Some(committed) = committed else { return };
        let mut hosts = self.table.write(shard);
        for host in hosts.values_mut().filter(|host| !host.evicted.is_empty()) {
            host.evicted.retain(|(position, ..)| *position > committed);
        }
    }

    pub(super) fn commit(
        &mut self,
        store: &mut dyn Store,
        fence: Fence,
        expiry: Option<u64>,
        is_forced: bool,
    ) -> Result<(), StoreError> {
        if let Some(changes) = self.changes_to_commit(fence, expiry, is_forced) {
            store.commit(fence, &changes)?;
            self.settle(fence.shard(), &changes, expiry);
        }
        Ok(())
    }

    /// None if there is nothing to commit.
    fn changes_to_commit(
        &self,
        fence: Fence,
        expiry: Option<u64>,
        is_forced: bool,
    ) -> Option<ShardChanges> {
        let progress = &self.progress[fence.shard().index()];
        // A cursor without all that is behind it would lose the rest.
        if !progress.is_loaded {
            return None;
        }
        let changes = self.changes_of(fence.shard(), expiry);
        let ends = changes.ended_hosts.len() + changes.ended_series.len();
        let is_unchanged = progress.changed_since.is_none() && changes.hosts.is_empty();
        (!is_unchanged || ends > 0 || is_forced).then_some(changes)
    }

    /// These changes are committed.
    fn settle(&mut self, shard: Shard, changes: &ShardChanges, expiry: Option<u64>) {
        let progress = &mut self.progress[shard.index()];
        progress.changed_since = None;
        progress.documents.clear_changed();
        self.forget(shard, changes, expiry);
    }

    /// What is committed is no longer a change, and what has ended leaves memory.
    fn forget(&self, shard: Shard, changes: &ShardChanges, expiry: Option<u64>) {
        let is_owner = self.progress[shard.index()].fence.is_some();
        let mut hosts = self.table.write(shard);
        for changed in &changes.hosts {
            if let Some(host) = hosts.get_mut(&*changed.name) {
                host.forget_changes(is_owner);
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
    }

    /// What a commit of this shard has to write. Changes nothing: the commit may fail.
    fn changes_of(&self, shard: Shard, expiry: Option<u64>) -> ShardChanges {
        let hosts = self.table.read(shard);
        let progress = &self.progress[shard.index()];
        let mut changes = ShardChanges {
            cursor: progress.applied,
            clock: self.clock,
            documents: progress.documents.changed(),
            retention: self.retention,
            ..ShardChanges::default()
        };
        for (name, host) in hosts.iter() {
            changes.evicted.extend(host.evicted_hours(name));
            let cut = host.cut_from.map(|from| (name.to_string(), from));
            changes.cuts.extend(cut);
            if expiry.is_some_and(|now| host.is_expired(now)) {
                let left = host.series.iter();
                let left = left.flat_map(|(label, series)| hours_left(name, label, series));
                changes.evicted.extend(left);
                changes.ended_hosts.push(name.to_string());
                continue;
            }
            if host.is_changed || host.has_expired_producer(expiry) {
                changes.hosts.push(host.changes(name, expiry));
            }
            let ended = host
                .series
                .iter()
                .filter(|(_, series)| expiry.is_some_and(|now| series.is_over(now)));
            for (label, series) in ended {
                changes.evicted.extend(hours_left(name, label, series));
                changes.ended_series.push((name.to_string(), label.clone()));
            }
        }
        changes
    }
}

/// What is in the ring of a series that ends: from then on only the history has it.
fn hours_left(host: &str, label: &str, series: &Series) -> impl Iterator<Item = EvictedHour> {
    let (host, label) = (Box::<str>::from(host), Box::<str>::from(label));
    series.hours().map(move |bucket| EvictedHour {
        host: host.clone(),
        label: label.clone(),
        bucket,
    })
}
