//! Which bucket a row of a version before holds, and how its numbers are encoded. The checksum covers
//! both.

use lizmon_summary::{Bucket, TIERS};

use super::checksum::checksum;

const STATS_BYTES: usize = 32;

/// Identifies a bucket: series, tier and slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct BucketKey<'a> {
    pub(super) host: &'a str,
    pub(super) label: &'a str,
    pub(super) tier: usize,
    pub(super) slot: usize,
}

impl BucketKey<'_> {
    fn sum(&self, start: u64, stats: &[u8]) -> u32 {
        checksum(&[
            b"bucket",
            self.host.as_bytes(),
            self.label.as_bytes(),
            &(self.tier as u64).to_le_bytes(),
            &(self.slot as u64).to_le_bytes(),
            &start.to_le_bytes(),
            stats,
        ])
    }

    /// Count, sum, min and max, little-endian, and the checksum. Not as SQLite's REAL: that keeps
    /// -0.0 as 0.
    #[cfg(test)]
    pub(super) fn encode(&self, bucket: &Bucket) -> [u8; STATS_BYTES + 4] {
        let mut stats = [0; STATS_BYTES + 4];
        stats[..8].copy_from_slice(&bucket.count.to_le_bytes());
        stats[8..16].copy_from_slice(&bucket.sum.to_le_bytes());
        stats[16..24].copy_from_slice(&bucket.min.to_le_bytes());
        stats[24..STATS_BYTES].copy_from_slice(&bucket.max.to_le_bytes());
        let sum = self.sum(bucket.start, &stats[..STATS_BYTES]);
        stats[STATS_BYTES..].copy_from_slice(&sum.to_le_bytes());
        stats
    }

    /// The bucket; `None` if it is not what was written, or if no samples can have made it.
    pub(super) fn read(&self, start: u64, stats: &[u8]) -> Option<Bucket> {
        let (stats, sum) = stats.split_at_checked(STATS_BYTES)?;
        if *sum != self.sum(start, stats).to_le_bytes() {
            return None;
        }
        let (words, _) = stats.as_chunks::<8>();
        let [count, sum, min, max] = words.try_into().ok()?;
        let bucket = Bucket {
            start,
            count: u64::from_le_bytes(count),
            sum: f64::from_le_bytes(sum),
            min: f64::from_le_bytes(min),
            max: f64::from_le_bytes(max),
        };
        is_possible(self.tier, &bucket).then_some(bucket)
    }
}

/// Whether samples can have made it. By rounding, the mean of many may lie a little outside the
/// extremes.
fn is_possible(tier: usize, bucket: &Bucket) -> bool {
    let Bucket {
        start,
        count,
        sum,
        min,
        max,
    } = *bucket;
    let in_step = TIERS
        .get(tier)
        .is_some_and(|tier| start.is_multiple_of(tier.width_secs));
    let is_finite = sum.is_finite() && min.is_finite() && max.is_finite();
    let avg = sum / count as f64;
    let slack = min.abs().max(max.abs()) * f64::EPSILON * (count as f64 + 1.0);
    in_step && count > 0 && is_finite && min <= max && min - slack <= avg && avg <= max + slack
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: BucketKey<'_> = BucketKey {
        host: "web1",
        label: "cpu",
        tier: 0,
        slot: 3,
    };
    const GOOD: Bucket = Bucket {
        start: 1_465_001_760,
        count: 5,
        sum: 24.9,
        min: 4.8,
        max: 5.1,
    };

    #[test]
    fn an_interval_is_read_where_it_was_written_and_nowhere_else() {
        let stats = PLACE.encode(&GOOD);
        assert_eq!(PLACE.read(GOOD.start, &stats), Some(GOOD));
        for place in [
            BucketKey {
                host: "web2",
                ..PLACE
            },
            BucketKey {
                label: "cpv",
                ..PLACE
            },
            BucketKey {
                host: "web1c",
                label: "pu",
                ..PLACE
            },
            BucketKey { tier: 1, ..PLACE },
            BucketKey { slot: 4, ..PLACE },
        ] {
            assert_eq!(place.read(GOOD.start, &stats), None, "{place:?}");
        }
        assert_eq!(PLACE.read(GOOD.start + 60, &stats), None);
        for at in 0..stats.len() {
            assert_eq!(PLACE.read(GOOD.start, &stats[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut flipped = stats;
                flipped[at] ^= 1 << bit;
                assert_eq!(PLACE.read(GOOD.start, &flipped), None, "bit {bit} of {at}");
            }
        }
    }

    #[test]
    fn what_no_samples_can_have_made_is_not_read() {
        let check = |bucket: Bucket, is_read: bool| {
            let read = PLACE.read(bucket.start, &PLACE.encode(&bucket));
            assert_eq!(read.is_some(), is_read, "{bucket:?}");
        };
        check(GOOD, true);
        check(
            Bucket {
                sum: -0.0,
                min: -0.0,
                max: 0.0,
                ..GOOD
            },
            true,
        );
        // Three tenths, added up, are a little more than three times one tenth.
        check(
            Bucket {
                count: 3,
                sum: 0.1 + 0.1 + 0.1,
                min: 0.1,
                max: 0.1,
                ..GOOD
            },
            true,
        );
        check(
            Bucket {
                start: GOOD.start + 1,
                ..GOOD
            },
            false,
        );
        check(Bucket { count: 0, ..GOOD }, false);
        check(
            Bucket {
                sum: f64::NAN,
                ..GOOD
            },
            false,
        );
        check(
            Bucket {
                max: f64::INFINITY,
                ..GOOD
            },
            false,
        );
        check(Bucket { min: 5.2, ..GOOD }, false);
        check(Bucket { sum: 26.0, ..GOOD }, false);
        check(Bucket { count: 6, ..GOOD }, false);
    }
}
