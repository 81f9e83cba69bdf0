//! Drops what [`Retention`](super::retention::Retention) decides.

use super::backend::{SpoolBackend, StoredRecord, UNKNOWN_EPOCH};
use super::drop_reason;
use super::queue::Spool;
use super::retention::{last_before, last_within};

/// Records read at once where only their sizes and ages are wanted.
const OLDEST_RECORDS: usize = 64;

impl<B: SpoolBackend> Spool<B> {
    /// Drops records and reports that are too old, and logs beyond the most that are kept.
    pub(super) fn drop_old(&mut self, now: u64) {
        if let Some(surplus) = self.retention.surplus_log(&self.logs) {
            let last = self.logs[surplus].next - 1;
            let is_only_kept = self.logs[surplus].is_only_kept();
            self.drop_through(surplus, last, drop_reason::SPOOL_FULL);
            match is_only_kept {
                true => self.logs[surplus].expire_reported(u64::MAX),
                false => self.logs[surplus].discard_reports(),
            }
        }
        let Some(limit) = self.retention.oldest_epoch(now) else {
            return;
        };
        for at in 0..self.logs.len() {
            let newest = &mut self.logs[at].newest_epoch;
            if *newest == UNKNOWN_EPOCH {
                *newest = now;
            }
            while self.oldest_epoch(at).is_some_and(|epoch| epoch < limit) {
                let Some(last) = last_before(&self.read_oldest(at), limit) else {
                    break;
                };
                self.drop_through(at, last, drop_reason::TOO_OLD);
            }
        }
        for log in &mut self.logs {
            if self.retention.are_reports_too_old(log, now) {
                log.discard_reports();
            }
        }
    }

    /// Frees space in the backend.
    pub(super) fn drop_beyond_limit(&mut self, now: u64) {
        let mut excess = self.retention.excess_bytes(self.stored_bytes);
        // While nothing can be written, nothing is freed either, and nothing is added.
        if excess == 0 || self.failure.is_some() {
            return;
        }
        // What is only kept goes first, in all logs.
        for is_kept in [true, false] {
            for at in 0..self.logs.len() {
                while excess > 0 {
                    let mut oldest = self.read_oldest(at);
                    if is_kept {
                        let needed_from = self.logs[at].needed_from();
                        oldest.retain(|record| record.seq.get() < needed_from);
                    }
                    let Some(last) = last_within(&oldest, &mut excess) else {
                        break;
                    };
                    self.drop_through(at, last, drop_reason::SPOOL_FULL);
                }
            }
        }
        self.try_save(now);
    }

    /// Keeps what the backend has not stored within its limit.
    pub(super) fn limit_unsaved(&mut self, at: usize) {
        let excess = self.retention.excess_unsaved(&self.logs[at]);
        let log = &mut self.logs[at];
        let mut lost = 0;
        for _ in 0..excess {
            if let Some(record) = log.unsaved.pop_front() {
                let seq = record.seq.get();
                lost += log.drop_everywhere(seq, seq, drop_reason::DISK_FAILED);
            }
        }
        if lost > 0 {
            log.trim();
        }
        self.count_dropped(lost, drop_reason::DISK_FAILED);
    }

    fn drop_through(&mut self, at: usize, seq: u64, why: &'static str) {
        let log = &mut self.logs[at];
        let lost = log.drop_everywhere(log.first, seq, why);
        log.release(seq);
        self.count_dropped(lost, why);
    }

    fn oldest_epoch(&mut self, at: usize) -> Option<u64> {
        if self.logs[at].oldest_epoch.is_none() {
            let oldest = self.read_oldest(at);
            self.logs[at].oldest_epoch = oldest.first().map(|record| record.epoch.secs());
        }
        self.logs[at].oldest_epoch
    }

    /// Some of the oldest records; none where there are none, or they cannot be read.
    fn read_oldest(&mut self, at: usize) -> Vec<StoredRecord> {
        let log = &self.logs[at];
        let stored_to = log.first_unsaved() - 1;
        if log.first <= stored_to {
            let read = self
                .backend
                .read(log.producer, log.first, stored_to, OLDEST_RECORDS);
            match read {
                Ok(oldest) if oldest.is_empty() => (),
                Ok(oldest) => return oldest,
                Err(_) => return Vec::new(),
            }
        }
        log.unsaved.iter().take(OLDEST_RECORDS).cloned().collect()
    }
}
