//! The buckets of a series, in a string: one place of 40 bytes for each slot of each tier.
//!
//! ```text
//! start u64 | count u64 | sum f64 | min f64 | max f64      little-endian; count 0: nothing
//! ```
//!
//! A commit overwrites the places that have changed (`SETRANGE`); a string ends behind the last
//! place that was ever used.

use lizmon_summary::{Bucket, TIERS};

use super::super::state::StoredBucket;

/// Bytes of one place.
const PLACE_BYTES: usize = 40;

/// Where a bucket's place begins; none if there is no such slot.
pub(super) fn offset(tier: usize, slot: usize) -> Option<usize> {
    let kept = TIERS.get(tier)?.kept;
    let before: usize = TIERS.iter().take(tier).map(|tier| tier.kept).sum();
    (slot < kept).then_some((before + slot) * PLACE_BYTES)
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

/// A whole string with these buckets.
pub(super) fn encode_all<'a>(buckets: impl Iterator<Item = &'a StoredBucket>) -> Vec<u8> {
    let mut ring = Vec::new();
    for stored in buckets {
        let Some(at) = offset(stored.tier, stored.slot) else {
            continue;
        };
        if ring.len() < at + PLACE_BYTES {
            ring.resize(at + PLACE_BYTES, 0);
        }
        ring[at..at + PLACE_BYTES].copy_from_slice(&encode(&stored.bucket));
    }
    ring
}

/// The buckets in a string; none if lizmon did not write it.
pub(super) fn decode(label: &str, ring: &[u8]) -> Option<Vec<StoredBucket>> {
    let places = ring.chunks_exact(PLACE_BYTES);
    if !places.remainder().is_empty() || places.len() > TIERS.iter().map(|tier| tier.kept).sum() {
        return None;
    }
    let slots = TIERS
        .iter()
        .enumerate()
        .flat_map(|(tier, of)| (0..of.kept).map(move |slot| (tier, slot)));
    let mut buckets = Vec::new();
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
        if bucket.count > 0 {
            buckets.push(StoredBucket {
                label: label.into(),
                tier,
                slot,
                bucket,
            });
        }
    }
    Some(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let stored = |tier, slot, sum: f64| StoredBucket {
            label: "cpu".into(),
            tier,
            slot,
            bucket: Bucket {
                start: 60,
                count: 2,
                sum,
                min: -1.5,
                max: f64::MAX,
            },
        };
        let buckets = [stored(0, 1, -0.0), stored(0, 62, 1e290), stored(1, 0, 4.98)];
        let ring = encode_all(buckets.iter());
        assert_eq!(ring.len(), (TIERS[0].kept + 1) * PLACE_BYTES);
        let decoded = decode("cpu", &ring).unwrap();
        assert_eq!(decoded, buckets);
        assert!(decoded[0].bucket.sum.is_sign_negative());
        assert_eq!(decode("cpu", &[]), Some(Vec::new()));
        assert_eq!(decode("cpu", &ring[1..]), None, "not whole places");
        let places: usize = TIERS.iter().map(|tier| tier.kept).sum();
        assert_eq!(
            decode("cpu", &vec![0; (places + 1) * PLACE_BYTES]),
            None,
            "too long"
        );
        assert_eq!(offset(0, TIERS[0].kept), None);
        assert_eq!(offset(2, 0), None);
    }
}
