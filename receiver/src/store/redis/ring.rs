//! The buckets of a series, in a string: one place of 40 bytes for each slot of each tier.
//!
//! ```text
//! start u64 | count u64 | sum f64 | min f64 | max f64      little-endian; count 0: nothing
//! ```
//!
//! A commit overwrites the places that have changed (`SETRANGE`); a string ends behind the last
//! place that was ever used.

use lizmon_summary::{Bucket, TIERS};

use super::super::state::StoredInterval;

/// Bytes of one place.
const PLACE_BYTES: usize = 40;

/// Where an interval's place begins; none if there is no such tier.
pub(super) fn offset(interval: &StoredInterval) -> Option<usize> {
    let before: usize = TIERS.iter().take(interval.tier).map(|tier| tier.kept).sum();
    Some((before + interval.slot()?) * PLACE_BYTES)
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

/// A whole string with these intervals.
pub(super) fn encode_all(intervals: &[StoredInterval]) -> Vec<u8> {
    let mut ring = Vec::new();
    for stored in intervals {
        let Some(at) = offset(stored) else {
            continue;
        };
        if ring.len() < at + PLACE_BYTES {
            ring.resize(at + PLACE_BYTES, 0);
        }
        ring[at..at + PLACE_BYTES].copy_from_slice(&encode(&stored.bucket));
    }
    ring
}

/// The intervals in a string; none if lizmon did not write it.
pub(super) fn decode(ring: &[u8]) -> Option<Vec<StoredInterval>> {
    let places = ring.chunks_exact(PLACE_BYTES);
    if !places.remainder().is_empty() || places.len() > TIERS.iter().map(|tier| tier.kept).sum() {
        return None;
    }
    let slots = TIERS
        .iter()
        .enumerate()
        .flat_map(|(tier, of)| (0..of.kept).map(move |slot| (tier, slot)));
    let mut intervals = Vec::new();
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
        let interval = StoredInterval {
            tier,
            bucket,
            is_changed: false,
        };
        if interval.slot() != Some(slot) {
            return None;
        }
        intervals.push(interval);
    }
    intervals.sort_by_key(|interval| (interval.tier, interval.bucket.start));
    Some(intervals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let stored = |tier, start, sum: f64| StoredInterval {
            tier,
            bucket: Bucket {
                start,
                count: 2,
                sum,
                min: -1.5,
                max: f64::MAX,
            },
            is_changed: false,
        };
        let intervals = [
            stored(0, 60, -0.0),
            stored(0, 62 * 60, 1e290),
            stored(1, 26 * 3_600, 4.98),
        ];
        let ring = encode_all(&intervals);
        assert_eq!(ring.len(), (TIERS[0].kept + 1) * PLACE_BYTES);
        let decoded = decode(&ring).unwrap();
        assert_eq!(decoded, intervals);
        assert!(decoded[0].bucket.sum.is_sign_negative());
        assert_eq!(decode(&[]), Some(Vec::new()));
        assert_eq!(decode(&ring[1..]), None, "not whole places");
        let mut elsewhere = ring.clone();
        elsewhere.rotate_right(PLACE_BYTES);
        assert_eq!(decode(&elsewhere), None, "not in their places");
        let places: usize = TIERS.iter().map(|tier| tier.kept).sum();
        let too_long = vec![0; (places + 1) * PLACE_BYTES];
        assert_eq!(decode(&too_long), None);
        assert_eq!(offset(&stored(2, 60, 1.0)), None);
    }
}
