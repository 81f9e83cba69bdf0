//! The number of a record of points: when they were measured, and what they are.

use lizmon_protocol::sample::{Epoch, Seq};
use lizmon_summary::{Point, PointKind};

/// Room for the kind, below the milliseconds: no more than there are.
const KINDS: u64 = 4;

/// Time and kind of points, which is what a record of them has in place of a producer's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointNumber {
    /// Milliseconds since 1970.
    pub millis: u64,
    /// What their values are.
    pub kind: PointKind,
}

impl PointNumber {
    /// As it is stored, with the second in which the points count; `None` for a time so far ahead
    /// that no number has it, and for the first millisecond of 1970.
    pub fn stored(self) -> Option<(Seq, Epoch)> {
        let number = self.millis.checked_mul(KINDS)?;
        let seq = Seq::new(number.checked_add(self.kind.number().into())?)?;
        Some((seq, Epoch::new(self.point(0.0).epoch())?))
    }

    /// What was stored.
    pub(super) fn read(seq: Seq) -> Option<Self> {
        let kind = PointKind::from_number(seq.get() % KINDS)?;
        let millis = seq.get() / KINDS;
        Some(Self { millis, kind })
    }

    /// A point with this value.
    pub fn point(self, value: f64) -> Point {
        let Self { millis, kind } = self;
        Point {
            millis,
            value,
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_was_stored() {
        for kind in PointKind::ALL {
            for (millis, epoch) in [
                (1, 1),
                (1_465_001_814_000, 1_465_001_814),
                (1_465_001_814_001, 1_465_001_815),
            ] {
                let number = PointNumber { millis, kind };
                let (seq, second) = number.stored().unwrap();
                assert_eq!(second.secs(), epoch, "{number:?}");
                assert_eq!(PointNumber::read(seq), Some(number));
            }
            for millis in [1 << 53, u64::MAX / 4, u64::MAX] {
                assert_eq!(PointNumber { millis, kind }.stored(), None, "{millis}");
            }
        }
    }
}
