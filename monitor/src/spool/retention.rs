//! What is dropped because there is no space, or because no receiver would accept it any more. The
//! oldest records go first.

use super::backend::{StoredRecord, record_bytes};
use super::clock::ClockSteadiness;
use super::limits::{PRODUCER_LOGS_MAX, SpoolLimits};
use super::producer_log::{LogKind, ProducerLog};

/// How long the reports of a finished log are kept: as long as receivers remember its producer, for
/// an outage may last longer than records are kept.
const REPORTS_KEPT_SECS: u64 = 7 * 86_400;

/// Decides what a spool drops.
#[derive(Debug)]
pub(super) struct Retention {
    limits: SpoolLimits,
    /// Only a steady clock may call a record too old.
    clock: ClockSteadiness,
}

impl Retention {
    pub(super) fn new(limits: SpoolLimits) -> Self {
        Self {
            limits,
            clock: ClockSteadiness::default(),
        }
    }

    /// How long acknowledged records are kept, if they are.
    pub(super) fn keep_secs(&self) -> Option<u64> {
        Some(self.limits.keep_secs).filter(|secs| *secs > 0)
    }

    /// How many of the `kept` records are too many, where `records` take so many bytes together.
    pub(super) fn excess_kept(&self, kept: u64, records: u64, bytes: u64) -> u64 {
        let mean = bytes.div_ceil(records.max(1)).max(1);
        kept.saturating_sub(self.limits.kept_bytes_max() / mean)
    }

    /// The log that is to be dropped because there are too many: the oldest that is closed. One of
    /// which only reports are remembered is preferred, and then one whose records are only kept.
    pub(super) fn surplus_log(&self, logs: &[ProducerLog]) -> Option<usize> {
        let is_closed = |log: &ProducerLog| log.kind == LogKind::Closed;
        let reported = logs.iter().position(ProducerLog::is_only_reported);
        let kept = || logs.iter().position(ProducerLog::is_only_kept);
        let surplus = reported.or_else(kept);
        let surplus = surplus.or_else(|| logs.iter().position(is_closed));
        surplus.filter(|_| logs.len() > PRODUCER_LOGS_MAX)
    }

    /// Records measured before this are too old; none while the clock cannot be trusted. To be
    /// asked with each record.
    pub(super) fn oldest_epoch(&mut self, now: u64) -> Option<u64> {
        let is_steady = self.clock.is_steady_at(now);
        is_steady.then(|| now.saturating_sub(self.limits.age_secs_max))
    }

    /// Whether the reports of this log are too old for any receiver to know its producer.
    pub(super) fn are_reports_too_old(&self, log: &ProducerLog, now: u64) -> bool {
        let limit = now.saturating_sub(REPORTS_KEPT_SECS);
        log.is_closed_and_empty() && log.newest_epoch < limit
    }

    /// How many bytes are to be dropped of so many in the backend: a little more than is needed, so
    /// that it is not done for each record.
    pub(super) fn excess_bytes(&self, stored_bytes: u64) -> u64 {
        let bytes_max = self.limits.bytes_max;
        match stored_bytes <= bytes_max {
            true => 0,
            false => stored_bytes - (bytes_max - bytes_max / 64),
        }
    }

    /// How many of a log's oldest unsaved records are to be dropped.
    pub(super) fn excess_unsaved(&self, log: &ProducerLog) -> usize {
        let mut bytes = log.unsaved_bytes();
        let oldest = log.unsaved.iter().take_while(|record| {
            let is_excess = bytes > self.limits.unsaved_bytes_max;
            bytes = bytes.saturating_sub(record_bytes(record));
            is_excess
        });
        oldest.count()
    }
}

/// The last of the records at the beginning that were measured before `epoch`.
pub(super) fn last_before(records: &[StoredRecord], epoch: u64) -> Option<u64> {
    let old = records
        .iter()
        .take_while(|record| record.epoch.secs() < epoch);
    old.last().map(|record| record.seq.get())
}

/// The last of the records at the beginning that together have at least `excess` bytes, or the last
/// of all. What is left of `excess` stays there.
pub(super) fn last_within(records: &[StoredRecord], excess: &mut u64) -> Option<u64> {
    let mut last = None;
    for record in records {
        if *excess == 0 {
            break;
        }
        *excess = excess.saturating_sub(record_bytes(record));
        last = Some(record.seq.get());
    }
    last
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::sample::{EncodedSamples, Epoch, ProducerId};

    use super::super::kept::Kept;
    use super::*;

    /// What one record costs.
    const BYTES: u64 = 42;

    fn log(epochs: impl IntoIterator<Item = u64>) -> ProducerLog {
        let mut log = ProducerLog::new(
            ProducerId::from_bytes([1; 16]),
            LogKind::Closed,
            1,
            Kept::nothing(),
        );
        let values = EncodedSamples::from_json("{}").unwrap();
        for epoch in epochs {
            log.append(Epoch::new(epoch).unwrap(), values.clone())
                .unwrap();
        }
        log
    }

    fn retention(records_max: u64) -> Retention {
        Retention::new(SpoolLimits {
            bytes_max: 64 * BYTES,
            unsaved_bytes_max: records_max * BYTES,
            age_secs_max: 100,
            keep_secs: 0,
        })
    }

    #[test]
    fn only_a_steady_clock_makes_records_old() {
        let mut retention = retention(3);
        assert_eq!(retention.oldest_epoch(10_000), None);
        assert_eq!(retention.oldest_epoch(10_599), None);
        assert_eq!(retention.oldest_epoch(10_600), Some(10_500));
        // A jump.
        assert_eq!(retention.oldest_epoch(99_999), None);
    }

    #[test]
    fn a_little_more_is_dropped_than_is_needed() {
        let retention = retention(3);
        let full = 64 * BYTES;
        for (stored, excess) in [(0, 0), (full, 0), (full + 1, BYTES + 1)] {
            assert_eq!(retention.excess_bytes(stored), excess, "{stored}");
        }
    }

    #[test]
    fn unsaved_records_are_bounded() {
        for (records, excess) in [(0, 0), (3, 0), (4, 1), (9, 6)] {
            let log = log(0..records);
            assert_eq!(retention(3).excess_unsaved(&log), excess, "{records}");
        }
    }

    #[test]
    fn the_oldest_records_go_first() {
        let records: Vec<_> = log([100, 101, 90, 102]).unsaved.into();
        let cases = [(100, None), (101, Some(1)), (102, Some(3)), (999, Some(4))];
        for (epoch, last) in cases {
            assert_eq!(last_before(&records, epoch), last, "{epoch}");
        }
        let cases = [
            (0, None, 0),
            (1, Some(1), 0),
            (BYTES + 1, Some(2), 0),
            (5 * BYTES, Some(4), BYTES),
        ];
        for (mut excess, last, left) in cases {
            assert_eq!(last_within(&records, &mut excess), last);
            assert_eq!(excess, left);
        }
    }
}
