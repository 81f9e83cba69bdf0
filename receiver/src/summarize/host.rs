//! One host: its series and producers, and how a submission changes them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lizmon_protocol::name::Tag;
use lizmon_protocol::sample::{BatchAnswer, ProducerId};
use lizmon_summary::{
    AHEAD_SECS_MAX, Bucket, DeliverySet, DroppedSet, EpochIntervals, PointKind, PointOutcome,
    Series, TIERS,
};

use super::documents::Documents;
use super::metric_kinds::MetricKinds;
use super::reporters::Reporters;
use crate::store::record::{RecordView, SubmissionView};
use crate::store::{
    DocumentKind, EvictedHour, Position, RemovedSamples, SeriesSink, StoredDocument, StoredHost,
    StoredProducer, StoredSeries,
};

/// How long a producer's sequence numbers are kept after something last came from it: longer than
/// most outages.
const PRODUCER_KEPT_SECS: u64 = 7 * 86_400;
/// A host with more producers than this keeps only those whose records could be sent again.
pub(super) const PRODUCERS_KEPT_LONG_MAX: usize = 16;

/// Everything known of one host.
#[derive(Debug, Default)]
pub struct HostSummaries {
    /// Its series, by label.
    pub series: BTreeMap<Box<str>, Series>,
    /// The producers that numbered its records.
    pub producers: HashMap<ProducerId, ProducerState>,
    /// The greatest epoch of its samples.
    pub last_epoch: u64,
    /// When something came from it last, by our own clock.
    pub last_received: u64,
    /// When the certificate it last reported with ends.
    pub certificate_end: u64,
    /// What was removed because it was ahead of a steady clock.
    pub removed: RemovedSamples,
    /// Whether anything has changed since the last commit.
    pub(crate) is_changed: bool,
    /// Whether samples were removed since the last commit: then all of its buckets are written again.
    pub(crate) is_truncated: bool,
    /// By how much its clock is ahead of the time its monitor stamps samples with, as the monitor
    /// said, and when. Not stored: the monitor repeats it.
    pub clock: Option<(i64, u64)>,
    /// What is kept beside its summaries.
    pub documents: Documents,
    /// Hours that left their rings since the last commit, and the position in the journal at which
    /// each did: they are in no ring, and may not be in the history yet.
    pub(crate) evicted: Vec<(Position, Box<str>, Bucket)>,
    /// The earliest time from which samples were removed since the last commit.
    pub(crate) cut_from: Option<u64>,
}

/// What is known of one producer.
#[derive(Debug, Default)]
pub struct ProducerState {
    /// The sequence numbers that have arrived.
    pub set: DeliverySet,
    /// The sequence numbers that it dropped.
    pub dropped: DroppedSet,
    /// How many records were duplicates.
    pub duplicate: u64,
    /// How many records arrived as a repair.
    pub repaired: u64,
    /// When something last came from it: the greatest of its records' epochs and of the times they
    /// were received.
    pub last_taken: u64,
}

impl HostSummaries {
    /// Its tags, as its certificate says them.
    pub fn tags(&self) -> &BTreeSet<Tag> {
        self.documents.tags()
    }

    /// Who reports it; nobody where no gateway ever did.
    pub fn reporters(&self) -> Reporters {
        let body = self.documents.get(DocumentKind::Reporters);
        body.map(Reporters::read).unwrap_or_default()
    }

    /// Which of its metrics are counters, where metadata says otherwise than names.
    pub fn metric_kinds(&self) -> &Arc<MetricKinds> {
        self.documents.metric_kinds()
    }

    /// Counts a submission, and keeps the document that came with it.
    pub(super) fn take(
        &mut self,
        position: Position,
        submission: &SubmissionView<'_>,
        document: Option<StoredDocument>,
    ) -> BatchAnswer {
        self.is_changed = true;
        // An operator's document says nothing of the host's certificate or presence.
        let is_from_host = |sent: &StoredDocument| sent.kind.is_from_host();
        if document.as_ref().is_none_or(is_from_host) {
            self.certificate_end = submission.certificate_end;
            self.last_received = self.last_received.max(submission.taken_at);
        }
        let answer = self.apply(position, submission);
        if let Some(StoredDocument { kind, body }) = document {
            self.documents.set(kind, &body);
        }
        answer
    }

    /// Replaces a document; whether it was another one.
    pub(super) fn set_document(&mut self, kind: DocumentKind, body: &[u8]) -> bool {
        let is_other = self.documents.set(kind, body);
        self.is_changed |= is_other;
        is_other
    }

    fn apply(&mut self, position: Position, submission: &SubmissionView<'_>) -> BatchAnswer {
        let mut answer = BatchAnswer::default();
        if submission.removes_ahead {
            self.remove_ahead_of(submission.taken_at);
        }
        let Self {
            series: all,
            evicted,
            producers,
            last_epoch,
            ..
        } = self;
        if submission.has_points {
            apply_points(
                all,
                submission,
                last_epoch,
                &mut answer,
                &mut |label, hour| {
                    evicted.push((position, label.into(), hour));
                },
            );
            return answer;
        }
        let numbered = submission.producer.filter(|_| !submission.is_empty());
        let mut producer = numbered.map(|id| producers.entry(id).or_default());
        let fresh = submission.records().filter(|record| {
            if let (Some(producer), Some(seq)) = (&mut producer, record.seq) {
                if !producer.set.insert(seq.get()) {
                    producer.duplicate += 1;
                    answer.duplicate += 1;
                    return false;
                }
                producer.repaired += u64::from(submission.is_repair);
                producer.last_taken = producer
                    .last_taken
                    .max(record.epoch)
                    .max(submission.taken_at);
            }
            *last_epoch = record.epoch.max(*last_epoch);
            answer.accepted += 1;
            true
        });
        let mut evicted = |label: &str, hour| evicted.push((position, label.into(), hour));
        match submission.outline().has_same_labels() {
            true => add_same_labels(all, fresh, &mut evicted),
            false => add(all, fresh, &mut evicted),
        }
        for (from, to, why) in submission.dropped() {
            let Some(id) = submission.producer else { break };
            let producer = self.producers.entry(id).or_default();
            producer.last_taken = producer.last_taken.max(submission.taken_at);
            producer.dropped.insert(from, to, why);
        }
        answer
    }

    /// Removes samples that were not acceptable by a clock that says this.
    fn remove_ahead_of(&mut self, taken_at: u64) {
        let from = taken_at.saturating_add(AHEAD_SECS_MAX);
        let mut samples = 0;
        let mut newest = 0;
        for series in self.series.values_mut() {
            let had_point = series.last_point().is_some();
            samples += series.cut(from);
            // One without an interval is in the store all the same.
            self.is_truncated |= had_point && series.last_point().is_none();
            series.mark_all();
            newest = newest.max(series.newest_end());
        }
        self.evicted.retain(|(_, _, hour)| hour.start < from);
        self.last_epoch = self.last_epoch.min(newest).min(from);
        for producer in self.producers.values_mut() {
            producer.last_taken = producer.last_taken.min(from);
        }
        if samples > 0 {
            self.removed.samples += samples;
            self.removed.at = taken_at;
            self.is_truncated = true;
            self.cut_from = Some(self.cut_from.map_or(from, |earlier| earlier.min(from)));
        }
    }

    /// The hours of a series that are not in the history, or may not be yet, oldest first.
    pub fn hours(&self, label: &str) -> Vec<Bucket> {
        let evicted = self.evicted.iter();
        let evicted = evicted.filter(|(_, of, _)| **of == *label);
        let in_ring = self.series.get(label).into_iter().flat_map(Series::hours);
        evicted.map(|(_, _, hour)| *hour).chain(in_ring).collect()
    }

    /// What has changed is committed; if this `is_owner`, the history has what was evicted.
    pub(super) fn forget_changes(&mut self, is_owner: bool) {
        self.is_changed = false;
        self.is_truncated = false;
        if is_owner {
            self.cut_from = None;
            self.evicted = Vec::new();
        }
        self.documents.clear_changed();
        self.series.values_mut().for_each(Series::clear_dirty);
    }

    /// The hours that left their rings since the last commit.
    pub(super) fn evicted_hours(&self, name: &str) -> impl Iterator<Item = EvictedHour> {
        self.evicted
            .iter()
            .map(move |(_, label, hour)| EvictedHour {
                host: name.into(),
                label: label.clone(),
                bucket: *hour,
            })
    }

    /// Nothing is kept of it any more, once the end of its alarms was told: until then that is stored
    /// with it.
    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.is_over(now) && self.documents.get(DocumentKind::Alarms).is_none()
    }

    /// Nothing is left in any window, and no producer could send a record again.
    pub fn is_over(&self, now: u64) -> bool {
        self.series.values().all(|series| series.is_over(now))
            && self
                .producers
                .values()
                .all(|producer| producer.is_expired(now))
            && is_past_every_window(self.last_epoch, now)
    }

    /// Whether to keep a producer: if something came from it in the last days; where producers are
    /// many, only if its records could still be sent again.
    fn keeps(&self, producer: &ProducerState, expiry: Option<u64>) -> bool {
        let Some(now) = expiry else { return true };
        let are_many = self.producers.len() > PRODUCERS_KEPT_LONG_MAX;
        let is_surplus = are_many && producer.may_be_dropped(now);
        !is_surplus && !producer.is_expired(now)
    }

    pub(super) fn has_expired_producer(&self, expiry: Option<u64>) -> bool {
        self.producers
            .values()
            .any(|producer| !self.keeps(producer, expiry))
    }

    pub(super) fn drop_expired_producers(&mut self, expiry: Option<u64>) {
        let expired = self
            .producers
            .iter()
            .filter(|(_, producer)| !self.keeps(producer, expiry));
        for id in expired.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.producers.remove(&id);
        }
    }

    /// What has changed, and all of its producers.
    pub(super) fn changes(&self, name: &str, expiry: Option<u64>) -> StoredHost {
        self.stored(name, expiry, Series::is_dirty)
    }

    /// All of it.
    pub(super) fn snapshot(&self, name: &str) -> StoredHost {
        StoredHost {
            is_whole: false,
            documents: self.documents.all(),
            ..self.stored(name, None, |series| !series.has_nothing())
        }
    }

    fn stored(
        &self,
        name: &str,
        expiry: Option<u64>,
        is_wanted: impl Fn(&Series) -> bool,
    ) -> StoredHost {
        let series = self.series.iter().filter(|(_, series)| is_wanted(series));
        let series = series.map(|(label, series)| StoredSeries {
            label: label.clone(),
            series: series.clone(),
        });
        let producers = self
            .producers
            .iter()
            .filter(|(_, producer)| self.keeps(producer, expiry));
        StoredHost {
            name: name.to_owned(),
            last_epoch: self.last_epoch,
            certificate_end: self.certificate_end,
            removed: self.removed,
            series: series.collect(),
            is_whole: self.is_truncated,
            producers: producers
                .map(|(id, producer)| producer.stored(*id))
                .collect(),
            documents: self.documents.changed(),
        }
    }
}

/// Adds points, but for those that came before: each is counted as a record of its own.
fn apply_points(
    all: &mut BTreeMap<Box<str>, Series>,
    submission: &SubmissionView<'_>,
    last_epoch: &mut u64,
    answer: &mut BatchAnswer,
    evicted: &mut impl FnMut(&str, Bucket),
) {
    for record in submission.records() {
        let Some(number) = record.point_number() else {
            continue;
        };
        *last_epoch = record.epoch.max(*last_epoch);
        for (label, value) in record.values() {
            let mut evicted = |hour| evicted(label, hour);
            let series = match all.get_mut(label) {
                Some(series) => series,
                None => all.entry(label.into()).or_default(),
            };
            match series.apply_point(number.point(value), &mut evicted) {
                // It belongs to a point, which is counted.
                _ if number.kind == PointKind::Start => (),
                PointOutcome::Duplicate => answer.duplicate += 1,
                PointOutcome::Counted | PointOutcome::Began | PointOutcome::Ended => {
                    answer.accepted += 1;
                }
            }
        }
    }
}

/// Adds the values of records.
fn add<'a>(
    all: &mut BTreeMap<Box<str>, Series>,
    records: impl Iterator<Item = RecordView<'a>>,
    evicted: &mut impl FnMut(&str, Bucket),
) {
    for record in records {
        let intervals = EpochIntervals::of(record.epoch);
        for (label, value) in record.values() {
            let mut evicted = |hour| evicted(label, hour);
            match all.get_mut(label) {
                Some(series) => series.apply_in(&intervals, value, &mut evicted),
                None => {
                    let series = all.entry(label.into()).or_default();
                    series.apply_in(&intervals, value, &mut evicted);
                }
            }
        }
    }
}

/// The same of records that have the labels of the first: the series of each is found once.
fn add_same_labels<'a>(
    all: &mut BTreeMap<Box<str>, Series>,
    mut records: impl Iterator<Item = RecordView<'a>>,
    evicted: &mut impl FnMut(&str, Bucket),
) {
    let Some(first) = records.next() else { return };
    add(all, std::iter::once(first), evicted);
    let mut records = records.peekable();
    if records.peek().is_none() {
        return;
    }
    let places = first.values().enumerate();
    let places: HashMap<_, _> = places.map(|(at, (label, _))| (label, at)).collect();
    if places.len() < first.len() {
        // No receiver takes a record that has a label twice.
        return add(all, records, evicted);
    }
    let found = all.iter_mut();
    let found = found.filter_map(|(label, series)| Some((*places.get(&**label)?, label, series)));
    let mut series: Vec<_> = found.collect();
    series.sort_unstable_by_key(|(at, ..)| *at);
    for record in records {
        let intervals = EpochIntervals::of(record.epoch);
        for ((_, label, series), value) in series.iter_mut().zip(record.numbers()) {
            series.apply_in(&intervals, value, &mut |hour| evicted(label, hour));
        }
    }
}

impl ProducerState {
    fn stored(&self, producer: ProducerId) -> StoredProducer {
        StoredProducer {
            producer,
            ranges: self.set.ranges().to_vec(),
            dropped: self
                .dropped
                .iter()
                .map(|(from, to, why)| (from, to, why.into()))
                .collect(),
            duplicate: self.duplicate,
            repaired: self.repaired,
            last_taken: self.last_taken,
        }
    }

    /// Nothing has come from it for so long that its numbers are removed.
    fn is_expired(&self, now: u64) -> bool {
        self.last_taken.saturating_add(PRODUCER_KEPT_SECS) < now
    }

    /// None of its records could be accepted any more, so none could count twice after it is
    /// dropped.
    fn may_be_dropped(&self, now: u64) -> bool {
        is_past_every_window(self.last_taken, now)
    }
}

/// An epoch so old that no window holds it and no sample of it is accepted.
fn is_past_every_window(epoch: u64, now: u64) -> bool {
    TIERS.iter().all(|tier| epoch <= tier.window_start(now))
}

/// The series of hosts that are being loaded, as far as a store gives them apart.
#[derive(Debug, Default)]
pub(super) struct LoadedSeries(HashMap<Box<str>, BTreeMap<Box<str>, Series>>);

impl SeriesSink for LoadedSeries {
    fn take(&mut self, host: &str, label: &str, series: Series) {
        let label = label.into();
        if let Some(of_host) = self.0.get_mut(host) {
            of_host.insert(label, series);
        } else {
            let of_host = BTreeMap::from([(label, series)]);
            self.0.insert(host.into(), of_host);
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

impl LoadedSeries {
    /// A host as it is stored, with what was given of it before.
    pub(super) fn restore(&mut self, stored: StoredHost) -> (Box<str>, HostSummaries) {
        let series = self.0.remove(&*stored.name).unwrap_or_default();
        restore(stored, series)
    }
}

fn restore(
    stored: StoredHost,
    mut series: BTreeMap<Box<str>, Series>,
) -> (Box<str>, HostSummaries) {
    let in_host = stored.series.into_iter();
    series.extend(in_host.map(|kept| (kept.label, kept.series)));
    let mut host = HostSummaries {
        series,
        last_epoch: stored.last_epoch,
        certificate_end: stored.certificate_end,
        removed: stored.removed,
        documents: Documents::restore(stored.documents),
        ..HostSummaries::default()
    };
    for stored_producer in stored.producers {
        let StoredProducer {
            producer,
            ranges,
            dropped,
            duplicate,
            repaired,
            last_taken,
        } = stored_producer;
        let Ok(set) = DeliverySet::from_ranges(ranges) else {
            tracing::error!(host = stored.name, %producer, "skipped a stored delivery set that is impossible");
            continue;
        };
        let mut dropped_set = DroppedSet::new();
        for (from, to, why) in dropped {
            dropped_set.insert(from, to, &why);
        }
        let state = ProducerState {
            set,
            dropped: dropped_set,
            duplicate,
            repaired,
            last_taken,
        };
        host.producers.insert(producer, state);
    }
    // Of records without sequence numbers only the epoch is stored.
    let taken = host.producers.values().map(|producer| producer.last_taken);
    host.last_received = taken.max().unwrap_or(host.last_epoch);
    (stored.name.into(), host)
}
