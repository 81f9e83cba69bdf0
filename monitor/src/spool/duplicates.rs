//! Numbers that a destination knows though they were never sent to it: the spool is a copy of
//! another, or was rolled back.
//!
//! The receiver takes such a record for one that arrived before, and does not count it. So an
//! answer that reports a duplicate of what was sent for the first time is an alarm: new records get
//! a new producer, and these are sent again under its numbers. It is no alarm for what may have
//! been sent before, by an attempt whose answer was lost or by an earlier process: there a
//! duplicate means that it has arrived.

use super::backend::{SpoolBackend, StoredRecord};
use super::event::Event;
use super::producer_log::LogKind;
use super::queue::{Spool, StoredBatch};
use super::ranges::Ranges;

impl<B: SpoolBackend> Spool<B> {
    /// These were sent, and it is not known whether they arrived.
    pub fn mark_possibly_delivered(&mut self, destination: usize, batch: &StoredBatch) {
        if let Some(log) = self.log_of(batch.producer) {
            for record in &batch.records {
                log.possibly_delivered[destination].insert(record.seq.get(), record.seq.get());
            }
        }
    }

    /// This destination reports so many duplicates among these records: to be called before they
    /// are acknowledged. Returns how many records get new numbers. Which ones it knew the
    /// destination does not say: an older copy has the lower ones in common with the spool that
    /// continued without it.
    pub fn on_duplicates(
        &mut self,
        destination: usize,
        batch: &StoredBatch,
        duplicates: u64,
        now: u64,
    ) -> u64 {
        // A repair is of what the destination had acknowledged: it knew these numbers once.
        if batch.repair {
            return 0;
        }
        let mut logs = self.logs.iter();
        let Some(at) = logs.position(|log| log.producer == batch.producer) else {
            return 0;
        };
        let sent_before = &self.logs[at].possibly_delivered[destination];
        let is_first_time = |record: &&StoredRecord| !sent_before.contains(record.seq.get());
        let first_time: Vec<_> = batch.records.iter().filter(is_first_time).collect();
        let expected = (batch.records.len() - first_time.len()) as u64;
        let unexpected = duplicates.saturating_sub(expected);
        if unexpected == 0 {
            return 0;
        }
        // What it has may be another process's records under these numbers.
        self.stop_repairs(destination, at);
        if self.logs[at].kind == LogKind::Active {
            self.rotate_log(at, now);
        }
        let unexpected = usize::try_from(unexpected).unwrap_or(usize::MAX);
        let again = first_time.into_iter().take(unexpected);
        let records = again.len() as u64;
        for record in again {
            let only = Some(destination);
            self.push_to(only, record.epoch, record.values.clone(), now);
        }
        self.events.push(Event::UnexpectedDuplicates {
            destination: self.destinations[destination].clone(),
            records,
        });
        records
    }

    fn stop_repairs(&mut self, destination: usize, at: usize) {
        let log = &mut self.logs[at];
        log.to_repair[destination] = Ranges::default();
        let progress = &mut log.destinations[destination];
        progress.is_shared = true;
        progress.acknowledged = Ranges::default();
        log.is_dirty = true;
    }
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::sample::{EncodedSamples, Epoch, ProducerId, parse_sample_set};

    use super::super::memory::MemoryBackend;
    use super::super::{MEMORY_BYTES_MAX, SpoolLimits};
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
            SpoolLimits::new(MEMORY_BYTES_MAX),
            new_producer,
        )
    }

    fn push(spool: &mut Spool<MemoryBackend>, epoch: u64) {
        let values = parse_sample_set(br#"{"cpu":1}"#).unwrap();
        let values = EncodedSamples::encode(&values).unwrap();
        spool
            .push(Epoch::new(epoch).unwrap(), values, epoch)
            .unwrap();
    }

    fn epochs(batch: &StoredBatch) -> Vec<u64> {
        let epochs = batch
            .records
            .iter()
            .map(|record| record.epoch.secs() - START);
        epochs.collect()
    }

    /// New records of a cloned spool had numbers that the receiver knew, and were not counted.
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
                // The second receiver reported no duplicates, and gets each record once.
                spool.ack(0, &again);
            }
            let mut others = Vec::new();
            while let Some(batch) = spool.next_batch(1, 0, 10) {
                others.extend(epochs(&batch));
                spool.ack(1, &batch);
            }
            assert_eq!(others, [0, 1, 2]);
            // The next record has the new producer.
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
        // An earlier process may have sent its records.
        let mut spool = open(MemoryBackend::default(), 1);
        push(&mut spool, START);
        let mut spool = open(spool.into_backend(), 7);
        let batch = spool.next_batch(0, 10, 10).unwrap();
        assert_eq!(spool.on_duplicates(0, &batch, 1, START + 2), 0);
    }
}
