//! What a destination gets next: the newest records at once, the oldest beside them.

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Dropped, Seq};

use super::producer_log::{LogKind, ProducerLog};

/// While a destination is done with more separate ranges than this, it gets the oldest records
/// only: that closes gaps.
const RANGES_MAX: usize = 64;
/// Reports in one batch.
const REPORTS_MAX: usize = 128;

/// Decides which records go into the next batch for one destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection {
    /// The destination's index.
    pub(super) destination: usize,
    /// Most of the newest records. 0 selects the oldest only: the same ones each time, until they
    /// are acknowledged.
    pub(super) newest_max: usize,
    /// Most of the oldest records, counted together with the newest.
    pub(super) oldest_max: usize,
    /// The newest are left out: they wait for the monitor's moment within the second.
    pub(super) is_newest_held: bool,
}

/// Which numbers of one log were selected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selected {
    /// The oldest: ascending, and before the newest.
    pub(super) oldest: Vec<(u64, u64)>,
    /// How many of the oldest are wanted at most.
    pub(super) oldest_max: usize,
    /// The newest, if the last number that may be sent is pending.
    pub(super) newest: Option<(u64, u64)>,
}

impl Selection {
    /// In which order the logs are tried, until one has something: those with newest records, the
    /// latest log first; then all, the oldest log first.
    pub(super) fn order(self, logs: usize) -> impl Iterator<Item = (usize, BatchPart)> + use<> {
        let newest = (0..logs).rev().map(|at| (at, BatchPart::WithNewest));
        let newest = newest.filter(move |_| !self.is_newest_held);
        let oldest = (0..logs).map(|at| (at, BatchPart::Oldest));
        newest.chain(oldest.filter(move |_| self.oldest_max > 0))
    }

    /// What is selected of this log; none where it has no newest records, and those were asked for.
    pub(super) fn select(self, log: &ProducerLog, part: BatchPart) -> Option<Selected> {
        let newest = match part {
            BatchPart::WithNewest => Some(self.newest(log)?),
            BatchPart::Oldest => None,
        };
        let newest_count = newest.map_or(0, |(from, to)| to - from + 1);
        let newest_count = usize::try_from(newest_count).unwrap_or(self.oldest_max);
        let held = self.is_newest_held.then(|| self.newest(log)).flatten();
        let below = newest.or(held).map_or(u64::MAX, |(from, _)| from);
        let oldest = log.pending_ranges(self.destination);
        let oldest = oldest.map(|(from, to)| (from, to.min(below - 1)));
        Some(Selected {
            oldest: oldest.filter(|(from, to)| from <= to).collect(),
            oldest_max: self.oldest_max.saturating_sub(newest_count),
            newest,
        })
    }

    /// The last of the numbers that may be sent, as far as they are pending and adjacent.
    fn newest(self, log: &ProducerLog) -> Option<(u64, u64)> {
        let ranges = log.destinations[self.destination].done.as_slice().len();
        if log.kind == LogKind::Closed || self.newest_max == 0 || ranges > RANGES_MAX {
            return None;
        }
        let (from, to) = log.pending_ranges(self.destination).next_back()?;
        let is_newest = to + 1 == log.sendable_below;
        let first = (to + 1).saturating_sub(self.newest_max as u64);
        is_newest.then(|| (from.max(first), to))
    }

    /// What the destination has not been told yet of this log.
    pub(super) fn reports(self, log: &ProducerLog) -> Vec<Dropped> {
        let reports = log.destinations[self.destination].unreported_drops.iter();
        let reports = reports.filter_map(|(from, to, why)| {
            Some(Dropped {
                from: Seq::new(*from)?,
                to: Seq::new(*to)?,
                why: Label::new(why.clone()).ok()?,
            })
        });
        reports.take(REPORTS_MAX).collect()
    }
}

/// Which records of a log are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchPart {
    /// The newest, and the oldest beside them.
    WithNewest,
    /// The oldest alone.
    Oldest,
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::sample::{EncodedSamples, Epoch, ProducerId};

    use super::super::kept::Kept;
    use super::*;

    fn log(records: u64, done: &[(u64, u64)]) -> ProducerLog {
        let mut log = ProducerLog::new(
            ProducerId::from_bytes([1; 16]),
            LogKind::Active,
            1,
            Kept::nothing(),
        );
        let values = EncodedSamples::from_json("{}").unwrap();
        for epoch in 0..records {
            log.append(Epoch::new(epoch).unwrap(), values.clone())
                .unwrap();
        }
        log.saved();
        for (from, to) in done {
            log.destinations[0].ack(*from, *to);
        }
        log
    }

    fn select(
        log: &ProducerLog,
        newest_max: usize,
        oldest_max: usize,
        part: BatchPart,
    ) -> Option<Selected> {
        let selection = Selection {
            destination: 0,
            newest_max,
            oldest_max,
            is_newest_held: false,
        };
        selection.select(log, part)
    }

    #[test]
    fn what_is_held_is_left_out() {
        let held = |log: &ProducerLog, newest_max: usize| {
            let selection = Selection {
                destination: 0,
                newest_max,
                oldest_max: 10,
                is_newest_held: true,
            };
            let order: Vec<_> = selection.order(2).collect();
            assert_eq!(order, [(0, BatchPart::Oldest), (1, BatchPart::Oldest)]);
            let selected = selection.select(log, BatchPart::Oldest).unwrap();
            assert_eq!((selected.newest, selected.oldest_max), (None, 10));
            selected.oldest
        };
        assert_eq!(held(&log(20, &[(1, 2), (5, 6)]), 3), [(3, 4), (7, 17)]);
        assert_eq!(held(&log(20, &[(1, 17)]), 3), []);
        assert_eq!(held(&log(20, &[(20, 20)]), 3), [(1, 19)]);
    }

    #[test]
    fn newest_and_oldest_do_not_overlap() {
        let log = log(20, &[(1, 2), (5, 6)]);
        let selected = select(&log, 3, 10, BatchPart::WithNewest);
        let expected = Selected {
            oldest: vec![(3, 4), (7, 17)],
            oldest_max: 7,
            newest: Some((18, 20)),
        };
        assert_eq!(selected, Some(expected));
        let selected = select(&log, 3, 10, BatchPart::Oldest).unwrap();
        assert_eq!((selected.newest, selected.oldest_max), (None, 10));
        assert_eq!(selected.oldest, [(3, 4), (7, 20)]);
    }

    #[test]
    fn the_newest_are_selected_only_if_the_last_is_pending() {
        assert_eq!(
            select(&log(20, &[(20, 20)]), 3, 10, BatchPart::WithNewest),
            None
        );
        assert_eq!(select(&log(20, &[]), 0, 10, BatchPart::WithNewest), None);
        let gaps: Vec<_> = (1..=65).map(|at| (2 * at, 2 * at)).collect();
        assert_eq!(select(&log(200, &gaps), 3, 10, BatchPart::WithNewest), None);
        let newest = |done: &[(u64, u64)]| select(&log(200, done), 3, 10, BatchPart::WithNewest);
        assert!(newest(&gaps[1..]).is_some());
    }

    #[test]
    fn logs_are_tried_newest_first_and_then_oldest_first() {
        let order = |oldest_max: usize| {
            let selection = Selection {
                destination: 0,
                newest_max: 1,
                oldest_max,
                is_newest_held: false,
            };
            let order = selection.order(2).map(|(at, _)| at);
            order.collect::<Vec<_>>()
        };
        assert_eq!(order(1), [1, 0, 0, 1]);
        assert_eq!(order(0), [1, 0]);
    }
}
