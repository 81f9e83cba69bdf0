//! What the destinations answer about the records that they were sent.

use lizmon_protocol::sample::{ProducerId, Seq};

use super::backend::SpoolBackend;
use super::queue::{Spool, StoredBatch};
use super::ranges::Ranges;

impl<B: SpoolBackend> Spool<B> {
    /// These were delivered to this destination.
    pub fn ack(&mut self, destination: usize, batch: &StoredBatch) {
        let keeps_reports = self.keeps_acknowledged();
        let now = self.kept_clock;
        let Some(log) = self.log_of(batch.producer) else {
            return;
        };
        let keeps = log.kept.keeps();
        let progress = &mut log.destinations[destination];
        for record in &batch.records {
            let seq = record.seq.get();
            match keeps {
                true => progress.ack(seq, seq),
                false => progress.skip(seq, seq),
            }
        }
        for dropped in &batch.dropped {
            let (from, to) = (dropped.from.get(), dropped.to.get());
            progress.mark_reported(from, to);
            if keeps_reports {
                progress.keep_reported(from, to, dropped.why.as_str(), now);
            }
        }
        log.is_dirty = true;
        log.trim();
    }

    /// This destination will never accept these. It will be told so, with this reason.
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
        let dropped: u64 = seqs
            .iter()
            .map(|seq| progress.drop_records(seq.get(), seq.get(), why))
            .sum();
        log.is_dirty = true;
        log.trim();
        self.dropped_records += dropped;
    }

    /// This destination refuses these for now: they wait until [`Spool::resume_deferred`].
    pub fn defer(&mut self, destination: usize, producer: ProducerId, seqs: &[Seq]) {
        if let Some(log) = self.log_of(producer) {
            for seq in seqs {
                log.deferred[destination].insert(seq.get(), seq.get());
            }
        }
    }

    /// What was deferred for this destination is sent again.
    pub fn resume_deferred(&mut self, destination: usize) {
        for log in &mut self.logs {
            log.deferred[destination] = Ranges::default();
        }
    }

    /// This destination refuses these reports: they are not sent again.
    pub fn discard_reports(&mut self, destination: usize, batch: &StoredBatch) {
        if let Some(log) = self.log_of(batch.producer) {
            for dropped in &batch.dropped {
                log.destinations[destination].mark_reported(dropped.from.get(), dropped.to.get());
            }
            log.is_dirty = true;
        }
    }
}
