//! What is given up because there is no room, or because nobody would take it any more. Oldest first.

use super::backend::{SpoolBackend, StoredRecord, UNKNOWN_EPOCH};
use super::producer_log::{LogKind, ProducerLog};
use super::{PRODUCER_LOGS_MAX, Spool, drop_reason};

/// For how long a clock must have run on before it may call a record too old.
const STEADY_SECS: u64 = 600;
/// A clock that moves on by more from one sample to the next was set, or the machine slept.
const JUMP_SECS: u64 = 7200;

/// How long an ended tape is kept for what a receiver has not been told of it: as long as receivers remember its
/// producer, for an outage may last longer than records do.
const REPORTS_KEPT_SECS: u64 = 7 * 86_400;

/// Since when the clock has run on without a jump: one that is wrong for a moment, as after a start, makes nothing old.
#[derive(Debug, Default)]
pub(crate) struct ClockSteadiness {
    since: u64,
    last: u64,
}

impl ClockSteadiness {
    pub(crate) fn is_steady_at(&mut self, now: u64) -> bool {
        if now < self.last || now - self.last > JUMP_SECS {
            self.since = now;
        }
        self.last = now;
        now - self.since >= STEADY_SECS
    }
}

/// Records read at once where only their sizes and ages are wanted.
const OLDEST_RECORDS: usize = 64;

impl<K: SpoolBackend> Spool<K> {
    /// Gives up what is too old, and tapes that nobody needs to hear of any more.
    pub(super) fn drop_old(&mut self, now: u64) {
        self.drop_logs_beyond_max();
        if !self.steadiness.is_steady_at(now) {
            return;
        }
        let limit = now.saturating_sub(self.limits.age_secs_max);
        for at in 0..self.logs.len() {
            let newest = &mut self.logs[at].newest_epoch;
            if *newest == UNKNOWN_EPOCH {
                *newest = now;
            }
            while self.oldest_epoch(at).is_some_and(|epoch| epoch < limit) {
                let look = self.read_oldest(at);
                let old = look.iter().take_while(|kept| kept.epoch < limit);
                let Some(last) = old.last() else {
                    break;
                };
                self.drop_through(at, last.seq, drop_reason::TOO_OLD);
            }
        }
        let untold = now.saturating_sub(REPORTS_KEPT_SECS);
        for log in &mut self.logs {
            let is_over = log.kind == LogKind::Closed && log.first >= log.next;
            if is_over && log.newest_epoch < untold {
                log.discard_reports();
            }
        }
    }

    fn drop_logs_beyond_max(&mut self) {
        let closed = |log: &ProducerLog| log.kind == LogKind::Closed;
        if self.logs.len() > PRODUCER_LOGS_MAX
            && let Some(oldest) = self.logs.iter().position(closed)
        {
            self.drop_through(oldest, self.logs[oldest].next - 1, drop_reason::SPOOL_FULL);
            self.logs[oldest].discard_reports();
        }
    }

    /// Makes room in the keep, a little more than is needed, so that it is not done for each record.
    pub(super) fn drop_beyond_limit(&mut self, now: u64) {
        let bytes_max = self.limits.bytes_max;
        // While nothing can be written, nothing is freed either, and nothing is added.
        if self.stored_bytes <= bytes_max || self.failure.is_some() {
            return;
        }
        let mut excess = self.stored_bytes - (bytes_max - bytes_max / 64);
        for at in 0..self.logs.len() {
            while excess > 0 {
                let look = self.read_oldest(at);
                let mut last = None;
                for kept in look {
                    if excess == 0 {
                        break;
                    }
                    excess = excess.saturating_sub(kept.bytes());
                    last = Some(kept.seq);
                }
                let Some(last) = last else {
                    break;
                };
                self.drop_through(at, last, drop_reason::SPOOL_FULL);
            }
        }
        self.try_save(now);
    }

    /// Keeps what the keep has not taken within its limit.
    pub(super) fn limit_unsaved(&mut self, at: usize) {
        let bytes_max = self.limits.unsaved_bytes_max;
        let log = &mut self.logs[at];
        let mut bytes = log.unsaved_bytes();
        let mut lost = 0;
        while bytes > bytes_max
            && let Some(kept) = log.unsaved.pop_front()
        {
            bytes -= kept.bytes();
            lost += log.drop_everywhere(kept.seq, kept.seq, drop_reason::DISK_FAILED);
        }
        if lost > 0 {
            log.trim();
        }
        self.count_dropped(lost, drop_reason::DISK_FAILED);
    }

    fn drop_through(&mut self, at: usize, seq: u64, why: &'static str) {
        let log = &mut self.logs[at];
        let lost = log.drop_everywhere(log.first, seq, why);
        log.trim();
        self.count_dropped(lost, why);
    }

    fn oldest_epoch(&mut self, at: usize) -> Option<u64> {
        if self.logs[at].oldest_epoch.is_none() {
            let oldest = self.read_oldest(at).first().map(|kept| kept.epoch);
            self.logs[at].oldest_epoch = oldest;
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
                Ok(look) if look.is_empty() => (),
                Ok(look) => return look,
                Err(_) => return Vec::new(),
            }
        }
        log.unsaved.iter().take(OLDEST_RECORDS).cloned().collect()
    }
}
