//! What the destinations say of the records that they were sent.

use lizmon_protocol::sample::{ProducerId, Seq};

use super::{Keep, Lot, Ranges, Spool};

impl<K: Keep> Spool<K> {
    /// These have arrived at this destination.
    pub fn settle(&mut self, destination: usize, lot: &Lot) {
        let Some(tape) = self.tape_of(lot.producer) else {
            return;
        };
        let place = &mut tape.places[destination];
        for record in &lot.records {
            place.settle(record.seq.get(), record.seq.get());
        }
        for dropped in &lot.dropped {
            place.told(dropped.from.get(), dropped.to.get());
        }
        tape.is_dirty = true;
        tape.release();
    }

    /// This destination will never take these, for a reason it will be told.
    pub fn give_up(&mut self, destination: usize, producer: ProducerId, seqs: &[Seq], why: &str) {
        let Some(tape) = self.tape_of(producer) else {
            return;
        };
        let place = &mut tape.places[destination];
        let given_up: u64 = seqs
            .iter()
            .map(|seq| place.give_up(seq.get(), seq.get(), why))
            .sum();
        tape.is_dirty = true;
        tape.release();
        self.given_up += given_up;
    }

    /// This destination does not take these for now: they wait until [`Spool::take_up`].
    pub fn put_off(&mut self, destination: usize, producer: ProducerId, seqs: &[Seq]) {
        if let Some(tape) = self.tape_of(producer) {
            for seq in seqs {
                tape.put_off[destination].insert(seq.get(), seq.get());
            }
        }
    }

    /// What was put off for this destination is sent again.
    pub fn take_up(&mut self, destination: usize) {
        for tape in &mut self.tapes {
            tape.put_off[destination] = Ranges::default();
        }
    }

    /// A destination says what it misses of a producer's numbers. What we have settled with it cannot come again, so it is told
    /// that it has lost it. How many records that is.
    pub fn missed(
        &mut self,
        destination: usize,
        producer: ProducerId,
        missing: &[(u64, u64)],
    ) -> u64 {
        let Some(tape) = self.tape_of(producer) else {
            return 0;
        };
        let place = &mut tape.places[destination];
        let missed = missing
            .iter()
            .map(|(from, to)| place.missed(*from, *to))
            .sum();
        tape.is_dirty |= missed > 0;
        missed
    }

    /// This destination does not want to be told these.
    pub fn forget_reports(&mut self, destination: usize, lot: &Lot) {
        if let Some(tape) = self.tape_of(lot.producer) {
            for dropped in &lot.dropped {
                tape.places[destination].told(dropped.from.get(), dropped.to.get());
            }
            tape.is_dirty = true;
        }
    }
}
