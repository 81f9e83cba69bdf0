//! The buckets of the series.

use std::collections::{BTreeMap, HashSet};

use lizmon_summary::TIERS;
use rusqlite::{Row, types::ValueRef};

use super::super::super::damage::Damage;
use super::super::super::state::StoredBucket;
use super::super::bucket_key::BucketKey;
use super::scanner::{HostStates, ScanMode, Scanner, SeriesNames};

impl Scanner<'_> {
    pub(super) fn buckets(&mut self, series: &SeriesNames, states: &mut HostStates) {
        let mut intervals = Intervals {
            series,
            states,
            seen: HashSet::new(),
            bad: BTreeMap::new(),
        };
        let sql = "SELECT series, tier, slot, start, stats FROM bucket";
        let is_whole = match self.mode {
            ScanMode::Fast => self.scan("bucket", sql, "series, tier, slot", &mut |row| {
                intervals.take(row)
            }),
            ScanMode::Thorough => series.keys().fold(true, |is_whole, id| {
                let of_one = format!("{sql} WHERE series = {id}");
                let is_read = self.scan("bucket", &of_one, "tier, slot", &mut |row| {
                    intervals.take(row)
                });
                if !is_read {
                    intervals.bad.insert((*id, u8::MAX, 0), None);
                }
                is_whole && is_read
            }),
        };
        if self.mode == ScanMode::Thorough && is_whole {
            // Rows of unknown series.
            self.scan("bucket", sql, "series, tier, slot", &mut |row| {
                intervals.take(row)
            });
        }
        let Intervals { seen, bad, .. } = intervals;
        let mut unknown = 0_u64;
        for ((id, tier, slot), start) in bad {
            if seen.contains(&(id, tier, slot)) {
                continue;
            }
            match series.get(&id).and_then(|names| names.first()) {
                Some((host, label)) => self
                    .damage
                    .push(lost_interval(self.now, host, label, tier, start)),
                None => unknown += 1,
            }
        }
        if unknown > 0 {
            self.of_store(format!("{unknown} intervals of unknown series are lost"));
        }
    }
}

/// Assigns buckets to their series.
struct Intervals<'a> {
    series: &'a SeriesNames,
    states: &'a mut HostStates,
    seen: HashSet<(i64, u8, u16)>,
    /// Those that are damaged, with their start as far as it is known.
    bad: BTreeMap<(i64, u8, u16), Option<u64>>,
}

impl Intervals<'_> {
    fn take(&mut self, row: &Row<'_>) {
        let read = || {
            Some((
                row.get::<_, i64>(0).ok()?,
                row.get::<_, u8>(1).ok()?,
                row.get::<_, u16>(2).ok()?,
            ))
        };
        let Some(key) = read() else {
            self.bad.insert((-1, 0, 0), None);
            return;
        };
        let (id, tier, slot) = key;
        if self.seen.contains(&key) {
            return;
        }
        let start = row.get::<_, i64>(3).ok().map(|start| start as u64);
        let stats = row.get_ref(4).ok().and_then(|value| match value {
            ValueRef::Blob(stats) => Some(stats),
            _ => None,
        });
        for (host, label) in self.series.get(&id).into_iter().flatten() {
            let place = BucketKey {
                host,
                label,
                tier: usize::from(tier),
                slot: usize::from(slot),
            };
            let bucket = start
                .zip(stats)
                .and_then(|(start, stats)| place.read(start, stats));
            if let (Some(bucket), Some(state)) = (bucket, self.states.get_mut(host)) {
                let (label, tier, slot) = (label.as_str().into(), place.tier, place.slot);
                state.buckets.push(StoredBucket {
                    label,
                    tier,
                    slot,
                    bucket,
                });
                self.seen.insert(key);
                return;
            }
        }
        self.bad.insert(key, start);
    }
}

fn lost_interval(now: u64, host: &str, label: &str, tier: u8, start: Option<u64>) -> Damage {
    let found = TIERS.get(usize::from(tier));
    let span = found
        .zip(start)
        .map(|(tier, start)| (start, start.saturating_add(tier.width_secs)));
    let what = match found {
        Some(tier) => format!("an interval of {} is lost", tier.name),
        None => "unreadable intervals are lost".to_owned(),
    };
    Damage {
        label: Some(label.to_owned()),
        span,
        ..Damage::of_host(now, host, what)
    }
}
