//! What others' receivers were reported to get wrong.

use super::*;

fn number_request(point: Value) -> Value {
    of_web1(json!([{"name": "n", "sum": {
        "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [point],
    }}]))
}

/// opentelemetry-rust#2434, #3527: an integer as a text, which is its canonical form, made all of the
/// metric vanish, and a gauge beside it stayed. openobserve#12345: so did counts of histograms.
#[test]
fn integers_as_texts() {
    let request = of_web1(json!([
        {"name": "g", "gauge": {"dataPoints": [{"asDouble": 1.5, "timeUnixNano": at(0)}]}},
        {"name": "n", "sum": {"isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [
            {"asInt": "7", "timeUnixNano": at(0)},
        ]}},
        {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            {"count": "3", "sum": 6, "bucketCounts": ["1", "2"], "timeUnixNano": at(0)},
        ]}},
    ]));
    check(
        &request,
        &[
            "web1 0s Gauge g 1.5",
            "web1 0s Counter h_count 3",
            "web1 0s Counter h_sum 6",
            "web1 0s Counter n 7",
        ],
        0,
        &[],
    );
}

/// opentelemetry-rust#1253: an empty value of an attribute failed. vercel/ai#6546: JavaScript writes
/// a NaN as null, and the whole request was refused.
#[test]
fn empty_values() {
    let attribute = |value: Value| {
        number_request(json!({
            "asInt": "7",
            "timeUnixNano": at(0),
            "attributes": [{"key": "a", "value": value}, {"key": "b", "value": {"intValue": "2"}}],
        }))
    };
    for value in [
        json!({}),
        json!({"doubleValue": null}),
        json!({"stringValue": ""}),
    ] {
        check(&attribute(value), &["web1 0s Counter n{b=\"2\"} 7"], 0, &[]);
    }
}

/// PostHog#60261: an exponential histogram without all of its fields vanished. VictoriaMetrics#11528:
/// so did one without buckets, with its count and its sum. VictoriaMetrics#4814 and
/// opentelemetry-collector-contrib#12777: one without buckets, or without a sum, was a panic.
#[test]
fn histograms_without_buckets() {
    let point = json!({"count": "3", "sum": 6, "timeUnixNano": at(0)});
    let without_sum =
        json!({"count": "4", "timeUnixNano": at(0), "attributes": attributes(&[("a", "b")])});
    let request = of_web1(json!([
        {"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [point]}},
        {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [point, without_sum]}},
    ]));
    check(
        &request,
        &[
            "web1 0s Counter e_count 3",
            "web1 0s Counter e_sum 6",
            "web1 0s Counter h_count 3",
            "web1 0s Counter h_count{a=\"b\"} 4",
            "web1 0s Counter h_sum 6",
        ],
        0,
        &[],
    );
}

/// opentelemetry-go#8830: numbers as texts were refused.
#[test]
fn doubles_as_texts() {
    let request = number_request(json!({"asDouble": "1.25", "timeUnixNano": at(0)}));
    check(&request, &["web1 0s Counter n 1.25"], 0, &[]);
}

/// opentelemetry-collector-contrib#26716: the end of a series became a value of 0.
#[test]
fn no_recorded_value() {
    let request =
        number_request(json!({"timeUnixNano": at(0), "startTimeUnixNano": at(-9), "flags": 1}));
    check(&request, &["web1 0s End n 0"], 0, &[]);
}

/// opentelemetry-go#4268: the zero time of Go became 11651379494838206464 nanoseconds since 1970.
#[test]
fn starts_in_the_future() {
    let start = json!("11651379494838206464");
    let point = json!({"asInt": 1, "timeUnixNano": at(0), "startTimeUnixNano": start});
    check(&gauge(point.clone()), &["web1 0s Gauge up 1"], 0, &[]);
    check(&number_request(point), &["web1 0s Counter n 1"], 0, &[]);
}

/// mimir-prometheus#684: a start that is the point's own time says that nothing is known of it.
/// open-telemetry/opentelemetry-specification#4184: all series of a process have its start, also
/// those that began hours after it.
#[test]
fn starts_that_say_nothing() {
    let of = |start: Value| json!({"asInt": 1, "timeUnixNano": at(0), "startTimeUnixNano": start});
    check(&number_request(of(at(0))), &["web1 0s Counter n 1"], 0, &[]);
    check(
        &number_request(of(at(-4 * 3_600))),
        &["web1 0s Counter n 1"],
        0,
        &[],
    );
}

/// opentelemetry-collector-contrib#50569: one NaN dropped all of the batch.
#[test]
fn one_point_that_cannot_be() {
    let point = |value: Value, a: &str| json!({"asDouble": value, "timeUnixNano": at(0), "attributes": attributes(&[("a", a)])});
    let points = [
        point(json!(1), "1"),
        point(json!("NaN"), "2"),
        point(json!(3), "3"),
    ];
    let request = of_web1(json!([{"name": "g", "gauge": {"dataPoints": points}}]));
    check(
        &request,
        &["web1 0s Gauge g{a=\"1\"} 1", "web1 0s Gauge g{a=\"3\"} 3"],
        1,
        &["`g`: a value is NaN"],
    );
}

/// NOFireAI/ravel#1585: what was left out of a point that was taken was never said.
#[test]
fn parts_of_points() {
    let request = of_web1(json!([{"name": "h", "histogram": {
        "aggregationTemporality": 2,
        "dataPoints": [{"count": "3", "max": "NaN", "timeUnixNano": at(0)}],
    }}]));
    check(
        &request,
        &["web1 0s Counter h_count 3"],
        0,
        &["`h_max`: a value is NaN"],
    );
    let answer = ExportMetricsServiceResponse::of(&taken(&request).left_out, None);
    let said = answer.partial_success.unwrap();
    assert_eq!(said.rejected_data_points, 0);
    assert!(said.error_message.contains("h_max"));
}

/// prometheus#16063, #17400: two resources whose series came to be the same were out of order. What
/// tells them apart in OpenTelemetry is not all here, so the second one is named.
#[test]
fn resources_that_come_to_be_the_same() {
    let metrics =
        json!([{"name": "up", "gauge": {"dataPoints": [{"asInt": 1, "timeUnixNano": at(0)}]}}]);
    let of_pod = |pod: &str| {
        of_resource(
            &[("host.name", "web1"), ("k8s.pod.name", pod)],
            metrics.clone(),
        )
    };
    let request = json!({"resourceMetrics": [of_pod("a"), of_pod("b")]});
    check(
        &request,
        &["web1 0s Gauge up 1"],
        1,
        &["`up`: there is one of the same series"],
    );
}
