//! The hours of one day of a series, or 28 of its days, as a store keeps them.
//!
//! ```text
//! chunk    interval… | CRC-32 u32, over whose it is and the intervals
//! interval slot u8 | hours u24, of a day alone | count | sum | min | max
//! ```
//!
//! `slot` is which of the chunk's intervals, `hours` which hours are in a day, the first in the
//! lowest bit. How a number is packed is in packing.rs of lizmon-summary. Little-endian.

use std::collections::BTreeMap;

use lizmon_protocol::history::HistoryTier;
use lizmon_summary::packing::{Unpacker, pack_count, pack_number};
use lizmon_summary::{Aggregate, Bucket};

/// The intervals of a chunk: the hours of a day; days of four weeks.
const HOURS: u64 = 24;
const DAYS: u64 = 28;
/// Bytes of the checksum.
const SUM_BYTES: usize = 4;
/// Bytes of an interval, as most are: for the first allocation.
const INTERVAL_BYTES_ABOUT: usize = 24;

/// Which chunk: of whose series, and from when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey<'a> {
    /// The host.
    pub host: &'a str,
    /// The series.
    pub label: &'a str,
    /// The width of its intervals.
    pub tier: HistoryTier,
    /// Where it starts: epoch seconds.
    pub start: u64,
}

impl ChunkKey<'_> {
    /// How long a chunk of this tier is: seconds.
    pub fn span_secs(tier: HistoryTier) -> u64 {
        let intervals = match tier {
            HistoryTier::ByHour => HOURS,
            HistoryTier::ByDay => DAYS,
        };
        intervals * tier.width_secs()
    }

    /// Where the chunk starts that has this second, or the interval that starts at it.
    pub fn start_of(tier: HistoryTier, at: u64) -> u64 {
        at - at % Self::span_secs(tier)
    }

    /// The end of its last interval.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(Self::span_secs(self.tier))
    }

    fn sum(&self, intervals: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for text in [self.host, self.label, self.tier.as_str()] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&self.start.to_le_bytes());
        hasher.update(intervals);
        hasher.finalize()
    }
}

/// A day, and which of its hours are in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DaySummary {
    /// One bit for each hour, the first in the lowest bit.
    pub hours: u32,
    /// All of them together.
    pub bucket: Bucket,
}

impl DaySummary {
    /// The start of the day of an hour.
    pub fn start_of(hour: u64) -> u64 {
        let width = HistoryTier::ByDay.width_secs();
        hour - hour % width
    }

    /// The bit of an hour in its day.
    fn bit(hour: u64) -> u32 {
        let in_day = (hour - Self::start_of(hour)) / HistoryTier::ByHour.width_secs();
        1 << in_day
    }

    /// A day of this hour alone.
    pub fn of(hour: &Bucket) -> Self {
        Self {
            hours: Self::bit(hour.start),
            bucket: Bucket {
                start: Self::start_of(hour.start),
                ..*hour
            },
        }
    }

    /// Adds an hour of the same day, unless it is in the day already. The sum of a day is that of
    /// its hours in the order in which they are added: the oldest first.
    pub fn add(&mut self, hour: &Bucket) {
        let bit = Self::bit(hour.start);
        if self.hours & bit != 0 {
            return;
        }
        self.hours |= bit;
        let Bucket {
            count,
            sum,
            min,
            max,
            ..
        } = &mut self.bucket;
        *count = count.saturating_add(hour.count);
        *sum += hour.sum;
        if hour.min.total_cmp(min).is_lt() {
            *min = hour.min;
        }
        if hour.max.total_cmp(max).is_gt() {
            *max = hour.max;
        }
    }

    /// The day of these hours, which are all of the same day.
    pub fn of_all<'a>(hours: impl IntoIterator<Item = &'a Bucket>) -> Option<Self> {
        let mut hours = hours.into_iter();
        let mut day = Self::of(hours.next()?);
        hours.for_each(|hour| day.add(hour));
        Some(day)
    }
}

/// The intervals of a chunk, by slot. Of hours the mask has no meaning and is 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chunk {
    intervals: BTreeMap<u8, DaySummary>,
}

impl Chunk {
    /// The chunk that was stored for this key; `None` if these are not the bytes that were written.
    pub fn decode(key: &ChunkKey<'_>, bytes: &[u8]) -> Option<Self> {
        let at = bytes.len().checked_sub(SUM_BYTES)?;
        let (intervals, sum) = bytes.split_at_checked(at)?;
        if *sum != key.sum(intervals).to_le_bytes() {
            return None;
        }
        let mut chunk = Self::default();
        let mut unpacker = Unpacker(intervals);
        while !unpacker.is_empty() {
            let (slot, day) = interval_of(key, &mut unpacker)?;
            chunk.intervals.insert(slot, day);
        }
        Some(chunk)
    }

    /// Its bytes.
    pub fn encode(&self, key: &ChunkKey<'_>) -> Vec<u8> {
        let about = self.intervals.len() * INTERVAL_BYTES_ABOUT + SUM_BYTES;
        let mut bytes = Vec::with_capacity(about);
        for (slot, day) in &self.intervals {
            bytes.push(*slot);
            if key.tier == HistoryTier::ByDay {
                let [hours @ .., _] = day.hours.to_le_bytes();
                bytes.extend(hours);
            }
            pack_count(day.bucket.count, &mut bytes);
            for number in [day.bucket.sum, day.bucket.min, day.bucket.max] {
                pack_number(number, &mut bytes);
            }
        }
        bytes.extend(key.sum(&bytes).to_le_bytes());
        bytes
    }

    /// Whether it has no intervals.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Its intervals, oldest first. Of a day with the hours that are in it.
    pub fn intervals(&self) -> impl Iterator<Item = &DaySummary> {
        self.intervals.values()
    }

    /// Adds an hour. Of two that are the same hour the one with more samples stays: they are the
    /// same samples, but for those that came later.
    pub(super) fn add_hour(&mut self, key: &ChunkKey<'_>, hour: &Bucket) {
        let Some(slot) = slot_of(key, hour.start) else {
            return;
        };
        let hour = DaySummary {
            hours: 0,
            bucket: *hour,
        };
        let stored = self.intervals.entry(slot).or_insert(hour);
        if hour.bucket.count > stored.bucket.count {
            *stored = hour;
        }
    }

    /// Adds an hour to its day.
    pub(super) fn add_to_day(&mut self, key: &ChunkKey<'_>, hour: &Bucket) {
        let Some(slot) = slot_of(key, DaySummary::start_of(hour.start)) else {
            return;
        };
        match self.intervals.get_mut(&slot) {
            Some(day) => day.add(hour),
            None => {
                self.intervals.insert(slot, DaySummary::of(hour));
            }
        }
    }

    /// Removes the intervals that start at `from` or later, and returns the removed ones.
    pub(super) fn cut(&mut self, from: u64) -> Vec<Bucket> {
        let is_cut = |day: &DaySummary| day.bucket.start >= from;
        let removed = self.intervals().filter(|day| is_cut(day));
        let removed = removed.map(|day| day.bucket).collect();
        self.intervals.retain(|_, day| !is_cut(day));
        removed
    }

    /// Makes a day again of the hours that are left of it, if the hours that were removed and those
    /// that are left are all that is in it.
    pub(super) fn take_out_of_day(&mut self, key: &ChunkKey<'_>, removed: &[Bucket], left: &Self) {
        let Some(first) = removed.first() else {
            return;
        };
        let start = DaySummary::start_of(first.start);
        let Some(slot) = slot_of(key, start) else {
            return;
        };
        let Some(day) = self.intervals.get_mut(&slot) else {
            return;
        };
        let left = left.intervals().map(|hour| &hour.bucket);
        let left: Vec<_> = left.collect();
        let known = left.iter().copied().chain(removed);
        let known = known.fold(0, |bits, hour| bits | DaySummary::bit(hour.start));
        if day.hours & !known != 0 {
            return;
        }
        match DaySummary::of_all(left) {
            Some(rest) => *day = rest,
            None => {
                self.intervals.remove(&slot);
            }
        }
    }
}

fn slot_of(key: &ChunkKey<'_>, start: u64) -> Option<u8> {
    let slot = start.checked_sub(key.start)? / key.tier.width_secs();
    let is_inside = start < key.end() && start.is_multiple_of(key.tier.width_secs());
    u8::try_from(slot).ok().filter(|_| is_inside)
}

fn interval_of(key: &ChunkKey<'_>, bytes: &mut Unpacker<'_>) -> Option<(u8, DaySummary)> {
    let [slot] = bytes.take()?;
    let hours = match key.tier {
        HistoryTier::ByHour => [0; 3],
        HistoryTier::ByDay => bytes.take()?,
    };
    let [first, second, third] = hours;
    let start = key
        .start
        .checked_add(u64::from(slot) * key.tier.width_secs())?;
    let bucket = Bucket {
        start,
        count: bytes.count()?,
        sum: bytes.number()?,
        min: bytes.number()?,
        max: bytes.number()?,
    };
    let day = DaySummary {
        hours: u32::from_le_bytes([first, second, third, 0]),
        bucket,
    };
    let Bucket {
        count,
        sum,
        min,
        max,
        ..
    } = bucket;
    let is_possible = Aggregate::from_parts(count, sum, min, max).is_some();
    (is_possible && slot_of(key, start) == Some(slot)).then_some((slot, day))
}
