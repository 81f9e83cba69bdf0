//! Numbers that a destination knows though nobody here sent them: the spool is a copy of another, or came back older than it was.
//!
//! Such a record is answered as if it had arrived before, and never counts. So an answer that says "known" to what was sent for the first
//! time is an alarm: new records get a new producer, and these are sent again under its numbers. What may have been sent before, by an
//! attempt whose answer was lost or by an earlier process, is no alarm: there "known" says that it has arrived.

use lizmon_protocol::sample::Epoch;

use super::backend::SpoolBackend;
use super::producer_log::LogKind;
use super::{Event, Spool, StoredBatch};

impl<K: SpoolBackend> Spool<K> {
    /// These were sent, and it is not known whether they arrived.
    pub fn mark_possibly_delivered(&mut self, destination: usize, batch: &StoredBatch) {
        if let Some(log) = self.log_of(batch.producer) {
            for record in &batch.records {
                log.possibly_delivered[destination].insert(record.seq.get(), record.seq.get());
            }
        }
    }

    /// This destination knew so many of these numbers: to be told before they are settled. How many records get new numbers. Which ones it
    /// knew it does not say: an older copy has the lower ones in common with what went on without it.
    pub fn on_duplicates(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        known: u64,
        now: u64,
    ) -> u64 {
        let Some(at) = self
            .logs
            .iter()
            .position(|log| log.producer == batch.producer)
        else {
            return 0;
        };
        let possibly_delivered = &self.logs[at].possibly_delivered[destination];
        let first_time: Vec<_> = batch
            .records
            .iter()
            .filter(|record| !possibly_delivered.contains(record.seq.get()))
            .collect();
        let sent_before = (batch.records.len() - first_time.len()) as u64;
        let alarming = known.saturating_sub(sent_before);
        if alarming == 0 {
            return 0;
        }
        if self.logs[at].kind == LogKind::Active {
            self.rotate_log(at, now);
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
            self.push_to(Some(destination), epoch, values, now);
        }
        self.events.push(Event::UnexpectedDuplicates {
            destination: self.destinations[destination].clone(),
            records,
        });
        records
    }
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::sample::{ProducerId, parse_sample_set};

    use super::super::memory::MemoryBackend;
    use super::super::{Limits, MEMORY_BYTES_MAX};
    use super::*;

    const START: u64 = 1_465_001_814;

    fn open(backend: MemoryBackend, first_producer: u8) -> Spool<MemoryBackend> {
        let mut last = first_producer;
        let new_producer = move || {
            last += 1;
            ProducerId::from_bytes([last; 16])
        };
        let urls = ["https://a:1/api/perf", "https://b:1/api/perf"].map(str::to_owned);
        Spool::open(
            backend,
            urls.into(),
            Limits::new(MEMORY_BYTES_MAX),
            new_producer,
        )
    }

    fn push(spool: &mut Spool<MemoryBackend>, epoch: u64) {
        let values = parse_sample_set(br#"{"cpu":1}"#).unwrap();
        spool
            .push(Epoch::new(epoch).unwrap(), &values, epoch)
            .unwrap();
    }

    fn epochs(batch: &StoredBatch) -> Vec<u64> {
        let epochs = batch
            .records
            .iter()
            .map(|record| record.epoch.secs() - START);
        epochs.collect()
    }

    /// New records of a cloned spool had numbers that the receiver knew, and were never counted.
    #[test]
    fn unexpected_duplicates_are_sent_again_under_new_numbers() {
        for (known, expected) in [(0, 0), (1, 1), (3, 3)] {
            let mut spool = open(MemoryBackend::default(), 1);
            (0..3).for_each(|at| push(&mut spool, START + at));
            let batch = spool.next_batch(0, 10, 10).unwrap();
            assert_eq!(spool.on_duplicates(0, &batch, known, START + 3), expected);
            spool.ack(0, &batch);
            let again = spool.next_batch(0, 10, 10);
            assert_eq!(again.is_some(), expected > 0);
            if let Some(again) = again {
                let lowest: Vec<u64> = (0..expected).collect();
                assert_ne!(again.producer, batch.producer);
                assert_eq!(epochs(&again), lowest);
                // The second receiver has not said so, and gets each record once.
                spool.ack(0, &again);
            }
            let mut others = Vec::new();
            while let Some(batch) = spool.next_batch(1, 0, 10) {
                others.extend(epochs(&batch));
                spool.ack(1, &batch);
            }
            assert_eq!(others, [0, 1, 2]);
            // What comes next is numbered by the new one.
            push(&mut spool, START + 9);
            let next = spool.next_batch(0, 10, 10).unwrap();
            assert_eq!(next.producer != batch.producer, expected > 0);
        }
    }

    #[test]
    fn a_possible_earlier_delivery_is_no_alarm() {
        let mut spool = open(MemoryBackend::default(), 1);
        push(&mut spool, START);
        let batch = spool.next_batch(0, 10, 10).unwrap();
        spool.mark_possibly_delivered(0, &batch);
        push(&mut spool, START + 1);
        let both = spool.next_batch(0, 0, 10).unwrap();
        assert_eq!(both.records.len(), 2);
        assert_eq!(spool.on_duplicates(0, &both, 1, START + 2), 0);
        assert_eq!(spool.on_duplicates(0, &both, 2, START + 2), 1);
        // An earlier process may have sent what it left.
        let mut spool = open(MemoryBackend::default(), 1);
        push(&mut spool, START);
        let mut spool = open(spool.into_backend(), 7);
        let batch = spool.next_batch(0, 10, 10).unwrap();
        assert_eq!(spool.on_duplicates(0, &batch, 1, START + 2), 0);
    }
}
