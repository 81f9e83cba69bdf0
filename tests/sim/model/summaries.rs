//! What a receiver answers of the last hour and the last day.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use lizmon_protocol::summary::Summaries;
use lizmon_summary::{TIERS, Tier};

use super::Model;
use crate::Violation;

const BY_MINUTE: &str = "by-minute";
/// The newest minute must not remove what is no older than this before it.
const MINUTES_KEPT_SECS: u64 = 64 * 60;

impl Model {
    /// Compares summaries with those of all taken records: count, minimum and maximum exactly, the
    /// mean to 0.01.
    pub(crate) fn check_summaries(
        &self,
        monitor: usize,
        receiver: usize,
        told: &Summaries,
        now: u64,
    ) -> Result<(), Violation> {
        let doubtful = self.doubtful(monitor, receiver);
        let is_doubtful =
            |(name, start): &(String, u64)| doubtful.contains(&(tier_of(name), *start));
        let in_window = self.in_window(monitor, receiver, now);
        let told: BTreeMap<_, _> = told
            .iter()
            .flat_map(|(name, summary)| {
                summary.averages.iter().map(move |a| {
                    let interval = (name.clone(), a.start_sec);
                    (interval, (a.num_samples, a.min, a.max, a.avg))
                })
            })
            .collect();
        // If a record is still ahead of the time, the newest 60 minutes do not reach back as far,
        // but nothing was removed.
        let minutes = told.keys().filter(|(name, _)| name.contains(BY_MINUTE));
        let minutes = minutes.map(|(_, start)| *start);
        let first = minutes.clone().min().unwrap_or(0);
        let kept_from = minutes.max().unwrap_or(0).saturating_sub(MINUTES_KEPT_SECS);
        let is_given = |(name, start): &(String, u64)| {
            let may_not_reach = *start < first && *start >= kept_from;
            doubtful.is_empty() || !name.contains(BY_MINUTE) || !may_not_reach
        };
        // In the other direction: where a doubtful interval is not there, they reach further back.
        let is_newest = |interval: &(String, u64)| is_among_newest(&in_window, interval);
        let certain = in_window.iter().filter(|(interval, _)| {
            !is_doubtful(interval)
                && (told.contains_key(interval) || is_newest(interval) && is_given(interval))
        });
        for (interval, (count, min, max, avg)) in certain {
            let same = told.get(interval).is_some_and(|(c, lo, hi, mean)| {
                (c, lo, hi) == (count, min, max) && (mean - avg).abs() <= 0.01
            });
            if !same {
                return Err(Violation(format!(
                    "receiver {receiver} has {:?} of monitor {monitor}'s {interval:?}, the model {:?}",
                    told.get(interval),
                    (count, min, max, avg)
                )));
            }
        }
        let may_be_given = |interval: &(String, u64)| {
            is_newest(interval) || in_window.contains_key(interval) && !doubtful.is_empty()
        };
        match told
            .keys()
            .find(|interval| !is_doubtful(interval) && !may_be_given(interval))
        {
            None => Ok(()),
            Some(interval) => Err(Violation(format!(
                "receiver {receiver} has {interval:?} of monitor {monitor}, the model has not"
            ))),
        }
    }

    /// The intervals, by tier, with a record that was ahead of the true time, or came when they
    /// seemed to be over.
    fn doubtful(&self, monitor: usize, receiver: usize) -> HashSet<(&'static str, u64)> {
        let records = self.hosts[monitor].records.values();
        let taken = records.filter(|record| record.is_taken[receiver]);
        let start = |tier: &Tier, epoch: u64| (epoch - 1) / tier.width_secs * tier.width_secs;
        taken
            .flat_map(|record| {
                let tiers = TIERS.iter().enumerate();
                let doubtful = tiers.filter(|(at, _)| {
                    record.is_ahead[receiver] || (*at == 0 && record.is_late[receiver])
                });
                let doubtful: Vec<_> = doubtful
                    .map(|(_, tier)| (tier.name, start(tier, record.epoch)))
                    .collect();
                doubtful
            })
            .collect()
    }

    /// All intervals of all windows with their count, minimum, maximum and mean.
    fn in_window(
        &self,
        monitor: usize,
        receiver: usize,
        now: u64,
    ) -> BTreeMap<(String, u64), (u64, f64, f64, f64)> {
        let mut values = BTreeMap::<(String, u64), Vec<f64>>::new();
        for tier in &TIERS {
            let mut by_label = BTreeMap::<&str, BTreeMap<u64, Vec<f64>>>::new();
            let start = tier.window_start(now);
            let records = self.hosts[monitor].records.values();
            for record in records.filter(|r| r.is_taken[receiver] && r.epoch > start) {
                let interval = (record.epoch - 1) / tier.width_secs * tier.width_secs;
                for (label, value) in &record.values {
                    let intervals = by_label.entry(label).or_default();
                    intervals.entry(interval).or_default().push(*value);
                }
            }
            for (label, intervals) in by_label {
                let name = format!("summary:{}:{label}", tier.name);
                let named = intervals.into_iter();
                values.extend(named.map(|(at, values)| ((name.clone(), at), values)));
            }
        }
        values
            .into_iter()
            .map(|(interval, values)| {
                let count = values.len() as u64;
                let min = values.iter().copied().fold(f64::INFINITY, f64::min);
                let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let mean = values.iter().sum::<f64>() / count as f64;
                (interval, (count, min, max, mean))
            })
            .collect()
    }
}

/// Whether an interval is there, and is one of the newest that a reader gets of its summary.
fn is_among_newest<T>(
    in_window: &BTreeMap<(String, u64), T>,
    interval @ (name, _): &(String, u64),
) -> bool {
    let of_its_tier = |tier: &&Tier| tier.name == tier_of(name);
    let given_max = TIERS.iter().find(of_its_tier).unwrap().given_max;
    let newer = in_window.range((Bound::Excluded(interval), Bound::Unbounded));
    in_window.contains_key(interval)
        && newer.take_while(|(at, _)| at.0 == *name).count() < given_max
}

/// The tier in a summary's name.
fn tier_of(name: &str) -> &'static str {
    let mut tiers = TIERS.iter().map(|tier| tier.name);
    tiers.find(|tier| name.contains(tier)).unwrap()
}
