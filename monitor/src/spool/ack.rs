//! What the destinations say of the records that they were sent.

use lizmon_protocol::sample::{ProducerId, Seq};

use super::{Ranges, Spool, SpoolBackend, StoredBatch};

impl<K: SpoolBackend> Spool<K> {
    /// These have arrived at this destination.
    pub fn ack(&mut self, destination: usize, batch: &StoredBatch) {
        let Some(log) = self.log_of(batch.producer) else {
            return;
        };
        let progress = &mut log.destinations[destination];
        for record in &batch.records {
            progress.ack(record.seq.get(), record.seq.get());
        }
        for dropped in &batch.dropped {
            progress.mark_reported(dropped.from.get(), dropped.to.get());
        }
        log.is_dirty = true;
        log.trim();
    }

    /// This destination will never take these, for a reason it will be told.
    pub fn drop_records(
        &mut self,
        destination: usize,
        producer: ProducerId,
        seqs: &[Seq],
        why: &str,
    ) {
        let Some(log) = self.log_of(producer) else {
            return;
        };
        let progress = &mut log.destinations[destination];
        let dropped_records: u64 = seqs
            .iter()
            .map(|seq| progress.drop_records(seq.get(), seq.get(), why))
            .sum();
        log.is_dirty = true;
        log.trim();
        self.dropped_records += dropped_records;
    }

    /// This destination does not take these for now: they wait until [`Spool::resume_deferred`].
    pub fn deferred(&mut self, destination: usize, producer: ProducerId, seqs: &[Seq]) {
        if let Some(log) = self.log_of(producer) {
            for seq in seqs {
                log.deferred[destination].insert(seq.get(), seq.get());
            }
        }
    }

    /// What was put off for this destination is sent again.
    pub fn resume_deferred(&mut self, destination: usize) {
        for log in &mut self.logs {
            log.deferred[destination] = Ranges::default();
        }
    }

    /// A destination says what it misses of a producer's numbers. What we have settled with it cannot come again, so it is told
    /// that it has lost it. How many records that is.
    pub fn on_missing(
        &mut self,
        destination: usize,
        producer: ProducerId,
        missing: &[(u64, u64)],
    ) -> u64 {
        let Some(log) = self.log_of(producer) else {
            return 0;
        };
        let progress = &mut log.destinations[destination];
        let missed = missing
            .iter()
            .map(|(from, to)| progress.on_missing(*from, *to))
            .sum();
        log.is_dirty |= missed > 0;
        missed
    }

    /// This destination does not want to be told these.
    pub fn discard_reports(&mut self, destination: usize, batch: &StoredBatch) {
        if let Some(log) = self.log_of(batch.producer) {
            for dropped in &batch.dropped {
                log.destinations[destination].mark_reported(dropped.from.get(), dropped.to.get());
            }
            log.is_dirty = true;
        }
    }
}
