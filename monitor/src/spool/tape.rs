//! One producer's numbered records: which are held, and how far each destination is.

use std::collections::VecDeque;

use lizmon_protocol::sample::ProducerId;

use super::home::Home;
use super::keep::{Found, Kept, PlaceState, TapeState};
use super::ranges::Ranges;
use super::why;

/// Reports that wait to be told to one destination. Beyond it the oldest is forgotten, and is a gap without a reason then.
const UNREPORTED_MAX: usize = 256;

/// What may still come on a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// New records go on it.
    Open,
    /// No more records; it is there until what it holds is settled.
    Closed,
    /// Takes records while the keep takes nothing, not even a note. No other process goes on with it.
    Spare,
}

#[derive(Debug)]
pub(super) struct Tape {
    pub(super) producer: ProducerId,
    pub(super) kind: Kind,
    /// Numbers below are forgotten.
    pub(super) first: u64,
    /// The number the next record gets.
    pub(super) next: u64,
    /// What the keep believes that to be.
    kept_next: u64,
    /// Numbers below cannot be given again, whatever happens: only these may be sent.
    pub(super) sendable_below: u64,
    pub(super) newest_epoch: u64,
    /// What the keep has not taken yet: the newest numbers.
    pub(super) tail: VecDeque<Kept>,
    /// In the order of the spool's destinations.
    pub(super) places: Vec<PlaceState>,
    /// What each destination may have got already, though it did not say so. What an earlier process numbered may have been sent by it.
    pub(super) tried: Vec<Ranges>,
    /// Whether the keep knows less than this.
    pub(super) is_dirty: bool,
    /// When the oldest record was measured, once that is known.
    pub(super) oldest_epoch: Option<u64>,
    /// In the order of the spool's destinations: what each does not take for now. Not kept: a new start asks again.
    pub(super) put_off: Vec<Ranges>,
}

impl Tape {
    pub(super) fn new(producer: ProducerId, kind: Kind, destinations: usize) -> Self {
        Self {
            producer,
            kind,
            first: 1,
            next: 1,
            kept_next: 1,
            sendable_below: 1,
            newest_epoch: 0,
            tail: VecDeque::new(),
            places: vec![PlaceState::default(); destinations],
            tried: vec![Ranges::default(); destinations],
            is_dirty: true,
            oldest_epoch: None,
            put_off: vec![Ranges::default(); destinations],
        }
    }

    /// A tape as it was found. A destination that it does not know begins with what is held; what is not held any more,
    /// and not settled, is given up for this reason. With it, how many records are known to be lost so.
    pub(super) fn found(found: Found, destinations: &[String], lost_as: &str) -> (Self, u64) {
        let Found { state, held, .. } = found;
        // Without any place there is no telling what had been delivered: it is reported, but not called lost.
        let is_known = !state.places.is_empty();
        let mut known = state.places;
        let first = state.first;
        let place = |url: &String| {
            known.remove(url).unwrap_or_else(|| {
                let mut place = PlaceState::default();
                let before = first.saturating_sub(1);
                place.settled.insert(1, before);
                // It will miss them, and is told why: nobody had asked us to send them there.
                if is_known && before > 0 {
                    place.report(1, before, why::BEFORE);
                }
                place
            })
        };
        let mut tried = Ranges::default();
        tried.insert(1, state.next - 1);
        let mut tape = Self {
            producer: state.producer,
            kind: if state.open { Kind::Open } else { Kind::Closed },
            first,
            next: state.next,
            kept_next: found.kept_next,
            sendable_below: state.next,
            newest_epoch: state.newest_epoch,
            tail: VecDeque::new(),
            places: destinations.iter().map(place).collect(),
            tried: vec![tried; destinations.len()],
            is_dirty: true,
            oldest_epoch: None,
            put_off: vec![Ranges::default(); destinations.len()],
        };
        let mut lost = 0;
        for (from, to) in held.gaps(first, state.next - 1) {
            lost += tape.give_up_everywhere(from, to, lost_as);
        }
        tape.release();
        (tape, if is_known { lost } else { 0 })
    }

    /// Takes a record, in memory for now. Its number.
    pub(super) fn append(&mut self, epoch: u64, values: Box<[u8]>) -> u64 {
        let seq = self.next;
        self.tail.push_back(Kept { seq, epoch, values });
        self.next += 1;
        self.newest_epoch = self.newest_epoch.max(epoch);
        self.is_dirty = true;
        seq
    }

    /// The keep has all of it.
    pub(super) fn saved(&mut self) {
        self.tail.clear();
        self.kept_next = self.next;
        self.sendable_below = self.next;
        self.is_dirty = false;
    }

    /// Whether a crash would leave the keep without knowing which numbers are taken.
    pub(super) fn has_unsaved_numbers(&self) -> bool {
        self.next > self.kept_next
    }

    pub(super) fn state(&self, destinations: &[String], home: Option<&Home>) -> TapeState {
        let places = destinations.iter().cloned().zip(self.places.clone());
        TapeState {
            producer: self.producer,
            open: self.kind == Kind::Open,
            first: self.first,
            next: self.next,
            newest_epoch: self.newest_epoch,
            places: places.collect(),
            home: home.cloned(),
        }
    }

    /// The number of the first record that the keep does not have.
    pub(super) fn tail_first(&self) -> u64 {
        self.tail.front().map_or(self.next, |kept| kept.seq)
    }

    pub(super) fn tail_bytes(&self) -> u64 {
        self.tail.iter().map(Kept::bytes).sum()
    }

    /// Gives these numbers up for every destination that has not settled them. How many that were for the one that loses most.
    pub(super) fn give_up_everywhere(&mut self, from: u64, to: u64, why: &str) -> u64 {
        let lost = self.places.iter_mut();
        let lost = lost.map(|place| place.give_up(from, to, why)).max();
        self.is_dirty = true;
        lost.unwrap_or(0)
    }

    /// Lets go of what no destination needs any more.
    pub(super) fn release(&mut self) {
        let settled = self.places.iter().map(|place| place.settled.through());
        // Where nobody is to get anything, nothing is needed.
        let through = settled.min().unwrap_or(u64::MAX - 1);
        let first = (through + 1).min(self.next);
        if first > self.first {
            self.first = first;
            self.oldest_epoch = None;
        }
        while self.tail.front().is_some_and(|kept| kept.seq < self.first) {
            self.tail.pop_front();
        }
    }

    /// Nobody wants to be told any more.
    pub(super) fn forget_reports(&mut self) {
        self.is_dirty = true;
        for place in &mut self.places {
            place.unreported.clear();
        }
    }

    /// Whether nothing of it is needed any more.
    pub(super) fn has_ended(&self) -> bool {
        let told = self.places.iter().all(|place| place.unreported.is_empty());
        self.kind == Kind::Closed && self.first >= self.next && told
    }

    /// Numbers that this destination has not settled, and that may be sent now.
    pub(super) fn unsettled(
        &self,
        destination: usize,
    ) -> impl DoubleEndedIterator<Item = (u64, u64)> + use<> {
        let place = &self.places[destination];
        let to = (self.sendable_below - 1).max(self.first - 1);
        let put_off = self.put_off[destination].as_slice();
        if put_off.is_empty() {
            return place.settled.gaps(self.first, to);
        }
        let mut held_back = place.settled.clone();
        for (from, to) in put_off {
            held_back.insert(*from, *to);
        }
        held_back.gaps(self.first, to)
    }

    /// How many records this destination has not settled.
    pub(super) fn pending(&self, destination: usize) -> u64 {
        let place = &self.places[destination];
        let gaps = place.settled.gaps(self.first, self.next - 1);
        gaps.map(|(from, to)| to - from + 1).sum()
    }
}

impl PlaceState {
    /// These were delivered.
    pub(super) fn settle(&mut self, from: u64, to: u64) {
        self.settled.insert(from, to);
    }

    /// These will not be sent. How many of them were not settled.
    pub(super) fn give_up(&mut self, from: u64, to: u64, why: &str) -> u64 {
        let mut count = 0;
        for (from, to) in self.settled.gaps(from, to) {
            count += to - from + 1;
            self.report(from, to, why);
        }
        self.settled.insert(from, to);
        count
    }

    /// The destination misses these, though they were settled: it has lost them, and is told so.
    pub(super) fn missed(&mut self, from: u64, to: u64) -> u64 {
        let mut count = 0;
        for (from, to) in self.settled.overlap(from, to) {
            let is_said = |(start, end, _): &(u64, u64, String)| *start <= to && from <= *end;
            if !self.unreported.iter().any(is_said) {
                self.report(from, to, why::GONE);
                count += to - from + 1;
            }
        }
        count
    }

    fn report(&mut self, from: u64, to: u64, why: &str) {
        if let Some((_, end, said)) = self.unreported.last_mut()
            && *end + 1 == from
            && said == why
        {
            *end = to;
            return;
        }
        self.gaps = self.gaps.saturating_add(1);
        if self.unreported.len() >= UNREPORTED_MAX {
            self.unreported.remove(0);
        }
        self.unreported.push((from, to, why.to_owned()));
    }

    /// The destination has been told of these. What was added to them meanwhile stays.
    pub(super) fn told(&mut self, from: u64, to: u64) {
        let left = std::mem::take(&mut self.unreported).into_iter();
        self.unreported = left
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
