//! Acknowledged records, kept for a while: a receiver that loses what it has acknowledged gets them
//! again.
//!
//! A log removes records from its beginning only. What is kept is its beginning: the records that
//! no destination waits for. They go after `--keep-acknowledged`, beyond their part of the spool's
//! limit, and before any record that still waits would have to go. What was reported as dropped is
//! remembered for the same time, in case a receiver forgets the report.

use super::backend::SpoolBackend;
use super::event::Event;
use super::kept::Kept;
use super::producer_log::{LogKind, ProducerLog};
use super::queue::Spool;
use super::ranges::Ranges;

/// In how many steps a log's kept records end: each is noted with its time.
const STEPS: u64 = 64;

impl ProducerLog {
    /// How many records no destination waits for.
    fn kept_records(&self) -> u64 {
        self.needed_from().saturating_sub(self.first)
    }

    /// Removes kept records through this number.
    pub(super) fn release(&mut self, through: u64) {
        self.kept.release(through);
        self.trim();
    }

    /// Whether it would be finished if nothing were kept.
    pub(super) fn is_only_kept(&self) -> bool {
        self.kind == LogKind::Closed && self.needed_from() >= self.next && self.first < self.next
    }
}

impl<B: SpoolBackend> Spool<B> {
    /// How many acknowledged records are kept.
    pub fn kept_records(&self) -> u64 {
        self.logs.iter().map(ProducerLog::kept_records).sum()
    }

    /// Whether acknowledged records are kept at all.
    pub fn keeps_acknowledged(&self) -> bool {
        self.retention.keep_secs().is_some()
    }

    /// So many seconds have passed in which every destination could have said what it misses. To be
    /// called with each record.
    pub fn age_kept(&mut self, secs: u64) {
        let Some(keep_secs) = self.retention.keep_secs() else {
            return;
        };
        self.kept_clock += secs;
        let now = self.kept_clock;
        for log in &mut self.logs {
            let needed_from = log.needed_from();
            log.kept.note(needed_from, now, (keep_secs / STEPS).max(1));
            if let Some(until) = now.checked_sub(keep_secs) {
                let planned = log.to_repair.iter().filter_map(Ranges::first);
                log.kept.expire(until, planned.min());
                log.trim();
                log.expire_reported(until);
            }
        }
        self.limit_kept();
    }

    /// What of a new log is kept.
    pub(super) fn keeps(&self) -> Kept {
        match self.keeps_acknowledged() {
            true => Kept::everything(),
            false => Kept::nothing(),
        }
    }

    /// Releases the oldest beyond their part of the limit, by the mean size of all records.
    fn limit_kept(&mut self) {
        let records = self.logs.iter().map(|log| log.next - log.first).sum();
        let unsaved: u64 = self.logs.iter().map(ProducerLog::unsaved_bytes).sum();
        let bytes = self.stored_bytes + unsaved;
        let kept = self.kept_records();
        let mut excess = self.retention.excess_kept(kept, records, bytes);
        if excess == 0 {
            return;
        }
        for log in &mut self.logs {
            let count = log.kept_records().min(excess);
            if count > 0 {
                excess -= count;
                log.release(log.first + count - 1);
            }
        }
        if !self.is_kept_limited {
            self.is_kept_limited = true;
            let oldest = self.logs.iter().filter_map(|log| log.kept.oldest_end());
            let since = oldest.min().unwrap_or(self.kept_clock);
            let secs = self.kept_clock - since;
            self.events.push(Event::KeptForLess { secs });
        }
    }
}
