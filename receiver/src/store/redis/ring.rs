//! The buckets of a series, in a string: one place of 40 bytes for each slot of each tier, and one
//! behind them for the last point, where there are points.
//!
//! ```text
//! start u64 | count u64 | sum f64 | min f64 | max f64      little-endian; count 0: nothing
//! milliseconds since 1970 u64 | kind + 1 u64 | value f64 | 16 bytes of 0        the last point
//! ```
//!
//! A commit overwrites the places that have changed (`SETRANGE`); a string ends behind the last
//! place that was ever used.

use lizmon_summary::{Bucket, Point, PointKind, Series, TIERS};

/// Bytes of one place.
const PLACE_BYTES: usize = 40;

/// Where the place of an interval of this tier begins; none if there is no such tier.
pub(super) fn offset(tier: usize, bucket: &Bucket) -> Option<usize> {
    let before: usize = TIERS.iter().take(tier).map(|tier| tier.kept).sum();
    let slot = TIERS.get(tier)?.slot_of(bucket.start);
    Some((before + slot) * PLACE_BYTES)
}

/// Places of buckets.
fn buckets_max() -> usize {
    TIERS.iter().map(|tier| tier.kept).sum()
}

/// Where the place of the last point begins.
pub(super) fn point_offset() -> usize {
    buckets_max() * PLACE_BYTES
}

/// The last point in its place.
pub(super) fn encode_point(point: &Point) -> [u8; PLACE_BYTES] {
    let kind = u64::from(point.kind.number()) + 1;
    place(&[
        point.millis.to_le_bytes(),
        kind.to_le_bytes(),
        point.value.to_le_bytes(),
    ])
}

fn decode_point(place: &[u8]) -> Option<Point> {
    let (numbers, _) = place.as_chunks::<8>();
    let [millis, kind, value, rest @ ..] = numbers else {
        return None;
    };
    let kind = PointKind::from_number(u64::from_le_bytes(*kind).checked_sub(1)?)?;
    let value = f64::from_le_bytes(*value);
    let is_ours = value.is_finite() && rest.iter().flatten().all(|byte| *byte == 0);
    is_ours.then_some(Point {
        millis: u64::from_le_bytes(*millis),
        value,
        kind,
    })
}

fn place(numbers: &[[u8; 8]]) -> [u8; PLACE_BYTES] {
    let mut place = [0; PLACE_BYTES];
    for (to, from) in place.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(from);
    }
    place
}

/// A bucket in its place.
pub(super) fn encode(bucket: &Bucket) -> [u8; PLACE_BYTES] {
    place(&[
        bucket.start.to_le_bytes(),
        bucket.count.to_le_bytes(),
        bucket.sum.to_le_bytes(),
        bucket.min.to_le_bytes(),
        bucket.max.to_le_bytes(),
    ])
}

/// A whole string with all of a series.
pub(super) fn encode_all(series: &Series) -> Vec<u8> {
    let mut ring = Vec::new();
    for (tier, bucket, _) in series.intervals() {
        let Some(at) = offset(tier, &bucket) else {
            continue;
        };
        if ring.len() < at + PLACE_BYTES {
            ring.resize(at + PLACE_BYTES, 0);
        }
        ring[at..at + PLACE_BYTES].copy_from_slice(&encode(&bucket));
    }
    if let Some(point) = series.last_point() {
        ring.resize(point_offset(), 0);
        ring.extend_from_slice(&encode_point(point));
    }
    ring
}

/// The series in a string; none if lizmon did not write it.
pub(super) fn decode(ring: &[u8]) -> Option<Series> {
    let (ring, point) = ring.split_at(ring.len().min(point_offset()));
    let places = ring.chunks_exact(PLACE_BYTES);
    if !places.remainder().is_empty() || !matches!(point.len(), 0 | PLACE_BYTES) {
        return None;
    }
    let slots = TIERS
        .iter()
        .enumerate()
        .flat_map(|(tier, of)| (0..of.kept).map(move |slot| (tier, slot)));
    let mut series = Series::new();
    for ((tier, slot), place) in slots.zip(places) {
        let mut numbers = place.as_chunks::<8>().0.iter();
        let mut next = || numbers.next().copied();
        let bucket = Bucket {
            start: u64::from_le_bytes(next()?),
            count: u64::from_le_bytes(next()?),
            sum: f64::from_le_bytes(next()?),
            min: f64::from_le_bytes(next()?),
            max: f64::from_le_bytes(next()?),
        };
        if bucket.count == 0 {
            continue;
        }
        if TIERS.get(tier)?.slot_of(bucket.start) != slot {
            return None;
        }
        series.restore(tier, bucket).ok()?;
    }
    series.pack();
    if !point.is_empty() {
        series.restore_point(decode_point(point)?);
    }
    Some(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut series = Series::new();
        let bucket = |start, sum: f64| Bucket {
            start,
            count: 2,
            sum,
            min: -1.5,
            max: f64::MAX,
        };
        series.restore(0, bucket(64 * 60, -0.0)).unwrap();
        series.restore(0, bucket(125 * 60, 1e290)).unwrap();
        series.restore(1, bucket(26 * 3_600, 4.98)).unwrap();
        let ring = encode_all(&series);
        assert_eq!(ring.len(), (TIERS[0].kept + 1) * PLACE_BYTES);
        let decoded = decode(&ring).unwrap();
        assert_eq!(decoded, series);
        let (_, first, _) = decoded.intervals().next().unwrap();
        assert!(first.sum.is_sign_negative());
        assert_eq!(decode(&[]), Some(Series::new()));
        assert_eq!(decode(&ring[1..]), None, "not whole places");
        let mut elsewhere = ring.clone();
        elsewhere.rotate_right(PLACE_BYTES);
        assert_eq!(decode(&elsewhere), None, "not in their places");
        let too_long = vec![0; point_offset() + 2 * PLACE_BYTES];
        assert_eq!(decode(&too_long), None);
        assert_eq!(offset(2, &bucket(60, 1.0)), None);
    }

    #[test]
    fn the_last_point_has_a_place_behind_the_buckets() {
        let mut series = Series::new();
        let point = Point {
            millis: 1_465_001_814_123,
            value: -4.98,
            kind: PointKind::Counter,
        };
        series.apply_point(point, &mut |_| ());
        series.clear_dirty();
        let ring = encode_all(&series);
        assert_eq!(ring.len(), point_offset() + PLACE_BYTES);
        assert_eq!(ring[point_offset()..], encode_point(&point));
        assert_eq!(decode(&ring), Some(series));
        // As it is when SETRANGE wrote the point alone.
        for at in [point_offset() + 8, ring.len() - 1] {
            let mut other = ring.clone();
            other[at] = 9;
            assert_eq!(decode(&other), None, "no kind, or more than a point");
        }
        assert_eq!(decode(&ring[..ring.len() - 1]), None);
        let empty_place = vec![0; point_offset() + PLACE_BYTES];
        assert_eq!(decode(&empty_place), None);
    }
}
