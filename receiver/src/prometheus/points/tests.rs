use proptest::prelude::*;

use super::super::message::ReadHints;
use super::*;

/// 2016-06-04 10:25:30 UTC.
const NOW: u64 = 1_465_035_930;
const HOUR: u64 = 3_600;
/// 09:25:00 and 09:00:00.
const MINUTES_AFTER: u64 = NOW - 30 - HOUR;
const HOURS_UNTIL: u64 = MINUTES_AFTER - 25 * 60;
/// The first midnight after hours begin.
const DAYS_UNTIL: u64 = (NOW - 31 * DAY_SECS).next_multiple_of(DAY_SECS);

fn query(start_ms: i64, end_ms: i64, range_ms: i64, step_ms: i64) -> Query {
    Query {
        start_timestamp_ms: start_ms,
        end_timestamp_ms: end_ms,
        matchers: Vec::new(),
        hints: Some(ReadHints {
            range_ms,
            step_ms,
            ..ReadHints::default()
        }),
    }
}

fn points(start: u64, range_ms: i64, step_ms: i64) -> Points {
    let query = query(start as i64 * 1_000, i64::MAX, range_ms, step_ms);
    Points::of(&query, &HistoryRetention::default(), NOW)
}

fn ends(after: u64, until: u64) -> Ends {
    Ends { after, until }
}

#[test]
fn each_time_has_one_width() {
    let all = points(0, 0, 0);
    assert_eq!(all.minutes, ends(MINUTES_AFTER, NOW));
    assert_eq!(all.hours, ends(DAYS_UNTIL, HOURS_UNTIL));
    assert_eq!(all.days, ends(0, DAYS_UNTIL));
    let hour = points(NOW - HOUR, 0, 15_000);
    assert_eq!(
        hour.minutes,
        ends(NOW - HOUR - 1, NOW).and(MINUTES_AFTER, NOW)
    );
    assert!(hour.hours.is_empty() && hour.days.is_empty());
    assert!(!hour.needs_store(NOW));
}

/// Ends are included at both sides, to the millisecond.
#[test]
fn ends_are_included() {
    let end = NOW - 30;
    for (start_ms, end_ms, expected) in [
        (0, 0, true),
        (-60_000, 60_000, true),
        (0, -1, false),
        (1, 0, false),
        (1, 999, false),
        (60_000, -60_000, false),
    ] {
        let at = end as i64 * 1_000;
        let query = query(at + start_ms, at + end_ms, 0, 0);
        let points = Points::of(&query, &HistoryRetention::default(), NOW);
        assert_eq!(points.minutes.has(end), expected, "{start_ms} {end_ms}");
    }
}

/// What goes over more than an hour gets no minutes, and over more than a month no hours.
#[test]
fn wide_ranges_have_wide_intervals() {
    let ms = |secs: u64| secs as i64 * 1_000;
    let uses =
        |points: Points| [points.minutes, points.hours, points.days].map(|of| !of.is_empty());
    let month = 31 * DAY_SECS;
    for (range_ms, step_ms, expected) in [
        (0, 0, [true, true, true]),
        (ms(HOUR), 0, [true, true, true]),
        (ms(HOUR) + 1, 0, [false, true, true]),
        (0, ms(HOUR), [true, true, true]),
        (0, ms(HOUR) + 1, [false, true, true]),
        // A range says more than the step.
        (ms(300), ms(DAY_SECS), [true, true, true]),
        (ms(month), 0, [false, true, true]),
        (ms(month) + 1, 0, [false, false, true]),
        (i64::MAX, 0, [false, false, true]),
        (-1, -1, [true, true, true]),
        (i64::MIN, i64::MIN, [true, true, true]),
    ] {
        assert_eq!(
            uses(points(0, range_ms, step_ms)),
            expected,
            "{range_ms} {step_ms}"
        );
    }
    assert_eq!(points(0, ms(2 * HOUR), 0).hours.until, NOW);
    assert_eq!(points(0, ms(2 * month), 0).days.until, NOW);
}

#[test]
fn what_is_not_kept_is_not_asked_for() {
    let of = |hours_secs, days_secs, range_ms| {
        let retention = HistoryRetention {
            hours_secs,
            days_secs,
        };
        Points::of(&query(0, i64::MAX, range_ms, 0), &retention, NOW)
    };
    let none = of(0, 0, 0);
    assert_eq!((none.hours.after, none.days), (0, Ends::default()));
    assert!(!of(0, 0, i64::MAX).hours.is_empty());
    let days = of(0, 400 * DAY_SECS, 0);
    assert_eq!(days.days.until, (NOW - DAY_SECS).next_multiple_of(DAY_SECS));
    assert_eq!(days.hours.after, days.days.until);
}

#[test]
fn memory_has_the_hours_of_a_day() {
    assert!(!points(NOW - DAY_SECS, 0, 0).needs_store(NOW));
    assert!(points(NOW - DAY_SECS - 2 * HOUR, 0, 0).needs_store(NOW));
    assert_eq!(points(NOW - HOUR, 0, 0).count(), 60);
}

/// Regression: hours were kept for a day alone, and a second after midnight the day that had just
/// ended was told beside its own last minutes.
#[test]
fn no_day_is_there_beside_its_minutes() {
    let midnight = 1_952_467_200;
    let retention = HistoryRetention {
        hours_secs: 0,
        days_secs: DAY_SECS,
    };
    let query = query(0, midnight as i64 * 1_000, 0, 0);
    let points = Points::of(&query, &retention, midnight + 1);
    assert_eq!(points.days.until, midnight - DAY_SECS);
    assert_eq!(points.hours.after, midnight - DAY_SECS);
    assert_eq!(points.hours.until, points.minutes.after);
    assert!(points.minutes.has(midnight));
}

proptest! {
    /// Whatever is asked: no time twice, nothing that was not asked for, nothing ahead.
    #[test]
    fn no_time_twice(
        start in any::<i64>(),
        end in any::<i64>(),
        near in prop::option::of((-90_000_000_i64..1_000, -90_000_000_i64..1_000)),
        range in prop_oneof![Just(0), any::<i64>(), 0..9_000_000_i64],
        step in any::<i64>(),
        now in 90_000_000_u64..4_000_000_000,
        kept in (0..40_u64, 0..400_u64),
    ) {
        let (start, end) = match near {
            Some((start, end)) => (now as i64 * 1_000 + start, now as i64 * 1_000 + end),
            None => (start, end),
        };
        let retention = HistoryRetention { hours_secs: kept.0 * DAY_SECS, days_secs: kept.1 * DAY_SECS };
        let points = Points::of(&query(start, end, range, step), &retention, now);
        let widths = [(points.days, DAY_SECS), (points.hours, HOUR), (points.minutes, 60)];
        let mut before = 0;
        for (ends, width) in widths.into_iter().filter(|(ends, _)| !ends.is_empty()) {
            prop_assert!(ends.after >= before, "{:?}", points);
            prop_assert!(ends.until <= now);
            let first = (ends.after / width + 1) * width;
            if first <= ends.until {
                prop_assert!(first as i64 * 1_000 >= start, "{:?}", points);
                // The interval does not begin before the one ended that is wider.
                prop_assert!(before == 0 || first - width >= before, "{:?}", points);
                prop_assert!((ends.until - ends.until % width) as i64 * 1_000 <= end);
            }
            before = ends.until - ends.until % width;
        }
    }
}
