//! How the intervals of a series are stored in its row.
//!
//! ```text
//! body      run… | CRC-32 u32, over host, label and the runs
//! run       tier u8 | intervals, their number | start of the first, in widths of the tier | interval…
//! interval  widths after the one before, 0 for the first | count | sum | min | max
//! ```
//!
//! How a number is packed is in ../packing.rs. Little-endian.

use lizmon_summary::{Bucket, TIERS};

use super::super::packing::{Unpacker, pack_count, pack_number};
use super::super::state::StoredInterval;
use super::bucket_key::is_possible;
use super::checksum::checksum;

const SUM_BYTES: usize = 4;
/// Bytes of an interval, as most are: for the first allocation.
const INTERVAL_BYTES_ABOUT: usize = 20;

fn sum(host: &str, label: &str, runs: &[u8]) -> [u8; SUM_BYTES] {
    checksum(&[b"series", host.as_bytes(), label.as_bytes(), runs]).to_le_bytes()
}

/// The body of this series. The intervals are in order: tier by tier, the oldest first.
pub(super) fn encode(host: &str, label: &str, intervals: &[StoredInterval]) -> Vec<u8> {
    let mut body = Vec::with_capacity(intervals.len() * INTERVAL_BYTES_ABOUT + SUM_BYTES);
    for run in intervals.chunk_by(|one, other| one.tier == other.tier) {
        let Some(first) = run.first() else { continue };
        let Some(tier) = TIERS.get(first.tier) else {
            continue;
        };
        body.push(first.tier as u8);
        pack_count(run.len() as u64, &mut body);
        let mut at = first.bucket.start / tier.width_secs;
        pack_count(at, &mut body);
        for StoredInterval { bucket, .. } in run {
            let interval = bucket.start / tier.width_secs;
            pack_count(interval.saturating_sub(at), &mut body);
            at = interval;
            pack_count(bucket.count, &mut body);
            for number in [bucket.sum, bucket.min, bucket.max] {
                pack_number(number, &mut body);
            }
        }
    }
    let sum = sum(host, label, &body);
    body.extend_from_slice(&sum);
    body
}

/// The intervals of this series; `None` if the body is not what was written for it, or if no samples
/// can have made one of them.
pub(super) fn decode(host: &str, label: &str, body: &[u8]) -> Option<Vec<StoredInterval>> {
    let (runs, stored_sum) = body.split_last_chunk()?;
    if *stored_sum != sum(host, label, runs) {
        return None;
    }
    let mut unpacker = Unpacker(runs);
    let mut intervals = Vec::with_capacity(TIERS.iter().map(|tier| tier.kept).sum());
    while !unpacker.is_empty() {
        read_run(&mut unpacker, &mut intervals)?;
    }
    Some(intervals)
}

fn read_run(unpacker: &mut Unpacker<'_>, intervals: &mut Vec<StoredInterval>) -> Option<()> {
    let [index] = unpacker.take()?;
    let index = usize::from(index);
    let tier = TIERS.get(index)?;
    let count = unpacker.count()?;
    let mut at = unpacker.count()?;
    if count > tier.kept as u64 {
        return None;
    }
    for nth in 0..count {
        let step = unpacker.count()?;
        if (step == 0) != (nth == 0) {
            return None;
        }
        at = at.checked_add(step)?;
        let bucket = Bucket {
            start: at.checked_mul(tier.width_secs)?,
            count: unpacker.count()?,
            sum: unpacker.number()?,
            min: unpacker.number()?,
            max: unpacker.number()?,
        };
        if !is_possible(index, &bucket) {
            return None;
        }
        intervals.push(StoredInterval {
            tier: index,
            bucket,
            is_changed: false,
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use lizmon_summary::Series;
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_465_001_814;

    fn intervals_of(series: &Series) -> Vec<StoredInterval> {
        let intervals = series.intervals();
        intervals
            .map(|(tier, bucket, _)| StoredInterval {
                tier,
                bucket,
                is_changed: false,
            })
            .collect()
    }

    fn full(value: impl Fn(u64) -> f64) -> Vec<StoredInterval> {
        let mut series = Series::new();
        for epoch in NOW - 90_000..NOW {
            series.apply(epoch, value(epoch));
        }
        intervals_of(&series)
    }

    #[test]
    fn a_body_is_read_for_its_series_and_for_no_other() {
        let intervals = full(|epoch| (epoch % 977) as f64 / 7.0);
        let body = encode("web1", "cpu", &intervals);
        assert_eq!(decode("web1", "cpu", &body), Some(intervals));
        for (host, label) in [("web2", "cpu"), ("web1", "cpv"), ("web1c", "pu")] {
            assert_eq!(decode(host, label, &body), None, "{host} {label}");
        }
        for at in 0..body.len() {
            assert_eq!(decode("web1", "cpu", &body[..at]), None, "cut at {at}");
            let mut flipped = body.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(decode("web1", "cpu", &flipped), None, "a bit of {at}");
        }
        let empty = encode("web1", "cpu", &[]);
        assert_eq!(decode("web1", "cpu", &empty), Some(vec![]));
    }

    #[test]
    fn a_full_series_of_percentages_fits_a_page_three_times() {
        let body = encode(
            "web1",
            "cpu",
            &full(|epoch| (epoch * 37 % 9_901) as f64 / 100.0),
        );
        assert!(body.len() < 1_300, "{}", body.len());
        let body = encode("web1", "cpu", &full(|epoch| (epoch % 101) as f64));
        assert!(body.len() < 1_000, "{}", body.len());
    }

    /// The checksum is right, so nothing but the rules of a series is left to refuse them.
    #[test]
    fn what_no_series_can_be_is_not_read() {
        let check = |runs: &[u8], is_read: bool| {
            let mut body = runs.to_vec();
            body.extend_from_slice(&sum("web1", "cpu", runs));
            assert_eq!(decode("web1", "cpu", &body).is_some(), is_read, "{runs:?}");
        };
        // One sample of 0.0 each: count 1, and three zeros.
        check(&[0, 1, 5, 0, 1, 0, 0, 0], true);
        check(&[0, 2, 5, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0], true);
        check(&[0, 2, 5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0], false);
        check(&[0, 1, 5, 1, 1, 0, 0, 0], false);
        check(&[0, 1, 5, 0, 0, 0, 0, 0], false);
        check(&[2, 1, 5, 0, 1, 0, 0, 0], false);
        check(&[0, 2, 5, 0, 1, 0, 0, 0], false);
        let mut many = vec![0, 64, 5];
        (0..64_u8).for_each(|nth| many.extend([u8::from(nth > 0), 1, 0, 0, 0]));
        check(&many, false);
        let far = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        check(&[&[0, 1], &far[..], &[0, 1, 0, 0, 0]].concat(), false);
    }

    proptest! {
        #[test]
        fn every_series_comes_back_to_the_bit(
            samples in prop::collection::vec((NOW - 90_000..NOW + 120, any::<f64>()), 0..200),
        ) {
            let mut series = Series::new();
            let finite = samples.iter().filter(|(_, value)| value.abs() < 1e290);
            finite.for_each(|(epoch, value)| series.apply(*epoch, *value));
            let intervals = intervals_of(&series);
            let read = decode("web1", "cpu", &encode("web1", "cpu", &intervals));
            let bits = |of: &[StoredInterval]| -> Vec<_> {
                of.iter().map(|at| (at.tier, at.bucket.start, at.bucket.sum.to_bits())).collect()
            };
            prop_assert_eq!(read.as_deref().map(bits), Some(bits(&intervals)));
            prop_assert_eq!(read, Some(intervals));
        }

        #[test]
        fn no_bytes_make_it_panic(runs in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = runs.clone();
            body.extend_from_slice(&sum("web1", "cpu", &runs));
            let _read = decode("web1", "cpu", &body);
        }
    }
}
