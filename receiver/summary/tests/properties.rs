//! What holds for any samples: against a model that keeps them all.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use lizmon_summary::{AHEAD_SECS_MAX, Bucket, IntervalAverage, Series, TIERS, Window, accepts};
use proptest::prelude::*;

const NOW: u64 = 1_465_001_814;

/// Everything accepted so far, nothing summarized.
#[derive(Default)]
struct Model {
    samples: Vec<(u64, f64)>,
}

impl Model {
    /// The interval ends at or after each of its epochs: looked for, not computed as the crate
    /// does.
    fn window(&self, tier: usize, now: u64) -> Option<Window> {
        let tier = &TIERS[tier];
        let start = tier.window_start(now);
        let mut intervals = BTreeMap::<u64, Vec<f64>>::new();
        for (epoch, value) in self.samples.iter().filter(|(epoch, _)| *epoch > start) {
            let end = (start..)
                .step_by(tier.width_secs as usize)
                .find(|end| epoch <= end)
                .expect("there is always a later interval");
            intervals.entry(end).or_default().push(*value);
        }
        let too_many = intervals.len().saturating_sub(tier.given_max);
        let averages: Vec<_> = intervals
            .into_iter()
            .skip(too_many)
            .map(|(end, values)| IntervalAverage {
                start: end - tier.width_secs,
                end,
                count: values.len() as u64,
                avg: values.iter().sum::<f64>() / values.len() as f64,
                min: values.iter().copied().fold(f64::INFINITY, f64::min),
                max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            })
            .collect();
        (!averages.is_empty()).then_some(Window {
            start,
            end: now,
            width_secs: tier.width_secs,
            averages,
        })
    }
}

/// Count, least and greatest exactly, the mean within a cent.
fn same(a: &Option<Window>, b: &Option<Window>) -> Result<(), TestCaseError> {
    let (Some(a), Some(b)) = (a, b) else {
        prop_assert_eq!(a, b);
        return Ok(());
    };
    prop_assert_eq!(
        (a.start, a.end, a.width_secs),
        (b.start, b.end, b.width_secs)
    );
    prop_assert_eq!(a.averages.len(), b.averages.len());
    for (a, b) in a.averages.iter().zip(&b.averages) {
        prop_assert_eq!((a.start, a.end, a.count), (b.start, b.end, b.count));
        prop_assert_eq!((a.min, a.max), (b.min, b.max));
        prop_assert!((a.avg - b.avg).abs() < 0.01, "{} and {}", a.avg, b.avg);
    }
    Ok(())
}

fn both_same(a: &Series, b: &Series, now: u64) -> Result<(), TestCaseError> {
    (0..TIERS.len()).try_for_each(|tier| same(&a.window(tier, now), &b.window(tier, now)))
}

/// Any accepted epoch, edges more often than chance would have it.
fn epoch() -> impl Strategy<Value = u64> {
    let oldest = TIERS[1].window_start(NOW) + 1;
    let newest = NOW + AHEAD_SECS_MAX;
    prop_oneof![
        oldest..=newest,
        NOW - 3_700..=newest,
        (oldest / 60 + 1..=newest / 60, 0_u64..=1).prop_map(|(minute, past)| minute * 60 + past),
        Just(oldest),
        Just(newest),
    ]
    .prop_map(move |epoch| epoch.clamp(oldest, newest))
}

fn sample() -> impl Strategy<Value = (u64, f64)> {
    // A hundredth of a cent in a sum of 400 needs values below about 1e11; percent, bytes and rates
    // are.
    let value = prop_oneof![0.0..100.0, -1e9..1e9, Just(0.0), Just(-0.0)];
    (epoch(), value)
}

fn samples() -> impl Strategy<Value = Vec<(u64, f64)>> {
    prop::collection::vec(sample(), 0..400)
}

fn series_of<'s>(samples: impl IntoIterator<Item = &'s (u64, f64)>) -> Series {
    let mut series = Series::new();
    for (epoch, value) in samples {
        series.apply(*epoch, *value);
    }
    series
}

proptest! {
    #[test]
    fn equals_the_model(samples in samples(), later in 0_u64..100_000) {
        prop_assert!(samples.iter().all(|(epoch, _)| accepts(*epoch, NOW).is_ok()));
        let series = series_of(&samples);
        let model = Model { samples };
        for now in [NOW, NOW + later] {
            for tier in 0..TIERS.len() {
                same(&series.window(tier, now), &model.window(tier, now))?;
            }
            let nothing_left = (0..TIERS.len()).all(|tier| model.window(tier, now).is_none());
            prop_assert_eq!(series.is_empty_at(now), nothing_left);
        }
    }

    /// Nothing twice, nothing dropped, while time goes on and samples come late, in step and ahead.
    #[test]
    fn equals_the_model_as_time_goes_on(
        steps in prop::collection::vec((0_u64..4_000, 0_u64..90_000, -1e6..1e6), 1..300),
    ) {
        let (mut series, mut model, mut now) = (Series::new(), Model::default(), NOW);
        for (passed, back, value) in steps {
            now += passed;
            let epoch = now + AHEAD_SECS_MAX - back;
            if accepts(epoch, now).is_ok() {
                series.apply(epoch, value);
                model.samples.push((epoch, value));
            }
            for tier in 0..TIERS.len() {
                same(&series.window(tier, now), &model.window(tier, now))?;
            }
        }
    }

    #[test]
    fn order_does_not_matter(
        (samples, shuffled) in samples().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
    ) {
        both_same(&series_of(&samples), &series_of(&shuffled), NOW)?;
    }

    /// Batches are cut anywhere, and the receiver may stop between any two: kept, restored, gone on
    /// with.
    #[test]
    fn batching_and_restarts_do_not_matter(
        batches in prop::collection::vec(prop::collection::vec(sample(), 0..40), 0..20),
    ) {
        let whole = series_of(batches.iter().flatten());
        let mut store = BTreeMap::<(usize, usize), Bucket>::new();
        for batch in &batches {
            let mut series = restored(&store);
            for (epoch, value) in batch {
                series.apply(*epoch, *value);
            }
            let changed = series.intervals().filter(|(_, _, is_changed)| *is_changed);
            let place = |tier: usize, bucket: &Bucket| (tier, TIERS[tier].slot_of(bucket.start));
            store.extend(changed.map(|(tier, bucket, _)| (place(tier, &bucket), bucket)));
            series.clear_dirty();
            prop_assert_eq!(&restored(&store), &series);
        }
        let mut whole_kept = whole.clone();
        whole_kept.clear_dirty();
        prop_assert_eq!(restored(&store), whole_kept);
    }

    /// What is packed meanwhile, and what a store has kept and given back, shows in no answer.
    #[test]
    fn packing_changes_nothing(
        steps in prop::collection::vec((prop::collection::vec(sample(), 0..9), 0_u8..4), 0..60),
    ) {
        let (mut plain, mut packed) = (Series::new(), Series::new());
        let mut evicted = [Vec::new(), Vec::new()];
        for (samples, then) in steps {
            for (epoch, value) in samples {
                plain.apply_evicting(epoch, value, &mut |hour| evicted[0].push(hour));
                packed.apply_evicting(epoch, value, &mut |hour| evicted[1].push(hour));
            }
            prop_assert_eq!(&evicted[0], &evicted[1]);
            match then {
                0 => packed.pack(),
                1 => packed = Series::decode(&packed.encode()).expect("it was just encoded"),
                2 => {
                    let from = NOW - 1_800;
                    prop_assert_eq!(plain.cut(from), packed.cut(from));
                }
                _ => (),
            }
            prop_assert_eq!(bits(&plain), bits(&packed));
            prop_assert_eq!(plain.encode(), packed.encode());
            for tier in 0..TIERS.len() {
                prop_assert_eq!(plain.window(tier, NOW), packed.window(tier, NOW));
                prop_assert_eq!(plain.newest(tier, NOW), packed.newest(tier, NOW));
            }
        }
    }

    /// Whatever is decoded is a series: its own bytes are the same ones.
    #[test]
    fn no_bytes_make_it_panic(
        (samples, at, byte, random) in
            (samples(), any::<u16>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)),
    ) {
        let mut changed = series_of(&samples).encode();
        let at = usize::from(at) % changed.len();
        changed[at] = byte;
        for bytes in [changed, random] {
            if let Ok(mut series) = Series::decode(&bytes) {
                let buckets: Vec<_> = series.intervals().collect();
                let mut again = Series::new();
                for (tier, bucket, _) in buckets {
                    prop_assert_eq!(again.restore(tier, bucket), Ok(()));
                }
                prop_assert_eq!(bits(&again), bits(&series));
                series.apply(NOW, 1.0);
                series.cut(0);
            }
        }
    }

    /// The same samples in the same order give the same bits, whenever it happens.
    #[test]
    fn replay_gives_the_same_bits(samples in samples()) {
        prop_assert_eq!(series_of(&samples), series_of(&samples));
    }

    #[test]
    fn kept_buckets_come_back_in_any_order(
        (samples, keys) in (samples(), prop::collection::vec(any::<u32>(), 128)),
    ) {
        let mut series = series_of(&samples);
        let mut buckets: Vec<_> = keys.into_iter().zip(series.intervals()).collect();
        buckets.sort_by_key(|(key, _)| *key);
        let mut again = Series::new();
        for (_, (tier, bucket, is_changed)) in buckets {
            prop_assert!(is_changed && TIERS[tier].slot_of(bucket.start) < TIERS[tier].kept);
            prop_assert_eq!(again.restore(tier, bucket), Ok(()));
        }
        series.clear_dirty();
        prop_assert_eq!(again, series);
    }
}

/// All of it, to the bit.
fn bits(series: &Series) -> Vec<(usize, u64, u64, [u64; 3])> {
    let of = |(tier, bucket, _): (usize, Bucket, bool)| {
        let numbers = [bucket.sum, bucket.min, bucket.max].map(f64::to_bits);
        (tier, bucket.start, bucket.count, numbers)
    };
    series.intervals().map(of).collect()
}

fn restored(store: &BTreeMap<(usize, usize), Bucket>) -> Series {
    let mut series = Series::new();
    for ((tier, _), bucket) in store {
        series
            .restore(*tier, *bucket)
            .expect("a kept bucket is a good one");
    }
    series
}
