//! One producer's numbered records: which are stored, and how far each destination is.

use std::collections::VecDeque;

use lizmon_protocol::sample::{EncodedSamples, Epoch, ProducerId, Record, Seq};

use super::backend::{
    DestinationProgress, LogState, ReportedDrop, StoredLog, StoredRecord, record_bytes,
};
use super::drop_reason;
use super::kept::Kept;
use super::origin::Origin;
use super::ranges::Ranges;

/// Reports that wait for one destination. Beyond it the oldest is discarded: a gap without a reason
/// then.
const UNREPORTED_MAX: usize = 256;
/// Reports that one destination has acknowledged and is told again if it forgets them. Beyond it
/// the oldest is discarded.
const REPORTED_MAX: usize = 256;

/// What may still be appended to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogKind {
    /// New records are appended to it.
    Active,
    /// Nothing: it is there until every destination is done with it.
    Closed,
    /// Records, while the backend stores nothing, not even a checkpoint. It is in memory, and no
    /// other process continues it.
    Volatile,
}

#[derive(Debug)]
pub(super) struct ProducerLog {
    pub(super) producer: ProducerId,
    pub(super) kind: LogKind,
    /// Records below are removed.
    pub(super) first: u64,
    /// The number of the next record.
    pub(super) next: u64,
    /// The next number, as far as the backend knows.
    stored_next: u64,
    /// Numbers below cannot be assigned again, whatever happens: only these may be sent.
    pub(super) sendable_below: u64,
    pub(super) newest_epoch: u64,
    /// What the backend has not stored yet: the newest records.
    pub(super) unsaved: VecDeque<StoredRecord>,
    /// What the backend has stored last: it is mostly what is sent next.
    pub(super) last_saved: Option<StoredRecord>,
    /// In the order of the spool's destinations.
    pub(super) destinations: Vec<DestinationProgress>,
    /// What each destination may have received without an answer. It includes all that an earlier
    /// process may have sent.
    pub(super) possibly_delivered: Vec<Ranges>,
    /// Whether the backend knows less than this.
    pub(super) is_dirty: bool,
    /// When the oldest record was measured, once that is known.
    pub(super) oldest_epoch: Option<u64>,
    /// In the order of the spool's destinations: what each refuses for now. Not stored: after a
    /// restart it is sent again.
    pub(super) deferred: Vec<Ranges>,
    /// What is kept though no destination waits for it.
    pub(super) kept: Kept,
    /// In the order of the spool's destinations: what each has acknowledged and reports missing.
    pub(super) to_repair: Vec<Ranges>,
}

impl ProducerLog {
    pub(super) fn new(
        producer: ProducerId,
        kind: LogKind,
        destinations: usize,
        kept: Kept,
    ) -> Self {
        Self {
            producer,
            kind,
            first: 1,
            next: 1,
            stored_next: 1,
            sendable_below: 1,
            newest_epoch: 0,
            unsaved: VecDeque::new(),
            last_saved: None,
            destinations: vec![DestinationProgress::default(); destinations],
            possibly_delivered: vec![Ranges::default(); destinations],
            is_dirty: true,
            oldest_epoch: None,
            deferred: vec![Ranges::default(); destinations],
            kept,
            to_repair: vec![Ranges::default(); destinations],
        }
    }

    /// A log as it was found. A destination that it does not know starts with what is stored. What
    /// is neither stored nor done is dropped as `lost_as`. Also returns how many records are known
    /// to be lost so.
    pub(super) fn from_stored(
        log: StoredLog,
        destinations: &[String],
        lost_as: &str,
        kept: Kept,
    ) -> (Self, u64) {
        let StoredLog { state, stored, .. } = log;
        // If no destination is known, what had been delivered is not known either: it is reported,
        // but not counted as lost.
        let is_known = !state.destinations.is_empty();
        let mut known = state.destinations;
        let first = state.first;
        let progress = |url: &String| {
            known.remove(url).unwrap_or_else(|| {
                let mut progress = DestinationProgress::default();
                let before = first.saturating_sub(1);
                progress.done.insert(1, before);
                // It misses them, and is told why: it was not a destination then.
                if is_known && before > 0 {
                    progress.add_report(1, before, drop_reason::BEFORE_ASKED);
                }
                progress
            })
        };
        let mut possibly_delivered = Ranges::default();
        possibly_delivered.insert(1, state.next - 1);
        let kind = match state.active {
            true => LogKind::Active,
            false => LogKind::Closed,
        };
        let mut this = Self {
            producer: state.producer,
            kind,
            first,
            next: state.next,
            stored_next: log.stored_next,
            sendable_below: state.next,
            newest_epoch: state.newest_epoch,
            unsaved: VecDeque::new(),
            last_saved: None,
            destinations: destinations.iter().map(progress).collect(),
            possibly_delivered: vec![possibly_delivered; destinations.len()],
            is_dirty: true,
            oldest_epoch: None,
            deferred: vec![Ranges::default(); destinations.len()],
            kept: kept.beginning_with(first),
            to_repair: vec![Ranges::default(); destinations.len()],
        };
        let mut lost = 0;
        for (from, to) in stored.gaps(first, state.next - 1) {
            lost += this.drop_everywhere(from, to, lost_as);
            this.forget_acknowledged(from, to);
        }
        this.trim();
        (this, if is_known { lost } else { 0 })
    }

    /// Appends a record, in memory for now. Returns its number; none where there are no more
    /// numbers.
    pub(super) fn append(&mut self, epoch: Epoch, values: EncodedSamples) -> Option<Seq> {
        let seq = Seq::new(self.next)?;
        self.unsaved.push_back(Record { seq, epoch, values });
        self.next += 1;
        self.newest_epoch = self.newest_epoch.max(epoch.secs());
        self.is_dirty = true;
        Some(seq)
    }

    /// The backend has stored all of it.
    pub(super) fn saved(&mut self) {
        if let Some(last) = self.unsaved.pop_back() {
            self.last_saved = Some(last);
            self.unsaved.clear();
        }
        self.stored_next = self.next;
        self.sendable_below = self.next;
        self.is_dirty = false;
    }

    /// Whether after a crash the backend would not know all numbers that are assigned.
    pub(super) fn has_unsaved_numbers(&self) -> bool {
        self.next > self.stored_next
    }

    pub(super) fn state(&self, destinations: &[String], origin: Option<&Origin>) -> LogState {
        let progress = destinations.iter().cloned().zip(self.destinations.clone());
        LogState {
            producer: self.producer,
            active: self.kind == LogKind::Active,
            first: self.first,
            next: self.next,
            newest_epoch: self.newest_epoch,
            destinations: progress.collect(),
            origin: origin.cloned(),
        }
    }

    /// The number of the first record that the backend does not have.
    pub(super) fn first_unsaved(&self) -> u64 {
        let first = self.unsaved.front();
        first.map_or(self.next, |record| record.seq.get())
    }

    pub(super) fn unsaved_bytes(&self) -> u64 {
        self.unsaved.iter().map(record_bytes).sum()
    }

    /// Drops these numbers for every destination that is not done with them. Returns how many these
    /// were for the destination that loses most.
    pub(super) fn drop_everywhere(&mut self, from: u64, to: u64, why: &str) -> u64 {
        let lost = self.destinations.iter_mut();
        let lost = lost
            .map(|progress| progress.drop_records(from, to, why))
            .max();
        self.is_dirty = true;
        lost.unwrap_or(0)
    }

    /// The first number that a destination waits for.
    pub(super) fn needed_from(&self) -> u64 {
        let done = self.destinations.iter();
        let done = done.map(|progress| progress.done.contiguous_end());
        // Without destinations nothing is needed.
        let through = done.min().unwrap_or(u64::MAX - 1);
        (through + 1).min(self.next)
    }

    /// Removes what no destination needs any more, and what is not kept.
    pub(super) fn trim(&mut self) {
        let first = self.kept.first(self.needed_from());
        if first > self.first {
            self.first = first;
            self.oldest_epoch = None;
            self.is_dirty = true;
            self.forget_acknowledged(1, first - 1);
        }
        let is_removed = |record: &StoredRecord| record.seq.get() < self.first;
        while self.unsaved.front().is_some_and(is_removed) {
            self.unsaved.pop_front();
        }
    }

    /// A destination misses these, though it is done with them. Returns how many these are.
    pub(super) fn report_missing(&mut self, destination: usize, missing: &Ranges) -> u64 {
        let progress = &mut self.destinations[destination];
        let ranges = missing.as_slice().iter();
        let reported = ranges
            .map(|(from, to)| progress.on_missing(*from, *to))
            .sum();
        self.is_dirty |= reported > 0;
        reported
    }

    /// These cannot be sent again: their records are not there any more.
    pub(super) fn forget_acknowledged(&mut self, from: u64, to: u64) {
        for progress in &mut self.destinations {
            progress.acknowledged.remove(from, to);
        }
        for to_repair in &mut self.to_repair {
            to_repair.remove(from, to);
        }
    }

    /// No destination is told any more what was dropped.
    pub(super) fn discard_reports(&mut self) {
        self.is_dirty = true;
        for progress in &mut self.destinations {
            progress.unreported_drops.clear();
            progress.reported_drops.clear();
        }
    }

    /// What was reported before, by another process, is as if it were reported at this second.
    pub(super) fn remember_reports_from(&mut self, now: u64) {
        for progress in &mut self.destinations {
            for known in &mut progress.reported_drops {
                known.at = now;
            }
        }
    }

    /// What was reported until this second is not reported again.
    pub(super) fn expire_reported(&mut self, until: u64) {
        for progress in &mut self.destinations {
            let before = progress.reported_drops.len();
            progress.reported_drops.retain(|drop| drop.at > until);
            self.is_dirty |= progress.reported_drops.len() < before;
        }
    }

    /// A destination does not know any more that these were dropped: it is told again, with the
    /// reason that it was told.
    pub(super) fn report_again(&mut self, destination: usize, forgotten: &Ranges) {
        let progress = &mut self.destinations[destination];
        for known in std::mem::take(&mut progress.reported_drops) {
            for (from, to) in forgotten.overlap(known.from, known.to) {
                progress.push_report(from, to, &known.why);
                self.is_dirty = true;
            }
            for (from, to) in forgotten.gaps(known.from, known.to) {
                let still = ReportedDrop {
                    from,
                    to,
                    ..known.clone()
                };
                progress.reported_drops.push(still);
            }
        }
    }

    /// Whether every destination is done with all its records, and no more are appended.
    pub(super) fn is_closed_and_empty(&self) -> bool {
        self.kind == LogKind::Closed && self.first >= self.next
    }

    /// Whether nothing of it is needed any more.
    pub(super) fn is_finished(&self) -> bool {
        let mut progress = self.destinations.iter();
        self.is_only_reported() && progress.all(|progress| progress.reported_drops.is_empty())
    }

    /// The same, but that destinations may forget what was dropped.
    pub(super) fn is_only_reported(&self) -> bool {
        let mut progress = self.destinations.iter();
        self.is_closed_and_empty() && progress.all(|progress| progress.unreported_drops.is_empty())
    }

    /// Numbers that this destination is not done with, and that may be sent now.
    pub(super) fn pending_ranges(
        &self,
        destination: usize,
    ) -> impl DoubleEndedIterator<Item = (u64, u64)> + use<> {
        let progress = &self.destinations[destination];
        let to = (self.sendable_below - 1).max(self.first - 1);
        let deferred = self.deferred[destination].as_slice();
        if deferred.is_empty() {
            return progress.done.gaps(self.first, to);
        }
        let mut not_now = progress.done.clone();
        for (from, to) in deferred {
            not_now.insert(*from, *to);
        }
        not_now.gaps(self.first, to)
    }

    /// How many records this destination is not done with.
    pub(super) fn pending(&self, destination: usize) -> u64 {
        let progress = &self.destinations[destination];
        let gaps = progress.done.gaps(self.first, self.next - 1);
        gaps.map(|(from, to)| to - from + 1).sum()
    }
}

impl DestinationProgress {
    /// These were delivered.
    pub(super) fn ack(&mut self, from: u64, to: u64) {
        self.skip(from, to);
        if !self.is_shared {
            self.acknowledged.insert(from, to);
        }
    }

    /// These are not for this destination.
    pub(super) fn skip(&mut self, from: u64, to: u64) {
        self.done.insert(from, to);
    }

    /// These will not be sent. Returns how many of them were not done.
    pub(super) fn drop_records(&mut self, from: u64, to: u64, why: &str) -> u64 {
        let mut count = 0;
        for (from, to) in self.done.gaps(from, to) {
            count += to - from + 1;
            self.add_report(from, to, why);
        }
        self.done.insert(from, to);
        count
    }

    /// The destination misses these, though they were done: it has lost them, and is told so.
    /// Returns how many these are.
    pub(super) fn on_missing(&mut self, from: u64, to: u64) -> u64 {
        let mut told = Ranges::default();
        for (from, to, _) in &self.unreported_drops {
            told.insert(*from, *to);
        }
        let done = self.done.overlap(from, to).into_iter();
        let mut count = 0;
        for (from, to) in done.flat_map(|(from, to)| told.gaps(from, to)) {
            self.add_report(from, to, drop_reason::BEFORE_DATA);
            count += to - from + 1;
        }
        count
    }

    pub(super) fn add_report(&mut self, from: u64, to: u64, why: &str) {
        let is_new = self.push_report(from, to, why);
        self.gaps = self.gaps.saturating_add(is_new.into());
    }

    /// Whether that is a range of its own.
    fn push_report(&mut self, from: u64, to: u64, why: &str) -> bool {
        if let Some((_, end, known)) = self.unreported_drops.last_mut()
            && *end + 1 == from
            && known == why
        {
            *end = to;
            return false;
        }
        if self.unreported_drops.len() >= UNREPORTED_MAX {
            self.unreported_drops.remove(0);
        }
        self.unreported_drops.push((from, to, why.to_owned()));
        true
    }

    /// These were reported to the destination. What was added to a range meanwhile stays.
    pub(super) fn mark_reported(&mut self, from: u64, to: u64) {
        let drops = std::mem::take(&mut self.unreported_drops).into_iter();
        self.unreported_drops = drops
            .filter_map(|(start, end, why)| match from <= start && start <= to {
                false => Some((start, end, why)),
                true => (end > to).then(|| (to + 1, end, why)),
            })
            .collect();
    }

    /// The destination has acknowledged this report, at this second of the spool's own time: it may
    /// forget it.
    pub(super) fn keep_reported(&mut self, from: u64, to: u64, why: &str, at: u64) {
        if let Some(last) = self.reported_drops.last_mut()
            && last.to + 1 == from
            && last.why == why
        {
            (last.to, last.at) = (to, at);
            return;
        }
        if self.reported_drops.len() >= REPORTED_MAX {
            self.reported_drops.remove(0);
        }
        let why = why.to_owned();
        self.reported_drops.push(ReportedDrop { from, to, why, at });
    }
}
