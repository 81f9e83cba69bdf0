//! Chunks, and what commits make of them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::super::state::ShardChanges;
use super::*;

const DAY: u64 = 86_400;
/// A multiple of 28 days.
const FOUR_WEEKS: u64 = 606 * 28 * DAY;

fn hour(start: u64, values: &[f64]) -> Bucket {
    Bucket {
        start,
        count: values.len() as u64,
        sum: values.iter().copied().reduce(|a, b| a + b).unwrap(),
        min: values.iter().copied().reduce(f64::min).unwrap(),
        max: values.iter().copied().reduce(f64::max).unwrap(),
    }
}

fn key(tier: HistoryTier) -> ChunkKey<'static> {
    ChunkKey {
        host: "web1",
        label: "cpu",
        tier,
        start: FOUR_WEEKS,
    }
}

fn two_hours() -> Chunk {
    let mut chunk = Chunk::default();
    let key = key(HistoryTier::ByHour);
    chunk.add_hour(&key, &hour(FOUR_WEEKS + 7_200, &[1.0, 3.5]));
    chunk.add_hour(&key, &hour(FOUR_WEEKS, &[-0.0]));
    chunk
}

#[test]
fn a_chunk_is_read_where_it_was_written_and_nowhere_else() {
    let place = key(HistoryTier::ByHour);
    let bytes = two_hours().encode(&place);
    // A minus zero takes an f64, 1, 3.5 and 4.5 a byte or two.
    assert_eq!(bytes.len(), (1 + 1 + 3 * 9) + (1 + 1 + 2 + 2 + 2) + 4);
    let read = Chunk::decode(&place, &bytes).unwrap();
    assert_eq!(read, two_hours());
    let starts: Vec<_> = read.intervals().map(|day| day.bucket.start).collect();
    assert_eq!(starts, [FOUR_WEEKS, FOUR_WEEKS + 7_200]);
    assert!(
        read.intervals()
            .next()
            .unwrap()
            .bucket
            .sum
            .is_sign_negative()
    );
    for other in [
        ChunkKey {
            host: "web2",
            ..place
        },
        ChunkKey {
            label: "cpv",
            ..place
        },
        ChunkKey {
            host: "web1c",
            label: "pu",
            ..place
        },
        ChunkKey {
            start: FOUR_WEEKS + DAY,
            ..place
        },
        ChunkKey {
            tier: HistoryTier::ByDay,
            ..place
        },
    ] {
        assert_eq!(Chunk::decode(&other, &bytes), None, "{other:?}");
    }
    for at in 0..bytes.len() {
        assert_eq!(Chunk::decode(&place, &bytes[..at]), None, "cut at {at}");
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert_eq!(Chunk::decode(&place, &flipped), None, "bit {bit} of {at}");
        }
    }
}

#[test]
fn of_one_hour_that_comes_twice_the_fuller_one_stays() {
    let place = key(HistoryTier::ByHour);
    let mut chunk = two_hours();
    chunk.add_hour(&place, &hour(FOUR_WEEKS, &[4.0, 4.0]));
    chunk.add_hour(&place, &hour(FOUR_WEEKS + 7_200, &[9.0]));
    // Not of this chunk.
    chunk.add_hour(&place, &hour(FOUR_WEEKS + DAY, &[9.0]));
    chunk.add_hour(&place, &hour(FOUR_WEEKS - 3_600, &[9.0]));
    let sums: Vec<_> = chunk.intervals().map(|day| day.bucket.sum).collect();
    assert_eq!(sums, [8.0, 4.5]);
}

#[test]
fn a_day_counts_each_hour_once() {
    let hours = [
        hour(FOUR_WEEKS, &[-0.0]),
        hour(FOUR_WEEKS + 3_600, &[0.1, 7.0]),
        hour(FOUR_WEEKS + 23 * 3_600, &[0.2]),
    ];
    let mut day = DaySummary::of(&hours[0]);
    assert!(day.bucket.sum.is_sign_negative());
    hours.iter().chain(&hours).for_each(|hour| day.add(hour));
    let sum = (-0.0 + (0.1 + 7.0)) + 0.2;
    let bucket = Bucket {
        start: FOUR_WEEKS,
        count: 4,
        sum,
        min: -0.0,
        max: 7.0,
    };
    assert_eq!(
        day,
        DaySummary {
            hours: 1 | 1 << 1 | 1 << 23,
            bucket
        }
    );
    assert_eq!(DaySummary::of_all(&hours), Some(day));
    let place = key(HistoryTier::ByDay);
    let mut chunk = Chunk::default();
    hours.iter().for_each(|hour| chunk.add_to_day(&place, hour));
    let again = Chunk::decode(&place, &chunk.encode(&place)).unwrap();
    assert_eq!(again.intervals().collect::<Vec<_>>(), [&day]);
}

#[derive(Default)]
struct Stored(BTreeMap<OwnedKey, Vec<u8>>);

impl ChunkSource for Stored {
    type Error = Infallible;

    fn read(&mut self, key: &ChunkKey<'_>) -> Result<Option<Vec<u8>>, Infallible> {
        let key = (key.host.into(), key.label.into(), key.tier, key.start);
        Ok(self.0.get(&key).cloned())
    }

    fn ending_after(&mut self, host: &str, from: u64) -> Result<ChunksOfHost, Infallible> {
        let keys = self.0.keys().filter(|(of, ..)| **of == *host);
        let later = keys.filter(|(.., tier, start)| start + ChunkKey::span_secs(*tier) > from);
        Ok(later
            .map(|(_, label, tier, start)| (label.clone(), *tier, *start))
            .collect())
    }

    fn damaged(&mut self, key: &ChunkKey<'_>) -> Result<(), Infallible> {
        panic!("{key:?} is not damaged")
    }
}

impl Stored {
    fn apply(&mut self, changes: &ShardChanges) {
        let Ok(planned) = plan(changes, self);
        for ChunkChange { chunk, is_removed } in planned {
            let key = (chunk.host, chunk.label, chunk.tier, chunk.start);
            self.0.remove(&key);
            if !is_removed {
                self.0.insert(key, chunk.bytes);
            }
        }
    }

    /// Start and count of each interval of a series.
    fn intervals(&self, label: &str, wanted: HistoryTier) -> Vec<(u64, u64)> {
        let of_series = self.0.iter();
        let of_series = of_series.filter(|((_, of, tier, _), _)| **of == *label && *tier == wanted);
        let mut all = Vec::new();
        for ((host, label, tier, start), bytes) in of_series {
            let (tier, start) = (*tier, *start);
            let key = ChunkKey {
                host,
                label,
                tier,
                start,
            };
            let chunk = Chunk::decode(&key, bytes).unwrap();
            all.extend(
                chunk
                    .intervals()
                    .map(|day| (day.bucket.start, day.bucket.count)),
            );
        }
        all
    }
}

fn evicted(label: &str, start: u64, count: usize) -> EvictedHour {
    EvictedHour {
        host: "web1".into(),
        label: label.into(),
        bucket: hour(start, &vec![1.5; count]),
    }
}

fn evicting(evicted: Vec<EvictedHour>) -> ShardChanges {
    ShardChanges {
        evicted,
        ..ShardChanges::default()
    }
}

#[test]
fn hours_go_to_their_day_and_a_cut_takes_them_out_again() {
    let (hours, days) = (HistoryTier::ByHour, HistoryTier::ByDay);
    let mut stored = Stored::default();
    let second = FOUR_WEEKS + DAY;
    stored.apply(&evicting(vec![
        evicted("cpu", FOUR_WEEKS + 82_800, 2),
        evicted("cpu", second, 3),
        evicted("cpu", second + 3_600, 4),
        evicted("mem", second + 3_600, 5),
        evicted("cpu", second + 2 * DAY, 6),
    ]));
    // Again: nothing changes.
    stored.apply(&evicting(vec![evicted("cpu", second, 3)]));
    let before = [(FOUR_WEEKS, 2), (second, 7), (second + 2 * DAY, 6)];
    assert_eq!(stored.intervals("cpu", days), before);
    stored.apply(&ShardChanges {
        cuts: vec![("web1".to_owned(), second + 3_600), ("db1".to_owned(), 0)],
        // After the cut, and not cut by it.
        evicted: vec![evicted("cpu", second + 7_200, 1)],
        ..ShardChanges::default()
    });
    let left = [(FOUR_WEEKS + 82_800, 2), (second, 3), (second + 7_200, 1)];
    assert_eq!(stored.intervals("cpu", hours), left);
    assert_eq!(
        stored.intervals("cpu", days),
        [(FOUR_WEEKS, 2), (second, 4)]
    );
    assert_eq!(stored.intervals("mem", hours), []);
    assert_eq!(stored.intervals("mem", days), []);
    assert!(
        !stored.0.keys().any(|(_, label, ..)| **label == *"mem"),
        "no empty chunk is left"
    );
}

#[test]
fn what_is_not_kept_is_not_written() {
    for (hours_secs, days_secs, hours, days) in
        [(0, 1, 0, 1), (1, 0, 1, 0), (0, 0, 0, 0), (1, 1, 1, 1)]
    {
        let mut stored = Stored::default();
        stored.apply(&ShardChanges {
            retention: HistoryRetention {
                hours_secs,
                days_secs,
            },
            ..evicting(vec![evicted("cpu", FOUR_WEEKS, 1)])
        });
        let counts = HistoryTier::ALL.map(|tier| stored.intervals("cpu", tier).len());
        assert_eq!(counts, [hours, days]);
    }
}
