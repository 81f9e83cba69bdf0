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
mod tests {
    use super::*;
    use crate::point::PointKind;
    use crate::window::AHEAD_SECS_MAX;

    const NOW: u64 = 1_465_001_814;

    #[test]
    fn one_interval_is_found_by_its_end() {
        let mut series = Series::new();
        for epoch in [1_465_001_700, 1_465_001_701, 1_465_001_830, 1_465_005_361] {
            series.apply(epoch, 2.0);
        }
        let count = |tier, end| series.ending(tier, end).map(|interval| interval.count);
        for (tier, end, expected) in [
            (0, 1_465_001_700, Some(1)),
            (0, 1_465_001_760, Some(1)),
            (0, 1_465_001_820, None),
            (0, 1_465_001_880, Some(1)),
            (0, 1_465_001_879, None),
            (1, 1_465_002_000, Some(3)),
            (1, 1_465_005_600, Some(1)),
            (2, 1_465_002_000, None),
        ] {
            assert_eq!(count(tier, end), expected, "{tier} {end}");
        }
    }

    #[test]
    fn a_full_series_is_small_and_a_new_one_tiny() {
        let mut series = Series::new();
        assert!(series.memory_bytes() <= 136, "{}", series.memory_bytes());
        series.apply(NOW, 1.0);
        assert!(series.memory_bytes() <= 192, "{}", series.memory_bytes());
        for epoch in NOW - 90_000..=NOW + AHEAD_SECS_MAX {
            series.apply(epoch, 1.0);
        }
        let cells: usize = series
            .rings
            .iter()
            .map(|ring| ring.oldest_first().count())
            .sum();
        assert_eq!(cells, 63 + 26);
        let open = series.memory_bytes();
        assert!(open <= 136 + 89 * 28, "{open}");
        series.pack();
        let packed = series.memory_bytes();
        assert!(packed <= 1_000, "{packed}");
        // Whatever the values are.
        let mut series = Series::new();
        for epoch in NOW - 90_000..=NOW + AHEAD_SECS_MAX {
            series.apply(epoch, (epoch % 997) as f64 / 7.0);
        }
        series.pack();
        let packed = series.memory_bytes();
        assert!(packed <= 2_700, "{packed}");
    }

    #[test]
    fn accepted_samples_ahead_of_the_clock_are_listed() {
        let on_the_minute = 1_465_001_760;
        let mut series = Series::new();
        for ahead in [0, 1, 60, 61, 120] {
            series.apply(on_the_minute + ahead, 1.0);
        }
        let window = series.window(0, on_the_minute).expect("it has samples");
        let counts: Vec<_> = window
            .averages
            .iter()
            .map(|a| (a.start + 60 - on_the_minute, a.count))
            .collect();
        assert_eq!(counts, [(0, 1), (60, 2), (120, 2)]);
        assert_eq!(
            series.newest(0, on_the_minute),
            window.averages.last().copied()
        );
        assert_eq!(series.newest(2, on_the_minute), None, "no such tier");
        assert_eq!(window.end, on_the_minute);
    }

    #[test]
    fn windows_empty_and_are_forgotten() {
        let mut series = Series::new();
        assert!(series.is_empty_at(NOW));
        series.apply(NOW, 1.0);
        for (later, by_minute, by_hour) in [
            (0, true, true),
            (3_605, true, true), // 1465005419, a second before the window starts at 1465001820
            (3_606, false, true),
            (86_400 + 185, false, true),
            (86_400 + 186, false, false),
        ] {
            let now = NOW + later;
            let left = [0, 1].map(|tier| series.window(tier, now).is_some());
            let expected = [by_minute, by_hour];
            assert_eq!(left, expected, "{later} s later");
            assert_eq!(
                series.is_empty_at(now),
                !(by_minute || by_hour),
                "{later} s later"
            );
        }
    }

    #[test]
    fn a_gap_wipes_what_it_passes() {
        let mut series = Series::new();
        for epoch in [NOW - 3_600, NOW - 60, NOW, NOW + 3_600, NOW + 86_400] {
            series.apply(epoch, 1.0);
        }
        let cells: Vec<_> = series
            .rings
            .iter()
            .map(|ring| ring.oldest_first().count())
            .collect();
        assert_eq!(cells, [1, 26]);
    }

    #[test]
    fn too_old_for_a_tier_changes_nothing_there() {
        let mut series = Series::new();
        series.apply(NOW, 1.0);
        let before = series.rings[0].clone();
        series.apply(NOW - 63 * 60, 1.0);
        assert_eq!(series.rings[0], before);
        assert_eq!(series.window(1, NOW).map(|w| w.averages.len()), Some(2));
        series.apply(0, 1.0);
        assert_eq!(series.window(1, NOW).map(|w| w.averages.len()), Some(2));
    }

    fn counter(millis: u64, value: f64) -> Point {
        Point {
            millis,
            value,
            kind: PointKind::Counter,
        }
    }

    #[test]
    fn the_last_point_is_kept_with_the_series() {
        let mut series = Series::new();
        let (first, second) = (counter(NOW * 1_000, 5.0), counter(NOW * 1_000 + 1, 7.0));
        let apply = |series: &mut Series, point| series.apply_point(point, &mut |_| ());
        assert_eq!(apply(&mut series, first), PointOutcome::Began);
        // It has no interval, and must be kept all the same: the next rate counts from it.
        assert!(series.is_dirty() && !series.has_nothing());
        assert!(series.is_empty_at(NOW) && !series.is_over(NOW));
        series.clear_dirty();
        assert!(!series.is_dirty());
        let mut read = Series::decode(&series.encode()).unwrap();
        assert_eq!(read, series);
        for series in [&mut series, &mut read] {
            assert_eq!(apply(series, first), PointOutcome::Duplicate);
            assert!(!series.is_dirty(), "nothing is new");
            assert_eq!(apply(series, second), PointOutcome::Counted);
        }
        assert_eq!(read, series);
        series.clear_dirty();
        series.mark_all();
        assert!(series.has_new_point());
        assert!(series.is_over(NOW + 2 * 86_400));
        for at in 1..series.encode().len() {
            assert!(
                Series::decode(&series.encode()[..at]).ok() != Some(series.clone()),
                "{at}"
            );
        }
        assert!(Series::decode(&[series.encode(), vec![0]].concat()).is_err());
    }

    #[test]
    fn a_point_that_is_removed_is_forgotten() {
        let mut series = Series::new();
        let ahead = counter((NOW + 100) * 1_000, 9.0);
        series.apply_point(ahead, &mut |_| ());
        series.cut(NOW + 100);
        assert_eq!(
            series.last_point(),
            Some(&ahead),
            "it is not behind the cut"
        );
        series.cut(NOW + 99);
        assert_eq!(series.last_point(), None);
        let outcome = series.apply_point(counter(NOW * 1_000, 4.0), &mut |_| ());
        assert_eq!(outcome, PointOutcome::Began);
    }

    #[test]
    fn only_what_changed_is_dirty() {
        let mut series = Series::new();
        assert!(!series.is_dirty());
        series.apply(NOW, 2.0);
        series.apply(NOW - 60, 1.0);
        let told = |series: &Series| -> Vec<_> {
            let intervals = series.intervals();
            intervals
                .map(|(tier, bucket, is_changed)| (tier, bucket.start, bucket.count, is_changed))
                .collect()
        };
        let (minute, hour) = (NOW / 60 * 60, NOW / 3_600 * 3_600);
        let expected = [
            (0, minute - 60, 1, true),
            (0, minute, 1, true),
            (1, hour, 2, true),
        ];
        assert_eq!(told(&series), expected);
        assert!(series.is_dirty());
        series.clear_dirty();
        assert!(!series.is_dirty());
        series.apply(NOW, 2.0);
        let expected = [
            (0, minute - 60, 1, false),
            (0, minute, 2, true),
            (1, hour, 3, true),
        ];
        assert_eq!(told(&series), expected);
    }

    const HOUR: u64 = 3_600;

    #[test]
    fn what_would_be_pushed_out() {
        let mut series = Series::new();
        for minute in 0..24 * 60 {
            series.apply(NOW - minute * 60, 1.0);
        }
        let check = |epoch: u64, made_before: u64, at: u64, expected: bool| {
            let told = series.pushes_out(epoch, made_before, at);
            assert_eq!(told, expected, "{epoch} {made_before} {at}");
        };
        check(NOW, NOW, NOW, false);
        // An interval that has already left the window may be evicted; others may not.
        check(NOW + 120, NOW, NOW, false);
        check(NOW + 600, NOW, NOW + 600, false);
        check(NOW + 600, NOW, NOW, true);
        check(NOW + 2 * 24 * HOUR, NOW, NOW, true);
        check(NOW + 2 * 24 * HOUR, NOW, NOW + 2 * 24 * HOUR, false);
        check(NOW + 2 * HOUR, NOW - 25 * HOUR, NOW, false);
        check(NOW - 25 * HOUR, NOW, 0, false);
    }

    #[test]
    fn what_would_not_be_found() {
        let mut series = Series::new();
        series.apply(NOW + 2 * HOUR, 1.0);
        let check = |series: &Series, epoch: u64, now: u64, expected: bool| {
            assert_eq!(series.finds(epoch, now), expected, "{epoch} at {now}");
        };
        check(&series, NOW + 2 * HOUR, NOW, true);
        check(&series, NOW, NOW, false);
        check(&series, NOW - 2 * HOUR, NOW, true);
        check(&series, NOW - 24 * HOUR, NOW, false);
        assert_eq!(series.cut(NOW + 120), 1);
        assert_eq!(series, Series::new());
        assert_eq!(series.newest_end(), 0);
        for epoch in NOW - 24 * HOUR + 60..=NOW + AHEAD_SECS_MAX {
            check(&series, epoch, NOW, true);
            series.apply(epoch, 1.0);
            check(&series, epoch, NOW, true);
        }
    }

    fn changed(series: &Series) -> Vec<Bucket> {
        let changed = series.intervals().filter(|(_, _, is_changed)| *is_changed);
        changed.map(|(_, bucket, _)| bucket).collect()
    }

    #[test]
    fn a_cut_leaves_what_is_before_it() {
        let mut all = Series::new();
        let mut before = Series::new();
        for minute in 0..30 {
            all.apply(NOW + minute * 60, 1.0);
            if NOW + minute * 60 <= 1_465_002_120 {
                before.apply(NOW + minute * 60, 1.0);
            }
        }
        all.apply(NOW + 5 * HOUR, 1.0);
        assert_eq!(all.cut(1_465_002_060), 1);
        assert_eq!(all.cut(1_465_002_060), 0);
        assert_eq!(all.newest_end(), 1_465_005_600);
        all.clear_dirty();
        all.mark_all();
        assert!(changed(&all).len() == 2 && all.is_dirty());
        let mut all = Series::new();
        (0..30).for_each(|minute| all.apply(NOW + minute * 60, 1.0));
        assert_eq!(all.cut(1_465_002_120), 24);
        let minutes = |series: &Series| series.window(0, NOW).map(|window| window.averages);
        assert_eq!(minutes(&all), minutes(&before));
        all.clear_dirty();
        all.mark_all();
        assert_eq!(changed(&all).len(), 6 + 2);
    }

    #[test]
    fn impossible_buckets_are_refused() {
        let good = Bucket {
            start: 60,
            count: 1,
            sum: 1.0,
            min: 1.0,
            max: 1.0,
        };
        let mut series = Series::new();
        assert_eq!(series.restore(0, good), Ok(()));
        for (tier, bucket) in [
            (1, good),
            (2, good),
            (0, Bucket { start: 61, ..good }),
            (
                0,
                Bucket {
                    start: u64::MAX / 60 * 60,
                    ..good
                },
            ),
            (0, Bucket { count: 0, ..good }),
            (
                0,
                Bucket {
                    sum: f64::NAN,
                    ..good
                },
            ),
        ] {
            assert_eq!(
                series.restore(tier, bucket),
                Err(ImpossibleBucket),
                "{bucket:?}"
            );
        }
    }
}
