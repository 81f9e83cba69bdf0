//! Records that are not delivered yet: numbered, bounded, and read by each destination at its own pace.
//!
//! Numbers are given in order and without gaps, so a receiver that misses one knows that it is missing.

use std::collections::{BTreeSet, VecDeque};

use lizmon_protocol::sample::{Epoch, ProducerId, Record, SAFE_INTEGER_MAX, SampleSet, Seq};

/// Five and a half hours at one record a second, some 3 MB: beyond that the oldest are given up.
pub const RECORDS_MAX: usize = 20_000;

/// The queue in memory. It ends with the process.
#[derive(Debug)]
pub struct Spool {
    producer: ProducerId,
    records_max: usize,
    /// The number the next record gets.
    next: u64,
    /// Numbered without gaps up to `next`.
    records: VecDeque<Record<'static>>,
    places: Vec<Place>,
}

/// How far one destination is.
#[derive(Debug, Clone)]
struct Place {
    /// The least number that is not settled.
    from: u64,
    /// Numbers from there on that this destination will not take.
    given_up: BTreeSet<u64>,
}

/// Records for one destination, in order.
#[derive(Debug, PartialEq)]
pub struct Lot {
    /// What is to be sent.
    pub records: Vec<Record<'static>>,
    /// How many were given up since the last lot because the spool was full.
    pub lost: u64,
}

impl Spool {
    /// An empty spool for so many destinations, counted from 0.
    pub fn new(producer: ProducerId, destinations: usize, records_max: usize) -> Self {
        let place = Place {
            from: 1,
            given_up: BTreeSet::new(),
        };
        Self {
            producer,
            records_max,
            next: 1,
            records: VecDeque::new(),
            places: vec![place; destinations],
        }
    }

    /// Who numbers these records.
    pub fn producer(&self) -> ProducerId {
        self.producer
    }

    /// Takes a record, and gives up the oldest one if there is no room. The number it got; none after 2^53 - 1 of them.
    pub fn push(&mut self, epoch: Epoch, values: SampleSet<'static>) -> Option<Seq> {
        let seq = Seq::new(self.next).filter(|_| self.next < SAFE_INTEGER_MAX)?;
        if self.records.len() >= self.records_max {
            self.records.pop_front();
        }
        self.records.push_back(Record { seq, epoch, values });
        self.next += 1;
        Some(seq)
    }

    /// The oldest records that are not settled, at most so many. Until they are settled they will be read again.
    pub fn read(&mut self, destination: usize, records_max: usize) -> Lot {
        let first = self.first();
        let place = &mut self.places[destination];
        let mut lost = first.saturating_sub(place.from);
        if lost > 0 {
            lost -= place.given_up.range(..first).count() as u64;
            place.skip_to(first);
        }
        let ahead = usize::try_from(place.from - first).unwrap_or(usize::MAX);
        let wanted = |record: &&Record<'_>| !place.given_up.contains(&record.seq.get());
        let records = self.records.iter().skip(ahead).filter(wanted);
        Lot {
            records: records.take(records_max).cloned().collect(),
            lost,
        }
    }

    /// Everything up to this number has been delivered to this destination, or given up.
    pub fn settle(&mut self, destination: usize, through: Seq) {
        self.places[destination].skip_to(through.get() + 1);
        self.release();
    }

    /// This destination will never take these.
    pub fn give_up(&mut self, destination: usize, seqs: impl IntoIterator<Item = Seq>) {
        let place = &mut self.places[destination];
        let unsettled = seqs
            .into_iter()
            .map(Seq::get)
            .filter(|seq| *seq >= place.from);
        place.given_up.extend(unsettled);
        place.skip_to(place.from);
        self.release();
    }

    /// Lets go of what no destination needs any more.
    fn release(&mut self) {
        let settled_by_all = self.places.iter().map(|place| place.from).min();
        while let Some(record) = self.records.front()
            && settled_by_all.is_some_and(|from| record.seq.get() < from)
        {
            self.records.pop_front();
        }
    }

    /// How many records this destination has not settled.
    pub fn pending(&self, destination: usize) -> usize {
        let place = &self.places[destination];
        let from = place.from.max(self.first());
        let given_up = place.given_up.range(from..).count();
        usize::try_from(self.next - from).unwrap_or(usize::MAX) - given_up
    }

    /// The number of the oldest record that is still here.
    fn first(&self) -> u64 {
        self.records
            .front()
            .map_or(self.next, |record| record.seq.get())
    }
}

impl Place {
    fn skip_to(&mut self, from: u64) {
        self.from = self.from.max(from);
        self.given_up = self.given_up.split_off(&self.from);
        while self.given_up.remove(&self.from) {
            self.from += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn spool(destinations: usize, records_max: usize) -> Spool {
        Spool::new(ProducerId::from_bytes([7; 16]), destinations, records_max)
    }

    fn push(spool: &mut Spool, count: u64) {
        for _ in 0..count {
            spool
                .push(Epoch::new(1).unwrap(), SampleSet::default())
                .unwrap();
        }
    }

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn check_read(spool: &mut Spool, destination: usize, max: usize, expected: (&[u64], u64)) {
        let lot = spool.read(destination, max);
        let seqs: Vec<u64> = lot.records.iter().map(|record| record.seq.get()).collect();
        assert_eq!((&seqs[..], lot.lost), expected);
    }

    #[test]
    fn what_is_not_settled_is_read_again() {
        let mut spool = spool(1, 10);
        check_read(&mut spool, 0, 5, (&[], 0));
        push(&mut spool, 3);
        check_read(&mut spool, 0, 2, (&[1, 2], 0));
        check_read(&mut spool, 0, 2, (&[1, 2], 0));
        spool.settle(0, seq(2));
        assert_eq!(spool.pending(0), 1);
        check_read(&mut spool, 0, 2, (&[3], 0));
        spool.settle(0, seq(3));
        check_read(&mut spool, 0, 2, (&[], 0));
        assert!(spool.records.is_empty());
    }

    #[test]
    fn a_destination_holds_back_no_other() {
        let mut spool = spool(2, 10);
        push(&mut spool, 4);
        spool.settle(0, seq(4));
        check_read(&mut spool, 0, 9, (&[], 0));
        check_read(&mut spool, 1, 9, (&[1, 2, 3, 4], 0));
        spool.settle(1, seq(4));
        assert!(spool.records.is_empty());
    }

    #[test]
    fn the_oldest_is_given_up_and_counted_once() {
        let mut spool = spool(2, 3);
        push(&mut spool, 3);
        spool.settle(0, seq(2));
        push(&mut spool, 2);
        check_read(&mut spool, 0, 9, (&[3, 4, 5], 0));
        check_read(&mut spool, 1, 9, (&[3, 4, 5], 2));
        check_read(&mut spool, 1, 9, (&[3, 4, 5], 0));
    }

    #[test]
    fn what_was_delivered_while_it_fell_out_is_not_lost() {
        let mut spool = spool(1, 3);
        push(&mut spool, 3);
        check_read(&mut spool, 0, 9, (&[1, 2, 3], 0));
        push(&mut spool, 2);
        spool.settle(0, seq(3));
        check_read(&mut spool, 0, 9, (&[4, 5], 0));
    }

    #[test]
    fn what_was_refused_is_not_read_again_and_not_lost() {
        let mut spool = spool(2, 4);
        push(&mut spool, 4);
        spool.give_up(0, [seq(1), seq(3)]);
        assert_eq!(spool.pending(0), 2);
        check_read(&mut spool, 0, 9, (&[2, 4], 0));
        check_read(&mut spool, 1, 9, (&[1, 2, 3, 4], 0));
        push(&mut spool, 3);
        check_read(&mut spool, 0, 9, (&[4, 5, 6, 7], 1));
        spool.give_up(0, [seq(1)]);
        assert_eq!(spool.pending(0), 4);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        /// Read at most so many at a destination, and settle that lot or not.
        Read(usize, usize, bool),
        /// Give up the first of the next lot.
        GiveUp(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Push),
            2 => (0..3usize, 1..6usize, any::<bool>()).prop_map(|(d, max, s)| Step::Read(d, max, s)),
            1 => (0..3usize).prop_map(Step::GiveUp),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Each record comes to each destination exactly one of these ways: settled, given up, lost, or pending.
        #[test]
        fn every_record_has_one_fate(steps in steps(), records_max in 1..8usize) {
            let mut spool = spool(3, records_max);
            let mut pushed = 0u64;
            let mut fates: Vec<BTreeMap<u64, &str>> = vec![BTreeMap::new(); 3];
            let mut lost = [0u64; 3];
            for step in steps {
                match step {
                    Step::Push => {
                        pushed += 1;
                        let seq = spool.push(Epoch::new(pushed).unwrap(), SampleSet::default());
                        prop_assert_eq!(seq.map(Seq::get), Some(pushed));
                    }
                    Step::Read(at, max, settle) => {
                        let lot = spool.read(at, max);
                        lost[at] += lot.lost;
                        prop_assert!(lot.records.len() <= max);
                        prop_assert!(lot.records.is_sorted_by_key(|record| record.seq));
                        if let (true, Some(last)) = (settle, lot.records.last()) {
                            spool.settle(at, last.seq);
                            for record in &lot.records {
                                prop_assert!(fates[at].insert(record.seq.get(), "settled").is_none());
                            }
                        }
                    }
                    Step::GiveUp(at) => {
                        let lot = spool.read(at, 1);
                        lost[at] += lot.lost;
                        if let Some(record) = lot.records.first() {
                            spool.give_up(at, [record.seq]);
                            prop_assert!(fates[at].insert(record.seq.get(), "given up").is_none());
                        }
                    }
                }
                prop_assert!(spool.records.len() <= records_max);
            }
            for at in 0..3 {
                let lot = spool.read(at, usize::MAX);
                lost[at] += lot.lost;
                prop_assert_eq!(spool.pending(at), lot.records.len());
                for record in &lot.records {
                    prop_assert!(fates[at].insert(record.seq.get(), "pending").is_none());
                }
                prop_assert_eq!(fates[at].len() as u64 + lost[at], pushed);
            }
        }
    }
}
