//! Points of a series that another program numbers by their times: they must rise, so one that is
//! sent again is known. Counters become rates.
//!
//! A counter rises, or begins again at zero: `model.Counter` of Prometheus. Its rate is what it rose
//! by since the point before, a second.

use crate::packing::{Unpacker, pack_count};

const MILLIS_PER_SEC: u64 = 1_000;

/// What the value of a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointKind {
    /// A measured value, counted as it is.
    Gauge,
    /// What a counter stands at.
    Counter,
    /// None: the series ends here. What a counter stands at later is a beginning.
    End,
    /// None: a counter is at zero here, and begins. That is said with each of its points.
    Start,
}

impl PointKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Gauge, Self::Counter, Self::End, Self::Start];

    /// The number that stands for it where it is stored. It never changes.
    pub const fn number(self) -> u8 {
        match self {
            Self::Gauge => 0,
            Self::Counter => 1,
            Self::End => 2,
            Self::Start => 3,
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| u64::from(kind.number()) == number)
    }
}

/// A value at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Milliseconds since 1970.
    pub millis: u64,
    /// What is measured, or what a counter stands at.
    pub value: f64,
    /// Which of them.
    pub kind: PointKind,
}

/// The last point of a series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LastPoint {
    pub(crate) point: Point,
    /// Whether it has not been stored yet.
    pub(crate) is_dirty: bool,
}

/// What became of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointOutcome {
    /// Its value, or its counter's rate, is counted.
    Counted,
    /// It is not later than the last one: it was sent again.
    Duplicate,
    /// A counter that has no rate yet.
    Began,
    /// The series has ended.
    Ended,
}

impl Point {
    /// The second in which it counts: the first whole one that is not before it. So a point is in an
    /// interval exactly if its time is.
    ///
    /// ```
    /// use lizmon_summary::{Point, PointKind};
    /// let at = |millis| Point { millis, value: 1.0, kind: PointKind::Gauge }.epoch();
    /// assert_eq!((at(60_000), at(60_001), at(61_000)), (60, 61, 61));
    /// ```
    pub fn epoch(&self) -> u64 {
        self.millis.div_ceil(MILLIS_PER_SEC)
    }

    /// Whether a counter stands at its value.
    fn is_of_counter(&self) -> bool {
        matches!(self.kind, PointKind::Counter | PointKind::Start)
    }

    /// What is counted of it after the one before, and what becomes of it.
    pub(crate) fn after(&self, last: Option<&Self>) -> (Option<f64>, PointOutcome) {
        if last.is_some_and(|last| last.millis >= self.millis) {
            return (None, PointOutcome::Duplicate);
        }
        match (self.kind, last) {
            (PointKind::End, _) => (None, PointOutcome::Ended),
            (PointKind::Gauge, _) => (Some(self.value), PointOutcome::Counted),
            (PointKind::Start, _) => (None, PointOutcome::Began),
            (PointKind::Counter, Some(last)) if last.is_of_counter() => {
                let secs = (self.millis - last.millis) as f64 / MILLIS_PER_SEC as f64;
                let rise = match self.value >= last.value {
                    true => self.value - last.value,
                    // It began again at zero.
                    false => self.value,
                };
                (Some(rise / secs), PointOutcome::Counted)
            }
            (PointKind::Counter, _) => (None, PointOutcome::Began),
        }
    }

    /// Appends it.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        pack_count(self.millis, bytes);
        bytes.push(self.kind.number());
        bytes.extend(self.value.to_le_bytes());
    }

    pub(crate) fn decode(unpacker: &mut Unpacker<'_>) -> Option<Self> {
        let millis = unpacker.count()?;
        let [number] = unpacker.take()?;
        let kind = PointKind::from_number(number.into())?;
        let value = unpacker.take().map(f64::from_le_bytes)?;
        value.is_finite().then_some(Self {
            millis,
            value,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(millis: u64, value: f64, kind: PointKind) -> Point {
        Point {
            millis,
            value,
            kind,
        }
    }

    #[test]
    fn what_a_point_comes_to() {
        use PointKind::{Counter, End, Gauge, Start};
        use PointOutcome::{Began, Counted, Duplicate, Ended};
        let last = |value, kind| Some(point(10_000, value, kind));
        for (last, next, expected) in [
            (None, point(10_000, 5.0, Gauge), (Some(5.0), Counted)),
            (None, point(10_000, 5.0, Counter), (None, Began)),
            (None, point(10_000, 0.0, End), (None, Ended)),
            // The rate of a second, and of another time.
            (
                last(5.0, Counter),
                point(11_000, 7.0, Counter),
                (Some(2.0), Counted),
            ),
            (
                last(5.0, Counter),
                point(15_000, 7.0, Counter),
                (Some(0.4), Counted),
            ),
            (
                last(5.0, Counter),
                point(10_500, 7.0, Counter),
                (Some(4.0), Counted),
            ),
            (
                last(5.0, Counter),
                point(11_000, 5.0, Counter),
                (Some(0.0), Counted),
            ),
            // It began again, and is at 3.
            (
                last(5.0, Counter),
                point(11_000, 3.0, Counter),
                (Some(3.0), Counted),
            ),
            (
                last(5.0, Counter),
                point(12_000, 0.0, Counter),
                (Some(0.0), Counted),
            ),
            // Sent again, or late.
            (
                last(5.0, Counter),
                point(10_000, 5.0, Counter),
                (None, Duplicate),
            ),
            (
                last(5.0, Counter),
                point(9_999, 4.0, Counter),
                (None, Duplicate),
            ),
            (
                last(5.0, Gauge),
                point(10_000, 5.0, Gauge),
                (None, Duplicate),
            ),
            (last(0.0, End), point(10_000, 0.0, End), (None, Duplicate)),
            // It says when it was at zero: at first, after a restart that nobody saw, and again.
            (None, point(10_000, 0.0, Start), (None, Began)),
            (
                last(0.0, Start),
                point(12_000, 7.0, Counter),
                (Some(3.5), Counted),
            ),
            (last(5.0, Counter), point(11_000, 0.0, Start), (None, Began)),
            (
                last(5.0, Counter),
                point(10_000, 0.0, Start),
                (None, Duplicate),
            ),
            (
                last(5.0, Counter),
                point(9_000, 0.0, Start),
                (None, Duplicate),
            ),
            (
                last(0.0, Start),
                point(11_000, 7.0, Gauge),
                (Some(7.0), Counted),
            ),
            // After the end, and after another kind, there is no rate.
            (last(0.0, End), point(11_000, 7.0, Counter), (None, Began)),
            (last(5.0, Gauge), point(11_000, 7.0, Counter), (None, Began)),
            (
                last(5.0, Counter),
                point(11_000, 7.0, Gauge),
                (Some(7.0), Counted),
            ),
            (
                last(0.0, End),
                point(11_000, 7.0, Gauge),
                (Some(7.0), Counted),
            ),
        ] {
            assert_eq!(next.after(last.as_ref()), expected, "{last:?} {next:?}");
        }
    }

    #[test]
    fn what_was_not_encoded_is_not_decoded() {
        let good = point(1_465_001_814_123, 4.98, PointKind::Counter);
        let mut bytes = Vec::new();
        good.encode(&mut bytes);
        assert_eq!(Point::decode(&mut Unpacker(&bytes)), Some(good));
        for at in 0..bytes.len() {
            assert_eq!(Point::decode(&mut Unpacker(&bytes[..at])), None, "{at}");
        }
        let number_at = bytes.len() - 9;
        bytes[number_at] = 4;
        assert_eq!(Point::decode(&mut Unpacker(&bytes)), None);
        let mut bytes = Vec::new();
        point(1, f64::NAN, PointKind::Gauge).encode(&mut bytes);
        assert_eq!(Point::decode(&mut Unpacker(&bytes)), None);
    }
}
