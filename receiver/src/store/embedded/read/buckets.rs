//! The intervals of a database of a version before, which had a row for each.

use std::collections::{BTreeMap, HashSet};

use lizmon_summary::series::ImpossibleBucket;
use lizmon_summary::{Bucket, Series, TIERS};
use rusqlite::{Row, types::ValueRef};

use super::super::super::damage::Damage;
use super::super::super::state::{StoredHost, StoredSeries};
use super::super::bucket_key::BucketKey;
use super::scanner::{HostStates, ScanMode, Scanner, SeriesNames};

impl Scanner<'_> {
    pub(super) fn buckets(&mut self, series: &SeriesNames, states: &mut HostStates) {
        let mut intervals = Intervals {
            series,
            states,
            mode: self.mode,
            names: None,
            last: None,
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
        let Intervals {
            states, seen, bad, ..
        } = intervals;
        let read = states.values_mut().flat_map(|host| &mut host.series);
        read.for_each(|stored| stored.series.pack());
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

type RowKey = (i64, u8, u16);
type Names = [(String, String)];

/// Assigns buckets to their series.
struct Intervals<'a> {
    series: &'a SeriesNames,
    states: &'a mut HostStates,
    mode: ScanMode,
    /// The series of the row before, and its names.
    names: Option<(i64, &'a Names)>,
    /// The row before.
    last: Option<RowKey>,
    /// What a thorough reading has, which meets rows more than once.
    seen: HashSet<RowKey>,
    /// Those that are damaged, with their start as far as it is known.
    bad: BTreeMap<RowKey, Option<u64>>,
}

impl<'a> Intervals<'a> {
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
        let is_known = match self.mode {
            // One pass in the order of the key: a row that is not in order is damaged.
            ScanMode::Fast => {
                let before = self.last.replace(key);
                if before.is_some_and(|before| before >= key) {
                    self.bad.insert(key, None);
                    return;
                }
                false
            }
            ScanMode::Thorough => self.seen.contains(&key),
        };
        if is_known {
            return;
        }
        let start = row.get::<_, i64>(3).ok().map(|start| start as u64);
        let stats = row.get_ref(4).ok().and_then(|value| match value {
            ValueRef::Blob(stats) => Some(stats),
            _ => None,
        });
        for (host, label) in self.names_of(id) {
            let place = BucketKey {
                host,
                label,
                tier: usize::from(tier),
                slot: usize::from(slot),
            };
            let bucket = start
                .zip(stats)
                .and_then(|(start, stats)| place.read(start, stats));
            if let Some(bucket) = bucket
                && let Some(state) = self.states.get_mut(place.host)
                && keep(state, &place, bucket).is_ok()
            {
                if self.mode == ScanMode::Thorough {
                    self.seen.insert(key);
                }
                return;
            }
        }
        self.bad.insert(key, start);
    }

    /// Looked up once for all rows of a series.
    fn names_of(&mut self, id: i64) -> &'a Names {
        match self.names {
            Some((known, names)) if known == id => names,
            _ => {
                let names = self.series.get(&id).map_or(&[][..], Vec::as_slice);
                self.names = Some((id, names));
                names
            }
        }
    }
}

fn keep(
    state: &mut StoredHost,
    place: &BucketKey<'_>,
    bucket: Bucket,
) -> Result<(), ImpossibleBucket> {
    // The rows of one series are read one after the other.
    let mut known = state.series.iter_mut().rev();
    if let Some(known) = known.find(|known| *known.label == *place.label) {
        return known.series.restore(place.tier, bucket);
    }
    let mut series = Series::new();
    series.restore(place.tier, bucket)?;
    state.series.push(StoredSeries {
        label: place.label.into(),
        series,
    });
    Ok(())
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
