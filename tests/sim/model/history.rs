//! The hours and days of all that a receiver has taken, those in memory and those in its store.

use std::collections::{BTreeMap, BTreeSet};

use lizmon_protocol::history::HistoryTier;
use lizmon_protocol::summary::Average;

use super::Model;
use crate::Violation;

/// Count, minimum, maximum and sum of the values of an interval.
type Sum = (u64, f64, f64, f64);

impl Model {
    /// Compares the history of each series with what is computed from all records that were taken:
    /// count, minimum and maximum exactly, the mean to 0.01.
    pub(crate) fn check_history(
        &self,
        monitor: usize,
        receiver: usize,
        read: &dyn Fn(&str, HistoryTier) -> Option<Vec<Average>>,
    ) -> Result<(), Violation> {
        let records = self.hosts[monitor].records.values();
        let taken: Vec<_> = records.filter(|record| record.is_taken[receiver]).collect();
        for tier in HistoryTier::ALL {
            let start = |epoch: u64| (epoch - 1) / tier.width_secs() * tier.width_secs();
            // What was ahead of the true time may have been removed again.
            let ahead = taken.iter().filter(|record| record.is_ahead[receiver]);
            let doubtful: BTreeSet<u64> = ahead.map(|record| start(record.epoch)).collect();
            let mut by_label = BTreeMap::<&str, BTreeMap<u64, Sum>>::new();
            for record in &taken {
                for (label, value) in &record.values {
                    let intervals = by_label.entry(label).or_default();
                    let (count, min, max, sum) = intervals.entry(start(record.epoch)).or_insert((
                        0,
                        f64::INFINITY,
                        f64::NEG_INFINITY,
                        0.0,
                    ));
                    *count += 1;
                    (*min, *max, *sum) = (min.min(*value), max.max(*value), *sum + value);
                }
            }
            for (label, mut expected) in by_label {
                let Some(told) = read(label, tier) else {
                    continue;
                };
                let mut told: BTreeMap<u64, Average> = told
                    .into_iter()
                    .map(|interval| (interval.start_sec, interval))
                    .collect();
                expected.retain(|start, _| !doubtful.contains(start));
                told.retain(|start, _| !doubtful.contains(start));
                let same = |(start, (count, min, max, sum)): (&u64, &Sum)| {
                    told.get(start).is_some_and(|told| {
                        let mean = sum / *count as f64;
                        (told.num_samples, told.min, told.max) == (*count, *min, *max)
                            && (told.avg - mean).abs() <= 0.01
                    })
                };
                if expected.len() != told.len() || !expected.iter().all(same) {
                    return Err(Violation(format!(
                        "receiver {receiver} has {} {label} of monitor {monitor} as {told:?}, the model as {expected:?}",
                        tier.as_str()
                    )));
                }
            }
        }
        Ok(())
    }
}
