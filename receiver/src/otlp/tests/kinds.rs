//! What becomes of a data point of each kind, and when it is left out.

use super::*;

fn sum(is_monotonic: bool, temporality: u8, points: Value) -> Value {
    of_web1(json!([{"name": "n", "sum": {
        "isMonotonic": is_monotonic,
        "aggregationTemporality": temporality,
        "dataPoints": points,
    }}]))
}

fn number(start: Value, time: Value, value: Value) -> Value {
    json!({"startTimeUnixNano": start, "timeUnixNano": time, "asDouble": value})
}

#[test]
fn sums() {
    let point = |start: i64, value: f64| json!([number(at(start), at(0), json!(value))]);
    let unknown = json!([number(json!("0"), at(0), json!(20))]);
    // Cumulative: a counter, at zero at its start, if that is known and near.
    let check_counter = |points: &Value, expected: &[&str]| {
        check(&sum(true, 2, points.clone()), expected, 0, &[]);
    };
    let alone = ["web1 0s Counter n 20"];
    check_counter(
        &point(-60, 20.0),
        &["web1 -60s Start n 0", "web1 0s Counter n 20"],
    );
    check_counter(
        &point(-3_600, 20.0),
        &["web1 -3600s Start n 0", "web1 0s Counter n 20"],
    );
    check_counter(&point(-3_601, 20.0), &alone);
    check_counter(&point(0, 20.0), &alone);
    check_counter(&point(1, 20.0), &alone);
    check_counter(&unknown, &alone);
    // What may fall is counted as it is.
    check(
        &sum(false, 2, point(-60, -20.0)),
        &["web1 0s Gauge n -20"],
        0,
        &[],
    );
    // Delta: a rate a second.
    check(
        &sum(true, 1, point(-40, 20.0)),
        &["web1 0s Gauge n 0.5"],
        0,
        &[],
    );
    check(
        &sum(false, 1, point(-40, -20.0)),
        &["web1 0s Gauge n -0.5"],
        0,
        &[],
    );
    let no_start = ["`n`: it is a delta without a start before its time"];
    check(&sum(true, 1, point(0, 20.0)), &[], 1, &no_start);
    check(&sum(true, 1, point(1, 20.0)), &[], 1, &no_start);
    check(&sum(true, 1, unknown), &[], 1, &no_start);
    check(&sum(true, 0, point(-40, 20.0)), &[], 1, &["temporality"]);
    check(
        &sum(true, 2, point(-40, -1.0)),
        &[],
        1,
        &["never below zero"],
    );
}

/// A restart in one request: it began at zero, and a point of the same time counts before that.
#[test]
fn counters_that_began_again() {
    let request = sum(
        true,
        2,
        json!([
            number(at(-100), at(-60), json!(900)),
            number(at(-50), at(-40), json!(5)),
            number(at(-50), at(-30), json!(7)),
            // It ended when the next began.
            number(at(-30), at(-20), json!(1)),
        ]),
    );
    check(
        &request,
        &[
            "web1 -100s Start n 0",
            "web1 -60s Counter n 900",
            "web1 -50s Start n 0",
            "web1 -40s Counter n 5",
            "web1 -30s Counter n 7",
            "web1 -20s Counter n 1",
        ],
        0,
        &[],
    );
    let late = sum(
        true,
        2,
        json!([
            number(at(-30), at(-20), json!(1)),
            number(json!(null), at(-30), json!(7)),
        ]),
    );
    let expected = ["web1 -30s Counter n 7", "web1 -20s Counter n 1"];
    check(&late, &expected, 0, &[]);
}

fn histogram(kind: &str, temporality: u8, point: Value) -> Value {
    let mut metric = json!({"name": "h"});
    metric[kind] = json!({"aggregationTemporality": temporality, "dataPoints": [point]});
    of_web1(json!([metric]))
}

#[test]
fn histograms_of_both_kinds() {
    for kind in ["histogram", "exponentialHistogram"] {
        let whole = json!({
            "startTimeUnixNano": at(-20),
            "timeUnixNano": at(0),
            "count": "10",
            "sum": 30,
            "min": 1,
            "max": 5.5,
            "bucketCounts": ["4", "6"],
            "explicitBounds": [2],
            "scale": 2,
            "zeroCount": "1",
            "positive": {"offset": -1, "bucketCounts": ["4", "5"]},
            "negative": {},
        });
        check(
            &histogram(kind, 2, whole.clone()),
            &[
                "web1 -20s Start h_count 0",
                "web1 -20s Start h_sum 0",
                "web1 0s Gauge h_max 5.5",
                "web1 0s Gauge h_min 1",
                "web1 0s Counter h_count 10",
                "web1 0s Counter h_sum 30",
            ],
            0,
            &[],
        );
        check(
            &histogram(kind, 1, whole.clone()),
            &[
                "web1 0s Gauge h_count 0.5",
                "web1 0s Gauge h_max 5.5",
                "web1 0s Gauge h_min 1",
                "web1 0s Gauge h_sum 1.5",
            ],
            0,
            &[],
        );
        check(
            &histogram(kind, 0, whole),
            &[],
            1,
            &["`h`: its temporality"],
        );
        // Without a sum there is none, rather than zero; without a count it is zero.
        let bare = json!({"timeUnixNano": at(0)});
        check(
            &histogram(kind, 2, bare.clone()),
            &["web1 0s Counter h_count 0"],
            0,
            &[],
        );
        check(
            &histogram(kind, 1, bare),
            &[],
            1,
            &["`h_count`: it is a delta without"],
        );
        // A part that cannot be is named, and the point counts as taken.
        let odd = json!({
            "timeUnixNano": at(0),
            "count": 2,
            "sum": "NaN",
            "min": "-Infinity",
            "max": 1e291,
        });
        check(
            &histogram(kind, 2, odd),
            &["web1 0s Counter h_count 2"],
            0,
            &[
                "`h_sum`: a value is NaN",
                "`h_min`: a value is",
                "`h_max`: a value is",
            ],
        );
        let negative = json!({"timeUnixNano": at(0), "count": 2, "sum": -3});
        check(
            &histogram(kind, 2, negative),
            &["web1 0s Counter h_count 2"],
            0,
            &["`h_sum`: a counter is never below zero"],
        );
        let ended = json!({"timeUnixNano": at(0), "startTimeUnixNano": at(-20), "flags": 1});
        let expected = ["web1 0s End h_count 0", "web1 0s End h_sum 0"];
        check(&histogram(kind, 2, ended), &expected, 0, &[]);
    }
}

#[test]
fn summaries() {
    let request = of_web1(json!([{"name": "s", "summary": {"dataPoints": [{
        "startTimeUnixNano": at(-20),
        "timeUnixNano": at(0),
        "count": 10,
        "sum": 30,
        "quantileValues": [
            {"quantile": 0.5, "value": 2},
            {"quantile": 0.99, "value": "NaN"},
            {"value": 1},
        ],
    }]}}]));
    check(
        &request,
        &[
            "web1 -20s Start s_count 0",
            "web1 -20s Start s_sum 0",
            "web1 0s Gauge s{quantile=\"0\"} 1",
            "web1 0s Gauge s{quantile=\"0.5\"} 2",
            "web1 0s Counter s_count 10",
            "web1 0s Counter s_sum 30",
        ],
        0,
        &["`s`: a value is NaN"],
    );
}

/// A point that has no recorded value ends its series, and is no zero.
#[test]
fn ends() {
    let ended = json!({"timeUnixNano": at(0), "flags": 1});
    check(&gauge(ended.clone()), &["web1 0s End up 0"], 0, &[]);
    check(&sum(true, 2, json!([ended])), &["web1 0s End n 0"], 0, &[]);
    check(&sum(true, 1, json!([ended])), &["web1 0s End n 0"], 0, &[]);
    let with_value = json!({"timeUnixNano": at(0), "flags": 3, "asDouble": "NaN"});
    check(&gauge(with_value), &["web1 0s End up 0"], 0, &[]);
    let other_flag = json!({"timeUnixNano": at(0), "flags": 2, "asInt": 1});
    check(&gauge(other_flag), &["web1 0s Gauge up 1"], 0, &[]);
}

#[test]
fn values_and_times_that_are_left_out() {
    let check_value = |value: Value, reason: &str| {
        let mut point = value;
        point["timeUnixNano"] = at(0);
        check(&gauge(point), &[], 1, &[reason]);
    };
    for value in [
        json!("NaN"),
        json!("Infinity"),
        json!("-Infinity"),
        json!(1e291),
    ] {
        check_value(json!({"asDouble": value}), "`up`: a value is NaN, infinite");
    }
    check_value(json!({}), "`up`: it has no value");
    check_value(json!({"asDouble": null}), "`up`: it has no value");
    check_value(
        json!({"asDouble": 1, "asInt": 1}),
        "`up`: it has two values",
    );
    let check_time = |time: Value, reason: &str| {
        check(
            &gauge(json!({"asInt": 1, "timeUnixNano": time})),
            &[],
            1,
            &[reason],
        );
    };
    check_time(json!(null), "`up`: its time is 0");
    check_time(json!(0), "`up`: its time is 0");
    check_time(json!(999_999), "`up`: its time is 0");
    check_time(at(-25 * 3_600), "too long ago");
    check_time(at(3_600), "in the future");
    check_time(json!(u64::MAX.to_string()), "in the future");
    // Milliseconds are kept, the rest of the time is cut off.
    let time = json!(NOW * NANOS_PER_SEC - 1);
    let point = json!({"asInt": 1, "timeUnixNano": time});
    let found = taken(&gauge(point));
    let points = found.hosts.values().next().unwrap();
    assert_eq!(points.keys().next().unwrap().millis, NOW * 1_000 - 1);
}

/// The first of two points of a series and time is taken, the second one is named.
#[test]
fn two_points_at_one_time() {
    let point = |value: u8| json!({"asInt": value, "timeUnixNano": at(0)});
    let request = of_web1(json!([
        {"name": "a.b", "gauge": {"dataPoints": [point(1), point(1), point(2)]}},
        {"name": "a_b", "gauge": {"dataPoints": [point(3)]}},
        {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": at(0), "count": 1, "sum": 1},
            {"timeUnixNano": at(0), "count": 2, "sum": 2},
        ]}},
    ]));
    let same = "there is one of the same series and time";
    let reasons = [
        format!("`a.b` (2 times): {same}"),
        format!("`a_b`: {same}"),
        format!("`h_count`: {same}"),
    ];
    check(
        &request,
        &[
            "web1 0s Gauge a_b 1",
            "web1 0s Counter h_count 1",
            "web1 0s Counter h_sum 1",
        ],
        4,
        &reasons.each_ref().map(String::as_str),
    );
}

/// Metrics of no kind that is known, or of two, and those in a field of old.
#[test]
fn metrics_that_are_not_known() {
    let points = json!({"dataPoints": [{"asInt": 1, "timeUnixNano": at(0)}]});
    let request = of_web1(json!([
        {"name": "next", "timeline": points},
        {"name": "old", "intGauge": points},
        {"name": "both", "gauge": points, "sum": points},
        {"name": "empty", "gauge": {}},
        {"gauge": points},
    ]));
    check(
        &request,
        &[],
        3,
        &[
            "`next`: it is no gauge",
            "`old`: it is no gauge",
            "`both` (2 times): ",
            "``: it has no name",
        ],
    );
    let old = json!({"resourceMetrics": [{
        "resource": {"attributes": attributes(&[("host.name", "web1")])},
        "instrumentationLibraryMetrics": [{"metrics": [{"name": "up", "gauge": points}]}],
    }]});
    check(&old, &[], 0, &["`instrumentationLibraryMetrics`: "]);
}
