//! One label of one host: a ring of intervals per tier.
//!
//! Invariants:
//! - A ring's intervals are contiguous (empty ones fill the gaps), there are at most `kept` of
//!   them, and neither the first nor the last is empty. So two rings with the same contents are
//!   equal, however they were filled.
//! - An interval newer than all others evicts those that are older by `kept` or more. A sample
//!   older than that is ignored in this tier. The slot of an interval, its number modulo `kept`, is
//!   a key for a store: no two intervals in a ring have the same slot.
//! - Intervals that samples no longer come for are packed: a full series of percentages takes 1.4 KB.

mod ring;

pub use self::ring::Bucket;
use self::ring::Ring;
use crate::aggregate::Aggregate;
use crate::packing::Unpacker;
use crate::point::{LastPoint, Point, PointOutcome};
use crate::window::{
    BY_HOUR_TIER, EpochIntervals, EpochRefusal, IntervalAverage, TIERS, Tier, Window, accepts,
};

/// No series can have this bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImpossibleBucket;

impl std::fmt::Display for ImpossibleBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no samples can have made this bucket")
    }
}

impl std::error::Error for ImpossibleBucket {}

/// The summarized samples of one label of one host. An empty series allocates nothing, and memory
/// grows with the number of intervals.
///
/// ```
/// use lizmon_summary::Series;
/// let mut series = Series::new();
/// series.apply(1_465_001_810, 4.98);
/// let window = series.window(0, 1_465_001_814).unwrap();
/// assert_eq!((window.start, window.averages[0].avg), (1_464_998_160, 4.98));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    rings: [Ring; TIERS.len()],
    /// Of a series whose samples are numbered by their times.
    last_point: Option<Box<LastPoint>>,
}

impl Series {
    /// An empty series.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sample to every tier that still has a place for it.
    pub fn apply(&mut self, epoch: u64, value: f64) {
        self.apply_evicting(epoch, value, &mut |_| ());
    }

    /// The same; `evicted` gets the hours that leave their ring for it, oldest first. Which hours
    /// these are depends on the samples alone.
    ///
    /// ```
    /// use lizmon_summary::Series;
    /// let mut series = Series::new();
    /// series.apply(1_465_001_814, 4.98);
    /// let mut evicted = Vec::new();
    /// series.apply_evicting(1_465_001_814 + 26 * 3_600, 5.0, &mut |hour| evicted.push(hour));
    /// assert_eq!((evicted[0].start, evicted[0].count), (1_464_998_400, 1));
    /// ```
    pub fn apply_evicting(&mut self, epoch: u64, value: f64, evicted: &mut dyn FnMut(Bucket)) {
        self.apply_in(&EpochIntervals::of(epoch), value, evicted);
    }

    /// The same for an epoch whose intervals are known.
    pub fn apply_in(
        &mut self,
        intervals: &EpochIntervals,
        value: f64,
        evicted: &mut dyn FnMut(Bucket),
    ) {
        let [by_minute, by_hour] = &mut self.rings;
        let [minute, hour] = intervals.0;
        let [minutes, hours] = &TIERS;
        if let Some(minute) = minute {
            by_minute.add(minute, value, minutes, &mut |_| ());
        }
        if let Some(hour) = hour {
            by_hour.add(hour, value, hours, evicted);
        }
    }

    /// Adds a point, unless it is not later than the last one.
    ///
    /// ```
    /// use lizmon_summary::{Point, PointKind, PointOutcome, Series};
    /// let mut series = Series::new();
    /// let mut apply = |millis, value| {
    ///     let kind = PointKind::Counter;
    ///     series.apply_point(Point { millis, value, kind }, &mut |_| ())
    /// };
    /// assert_eq!(apply(1_465_001_810_000, 100.0), PointOutcome::Began);
    /// assert_eq!(apply(1_465_001_812_000, 103.0), PointOutcome::Counted);
    /// assert_eq!(apply(1_465_001_812_000, 103.0), PointOutcome::Duplicate);
    /// assert_eq!(series.newest(0, 1_465_001_814).unwrap().avg, 1.5);
    /// ```
    pub fn apply_point(&mut self, point: Point, evicted: &mut dyn FnMut(Bucket)) -> PointOutcome {
        let (value, outcome) = point.after(self.last_point());
        if outcome == PointOutcome::Duplicate {
            return outcome;
        }
        let is_dirty = true;
        let last = LastPoint { point, is_dirty };
        match &mut self.last_point {
            Some(before) => **before = last,
            None => self.last_point = Some(Box::new(last)),
        }
        if let Some(value) = value {
            self.apply_evicting(point.epoch(), value, evicted);
        }
        outcome
    }

    /// The last point, of a series that has points.
    pub fn last_point(&self) -> Option<&Point> {
        self.last_point.as_deref().map(|last| &last.point)
    }

    /// Whether the last point is another one since [`Series::clear_dirty`].
    pub fn has_new_point(&self) -> bool {
        self.last_point.as_ref().is_some_and(|last| last.is_dirty)
    }

    /// Puts back the last point that was stored.
    pub fn restore_point(&mut self, point: Point) {
        let is_dirty = false;
        self.last_point = Some(Box::new(LastPoint { point, is_dirty }));
    }

    /// The hours that are kept, oldest first.
    pub fn hours(&self) -> impl Iterator<Item = Bucket> {
        let by_hour = self.rings.get(BY_HOUR_TIER).zip(TIERS.get(BY_HOUR_TIER));
        by_hour
            .into_iter()
            .flat_map(|(ring, tier)| ring.filled(tier).map(|(bucket, _)| bucket))
    }

    /// This tier's window at `now`; `None` if it is empty or the tier does not exist. The window
    /// includes intervals that start at or after `now`: their samples were accepted, so a reader
    /// must find them.
    pub fn window(&self, tier: usize, now: u64) -> Option<Window> {
        let mut window = Window::default();
        self.window_into(tier, now, &mut window).then_some(window)
    }

    /// The same in the memory of another window. False if there is none: then what is in the other
    /// means nothing.
    pub fn window_into(&self, tier: usize, now: u64, window: &mut Window) -> bool {
        let Some((ring, tier)) = self.rings.get(tier).zip(TIERS.get(tier)) else {
            return false;
        };
        let start = tier.window_start(now);
        let averages = &mut window.averages;
        averages.clear();
        ring.each_from(start / tier.width_secs, |interval, aggregate| {
            averages.push(average(interval, aggregate, tier));
        });
        let surplus = averages.len().saturating_sub(tier.given_max);
        averages.drain(..surplus);
        (window.start, window.end, window.width_secs) = (start, now, tier.width_secs);
        !window.averages.is_empty()
    }

    /// The last interval of [`Series::window`].
    pub fn newest(&self, tier: usize, now: u64) -> Option<IntervalAverage> {
        self.newest_first(tier, now).next()
    }

    /// The interval that ends at `end`, if it has samples.
    pub fn ending(&self, tier: usize, end: u64) -> Option<IntervalAverage> {
        let found = self.newest_first(tier, end).find(|at| at.end <= end);
        found.filter(|interval| interval.end == end)
    }

    fn newest_first(&self, tier: usize, now: u64) -> impl Iterator<Item = IntervalAverage> {
        let tier = self.rings.get(tier).zip(TIERS.get(tier));
        tier.into_iter().flat_map(move |(ring, tier)| {
            let start = tier.window_start(now);
            ring.newest_first()
                .take_while(move |(interval, _)| interval * tier.width_secs >= start)
                .filter(|(_, aggregate): &(u64, Aggregate)| !aggregate.is_empty())
                .map(|(interval, aggregate)| average(interval, &aggregate, tier))
        })
    }

    /// Whether a sample of this epoch would evict an interval that starts before `made_before` and
    /// is in the window at `at`.
    pub fn pushes_out(&self, epoch: u64, made_before: u64, at: u64) -> bool {
        self.rings.iter().zip(&TIERS).any(|(ring, tier)| {
            let Some(interval) = tier.interval_of(epoch) else {
                return false;
            };
            let kept_from = (interval + 1).saturating_sub(tier.kept as u64);
            let start = tier.window_start(at);
            ring.oldest_first()
                .take_while(|(oldest, _)| *oldest < kept_from)
                .filter(|(_, aggregate)| !aggregate.is_empty())
                .map(|(oldest, _)| oldest * tier.width_secs)
                .any(|begin| begin < made_before && begin >= start)
        })
    }

    /// Whether a sample of this epoch, after it is added, is in every window at `now` that should
    /// include it.
    pub fn finds(&self, epoch: u64, now: u64) -> bool {
        self.rings.iter().zip(&TIERS).all(|(ring, tier)| {
            let is_due = epoch > tier.window_start(now);
            let newest = ring.newest().unwrap_or(0);
            let has_room = |interval: u64| interval + tier.kept as u64 > newest;
            !is_due || tier.interval_of(epoch).is_none_or(has_room)
        })
    }

    /// Removes the intervals that start at `from` or later, and returns how many samples they had.
    /// What a point of then was is forgotten: earlier ones come after it.
    pub fn cut(&mut self, from: u64) -> u64 {
        self.last_point.take_if(|last| last.point.epoch() > from);
        let rings = self.rings.iter_mut().zip(&TIERS);
        rings
            .map(|(ring, tier)| ring.cut(from, tier))
            .max()
            .unwrap_or(0)
    }

    /// The end of the newest interval; 0 for an empty series.
    pub fn newest_end(&self) -> u64 {
        let finest = self.rings.iter().zip(&TIERS);
        finest
            .filter_map(|(ring, tier)| Some((ring.newest()? + 1) * tier.width_secs))
            .min()
            .unwrap_or(0)
    }

    /// Marks all intervals as changed, for a store that has lost them.
    pub fn mark_all(&mut self) {
        for (ring, tier) in self.rings.iter_mut().zip(&TIERS) {
            ring.mark_all(tier);
        }
        if let Some(last) = &mut self.last_point {
            last.is_dirty = true;
        }
    }

    /// Whether there is no interval and no point.
    pub fn has_nothing(&self) -> bool {
        self.last_point.is_none() && self.rings.iter().all(|ring| ring.newest().is_none())
    }

    /// Whether the series can be removed: it has no interval in any window, and a point that came
    /// again would be too old.
    pub fn is_over(&self, now: u64) -> bool {
        let last = self.last_point();
        self.is_empty_at(now)
            && last.is_none_or(|last| accepts(last.epoch(), now) == Err(EpochRefusal::TooOld))
    }

    /// Whether the series has no interval in any window.
    pub fn is_empty_at(&self, now: u64) -> bool {
        self.rings.iter().zip(&TIERS).all(|(ring, tier)| {
            ring.newest()
                .is_none_or(|newest| newest * tier.width_secs < tier.window_start(now))
        })
    }

    /// Whether something has changed since [`Series::clear_dirty`].
    pub fn is_dirty(&self) -> bool {
        self.has_new_point() || self.rings.iter().any(Ring::is_dirty)
    }

    /// All intervals with samples: the index of the tier, the bucket, and whether that has changed
    /// since [`Series::clear_dirty`]. Tier by tier, the oldest first.
    ///
    /// ```
    /// let mut series = lizmon_summary::Series::new();
    /// series.apply(1_465_001_814, 4.98);
    /// assert!(series.is_dirty() && series.intervals().all(|(_, _, is_changed)| is_changed));
    /// series.clear_dirty();
    /// let told: Vec<_> = series.intervals().map(|(tier, _, changed)| (tier, changed)).collect();
    /// assert_eq!(told, [(0, false), (1, false)]);
    /// ```
    pub fn intervals(&self) -> impl Iterator<Item = (usize, Bucket, bool)> {
        let rings = self.rings.iter().zip(&TIERS).enumerate();
        rings.flat_map(|(index, (ring, tier))| {
            ring.filled(tier)
                .map(move |(bucket, is_changed)| (index, bucket, is_changed))
        })
    }

    /// Clears the marks of changed intervals, after a store has written them, and packs them.
    pub fn clear_dirty(&mut self) {
        self.rings.iter_mut().for_each(Ring::clear_dirty);
        if let Some(last) = &mut self.last_point {
            last.is_dirty = false;
        }
        self.pack();
    }

    /// Packs the intervals that samples no longer come for.
    pub fn pack(&mut self) {
        self.rings.iter_mut().for_each(Ring::pack);
    }

    /// The series as bytes, tier by tier, without marks: for a store that keeps a series as a whole.
    ///
    /// ```text
    /// series  tier… | the last point, if there is one: milliseconds since 1970 | kind u8 | f64, little-endian
    /// tier    intervals, their number | number of the first, counted from 1970 | interval…
    /// interval  count | sum | min | max; a count of 0 is a gap, and has nothing behind it
    /// ```
    ///
    /// How numbers are packed says [`packing`](crate::packing). A tier without intervals is a zero.
    ///
    /// ```
    /// use lizmon_summary::Series;
    /// let mut series = Series::new();
    /// series.apply(1_465_001_814, 4.98);
    /// let bytes = series.encode();
    /// series.clear_dirty();
    /// assert_eq!(Series::decode(&bytes), Ok(series));
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.rings.iter().for_each(|ring| ring.encode(&mut bytes));
        if let Some(last) = &self.last_point {
            last.point.encode(&mut bytes);
        }
        bytes
    }

    /// The series that was encoded, an error if no samples can have made it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImpossibleBucket> {
        let mut unpacker = Unpacker(bytes);
        let mut series = Self::new();
        for (ring, tier) in series.rings.iter_mut().zip(&TIERS) {
            *ring = Ring::decode(&mut unpacker, tier).ok_or(ImpossibleBucket)?;
        }
        if !unpacker.is_empty() {
            let point = Point::decode(&mut unpacker).ok_or(ImpossibleBucket)?;
            series.restore_point(point);
        }
        match unpacker.is_empty() {
            true => Ok(series),
            false => Err(ImpossibleBucket),
        }
    }

    /// Restores a stored bucket. The order of calls does not matter. A bucket that a newer one has
    /// evicted, or will evict, has no effect.
    pub fn restore(&mut self, tier: usize, bucket: Bucket) -> Result<(), ImpossibleBucket> {
        let (ring, tier) = (
            self.rings.get_mut(tier).ok_or(ImpossibleBucket)?,
            TIERS.get(tier).ok_or(ImpossibleBucket)?,
        );
        let in_step = bucket.start.is_multiple_of(tier.width_secs)
            && bucket.start <= u64::MAX - tier.width_secs;
        let kept = Aggregate::from_parts(bucket.count, bucket.sum, bucket.min, bucket.max)
            .filter(|_| in_step)
            .ok_or(ImpossibleBucket)?;
        let interval = bucket.start / tier.width_secs;
        if let Some(aggregate) = ring.entry(interval, tier, &mut |_| ()) {
            *aggregate = kept;
        }
        Ok(())
    }

    /// The memory of the series in bytes, including the struct itself.
    pub fn memory_bytes(&self) -> usize {
        let last_point = self
            .last_point
            .as_ref()
            .map_or(0, |_| size_of::<LastPoint>());
        let cells: usize = self.rings.iter().map(Ring::cell_bytes).sum();
        size_of::<Self>() + cells + last_point
    }
}

fn average(interval: u64, aggregate: &Aggregate, tier: &Tier) -> IntervalAverage {
    let start = interval * tier.width_secs;
    IntervalAverage {
        start,
        end: start + tier.width_secs,
        count: aggregate.count(),
        avg: aggregate.avg(),
        min: aggregate.min(),
        max: aggregate.max(),
    }
}

#[cfg(test)]
mod tests;
