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
