//! JSON as senders write it: what counts, what is skipped, and what is an error.

use super::*;

const UP: &str = "web1 0s Gauge up 7";

/// Each form of the same point.
#[test]
fn forms_of_a_number() {
    for value in [
        json!({"asInt": "7"}),
        json!({"asInt": 7}),
        json!({"asInt": 7.0}),
        json!({"asInt": "7.0"}),
        json!({"asInt": "7e0"}),
        json!({"as_int": "7"}),
        json!({"asDouble": 7}),
        json!({"asDouble": 7.0}),
        json!({"asDouble": "7"}),
        json!({"as_double": "7.0e0"}),
        json!({"asDouble": 7, "asInt": null}),
    ] {
        let mut point = value;
        point["timeUnixNano"] = at(0);
        check(&gauge(point), &[UP], 0, &[]);
    }
    // Times, too.
    let nanos = NOW * NANOS_PER_SEC;
    for time in [
        json!(nanos),
        json!(nanos.to_string()),
        json!("1465001814e9"),
    ] {
        check(
            &gauge(json!({"asInt": 7, "timeUnixNano": time})),
            &[UP],
            0,
            &[],
        );
        check(
            &gauge(json!({"asInt": 7, "time_unix_nano": time})),
            &[UP],
            0,
            &[],
        );
    }
    // As near as a double is.
    let largest = gauge(json!({"asInt": i64::MAX.to_string(), "timeUnixNano": at(0)}));
    check(&largest, &["web1 0s Gauge up 9223372036854776000"], 0, &[]);
    let least = gauge(json!({"asInt": i64::MIN, "timeUnixNano": at(0)}));
    check(&least, &["web1 0s Gauge up -9223372036854776000"], 0, &[]);
}

/// Names of enums are not for OTLP to use, and some senders do. What is unknown is not dropped
/// silently.
#[test]
fn forms_of_a_temporality() {
    let sum = |temporality: Value| {
        of_web1(json!([{"name": "n", "sum": {
            "isMonotonic": true,
            "aggregationTemporality": temporality,
            "dataPoints": [{
                "startTimeUnixNano": at(-10),
                "timeUnixNano": at(0),
                "asInt": "20",
            }],
        }}]))
    };
    let cumulative = ["web1 -10s Start n 0", "web1 0s Counter n 20"];
    check(&sum(json!(2)), &cumulative, 0, &[]);
    check(&sum(json!(2.0)), &cumulative, 0, &[]);
    check(
        &sum(json!("AGGREGATION_TEMPORALITY_CUMULATIVE")),
        &cumulative,
        0,
        &[],
    );
    let delta = ["web1 0s Gauge n 2"];
    check(&sum(json!(1)), &delta, 0, &[]);
    check(&sum(json!("AGGREGATION_TEMPORALITY_DELTA")), &delta, 0, &[]);
    let neither = ["`n`: its temporality is neither delta nor cumulative"];
    for temporality in [
        json!(null),
        json!(0),
        json!(3),
        json!(-1),
        json!("AGGREGATION_TEMPORALITY_UNSPECIFIED"),
        json!("AGGREGATION_TEMPORALITY_LOWMEMORY"),
        json!("DELTA"),
        json!("2"),
    ] {
        check(&sum(temporality), &[], 1, &neither);
    }
}

/// Every name as it is in the `.proto` file is taken, too.
#[test]
fn snake_case() {
    let point = |more: Value| {
        let mut point = json!({
            "start_time_unix_nano": at(-10),
            "time_unix_nano": at(0),
            "attributes": [{"key": "a", "value": {"string_value": "b"}}],
        });
        for (name, value) in more.as_object().unwrap() {
            point[name] = value.clone();
        }
        [point]
    };
    let metrics = json!([
        {"name": "n", "sum": {
            "is_monotonic": true,
            "aggregation_temporality": 1,
            "data_points": point(json!({"as_int": "20"})),
        }},
        {"name": "h", "exponential_histogram": {
            "aggregation_temporality": 1,
            "data_points": point(json!({"count": "5", "zero_count": "1", "scale": 3})),
        }},
        {"name": "s", "summary": {"data_points": point(json!({
            "quantile_values": [{"quantile": 0.5, "value": 3}],
        }))}},
    ]);
    let request = json!({"resource_metrics": [{
        "resource": {"attributes": [{"key": "host.name", "value": {"string_value": "web1"}}]},
        "scope_metrics": [{"metrics": metrics}],
    }]});
    check(
        &request,
        &[
            "web1 -10s Start s_count{a=\"b\"} 0",
            "web1 -10s Start s_sum{a=\"b\"} 0",
            "web1 0s Gauge h_count{a=\"b\"} 0.5",
            "web1 0s Gauge n{a=\"b\"} 2",
            "web1 0s Gauge s{a=\"b\",quantile=\"0.5\"} 3",
            "web1 0s Counter s_count{a=\"b\"} 0",
            "web1 0s Counter s_sum{a=\"b\"} 0",
        ],
        0,
        &[],
    );
}

/// What is missing, `null` or unknown is as if it were not there.
#[test]
fn defaults() {
    for empty in [
        "{}",
        r#"{"resourceMetrics":null}"#,
        r#"{"resourceMetrics":[]}"#,
    ] {
        let request = serde_json::from_str(empty).unwrap();
        check(&request, &[], 0, &[]);
    }
    let nulls = gauge(json!({
        "asInt": 7,
        "asDouble": null,
        "timeUnixNano": at(0),
        "startTimeUnixNano": null,
        "attributes": null,
        "exemplars": null,
        "flags": null,
    }));
    check(&nulls, &[UP], 0, &[]);
    let unknown = gauge(json!({
        "asInt": 7,
        "timeUnixNano": at(0),
        "exemplars": [{"asInt": "7", "traceId": "0af7651916cd43dd8448eb211c80319c"}],
        "next": {"version": [[{"of": "OTLP"}], 1e9, "NaN"]},
    }));
    check(&unknown, &[UP], 0, &[]);
    let mut everywhere = gauge(json!({"asInt": 7, "timeUnixNano": at(0)}));
    everywhere["schemaUrl"] = json!(1);
    let resource = &mut everywhere["resourceMetrics"][0];
    resource["resource"]["droppedAttributesCount"] = json!("0");
    resource["scopeMetrics"][0]["schemaUrl"] = json!(null);
    resource["scopeMetrics"][0]["scope"] = json!(null);
    resource["scopeMetrics"][0]["metrics"][0]["unit"] = json!("By");
    resource["scopeMetrics"][0]["metrics"][0]["sum"] = json!(null);
    check(&everywhere, &[UP], 0, &[]);
}

/// `doubleValue` of what is no number is `null` in JavaScript, and empty values are `{}`.
#[test]
fn values_of_attributes() {
    let list = json!({"arrayValue": {"values": [
        {"stringValue": "a\"b"}, {"intValue": "1"}, {"doubleValue": 0.5}, {}, {"boolValue": false},
        {"bytesValue": "aGk="}, {"doubleValue": "-Infinity"},
    ]}});
    let map = json!({"kvlistValue": {"values": [
        {"key": "b", "value": {"boolValue": true}},
        {"key": "a"},
    ]}});
    for (value, expected) in [
        (json!({"stringValue": "x y"}), r#"{a="x y"}"#),
        (json!({"stringValue": ""}), ""),
        (json!({"stringValue": null}), ""),
        (json!({}), ""),
        (json!(null), ""),
        (json!({"doubleValue": null}), ""),
        (json!({"next": [1]}), ""),
        (json!({"boolValue": true}), r#"{a="true"}"#),
        (json!({"intValue": "-7"}), r#"{a="-7"}"#),
        (json!({"intValue": 7}), r#"{a="7"}"#),
        (json!({"doubleValue": 1.5}), r#"{a="1.5"}"#),
        (json!({"doubleValue": "NaN"}), r#"{a="NaN"}"#),
        (json!({"doubleValue": "Infinity"}), r#"{a="Infinity"}"#),
        (json!({"bytesValue": "_-8"}), r#"{a="/+8="}"#),
        (
            list,
            r#"{a="[\"a\\\"b\",1,0.5,null,false,\"aGk=\",\"-Infinity\"]"}"#,
        ),
        (map, r#"{a="{\"a\":null,\"b\":true}"}"#),
    ] {
        let point = json!({
            "asInt": 7,
            "timeUnixNano": at(0),
            "attributes": [{"key": "a", "value": value}],
        });
        check(
            &gauge(point),
            &[&format!("web1 0s Gauge up{expected} 7")],
            0,
            &[],
        );
    }
}

/// A body is taken or refused as a whole, and what is wrong is named with its place.
#[test]
fn errors_say_where() {
    let point = "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0]";
    let of_point = |name: &str, value: Value| {
        let mut point = json!({"asInt": 7, "timeUnixNano": at(0)});
        point[name] = value;
        gauge(point).to_string()
    };
    let attribute = |value: Value| of_point("attributes", json!([{"key": "a", "value": value}]));
    for (body, path, reason) in [
        (of_point("asInt", json!("seven")), "asInt", "\"seven\""),
        (of_point("asInt", json!(7.5)), "asInt", "7.5"),
        (of_point("asInt", json!("")), "asInt", "integer"),
        (of_point("asInt", json!(" 7")), "asInt", "integer"),
        (
            of_point("asInt", json!("9223372036854775808")),
            "asInt",
            "integer",
        ),
        (of_point("asInt", json!([7])), "asInt", "sequence"),
        (of_point("asDouble", json!("nan")), "asDouble", "number"),
        (of_point("asDouble", json!("inf")), "asDouble", "number"),
        (of_point("asDouble", json!("1e999")), "asDouble", "number"),
        (of_point("asDouble", json!(true)), "asDouble", "boolean"),
        (of_point("timeUnixNano", json!(-1)), "timeUnixNano", "-1"),
        (
            of_point("timeUnixNano", json!("2016-06-04")),
            "timeUnixNano",
            "u64",
        ),
        (
            of_point("attributes", json!({"a": "b"})),
            "attributes",
            "array",
        ),
        (
            of_point("attributes", json!([null])),
            "attributes[0]",
            "object",
        ),
        (
            of_point("attributes", json!([["a", {}]])),
            "attributes[0]",
            "object",
        ),
        (attribute(json!("b")), "attributes[0].value", "object"),
        (
            attribute(json!({"stringValue": 7})),
            "attributes[0].value.stringValue",
            "a text",
        ),
        (
            attribute(json!({"bytesValue": "%"})),
            "attributes[0].value.bytesValue",
            "base64",
        ),
        (
            attribute(json!({"stringValue": "a", "intValue": 1})),
            "attributes[0].value",
            "two",
        ),
        (
            attribute(json!({"arrayValue": {"values": [{"intValue": "a"}]}})),
            "attributes[0].value.arrayValue.values[0].intValue",
            "integer",
        ),
    ] {
        let error = OtlpEncoding::Json
            .parse(body.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&format!("{point}.{path}: ")), "{error}");
        assert!(error.contains(reason), "{error}");
    }
    for (body, expected) in [
        ("", "EOF"),
        ("null", "object"),
        ("[]", "object"),
        ("[[]]", "object"),
        ("7", "object"),
        ("{", "EOF"),
        ("{}{}", "trailing"),
        (r#"{"resourceMetrics":{}}"#, "resourceMetrics: "),
        (r#"{"resourceMetrics":[[]]}"#, "resourceMetrics[0]: "),
        (
            r#"{"resourceMetrics":[{"resource":[]}]}"#,
            "resourceMetrics[0].resource: ",
        ),
        (
            r#"{"resourceMetrics":[],"resource_metrics":[]}"#,
            "duplicate field",
        ),
        ("{\"resourceMetrics\":\"\u{0}\"}", "control character"),
    ] {
        let error = OtlpEncoding::Json
            .parse(body.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
    assert!(
        OtlpEncoding::Json.parse(b"{\"a\":\"\xff\"}").is_ok(),
        "skipped"
    );
    assert!(OtlpEncoding::Json.parse(&[0x0a, 0]).is_err());
}
