//! Requests that are meant to take time or memory.

use std::collections::BTreeMap;
use std::thread;

use prost::Message as _;

use super::super::attribute::{AnyValue, ArrayValue, KeyValue};
use super::super::message::{
    ExportMetricsServiceRequest, Gauge, InstrumentationScope, Metric, NumberDataPoint,
    QuantileSummary, Resource, ResourceMetrics, ScopeMetrics, SummaryDataPoint, ValueAtQuantile,
};
use super::super::points::POINTS_BYTES_MAX;
use super::*;
use crate::protobuf::MessageError;
use crate::protobuf::wire::WireError;

/// In a thread with as much of a stack as a blocking one of tokio's has.
fn in_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().stack_size(2 << 20);
    thread.spawn(run).unwrap().join().unwrap()
}

/// A request whose host has arrays in arrays, so many, as its name.
fn nested(depth: usize) -> ExportMetricsServiceRequest {
    let mut value = AnyValue::default();
    for _ in 0..depth {
        let values = vec![value];
        value = AnyValue {
            value: Some(super::super::attribute::TypedValue::Array(ArrayValue {
                values,
            })),
        };
    }
    let host = KeyValue {
        key: "host.name".to_owned(),
        value: Some(value),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![host],
            }),
            ..ResourceMetrics::default()
        }],
    }
}

fn nested_json(depth: usize) -> Vec<u8> {
    let before = r#"{"arrayValue":{"values":["#.repeat(depth);
    let after = "]}}".repeat(depth);
    let value = format!("{before}{{}}{after}");
    let host = format!(r#"{{"key":"host.name","value":{value}}}"#);
    format!(r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{host}]}}}}]}}"#).into_bytes()
}

#[test]
fn values_in_values() {
    in_thread(|| {
        let protobuf = nested(40).encode_to_vec();
        let from_protobuf = OtlpEncoding::Protobuf.parse(&protobuf).unwrap();
        let from_json = OtlpEncoding::Json.parse(&nested_json(40)).unwrap();
        assert_eq!(from_protobuf, from_json);
        let found = points(&from_json, NOW);
        let host = found.hosts.keys().next().unwrap();
        let expected = format!("{}null{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(*host, crate::ingest::SeriesHost::of(&expected));
    });
    for depth in [60, 1_000, 100_000] {
        let error = in_thread(move || OtlpEncoding::Json.parse(&nested_json(depth)).unwrap_err());
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }
    // Bytes that are nested, without the message of which they are the bytes.
    for depth in [60, 1_000, 100_000] {
        let mut bytes = Vec::new();
        for _ in 0..depth {
            for key in [0x0a, 0x2a] {
                let mut outer = vec![key];
                prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
                outer.extend(bytes);
                bytes = outer;
            }
            if bytes.len() > 100_000 {
                break;
            }
        }
        for key in [0x12, 0x0a, 0x0a, 0x0a] {
            let mut outer = vec![key];
            prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
            outer.extend(bytes);
            bytes = outer;
        }
        let error = in_thread(move || OtlpEncoding::Protobuf.parse(&bytes).unwrap_err());
        assert!(error.to_string().contains("nested too deeply"), "{error}");
    }
}

/// What is skipped is skipped without a stack.
#[test]
fn unknown_values_in_values() {
    for junk in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 18)] {
        let body = format!(r#"{{"junk":{junk}"#).into_bytes();
        let error = in_thread(move || OtlpEncoding::Json.parse(&body).unwrap_err());
        assert!(error.to_string().contains("EOF"), "{error}");
    }
    let body = format!(
        r#"{{"junk":{}{}}}"#,
        "[".repeat(1 << 20),
        "]".repeat(1 << 20)
    );
    let parsed = in_thread(move || OtlpEncoding::Json.parse(body.as_bytes()).unwrap());
    assert_eq!(parsed, ExportMetricsServiceRequest::default());
}

/// Under a limit, at it and over it.
#[test]
fn objects_are_counted() {
    let body = |objects: usize| {
        let metrics = vec!["{}"; objects - 3].join(",");
        format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#)
    };
    for objects in [OBJECTS_MAX - 1, OBJECTS_MAX] {
        let parsed = OtlpEncoding::Json.parse(body(objects).as_bytes()).unwrap();
        let found = points(&parsed, NOW);
        assert_eq!((found.left_out.points, found.hosts.len()), (0, 0));
    }
    let error = OtlpEncoding::Json
        .parse(body(OBJECTS_MAX + 1).as_bytes())
        .unwrap_err();
    assert!(matches!(
        error,
        ParseError::Json(JsonError::TooManyObjects { .. })
    ));
}

#[test]
fn fields_are_counted() {
    let body = |metrics: usize| {
        let metrics = [0x12, 0].repeat(metrics);
        let mut body = metrics;
        for key in [0x12, 0x0a] {
            let mut outer = vec![key];
            prost::encode_length_delimiter(body.len(), &mut outer).unwrap();
            outer.extend(body);
            body = outer;
        }
        body
    };
    // Beside them there are the resource and the scope.
    assert!(OtlpEncoding::Protobuf.parse(&body(FIELDS_MAX - 2)).is_ok());
    let error = OtlpEncoding::Protobuf
        .parse(&body(FIELDS_MAX - 1))
        .unwrap_err();
    assert!(matches!(
        error,
        ParseError::Protobuf(MessageError::Wire(WireError::TooManyFields { .. }))
    ));
    // Attributes within values, and exemplars, which nobody asks for.
    let attributes = [0x0a, 0].repeat(FIELDS_MAX);
    let error = OtlpEncoding::Protobuf.parse(&attributes).map(|_| ());
    assert!(error.is_ok(), "an empty resource is a field");
}

/// All that fits into a body, of one series: each point is taken or counted, and that takes no
/// longer for many.
#[test]
fn many_points_of_one_series() {
    let point = |at: u64| {
        let nanos = NOW * NANOS_PER_SEC - at * 1_000_000;
        format!(r#"{{"asInt":1,"timeUnixNano":{nanos}}}"#)
    };
    let points_of: Vec<_> = (0..100_000).map(|at| point(at / 2)).collect();
    let body = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"host.name","value":{{"stringValue":"web1"}}}}]}},"scopeMetrics":[{{"metrics":[{{"name":"up","gauge":{{"dataPoints":[{}]}}}}]}}]}}]}}"#,
        points_of.join(",")
    );
    let found = points(&OtlpEncoding::Json.parse(body.as_bytes()).unwrap(), NOW);
    let taken: usize = found
        .hosts
        .values()
        .flat_map(|points| points.values())
        .map(Vec::len)
        .sum();
    assert_eq!((taken, found.left_out.points), (50_000, 50_000));
}

const MANY: usize = 100_000;
/// Copied once for each of [`MANY`] points it would be 100 GB, and this test would not end.
const LONG_BYTES: usize = 1 << 20;

fn text(key: &str, value: &str) -> KeyValue {
    let value = super::super::attribute::TypedValue::Text(value.to_owned());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

fn point() -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: NOW * NANOS_PER_SEC,
        as_int: Some(1),
        ..NumberDataPoint::default()
    }
}

fn gauge_of(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric {
        name: name.to_owned(),
        gauge: Some(Box::new(Gauge { data_points })),
        ..Metric::default()
    }
}

fn scope_of(name: &str, metrics: Vec<Metric>) -> ScopeMetrics {
    let name = name.to_owned();
    ScopeMetrics {
        scope: Some(InstrumentationScope { name }),
        metrics,
    }
}

/// A request of host `web1`, of which more may be said.
fn request_of(
    more: Vec<KeyValue>,
    scope_metrics: Vec<ScopeMetrics>,
) -> ExportMetricsServiceRequest {
    let mut attributes = more;
    attributes.push(text("host.name", "web1"));
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes }),
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    }
}

/// Checks that all of a request is left out for the same reason, and how much that is.
fn check_left_out(story: &str, request: &ExportMetricsServiceRequest, counts: (u64, u64)) {
    let found = points(request, NOW);
    assert!(!found.is_too_much, "{story}");
    assert!(found.hosts.values().all(BTreeMap::is_empty), "{story}");
    let left_out = found.left_out;
    assert_eq!((left_out.points, left_out.values), counts, "{story}");
    let said = left_out.to_string();
    assert!(said.len() < 1_000, "{story}: {} bytes", said.len());
    let reason = "its name and attributes: a label has 1 to 1024 bytes";
    assert_eq!(said.matches(reason).count(), 1, "{story}: {said}");
}

/// What a message says once was copied for each of its points: 10 KB of gzip took minutes.
#[test]
fn what_is_too_long_is_judged_once() {
    let long = "m".repeat(LONG_BYTES);
    let good = || scope_of("", vec![gauge_of("up", vec![point(); MANY])]);
    let empty = vec![NumberDataPoint::default(); MANY];
    let all = MANY as u64;
    for (story, more, scopes, counts) in [
        (
            "a metric",
            vec![],
            vec![scope_of("", vec![gauge_of(&long, vec![point(); MANY])])],
            (all, all),
        ),
        (
            "a metric with empty points",
            vec![],
            vec![scope_of("", vec![gauge_of(&long, empty)])],
            (all, all),
        ),
        (
            "a service",
            vec![text("service.name", &long)],
            vec![good()],
            (all, all),
        ),
        (
            "a namespace",
            vec![
                text("service.namespace", &long),
                text("service.name", "shop"),
            ],
            vec![scope_of("", vec![gauge_of("up", vec![point()])]); MANY],
            (all, all),
        ),
        (
            "an instance",
            vec![text("service.instance.id", &long)],
            vec![scope_of("", vec![gauge_of("up", vec![])]); MANY],
            // None of them has a point.
            (0, all),
        ),
        (
            "a scope",
            vec![],
            vec![scope_of(&long, vec![gauge_of("up", vec![point()]); MANY])],
            (all, all),
        ),
    ] {
        check_left_out(story, &request_of(more, scopes), counts);
    }
}

/// The attributes of a resource were looked through for each of its scopes.
#[test]
fn many_attributes_and_many_scopes() {
    let attributes = vec![text("a", "b"); MANY];
    let mut scopes = vec![ScopeMetrics::default(); MANY];
    scopes.push(scope_of("", vec![gauge_of("up", vec![point()])]));
    let found = points(&request_of(attributes, scopes), NOW);
    assert_eq!(told(&found), ["web1 0s Gauge up 1"]);
    assert!(found.left_out.is_nothing());
}

/// The labels of a summary's point were written for each of its quantiles.
#[test]
fn many_attributes_and_many_quantiles() {
    let summary = |attributes: Vec<KeyValue>| {
        let quantile_values = (0..MANY).map(|at| ValueAtQuantile {
            quantile: at as f64,
            value: f64::NAN,
        });
        let good = ValueAtQuantile::default();
        let point = SummaryDataPoint {
            attributes,
            time_unix_nano: NOW * NANOS_PER_SEC,
            quantile_values: quantile_values.chain([good]).collect(),
            ..SummaryDataPoint::default()
        };
        let data_points = vec![point];
        let metric = Metric {
            name: "s".to_owned(),
            summary: Some(Box::new(QuantileSummary { data_points })),
            ..Metric::default()
        };
        request_of(vec![], vec![scope_of("", vec![metric])])
    };
    let long = text("a", &"x".repeat(LONG_BYTES));
    check_left_out("a long one", &summary(vec![long]), (1, 1));
    // As it is written it is too long: each is `\u{9}`.
    let hidden = text("a", &"\t".repeat(300));
    check_left_out("a hidden one", &summary(vec![hidden]), (1, 1));
    let empty = (0..MANY).map(|at| text(&format!("a{at}"), ""));
    let found = points(&summary(empty.collect()), NOW);
    assert_eq!(
        told(&found),
        [
            r#"web1 0s Gauge s{quantile="0"} 0"#,
            "web1 0s Counter s_count 0",
            "web1 0s Counter s_sum 0",
        ]
    );
    let left_out = found.left_out;
    assert_eq!((left_out.points, left_out.values), (0, MANY as u64));
}

/// At the longest name of a series, and over it: the name, and what is written around it.
#[test]
fn names_of_series_are_bounded_exactly() {
    let of = |metric: usize, scope: &str, attributes: &[KeyValue]| {
        let point = NumberDataPoint {
            attributes: attributes.to_vec(),
            ..point()
        };
        let metric = gauge_of(&"m".repeat(metric), vec![point]);
        points(
            &request_of(vec![], vec![scope_of(scope, vec![metric])]),
            NOW,
        )
    };
    let hidden = [text("a", "\t\"")];
    for (around, scope, attributes) in [
        (0, "", &[][..]),
        (r#"{otel_scope_name="lib"}"#.len(), "lib", &[]),
        (r#"{a="\u{9}\""}"#.len(), "", &hidden),
        (
            r#"{a="\u{9}\"",otel_scope_name="lib"}"#.len(),
            "lib",
            &hidden,
        ),
    ] {
        let longest = of(1_024 - around, scope, attributes);
        assert!(longest.left_out.is_nothing(), "{}", longest.left_out);
        let said = of(1_025 - around, scope, attributes).left_out.to_string();
        let reason = "a label has 1 to 1024 bytes, this one has 1025";
        assert!(said.ends_with(reason), "{said}");
    }
}

/// The name of a series is said once, and kept with each of its values.
#[test]
fn what_points_become_is_bounded() {
    // With its value it is 1 KiB.
    let name = "m".repeat(1_008);
    let at_most = POINTS_BYTES_MAX >> 10;
    let of = |points_of: usize| {
        let times = 0..points_of as u64;
        let data_points = times.map(|at| NumberDataPoint {
            time_unix_nano: (NOW * 1_000 - at) * 1_000_000,
            ..point()
        });
        let metric = gauge_of(&name, data_points.collect());
        points(&request_of(vec![], vec![scope_of("", vec![metric])]), NOW)
    };
    for values in [at_most - 1, at_most] {
        let found = of(values);
        assert!(!found.is_too_much && found.left_out.is_nothing());
        assert_eq!(told(&found).len(), values);
    }
    let found = of(at_most + 1);
    assert!(found.is_too_much && found.hosts.is_empty());
}

/// That a counter was at zero when it began is kept as well, and counts; what is left out does not.
#[test]
fn what_is_kept_of_points_counts() {
    let name = "m".repeat(1_008);
    let at_most = POINTS_BYTES_MAX >> 10;
    let of = |begun: usize, same: usize| {
        // Each begins when the one before it ended.
        let points_of = (0..begun as u64).map(|at| {
            let end = NOW * 1_000 - 2 * at;
            json!({
                "startTimeUnixNano": ((end - 1) * 1_000_000).to_string(),
                "timeUnixNano": (end * 1_000_000).to_string(),
                "asInt": 1,
            })
        });
        let again = json!({"timeUnixNano": at(0), "asInt": 1});
        let points_of: Vec<_> = points_of.chain(vec![again; same]).collect();
        taken(&of_web1(json!([{"name": name, "sum": {
            "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": points_of,
        }}])))
    };
    let found = of(at_most / 2, 1_000);
    assert!(!found.is_too_much);
    assert_eq!(
        (told(&found).len(), found.left_out.points),
        (at_most, 1_000)
    );
    assert!(of(at_most / 2 + 1, 0).is_too_much);
}
