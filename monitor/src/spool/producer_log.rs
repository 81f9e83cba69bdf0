//! One producer's numbered records: which are stored, and how far each destination is.

use std::collections::VecDeque;

use lizmon_protocol::sample::ProducerId;

use super::backend::{DestinationProgress, LogState, StoredLog, StoredRecord};
use super::drop_reason;
use super::origin::Origin;
use super::ranges::Ranges;

/// Reports that wait to be told to one destination. Beyond it the oldest is forgotten, and is a gap without a reason then.
const UNREPORTED_MAX: usize = 256;

/// What may still come on a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogKind {
    /// New records go on it.
    Active,
    /// No more records; it is there until what it holds is settled.
    Closed,
    /// Takes records while the keep takes nothing, not even a note. No other process goes on with it.
    Volatile,
}

#[derive(Debug)]
pub(super) struct ProducerLog {
    pub(super) producer: ProducerId,
    pub(super) kind: LogKind,
    /// Numbers below are forgotten.
    pub(super) first: u64,
    /// The number the next record gets.
    pub(super) next: u64,
    /// What the keep believes that to be.
    stored_next: u64,
    /// Numbers below cannot be given again, whatever happens: only these may be sent.
    pub(super) sendable_below: u64,
    pub(super) newest_epoch: u64,
    /// What the keep has not taken yet: the newest numbers.
    pub(super) unsaved: VecDeque<StoredRecord>,
    /// In the order of the spool's destinations.
    pub(super) destinations: Vec<DestinationProgress>,
    /// What each destination may have got already, though it did not say so. What an earlier process numbered may have been sent by it.
    pub(super) possibly_delivered: Vec<Ranges>,
    /// Whether the keep knows less than this.
    pub(super) is_dirty: bool,
    /// When the oldest record was measured, once that is known.
    pub(super) oldest_epoch: Option<u64>,
    /// In the order of the spool's destinations: what each does not take for now. Not kept: a new start asks again.
    pub(super) deferred: Vec<Ranges>,
}

impl ProducerLog {
    pub(super) fn new(producer: ProducerId, kind: LogKind, destinations: usize) -> Self {
        Self {
            producer,
            kind,
            first: 1,
            next: 1,
            stored_next: 1,
            sendable_below: 1,
            newest_epoch: 0,
            unsaved: VecDeque::new(),
            destinations: vec![DestinationProgress::default(); destinations],
            possibly_delivered: vec![Ranges::default(); destinations],
            is_dirty: true,
            oldest_epoch: None,
            deferred: vec![Ranges::default(); destinations],
        }
    }

    /// A tape as it was found. A destination that it does not know begins with what is stored; what is not stored any more,
    /// and not settled, is given up for this reason. With it, how many records are known to be lost so.
    pub(super) fn from_stored(
        found: StoredLog,
        destinations: &[String],
        lost_as: &str,
    ) -> (Self, u64) {
        let StoredLog { state, stored, .. } = found;
        // Without any place there is no telling what had been delivered: it is reported, but not called lost.
        let is_known = !state.destinations.is_empty();
        let mut known = state.destinations;
        let first = state.first;
        let progress = |url: &String| {
            known.remove(url).unwrap_or_else(|| {
                let mut progress = DestinationProgress::default();
                let before = first.saturating_sub(1);
                progress.done.insert(1, before);
                // It will miss them, and is told why: nobody had asked us to send them there.
                if is_known && before > 0 {
                    progress.add_report(1, before, drop_reason::BEFORE_ASKED);
                }
                progress
            })
        };
        let mut possibly_delivered = Ranges::default();
        possibly_delivered.insert(1, state.next - 1);
        let mut log = Self {
            producer: state.producer,
            kind: if state.active {
                LogKind::Active
            } else {
                LogKind::Closed
            },
            first,
            next: state.next,
            stored_next: found.stored_next,
            sendable_below: state.next,
            newest_epoch: state.newest_epoch,
            unsaved: VecDeque::new(),
            destinations: destinations.iter().map(progress).collect(),
            possibly_delivered: vec![possibly_delivered; destinations.len()],
            is_dirty: true,
            oldest_epoch: None,
            deferred: vec![Ranges::default(); destinations.len()],
        };
        let mut lost = 0;
        for (from, to) in stored.gaps(first, state.next - 1) {
            lost += log.drop_everywhere(from, to, lost_as);
        }
        log.trim();
        (log, if is_known { lost } else { 0 })
    }

    /// Takes a record, in memory for now. Its number.
    pub(super) fn append(&mut self, epoch: u64, values: Box<[u8]>) -> u64 {
        let seq = self.next;
        self.unsaved.push_back(StoredRecord { seq, epoch, values });
        self.next += 1;
        self.newest_epoch = self.newest_epoch.max(epoch);
        self.is_dirty = true;
        seq
    }

    /// The keep has all of it.
    pub(super) fn saved(&mut self) {
        self.unsaved.clear();
        self.stored_next = self.next;
        self.sendable_below = self.next;
        self.is_dirty = false;
    }

    /// Whether a crash would leave the keep without knowing which numbers are taken.
    pub(super) fn has_unsaved_numbers(&self) -> bool {
        self.next > self.stored_next
    }

    pub(super) fn state(&self, destinations: &[String], origin: Option<&Origin>) -> LogState {
        let destinations = destinations.iter().cloned().zip(self.destinations.clone());
        LogState {
            producer: self.producer,
            active: self.kind == LogKind::Active,
            first: self.first,
            next: self.next,
            newest_epoch: self.newest_epoch,
            destinations: destinations.collect(),
            origin: origin.cloned(),
        }
    }

    /// The number of the first record that the keep does not have.
    pub(super) fn first_unsaved(&self) -> u64 {
        self.unsaved.front().map_or(self.next, |kept| kept.seq)
    }

    pub(super) fn unsaved_bytes(&self) -> u64 {
        self.unsaved.iter().map(StoredRecord::bytes).sum()
    }

    /// Gives these numbers up for every destination that has not settled them. How many that were for the one that loses most.
    pub(super) fn drop_everywhere(&mut self, from: u64, to: u64, why: &str) -> u64 {
        let lost = self.destinations.iter_mut();
        let lost = lost
            .map(|progress| progress.drop_records(from, to, why))
            .max();
        self.is_dirty = true;
        lost.unwrap_or(0)
    }

    /// Lets go of what no destination needs any more.
    pub(super) fn trim(&mut self) {
        let done = self
            .destinations
            .iter()
            .map(|progress| progress.done.contiguous_end());
        // Where nobody is to get anything, nothing is needed.
        let through = done.min().unwrap_or(u64::MAX - 1);
        let first = (through + 1).min(self.next);
        if first > self.first {
            self.first = first;
            self.oldest_epoch = None;
        }
        while self
            .unsaved
            .front()
            .is_some_and(|kept| kept.seq < self.first)
        {
            self.unsaved.pop_front();
        }
    }

    /// Nobody wants to be told any more.
    pub(super) fn discard_reports(&mut self) {
        self.is_dirty = true;
        for progress in &mut self.destinations {
            progress.unreported_drops.clear();
        }
    }

    /// Whether nothing of it is needed any more.
    pub(super) fn is_finished(&self) -> bool {
        let told = self
            .destinations
            .iter()
            .all(|progress| progress.unreported_drops.is_empty());
        self.kind == LogKind::Closed && self.first >= self.next && told
    }

    /// Numbers that this destination has not settled, and that may be sent now.
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
        let mut held_back = progress.done.clone();
        for (from, to) in deferred {
            held_back.insert(*from, *to);
        }
        held_back.gaps(self.first, to)
    }

    /// How many records this destination has not settled.
    pub(super) fn pending(&self, destination: usize) -> u64 {
        let progress = &self.destinations[destination];
        let gaps = progress.done.gaps(self.first, self.next - 1);
        gaps.map(|(from, to)| to - from + 1).sum()
    }
}

impl DestinationProgress {
    /// These were delivered.
    pub(super) fn ack(&mut self, from: u64, to: u64) {
        self.done.insert(from, to);
    }

    /// These will not be sent. How many of them were not settled.
    pub(super) fn drop_records(&mut self, from: u64, to: u64, why: &str) -> u64 {
        let mut count = 0;
        for (from, to) in self.done.gaps(from, to) {
            count += to - from + 1;
            self.add_report(from, to, why);
        }
        self.done.insert(from, to);
        count
    }

    /// The destination misses these, though they were settled: it has lost them, and is told so.
    pub(super) fn on_missing(&mut self, from: u64, to: u64) -> u64 {
        let mut count = 0;
        for (from, to) in self.done.overlap(from, to) {
            let is_said = |(start, end, _): &(u64, u64, String)| *start <= to && from <= *end;
            if !self.unreported_drops.iter().any(is_said) {
                self.add_report(from, to, drop_reason::BEFORE_DATA);
                count += to - from + 1;
            }
        }
        count
    }

    fn add_report(&mut self, from: u64, to: u64, why: &str) {
        if let Some((_, end, said)) = self.unreported_drops.last_mut()
            && *end + 1 == from
            && said == why
        {
            *end = to;
            return;
        }
        self.gaps = self.gaps.saturating_add(1);
        if self.unreported_drops.len() >= UNREPORTED_MAX {
            self.unreported_drops.remove(0);
        }
        self.unreported_drops.push((from, to, why.to_owned()));
    }

    /// The destination has been told of these. What was added to them meanwhile stays.
    pub(super) fn mark_reported(&mut self, from: u64, to: u64) {
        let left = std::mem::take(&mut self.unreported_drops).into_iter();
        self.unreported_drops = left
            .filter_map(|(start, end, why)| {
                let is_told = from <= start && start <= to;
                match is_told {
                    false => Some((start, end, why)),
                    true => (end > to).then(|| (to + 1, end, why)),
                }
            })
            .collect();
    }
}
