//! Requests that are meant to take time or memory.

use std::thread;

use prost::Message as _;

use super::super::attribute::{AnyValue, ArrayValue, KeyValue};
use super::super::message::{ExportMetricsServiceRequest, Resource, ResourceMetrics};
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
