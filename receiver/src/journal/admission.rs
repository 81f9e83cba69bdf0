//! Checks that depend on earlier requests: known numbers, the epochs of unknown ones, a host's
//! labels and producers.
//!
//! An [`Admission`] judges the requests of one group in their order. What it has admitted but what
//! is not durable yet is kept beside the summaries and discarded with it: a group that fails leaves
//! no trace.

mod known;

use std::collections::{HashMap, HashSet};

use lizmon_protocol::problem::ValueError;
use lizmon_protocol::sample::{ERRORS_SHOWN_MAX, Seq};
use lizmon_summary::window::EpochRefusal;
use lizmon_summary::{AHEAD_SECS_MAX, DeliverySet, DroppedSet, Series, TIERS, accepts};

use self::known::Known;
pub(super) use self::known::{Pending, Unread};
use super::error::{AdmissionError, ValueFault};
use crate::clock::{AHEAD_REMOVED_SECS, ClockVerdict};
use crate::store::Shard;
use crate::store::record::{RecordView, Submission, SubmissionView};
use crate::summarize::{HostSummaries, SummaryTable};

/// Most labels of samples of one host. Those of points are counted by themselves.
pub const HOST_LABELS_MAX: usize = 1_000;
/// Most producers of one host at a time.
pub const HOST_PRODUCERS_MAX: usize = 64;
/// Most ranges of one producer's numbers: one more than it has gaps.
pub const PRODUCER_RANGES_MAX: usize = 1_024;

/// What deduplication says of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dedup {
    /// At least one record is new.
    New,
    /// The same, and samples ahead of the clock are removed first: a wrong clock wrote it.
    NewRemovingAhead,
    /// Every record came before.
    Known,
}

/// A submission that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The shard of its host.
    pub(super) shard: Shard,
    /// Whether it says anything new.
    pub(super) dedup: Dedup,
    /// How many of its records are new.
    pub(super) new_records: u64,
}

/// A request that was judged at a time further from now was judged by another clock.
const JUDGED_AGO_SECS_MAX: u64 = 60;

/// By host, its greatest epoch when the clock was found not to be steady. Older samples were there
/// before.
#[derive(Debug, Default)]
pub(super) struct EpochMarks {
    regime: u64,
    hosts: HashMap<String, u64>,
}

impl EpochMarks {
    fn of(&mut self, name: &str, host: Option<&HostSummaries>, judged: ClockVerdict) -> u64 {
        if judged.is_steady() || self.regime != judged.regime {
            self.regime = judged.regime;
            self.hosts.clear();
        }
        if judged.is_steady() {
            return 0;
        }
        let last = host.map_or(0, |host| host.last_epoch);
        *self.hosts.entry(name.to_owned()).or_insert(last)
    }
}

/// Checks the requests of one group.
pub(super) struct Admission<'s> {
    table: &'s SummaryTable,
    pending: HashMap<String, Pending>,
    unread: &'s mut Unread,
    clock: ClockVerdict,
    marks: &'s mut EpochMarks,
}

impl<'s> Admission<'s> {
    pub(super) fn new(
        table: &'s SummaryTable,
        clock: ClockVerdict,
        marks: &'s mut EpochMarks,
        unread: &'s mut Unread,
    ) -> Self {
        Self {
            table,
            pending: HashMap::new(),
            unread,
            clock,
            marks,
        }
    }

    /// Admits a whole submission, or refuses all of it.
    pub(super) fn admit(
        &mut self,
        submission: &Submission,
        now: u64,
    ) -> Result<Admitted, AdmissionError> {
        let view = submission.view().map_err(|_| AdmissionError::Unreadable)?;
        let shard = self.table.shard_of(view.host);
        let hosts = self.table.shard_with(view.host);
        let host = hosts.get(view.host);
        let read = self.table.read_mark(shard);
        let pending = self.pending.get(view.host);
        let pending = pending.or_else(|| self.unread.of(view.host, read));
        let known = Known { host, pending };
        let fresh = NewRecords::of(&view, known);
        let admitted = |dedup| Admitted {
            shard,
            dedup,
            new_records: fresh.count(&view),
        };
        fresh.check_epochs(&view, now)?;
        let mark = self.marks.of(view.host, host, self.clock);
        let removes_ahead = fresh.check_clock(&view, host, self.clock, (now, mark))?;
        let numbers = fresh.check_producer(&view, known, now)?;
        let labels = fresh.check_labels(&view, known, self.table.host_series_max(), now)?;
        let drops_more = has_new_drops(&view, known, now)?;
        let has_records = !fresh.is_empty() && !view.is_empty();
        if !has_records && !drops_more && view.document().is_none() {
            return Ok(admitted(Dedup::Known));
        }
        if !self.unread.is_empty()
            && !self.pending.contains_key(view.host)
            && let Some(unread) = self.unread.take(view.host, read)
        {
            self.pending.insert(view.host.to_owned(), unread);
        }
        fresh.note(&view, host, labels, numbers, &mut self.pending);
        Ok(admitted(match removes_ahead {
            true => Dedup::NewRemovingAhead,
            false => Dedup::New,
        }))
    }

    /// What this group has admitted, by host.
    pub(super) fn into_pending(self) -> HashMap<String, Pending> {
        self.pending
    }
}

/// Whether all of these would be admitted by a steady clock, one after the other.
pub(super) fn check_together(
    table: &SummaryTable,
    submissions: &[Submission],
    now: u64,
) -> Result<(), AdmissionError> {
    let clock = ClockVerdict {
        now,
        steady_secs: u64::MAX,
        floor: 0,
        other: None,
        regime: 0,
    };
    let (mut marks, mut unread) = (EpochMarks::default(), Unread::default());
    let mut admission = Admission::new(table, clock, &mut marks, &mut unread);
    let mut admit = |submission| admission.admit(submission, now).map(drop);
    submissions.iter().try_for_each(&mut admit)
}

/// Which records of a submission are new: all, or those with these indices.
enum NewRecords {
    All,
    Some(HashSet<usize>),
}

impl NewRecords {
    fn of(view: &SubmissionView<'_>, known: Known<'_>) -> Self {
        let Some(producer) = view.producer else {
            return Self::All;
        };
        let numbers = known.numbers(&producer);
        // As they usually come: each number greater than the one before, and than all that are known.
        let highest = numbers.and_then(DeliverySet::highest).unwrap_or(0);
        let ascending = view.outline().ascending();
        if ascending.is_some_and(|numbers| *numbers.start() > highest) {
            return Self::All;
        }
        let is_new = |seq: Seq| !numbers.is_some_and(|set| set.contains(seq.get()));
        let mut before = None;
        let mut is_next = |seq: Option<Seq>| {
            let is_next = before < seq && seq.is_some_and(is_new);
            before = seq;
            is_next
        };
        // The same that fills a gap.
        if view.records().all(|record| is_next(record.seq)) {
            return Self::All;
        }
        let mut seen_here = HashSet::new();
        let fresh: HashSet<usize> = view
            .records()
            .enumerate()
            .filter_map(|(at, record)| Some((at, record.seq?)))
            .filter(|(_, seq)| is_new(*seq) && seen_here.insert(*seq))
            .map(|(at, _)| at)
            .collect();
        if fresh.len() == view.len() {
            Self::All
        } else {
            Self::Some(fresh)
        }
    }

    fn count(&self, view: &SubmissionView<'_>) -> u64 {
        match self {
            Self::All => view.len() as u64,
            Self::Some(fresh) => fresh.len() as u64,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Some(fresh) if fresh.is_empty())
    }

    fn records<'a>(
        &'a self,
        view: &SubmissionView<'a>,
    ) -> impl Iterator<Item = (usize, RecordView<'a>)> {
        view.records()
            .enumerate()
            .filter(move |(at, _)| match self {
                Self::All => true,
                Self::Some(fresh) => fresh.contains(at),
            })
    }

    /// A known number is recognised before its epoch is checked; the other epochs must be within
    /// the window.
    fn check_epochs(&self, view: &SubmissionView<'_>, now: u64) -> Result<(), AdmissionError> {
        let are_accepted = |(least, greatest)| {
            let accepted = [least, greatest].map(|epoch| accepts(epoch, now));
            accepted.iter().all(Result::is_ok)
        };
        if view.outline().epochs().is_none_or(are_accepted) {
            return Ok(());
        }
        let mut errors = Vec::new();
        let mut fault = None;
        for (at, record) in self.records(view) {
            let Err(refused) = accepts(record.epoch, now) else {
                continue;
            };
            fault.get_or_insert(match refused {
                EpochRefusal::TooOld => ValueFault::EpochTooOld,
                EpochRefusal::InFuture => ValueFault::EpochInFuture,
            });
            if errors.len() < ERRORS_SHOWN_MAX {
                errors.push(ValueError {
                    record: Some(at),
                    label: None,
                    reason: reason_of(refused, record.epoch, now),
                });
            }
        }
        match fault {
            Some(fault) => Err(AdmissionError::Values { fault, errors, now }),
            None => Ok(()),
        }
    }

    /// While the clock is not known to be steady, refuses samples that would evict history or would
    /// not be found. Otherwise says whether samples ahead of the clock must be removed first. `now`
    /// is when the request was judged, `mark` the greatest epoch that was there before.
    fn check_clock(
        &self,
        view: &SubmissionView<'_>,
        host: Option<&HostSummaries>,
        clock: ClockVerdict,
        (now, mark): (u64, u64),
    ) -> Result<bool, AdmissionError> {
        if self.is_empty() || view.is_empty() {
            return Ok(false);
        }
        if now.abs_diff(clock.now) > JUDGED_AGO_SECS_MAX {
            return Err(AdmissionError::ClockUnsteady {
                wait_secs: clock.secs_until_steady(),
                why: "the clock has just been set",
            });
        }
        let Some(host) = host else {
            return Ok(false);
        };
        let any = |is_so: &dyn Fn(&Series, u64) -> bool| {
            self.records(view).any(|(_, record)| {
                let series = record
                    .values()
                    .filter_map(|(label, _)| host.series.get(label));
                series.into_iter().any(|series| is_so(series, record.epoch))
            })
        };
        if !clock.is_steady() {
            let at = clock.floor.max(mark).min(clock.now);
            // No epoch does that the greatest would not.
            let greatest = view.outline().epochs().map_or(0, |(_, greatest)| greatest);
            let first = view.records().next();
            let mut of_first = first.iter().flat_map(RecordView::values);
            let may = !view.outline().has_same_labels()
                || of_first.any(|(label, _)| {
                    let series = host.series.get(label);
                    series.is_some_and(|series| series.pushes_out(greatest, mark, at))
                });
            if may && any(&|series, epoch| series.pushes_out(epoch, mark, at)) {
                return Err(AdmissionError::ClockUnsteady {
                    wait_secs: clock.secs_until_steady(),
                    why: "earlier samples would be evicted",
                });
            }
        }
        // Usually nothing is ahead of what is accepted, and everything is found.
        if host.last_epoch <= now.saturating_add(AHEAD_SECS_MAX) {
            return Ok(false);
        }
        let slack = AHEAD_REMOVED_SECS;
        // No point comes after one that is ahead of the clock.
        let is_behind_last = |series: &Series, epoch| {
            let last = series.last_point().filter(|_| view.has_points);
            let ahead = last.filter(|last| accepts(last.epoch(), now).is_err());
            ahead.is_some_and(|last| last.epoch() > epoch)
        };
        let is_hidden =
            any(&|series, epoch| !series.finds(epoch, now) || is_behind_last(series, epoch));
        if !is_hidden && host.last_epoch <= now.saturating_add(slack) {
            return Ok(false);
        }
        match clock.secs_until_ahead_is_removed(slack) {
            0 => Ok(true),
            wait_secs if is_hidden => Err(AdmissionError::ClockUnsteady {
                wait_secs,
                why: "samples ahead of the clock would hide it",
            }),
            _ => Ok(false),
        }
    }

    /// Refuses one producer or range too many. Returns all numbers of the producer if they had to
    /// be merged to decide.
    fn check_producer(
        &self,
        view: &SubmissionView<'_>,
        known: Known<'_>,
        now: u64,
    ) -> Result<Option<DeliverySet>, AdmissionError> {
        let Some(producer) = view.producer else {
            return Ok(None);
        };
        let numbers = known.numbers(&producer);
        let is_one_more = numbers.is_none() && !self.is_empty();
        if is_one_more && known.producer_count() >= HOST_PRODUCERS_MAX {
            return Err(invalid(
                format!(
                    "the host has {HOST_PRODUCERS_MAX} producers already: keep the spool, or wait a day for one to be forgotten"
                ),
                now,
            ));
        }
        let before = numbers.map_or(0, |set| set.ranges().len());
        // The ranges are merged only if they may be too many.
        let more = view.outline().run().map_or(view.len(), |_| 1);
        if before + more <= PRODUCER_RANGES_MAX {
            return Ok(None);
        }
        // A producer at the limit may still fill gaps.
        let ranges_max = PRODUCER_RANGES_MAX.max(before);
        let mut set = numbers.cloned().unwrap_or_default();
        // In order, so that gaps are filled on the way; ends as soon as the rest cannot fit.
        let mut fresh: Vec<u64> = self
            .records(view)
            .filter_map(|(_, record)| Some(record.seq?.get()))
            .collect();
        fresh.sort_unstable();
        for number in fresh {
            set.insert(number);
            if set.ranges().len() > 2 * ranges_max {
                break;
            }
        }
        if set.ranges().len() > ranges_max {
            return Err(invalid(
                format!(
                    "the producer's numbers would have more than {PRODUCER_RANGES_MAX} ranges: send the missing ones first, or begin a new spool"
                ),
                now,
            ));
        }
        Ok(Some(set))
    }

    /// The labels that the host does not have yet, if it may have them.
    fn check_labels(
        &self,
        view: &SubmissionView<'_>,
        known: Known<'_>,
        series_max: usize,
        now: u64,
    ) -> Result<HashSet<String>, AdmissionError> {
        let mut new = HashSet::new();
        // Most records have the labels of the one before.
        let mut checked: Vec<&str> = Vec::new();
        let records = match view.outline().has_same_labels() {
            true => 1,
            false => usize::MAX,
        };
        for (_, record) in self.records(view).take(records) {
            for (at, (label, _)) in record.values().enumerate() {
                if checked.get(at) == Some(&label) {
                    continue;
                }
                checked.truncate(at);
                checked.push(label);
                if !known.has_label(label, view.has_points) && !new.contains(label) {
                    new.insert(label.to_owned());
                }
            }
        }
        if new.is_empty() {
            return Ok(new);
        }
        let known = known.label_count(view.has_points);
        let (what, max, flag) = match view.has_points {
            true => ("series", series_max, " of --host-series"),
            false => ("labels", HOST_LABELS_MAX, ""),
        };
        if known + new.len() > max {
            let more = new.len();
            let reason =
                format!("the host has {known} {what}, {more} more would be over {max}{flag}");
            let errors = new.iter().take(ERRORS_SHOWN_MAX);
            let errors = errors.map(|label| ValueError {
                record: None,
                label: Some(label.clone()),
                reason: reason.clone(),
            });
            return Err(AdmissionError::Values {
                fault: ValueFault::TooManyLabels,
                errors: errors.collect(),
                now,
            });
        }
        Ok(new)
    }

    /// Keeps what was admitted, for the rest of the group.
    fn note(
        &self,
        view: &SubmissionView<'_>,
        host: Option<&HostSummaries>,
        labels: HashSet<String>,
        numbers: Option<DeliverySet>,
        pending: &mut HashMap<String, Pending>,
    ) {
        if labels.is_empty() && view.producer.is_none() {
            return;
        }
        let pending = pending.entry(view.host.to_owned()).or_default();
        match view.has_points {
            true => pending.series.extend(labels),
            false => pending.labels.extend(labels),
        }
        let Some(producer) = view.producer else {
            return;
        };
        let stored = host.and_then(|host| host.producers.get(&producer));
        if view.dropped().next().is_some() {
            let of_stored = || stored.map(|stored| stored.dropped.clone());
            let dropped = pending.dropped.entry(producer);
            let dropped = dropped.or_insert_with(|| of_stored().unwrap_or_default());
            view.dropped()
                .for_each(|(from, to, why)| dropped.insert(from, to, why));
        }
        if let Some(numbers) = numbers {
            pending.numbers.insert(producer, numbers);
            return;
        }
        let of_stored = || stored.map(|stored| stored.set.clone());
        let numbers = pending.numbers.entry(producer);
        let numbers = numbers.or_insert_with(|| of_stored().unwrap_or_default());
        if let (Self::All, Some(run)) = (self, view.outline().run()) {
            numbers.insert_run(run);
            return;
        }
        for (_, record) in self.records(view) {
            numbers.insert(record.seq.map_or(0, Seq::get));
        }
    }
}

/// Whether the submission drops numbers that were not known to be dropped; or a refusal, if it
/// would be too many ranges.
fn has_new_drops(
    view: &SubmissionView<'_>,
    known: Known<'_>,
    now: u64,
) -> Result<bool, AdmissionError> {
    let Some(producer) = view.producer else {
        return Ok(false);
    };
    let dropped = known.dropped(&producer);
    let is_news =
        |(from, to, _): &(u64, u64, &str)| dropped.is_none_or(|set| set.would_change(*from, *to));
    let news: Vec<_> = view.dropped().filter(is_news).collect();
    let before = dropped.map_or(0, DroppedSet::len);
    // The ranges are merged only if they may be too many.
    if before + news.len() > PRODUCER_RANGES_MAX {
        let mut after = dropped.cloned().unwrap_or_default();
        for (from, to, why) in &news {
            after.insert(*from, *to, why);
        }
        if after.len() > PRODUCER_RANGES_MAX.max(before) {
            return Err(invalid(
                format!(
                    "the producer would have dropped more than {PRODUCER_RANGES_MAX} ranges: join adjacent ranges under one reason"
                ),
                now,
            ));
        }
    }
    Ok(!news.is_empty())
}

fn reason_of(refused: EpochRefusal, epoch: u64, now: u64) -> String {
    /// An epoch so far ahead is not a wrong clock but another unit: the year 2286 in seconds.
    const MILLISECONDS_FROM: u64 = 10_000_000_000;
    match refused {
        EpochRefusal::TooOld => {
            let start = TIERS
                .iter()
                .map(|tier| tier.window_start(now))
                .min()
                .unwrap_or(0);
            format!("the epoch {epoch} is not after {start}, where the last day begins")
        }
        EpochRefusal::InFuture if epoch >= MILLISECONDS_FROM => {
            format!("the epoch {epoch} is not in seconds: were milliseconds meant?")
        }
        EpochRefusal::InFuture => {
            format!(
                "the epoch {epoch} is {} s ahead of {now}, at most {AHEAD_SECS_MAX} s are allowed: set the clock",
                epoch - now
            )
        }
    }
}

fn invalid(reason: String, now: u64) -> AdmissionError {
    let error = ValueError {
        record: None,
        label: None,
        reason,
    };
    AdmissionError::Values {
        fault: ValueFault::Invalid,
        errors: vec![error],
        now,
    }
}
