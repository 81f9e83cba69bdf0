//! The numbers, and the one way they change: `journal -> apply -> commit(what changed, cursor)`.
//!
//! [`Summaries`] is divided into shards, each behind a lock that is held for one submission or one answer. The
//! [`Summarizer`] alone writes; it lives in the journal's thread. Readers read the same memory, so whoever is answered
//! after a submission was applied sees it.
//!
//! What apply does depends on the journal alone, never on a clock: replaying the journal after a shard's cursor onto
//! the shard's committed state gives the same numbers, to the bit. A number that a producer has used before changes
//! nothing, in a replay as the first time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lizmon_protocol::sample::{BatchAnswer, ProducerId};
use lizmon_summary::{AHEAD_SECS_MAX, Bucket, DeliverySet, DroppedSet, Series, TIERS};

use crate::clock::KeptClock;
use crate::store::record::{SubmissionView, read_group};
use crate::store::{
    HostState, KeptBucket, KeptProducer, Position, Removed, SHARDS, ShardChanges, State, Store,
    StoreError, shard_of,
};

/// How long a producer is remembered after it was last heard of: long enough to come back from an outage and find its
/// numbers as it left them.
const PRODUCER_KEPT_SECS: u64 = 7 * 86_400;
/// How many producers a host may have before those are forgotten whose records could not come again anyway.
const PRODUCERS_KEPT_LONG_MAX: usize = 16;

/// Everything known of one host.
#[derive(Debug, Default)]
pub struct Host {
    /// Its series, by label.
    pub series: BTreeMap<Box<str>, Series>,
    /// Who numbered its records.
    pub producers: HashMap<ProducerId, Producer>,
    /// The greatest epoch of its samples.
    pub last_epoch: u64,
    /// When something came from it last, by our own clock.
    pub last_received: u64,
    /// When the certificate it last reported with ends.
    pub certificate_end: u64,
    /// What was taken out because it lay ahead of a steady clock.
    pub removed: Removed,
    /// Whether that has happened since the last commit: then all of its intervals are written anew.
    pub(crate) is_cut: bool,
    /// How far its monitor said its own clock is ahead of what it stamps samples by, and when. Not kept: it says so again.
    pub clock: Option<(i64, u64)>,
}

/// What is known of one producer.
#[derive(Debug, Default)]
pub struct Producer {
    /// The numbers that have arrived.
    pub set: DeliverySet,
    /// The numbers that it gave up.
    pub dropped: DroppedSet,
    /// How many records came again.
    pub duplicate: u64,
    /// When it was last heard of: the greatest of its records' epochs and of the moments they were taken at.
    pub last_taken: u64,
}

/// One shard's hosts.
pub type Hosts = HashMap<Box<str>, Host>;

/// The numbers of all hosts, shared by one writer and any number of readers.
#[derive(Debug)]
pub struct Summaries {
    shards: Vec<RwLock<Hosts>>,
}

impl Summaries {
    fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }

    /// The shard that keeps this host, for reading.
    pub fn shard_with(&self, host: &str) -> RwLockReadGuard<'_, Hosts> {
        self.read(usize::from(shard_of(host)))
    }

    /// Every shard in turn, for reading.
    pub fn shards(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Hosts>> {
        (0..self.shards.len()).map(|at| self.read(at))
    }

    /// A monitor said how far its host's clock is ahead of what it stamps samples by.
    pub fn note_clock(&self, host: &str, ahead_secs: i64, now: u64) {
        let mut hosts = self.write(usize::from(shard_of(host)));
        if let Some(host) = hosts.get_mut(host) {
            host.clock = Some((ahead_secs, now));
        }
    }

    // A panic while a lock was held has been contained to its request; what it left are numbers, each whole in itself.
    fn read(&self, at: usize) -> RwLockReadGuard<'_, Hosts> {
        self.shards[at]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, at: usize) -> RwLockWriteGuard<'_, Hosts> {
        self.shards[at]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a shard has changed since it was last committed.
#[derive(Debug, Default)]
struct Unsaved {
    /// The position of the first change; none if there is no change.
    since: Option<Position>,
    hosts: HashSet<Box<str>>,
}

/// The one writer of [`Summaries`].
#[derive(Debug)]
pub struct Summarizer {
    summaries: Arc<Summaries>,
    unsaved: Vec<Unsaved>,
    /// The last position that was applied.
    position: Position,
    next_sweep: u16,
    /// What is known of the clock, to be kept with the next commit.
    clock: Option<KeptClock>,
}

impl Summarizer {
    /// The numbers as the store has them: its state, and the journal after it.
    pub fn open(store: &mut dyn Store, now: u64) -> Result<Self, StoreError> {
        let State {
            cursors,
            hosts,
            clock,
        } = store.load(now)?;
        let summaries = Arc::new(Summaries::new());
        for kept in hosts {
            let shard = usize::from(shard_of(&kept.name));
            let (name, host) = restore(kept);
            summaries.write(shard).insert(name, host);
        }
        let after = cursors.iter().copied().min().unwrap_or(0);
        let position = cursors.iter().copied().max().unwrap_or(0);
        let unsaved = (0..SHARDS).map(|_| Unsaved::default()).collect();
        let mut summarizer = Self {
            summaries,
            unsaved,
            position,
            next_sweep: 0,
            clock,
        };
        let mut damaged = 0_u64;
        store.read_after(after, &mut |position, group| match read_group(group) {
            Ok(submissions) => {
                for submission in submissions {
                    let cursor = cursors.get(usize::from(shard_of(submission.host)));
                    if cursor.is_none_or(|cursor| position > *cursor) {
                        summarizer.apply(position, &submission);
                    }
                }
                summarizer.position = summarizer.position.max(position);
            }
            Err(_) => damaged += 1,
        })?;
        if damaged > 0 {
            tracing::error!(
                groups = damaged,
                "damaged journal groups were left out: what was in them is lost"
            );
        }
        Ok(summarizer)
    }

    /// The numbers, for readers.
    pub fn summaries(&self) -> Arc<Summaries> {
        self.summaries.clone()
    }

    /// Counts a submission that stands in the journal at `position`.
    pub fn apply(&mut self, position: Position, submission: &SubmissionView<'_>) -> BatchAnswer {
        let shard = usize::from(shard_of(submission.host));
        let mut hosts = self.summaries.write(shard);
        let says_something = !submission.is_empty() || submission.dropped().next().is_some();
        if says_something && !hosts.contains_key(submission.host) {
            hosts.insert(submission.host.into(), Host::default());
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
        self.position = self.position.max(position);
        self.mark(shard, position, submission.host);
        answer
    }

    /// Notes that records came again which stand in the journal already.
    pub fn note_duplicates(&mut self, submission: &SubmissionView<'_>) {
        if submission.is_empty() {
            return;
        }
        let shard = usize::from(shard_of(submission.host));
        let mut hosts = self.summaries.write(shard);
        let producer = submission
            .producer
            .and_then(|producer| hosts.get_mut(submission.host)?.producers.get_mut(&producer));
        if let Some(producer) = producer {
            producer.duplicate += submission.len() as u64;
        }
        drop(hosts);
        self.mark(shard, self.position + 1, submission.host);
    }

    fn mark(&mut self, shard: usize, position: Position, host: &str) {
        let unsaved = &mut self.unsaved[shard];
        unsaved.since.get_or_insert(position);
        if !unsaved.hosts.contains(host) {
            unsaved.hosts.insert(host.into());
        }
    }

    /// Commits the shard whose first change is oldest, if it is older than `before`. Says whether there was one. What has
    /// ended by `expiry` is left out; without one nothing is, whatever the clock says.
    pub fn commit_oldest(
        &mut self,
        store: &mut dyn Store,
        before: Position,
        expiry: Option<u64>,
    ) -> Result<bool, StoreError> {
        let oldest = (0..self.unsaved.len())
            .filter_map(|shard| Some((self.unsaved[shard].since?, shard)))
            .min()
            .filter(|(since, _)| *since < before);
        match oldest {
            Some((_, shard)) => self.commit(store, shard, expiry, false).map(|()| true),
            None => Ok(false),
        }
    }

    /// Commits the next shard in turn, changed or not, so that what has ended leaves memory and store by itself.
    pub fn sweep_next(&mut self, store: &mut dyn Store, now: u64) -> Result<(), StoreError> {
        let shard = usize::from(self.next_sweep);
        self.next_sweep = (self.next_sweep + 1) % SHARDS;
        if self.summaries.read(shard).is_empty() {
            return Ok(());
        }
        self.commit(store, shard, Some(now), false)
    }

    /// What was known of the clock when that was last kept.
    pub fn kept_clock(&self) -> Option<KeptClock> {
        self.clock
    }

    /// Keeps this of the clock with the next commit.
    pub fn note_clock(&mut self, clock: KeptClock) {
        self.clock = Some(clock);
    }

    /// Keeps now what is known of the clock: nobody may have sent anything for long.
    pub fn keep_clock(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        self.commit(store, 0, None, true)
    }

    /// How many groups of the journal are not in what was committed.
    pub fn uncommitted(&self) -> u64 {
        let oldest = self
            .unsaved
            .iter()
            .filter_map(|unsaved| unsaved.since)
            .min();
        oldest.map_or(0, |oldest| (self.position + 1).saturating_sub(oldest))
    }

    /// Writes everything there is into a new store, in the place of one that is damaged for `fault`.
    pub fn rewrite(
        &mut self,
        store: &mut dyn Store,
        fault: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        let hosts = self.summaries.shards().flat_map(|shard| {
            let hosts = shard.iter().map(|(name, host)| host.whole(name));
            hosts.collect::<Vec<_>>()
        });
        let state = State {
            cursors: vec![self.position; usize::from(SHARDS)],
            hosts: hosts.collect(),
            clock: self.clock,
        };
        store.replace(&state, fault, now)?;
        for (shard, unsaved) in self.unsaved.iter_mut().enumerate() {
            *unsaved = Unsaved::default();
            let mut hosts = self.summaries.write(shard);
            for series in hosts.values_mut().flat_map(|host| host.series.values_mut()) {
                series.clear_dirty();
            }
        }
        Ok(())
    }

    /// The position the next group will come after.
    pub fn position(&self) -> Position {
        self.position
    }

    fn commit(
        &mut self,
        store: &mut dyn Store,
        shard: usize,
        expiry: Option<u64>,
        is_forced: bool,
    ) -> Result<(), StoreError> {
        let changes = self.changes_of(shard, expiry);
        let ends = changes.ended_hosts.len() + changes.ended_series.len();
        let is_unchanged = self.unsaved[shard].since.is_none() && changes.hosts.is_empty();
        if is_unchanged && ends == 0 && !is_forced {
            return Ok(());
        }
        store.commit(&changes)?;
        let mut hosts = self.summaries.write(shard);
        for changed in &changes.hosts {
            if let Some(host) = hosts.get_mut(&*changed.name) {
                host.is_cut = false;
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
            host.forget_producers(expiry);
        }
        drop(hosts);
        self.unsaved[shard] = Unsaved::default();
        Ok(())
    }

    /// What a commit of this shard has to write. Changes nothing: the commit may fail.
    fn changes_of(&self, shard: usize, expiry: Option<u64>) -> ShardChanges {
        let hosts = self.summaries.read(shard);
        let others = self
            .unsaved
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != shard);
        let needed = others.filter_map(|(_, unsaved)| unsaved.since).min();
        let mut changes = ShardChanges {
            shard: shard as u16,
            cursor: self.position,
            drop_through: needed
                .map_or(self.position, |position| (position - 1).min(self.position)),
            clock: self.clock,
            ..ShardChanges::default()
        };
        for (name, host) in hosts.iter() {
            if expiry.is_some_and(|now| host.is_over(now)) {
                changes.ended_hosts.push(name.to_string());
                continue;
            }
            if self.unsaved[shard].hosts.contains(name) || host.forgets_a_producer(expiry) {
                changes.hosts.push(host.changed(name, expiry));
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

impl Host {
    fn apply(&mut self, submission: &SubmissionView<'_>) -> BatchAnswer {
        let mut answer = BatchAnswer {
            accepted: 0,
            duplicate: 0,
        };
        if submission.cuts_ahead {
            self.cut_ahead_of(submission.taken_at);
        }
        for record in submission.records() {
            if let (Some(id), Some(seq)) = (submission.producer, record.seq) {
                let producer = self.producers.entry(id).or_default();
                if !producer.set.insert(seq.get()) {
                    producer.duplicate += 1;
                    answer.duplicate += 1;
                    continue;
                }
                producer.last_taken = producer
                    .last_taken
                    .max(record.epoch)
                    .max(submission.taken_at);
            }
            self.last_epoch = self.last_epoch.max(record.epoch);
            for (label, value) in record.values() {
                match self.series.get_mut(label) {
                    Some(series) => series.apply(record.epoch, value),
                    None => self
                        .series
                        .entry(label.into())
                        .or_default()
                        .apply(record.epoch, value),
                }
            }
            answer.accepted += 1;
        }
        for (from, to, why) in submission.dropped() {
            let Some(id) = submission.producer else { break };
            let producer = self.producers.entry(id).or_default();
            producer.last_taken = producer.last_taken.max(submission.taken_at);
            producer.dropped.insert(from, to, why);
        }
        answer
    }

    /// Takes out whatever no clock that says this can have let in.
    fn cut_ahead_of(&mut self, taken_at: u64) {
        let from = taken_at.saturating_add(AHEAD_SECS_MAX);
        let mut samples = 0;
        let mut newest = 0;
        for series in self.series.values_mut() {
            samples += series.cut(from);
            series.mark_all();
            newest = newest.max(series.newest_end());
        }
        self.last_epoch = self.last_epoch.min(newest).min(from);
        for producer in self.producers.values_mut() {
            producer.last_taken = producer.last_taken.min(from);
        }
        if samples > 0 {
            self.removed.samples += samples;
            self.removed.at = taken_at;
            self.is_cut = true;
        }
    }

    /// Nothing left in any window, and nobody who could still send a record twice.
    fn is_over(&self, now: u64) -> bool {
        self.series.values().all(|series| series.is_empty_at(now))
            && self
                .producers
                .values()
                .all(|producer| producer.is_over(now))
            && is_past_every_window(self.last_epoch, now)
    }

    /// The producers to keep: all that were heard of in the last days; where they are many, only those whose records
    /// could still come again.
    fn keeps(&self, producer: &Producer, expiry: Option<u64>) -> bool {
        let Some(now) = expiry else { return true };
        let are_many = self.producers.len() > PRODUCERS_KEPT_LONG_MAX;
        let makes_room = are_many && producer.may_be_forgotten(now);
        !makes_room && !producer.is_over(now)
    }

    fn forgets_a_producer(&self, expiry: Option<u64>) -> bool {
        self.producers
            .values()
            .any(|producer| !self.keeps(producer, expiry))
    }

    fn forget_producers(&mut self, expiry: Option<u64>) {
        let forgotten = self
            .producers
            .iter()
            .filter(|(_, producer)| !self.keeps(producer, expiry));
        for id in forgotten.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.producers.remove(&id);
        }
    }

    /// What has changed, and all of its producers.
    fn changed(&self, name: &str, expiry: Option<u64>) -> HostState {
        self.kept(name, expiry, |series| series.dirty().collect())
    }

    /// All of it.
    fn whole(&self, name: &str) -> HostState {
        HostState {
            is_whole: false,
            ..self.kept(name, None, |series| series.kept().collect())
        }
    }

    fn kept(
        &self,
        name: &str,
        expiry: Option<u64>,
        intervals: impl Fn(&Series) -> Vec<(usize, usize, Bucket)>,
    ) -> HostState {
        let buckets = self.series.iter().flat_map(|(label, series)| {
            let kept = |(tier, slot, bucket)| KeptBucket {
                label: label.clone(),
                tier,
                slot,
                bucket,
            };
            intervals(series).into_iter().map(kept)
        });
        let producers = self
            .producers
            .iter()
            .filter(|(_, producer)| self.keeps(producer, expiry));
        HostState {
            name: name.to_owned(),
            last_epoch: self.last_epoch,
            certificate_end: self.certificate_end,
            removed: self.removed,
            buckets: buckets.collect(),
            is_whole: self.is_cut,
            producers: producers.map(|(id, producer)| producer.kept(*id)).collect(),
        }
    }
}

impl Producer {
    fn kept(&self, producer: ProducerId) -> KeptProducer {
        KeptProducer {
            producer,
            ranges: self.set.ranges().to_vec(),
            dropped: self
                .dropped
                .iter()
                .map(|(from, to, why)| (from, to, why.into()))
                .collect(),
            duplicate: self.duplicate,
            last_taken: self.last_taken,
        }
    }

    /// Long enough ago that nobody will ask what it delivered.
    fn is_over(&self, now: u64) -> bool {
        self.last_taken.saturating_add(PRODUCER_KEPT_SECS) < now
    }

    /// None of its records could be accepted any more, so none could count twice once it is forgotten.
    fn may_be_forgotten(&self, now: u64) -> bool {
        is_past_every_window(self.last_taken, now)
    }
}

/// An epoch so old that no window holds it and no sample of it is accepted.
fn is_past_every_window(epoch: u64, now: u64) -> bool {
    TIERS.iter().all(|tier| epoch <= tier.window_start(now))
}

fn restore(kept: HostState) -> (Box<str>, Host) {
    let mut host = Host {
        last_epoch: kept.last_epoch,
        certificate_end: kept.certificate_end,
        removed: kept.removed,
        ..Host::default()
    };
    for KeptBucket {
        label,
        tier,
        bucket,
        ..
    } in kept.buckets
    {
        if host
            .series
            .entry(label)
            .or_default()
            .restore(tier, bucket)
            .is_err()
        {
            tracing::error!(
                host = kept.name,
                "an interval in the store is impossible and left out"
            );
        }
    }
    for kept_producer in kept.producers {
        let KeptProducer {
            producer,
            ranges,
            dropped,
            duplicate,
            last_taken,
        } = kept_producer;
        let Ok(set) = DeliverySet::from_ranges(ranges) else {
            tracing::error!(host = kept.name, %producer, "a delivery set in the store is impossible and left out");
            continue;
        };
        let mut given_up = DroppedSet::new();
        for (from, to, why) in dropped {
            given_up.insert(from, to, &why);
        }
        let kept = Producer {
            set,
            dropped: given_up,
            duplicate,
            last_taken,
        };
        host.producers.insert(producer, kept);
    }
    // What nobody numbered is remembered by its epoch alone.
    let taken = host.producers.values().map(|producer| producer.last_taken);
    host.last_received = taken.max().unwrap_or(host.last_epoch);
    (kept.name.into(), host)
}

#[cfg(test)]
mod tests;
