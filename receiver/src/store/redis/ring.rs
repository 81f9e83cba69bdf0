//! The buckets of a series, in a string: one place of 40 bytes for each slot of each tier.
//!
//! ```text
//! start u64 | count u64 | sum f64 | min f64 | max f64      little-endian; count 0: nothing
//! ```
//!
//! A commit overwrites the places that have changed (`SETRANGE`); a string ends behind the last
//! place that was ever used.

use lizmon_summary::{Bucket, Series, TIERS};

/// Bytes of one place.
const PLACE_BYTES: usize = 40;

/// Where the place of an interval of this tier begins; none if there is no such tier.
pub(super) fn offset(tier: usize, bucket: &Bucket) -> Option<usize> {
    let before: usize = TIERS.iter().take(tier).map(|tier| tier.kept).sum();
    let slot = TIERS.get(tier)?.slot_of(bucket.start);
    Some((before + slot) * PLACE_BYTES)
}

/// A bucket in its place.
pub(super) fn encode(bucket: &Bucket) -> [u8; PLACE_BYTES] {
    let mut place = [0; PLACE_BYTES];
    let numbers = [
        bucket.start.to_le_bytes(),
        bucket.count.to_le_bytes(),
        bucket.sum.to_le_bytes(),
        bucket.min.to_le_bytes(),
        bucket.max.to_le_bytes(),
    ];
    for (to, from) in place.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&from);
    }
    place
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
    ring
}

/// The series in a string; none if lizmon did not write it.
pub(super) fn decode(ring: &[u8]) -> Option<Series> {
    let places = ring.chunks_exact(PLACE_BYTES);
    if !places.remainder().is_empty() || places.len() > TIERS.iter().map(|tier| tier.kept).sum() {
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
        let places: usize = TIERS.iter().map(|tier| tier.kept).sum();
        let too_long = vec![0; (places + 1) * PLACE_BYTES];
        assert_eq!(decode(&too_long), None);
        assert_eq!(offset(2, &bucket(60, 1.0)), None);
    }
}
