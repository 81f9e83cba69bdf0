//! Numbers that a destination knows though nobody here sent them: the spool is a copy of another, or came back older than it was.
//!
//! Such a record is answered as if it had arrived before, and never counts. So an answer that says "known" to what was sent for the first
//! time is an alarm: new records get a new producer, and these are sent again under its numbers. What may have been sent before, by an
//! attempt whose answer was lost or by an earlier process, is no alarm: there "known" says that it has arrived.

use lizmon_protocol::sample::Epoch;

use super::keep::Keep;
use super::tape::Kind;
use super::{Event, Lot, Spool};

impl<K: Keep> Spool<K> {
    /// These were sent, and it is not known whether they arrived.
    pub fn may_have_arrived(&mut self, destination: usize, lot: &Lot) {
        if let Some(tape) = self.tape_of(lot.producer) {
            for record in &lot.records {
                tape.tried[destination].insert(record.seq.get(), record.seq.get());
            }
        }
    }

    /// This destination knew so many of these numbers: to be told before they are settled. How many records get new numbers. Which ones it
    /// knew it does not say: an older copy has the lower ones in common with what went on without it.
    pub fn heard_known(&mut self, destination: usize, lot: &Lot, known: u64, now: u64) -> u64 {
        let Some(at) = self
            .tapes
            .iter()
            .position(|tape| tape.producer == lot.producer)
        else {
            return 0;
        };
        let tried = &self.tapes[at].tried[destination];
        let first_time: Vec<_> = lot
            .records
            .iter()
            .filter(|record| !tried.contains(record.seq.get()))
            .collect();
        let sent_before = (lot.records.len() - first_time.len()) as u64;
        let alarming = known.saturating_sub(sent_before);
        if alarming == 0 {
            return 0;
        }
        if self.tapes[at].kind == Kind::Open {
            self.change_tape(at, now);
        }
        let again: Vec<(Epoch, Box<[u8]>)> = first_time
            .into_iter()
            .take(usize::try_from(alarming).unwrap_or(usize::MAX))
            .filter_map(|record| {
                let values = serde_json::to_vec(&record.values).ok()?;
                Some((record.epoch, values.into_boxed_slice()))
            })
            .collect();
        let records = again.len() as u64;
        for (epoch, values) in again {
            self.push_for(Some(destination), epoch, values, now);
        }
        self.events.push(Event::KnownNumbers {
            destination: self.destinations[destination].clone(),
            records,
        });
        records
    }
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::sample::{ProducerId, parse_sample_set};

    use super::super::memory::Memory;
    use super::super::{Limits, MEMORY_BYTES_MAX};
    use super::*;

    const START: u64 = 1_465_001_814;

    fn open(keep: Memory, first_producer: u8) -> Spool<Memory> {
        let mut last = first_producer;
        let new_producer = move || {
            last += 1;
            ProducerId::from_bytes([last; 16])
        };
        let urls = ["https://a:1/api/perf", "https://b:1/api/perf"].map(str::to_owned);
        Spool::open(
            keep,
            urls.into(),
            Limits::new(MEMORY_BYTES_MAX),
            new_producer,
        )
    }

    fn push(spool: &mut Spool<Memory>, epoch: u64) {
        let values = parse_sample_set(br#"{"cpu":1}"#).unwrap();
        spool
            .push(Epoch::new(epoch).unwrap(), &values, epoch)
            .unwrap();
    }

    fn epochs(lot: &Lot) -> Vec<u64> {
        let epochs = lot.records.iter().map(|record| record.epoch.secs() - START);
        epochs.collect()
    }

    /// New records of a cloned spool had numbers that the receiver knew, and were never counted.
    #[test]
    fn what_is_known_at_first_sight_is_sent_again_under_new_numbers() {
        for (known, expected) in [(0, 0), (1, 1), (3, 3)] {
            let mut spool = open(Memory::default(), 1);
            (0..3).for_each(|at| push(&mut spool, START + at));
            let lot = spool.lot(0, 10, 10).unwrap();
            assert_eq!(spool.heard_known(0, &lot, known, START + 3), expected);
            spool.settle(0, &lot);
            let again = spool.lot(0, 10, 10);
            assert_eq!(again.is_some(), expected > 0);
            if let Some(again) = again {
                let lowest: Vec<u64> = (0..expected).collect();
                assert_ne!(again.producer, lot.producer);
                assert_eq!(epochs(&again), lowest);
                // The second receiver has not said so, and gets each record once.
                spool.settle(0, &again);
            }
            let mut others = Vec::new();
            while let Some(lot) = spool.lot(1, 0, 10) {
                others.extend(epochs(&lot));
                spool.settle(1, &lot);
            }
            assert_eq!(others, [0, 1, 2]);
            // What comes next is numbered by the new one.
            push(&mut spool, START + 9);
            let next = spool.lot(0, 10, 10).unwrap();
            assert_eq!(next.producer != lot.producer, expected > 0);
        }
    }

    #[test]
    fn what_may_have_arrived_before_is_known_rightly() {
        let mut spool = open(Memory::default(), 1);
        push(&mut spool, START);
        let lot = spool.lot(0, 10, 10).unwrap();
        spool.may_have_arrived(0, &lot);
        push(&mut spool, START + 1);
        let both = spool.lot(0, 0, 10).unwrap();
        assert_eq!(both.records.len(), 2);
        assert_eq!(spool.heard_known(0, &both, 1, START + 2), 0);
        assert_eq!(spool.heard_known(0, &both, 2, START + 2), 1);
        // An earlier process may have sent what it left.
        let mut spool = open(Memory::default(), 1);
        push(&mut spool, START);
        let mut spool = open(spool.into_keep(), 7);
        let lot = spool.lot(0, 10, 10).unwrap();
        assert_eq!(spool.heard_known(0, &lot, 1, START + 2), 0);
    }
}
