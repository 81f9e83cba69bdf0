use lizmon_summary::PointKind;
use serde_json::{Value, json};

use super::answer::ExportMetricsServiceResponse;
use super::points::{OtlpPoints, points};
use super::*;

mod encodings;
mod hostile;
mod json;
mod kinds;
mod reports;
mod series;

const NOW: u64 = 1_465_001_814;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A time so many seconds after [`NOW`], as JSON has it.
fn at(secs: i64) -> Value {
    let nanos = NOW.saturating_add_signed(secs) * NANOS_PER_SEC;
    nanos.to_string().into()
}

fn attributes(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
        .collect()
}

/// Metrics of a resource with these attributes.
fn of_resource(resource: &[(&str, &str)], metrics: Value) -> Value {
    json!({
        "resource": {"attributes": attributes(resource)},
        "scopeMetrics": [{"metrics": metrics}],
    })
}

/// A request with the metrics of host `web1`.
fn of_web1(metrics: Value) -> Value {
    json!({"resourceMetrics": [of_resource(&[("host.name", "web1")], metrics)]})
}

/// A request with one gauge of host `web1`.
fn gauge(point: Value) -> Value {
    of_web1(json!([{"name": "up", "gauge": {"dataPoints": [point]}}]))
}

fn parse(request: &Value) -> ExportMetricsServiceRequest {
    let bytes = request.to_string().into_bytes();
    let parsed = OtlpEncoding::Json.parse(&bytes);
    parsed.unwrap_or_else(|error| panic!("{error}: {request}"))
}

fn taken(request: &Value) -> OtlpPoints {
    points(&parse(request), NOW)
}

/// Each point, as `web1 -10s Gauge up{job="a"} 1`.
fn told(points: &OtlpPoints) -> Vec<String> {
    let mut told = Vec::new();
    for (host, points) in &points.hosts {
        let host = host.name().map_or("nobody", |name| name.as_str());
        for (number, values) in points {
            let secs = number.millis as f64 / 1_000.0 - NOW as f64;
            let kind: PointKind = number.kind;
            for (label, value) in values {
                let (label, value) = (label.as_str(), value.get());
                told.push(format!("{host} {secs}s {kind:?} {label} {value}"));
            }
        }
    }
    told
}

/// What a request brings, and how many points of it are left out for which reasons.
fn check(request: &Value, expected: &[&str], left_out: u64, reasons: &[&str]) {
    let points = taken(request);
    assert_eq!(told(&points), expected, "{request}");
    let said = points.left_out.to_string();
    assert_eq!(points.left_out.points, left_out, "{said}: {request}");
    assert_eq!(points.left_out.is_nothing(), reasons.is_empty(), "{said}");
    for reason in reasons {
        assert!(said.contains(reason), "{said}: {reason}");
    }
}

#[test]
fn media_types() {
    for (content_type, expected) in [
        ("application/x-protobuf", Some(OtlpEncoding::Protobuf)),
        ("Application/JSON ; charset=utf-8", Some(OtlpEncoding::Json)),
        ("application/json", Some(OtlpEncoding::Json)),
        ("application/protobuf", None),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(OtlpEncoding::of(content_type), expected, "{content_type}");
    }
}

#[test]
fn answers() {
    let body = |left_out: &left_out::LeftOut, warning, encoding| {
        ExportMetricsServiceResponse::of(left_out, warning).body(encoding)
    };
    let nothing = left_out::LeftOut::default();
    assert_eq!(body(&nothing, None, OtlpEncoding::Protobuf), b"");
    assert_eq!(body(&nothing, None, OtlpEncoding::Json), b"{}");
    let warning = br#"{"partialSuccess":{"errorMessage":"late"}}"#;
    assert_eq!(body(&nothing, Some("late"), OtlpEncoding::Json), warning);
    let mut left_out = left_out::LeftOut::default();
    left_out.add("up", "", left_out::LeftOutReason::Value, 3);
    let said = "left out: `up` (3 times): a value is NaN, infinite, or beyond 1e290";
    let json = json!({"partialSuccess": {"rejectedDataPoints": "3", "errorMessage": said}});
    let found: Value = serde_json::from_slice(&body(&left_out, None, OtlpEncoding::Json)).unwrap();
    assert_eq!(found, json);
    // partial_success = 1 {rejected_data_points = 1, error_message = 2}
    let length = said.len() as u8;
    let mut expected = vec![0x0a, length + 4, 0x08, 3, 0x12, length];
    expected.extend(said.bytes());
    assert_eq!(body(&left_out, None, OtlpEncoding::Protobuf), expected);
}

/// As many reasons as fit are named, and all are counted.
#[test]
fn reasons_are_bounded() {
    let long = "m".repeat(10_000);
    let names = (0..30).map(|at| format!("m{at}")).chain([long]);
    let point = json!({"timeUnixNano": at(0), "asDouble": "NaN"});
    let metrics = names.map(|name| {
        let points = [&point, &point, &point];
        json!({"name": name, "gauge": {"dataPoints": points}})
    });
    let request = of_web1(metrics.collect());
    check(
        &request,
        &[],
        93,
        &["`m0` (3 times)", "`m19` (3 times)", "; and 33 more"],
    );
    assert!(taken(&request).left_out.to_string().len() < 2_000);
    let long = of_web1(json!([{"name": "m".repeat(10_000)}]));
    assert!(taken(&long).left_out.to_string().len() < 300);
}
