//! Both encodings of a request are the same request.

use proptest::prelude::*;
use prost::Message as _;

use super::super::attribute::{self, AnyValue, ArrayValue, KeyValue, KeyValueList};
use super::super::message::*;
use super::*;

/// What the numbers and types of the `.proto` files come to.
#[test]
fn the_bytes_of_a_request() {
    fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        prost::encoding::encode_key(
            number,
            prost::encoding::WireType::LengthDelimited,
            &mut field,
        );
        prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
        field.extend(bytes);
        field
    }
    let fixed = |number: u8, value: u64| [&[number << 3 | 1][..], &value.to_le_bytes()].concat();
    let double = |number, value: f64| fixed(number, value.to_bits());
    let attribute = |key: &str, value: &[u8]| [field(1, key.as_bytes()), field(2, value)].concat();
    let text = |text: &str| field(1, text.as_bytes());
    let times = [fixed(2, 1), fixed(3, 2)].concat();
    let number = [
        field(7, &attribute("k", &text("v"))),
        times.clone(),
        double(4, 0.5),
        field(5, &double(3, 1.0)),
        vec![8 << 3, 1],
    ];
    let integer = [times.clone(), fixed(6, 7_u64.wrapping_neg())];
    let histogram = [
        times.clone(),
        fixed(4, 3),
        double(5, 6.0),
        field(6, &[0; 16]),
        field(7, &[0; 8]),
        field(9, &attribute("k", &[0x10, 1])),
        vec![10 << 3, 1],
        double(11, 1.0),
        double(12, 3.0),
    ];
    let exponential = [
        field(1, &attribute("k", &[0x18, 2])),
        times.clone(),
        fixed(4, 3),
        double(5, 6.0),
        vec![6 << 3, 4],
        fixed(7, 1),
        field(8, &[0x08, 1]),
        field(9, &[]),
        vec![10 << 3, 1],
        double(12, 1.0),
        double(13, 3.0),
        double(14, 0.1),
    ];
    let quantile = [double(1, 0.5), double(2, 9.0)].concat();
    let summary = [
        field(7, &attribute("k", &double(4, 2.5))),
        times,
        fixed(4, 3),
        double(5, 6.0),
        field(6, &quantile),
        vec![8 << 3, 1],
    ];
    let of = |name: &str, kind: u32, point: &[Vec<u8>], more: &[u8]| {
        let kind_of = [&field(1, &point.concat()), more].concat();
        field(
            2,
            &[field(1, name.as_bytes()), field(kind, &kind_of)].concat(),
        )
    };
    let scope = [
        field(1, &[text("lib"), field(2, b"1.0")].concat()),
        of("gauge", 5, &number, &[]),
        of("sum", 7, &integer, &[0x10, 2, 0x18, 1]),
        of("histogram", 9, &histogram, &[0x10, 1]),
        of("exponential", 10, &exponential, &[0x10, 2]),
        of("summary", 11, &summary, &[]),
        field(3, b"schema"),
    ];
    let list = field(5, &field(1, &text("a")));
    let map = field(6, &field(1, &attribute("a", &field(7, b"b"))));
    let resource = [
        field(1, &attribute("list", &list)),
        field(1, &attribute("map", &map)),
        vec![0x10, 1],
    ];
    let resource_metrics = [
        field(1, &resource.concat()),
        field(2, &scope.concat()),
        field(1_000, b""),
    ];
    let bytes = field(1, &resource_metrics.concat());
    let k = |value: Value| json!([{"key": "k", "value": value}]);
    let same = json!({"resourceMetrics": [{
        "resource": {"attributes": [
            {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a"}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [
                {"key": "a", "value": {"bytesValue": "Yg=="}},
            ]}}},
        ]},
        "instrumentationLibraryMetrics": [{}],
        "scopeMetrics": [{"scope": {"name": "lib"}, "metrics": [
            {"name": "gauge", "gauge": {"dataPoints": [{
                "attributes": k(json!({"stringValue": "v"})),
                "startTimeUnixNano": 1, "timeUnixNano": 2, "asDouble": 0.5, "flags": 1,
            }]}},
            {"name": "sum", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
                {"startTimeUnixNano": 1, "timeUnixNano": 2, "asInt": "-7"},
            ]}},
            {"name": "histogram", "histogram": {"aggregationTemporality": 1, "dataPoints": [{
                "attributes": k(json!({"boolValue": true})),
                "startTimeUnixNano": 1, "timeUnixNano": 2, "flags": 1,
                "count": 3, "sum": 6, "min": 1, "max": 3,
            }]}},
            {"name": "exponential", "exponentialHistogram": {
                "aggregationTemporality": 2,
                "dataPoints": [{
                    "attributes": k(json!({"intValue": 2})),
                    "startTimeUnixNano": 1, "timeUnixNano": 2, "flags": 1,
                    "count": 3, "sum": 6, "min": 1, "max": 3,
                }],
            }},
            {"name": "summary", "summary": {"dataPoints": [{
                "attributes": k(json!({"doubleValue": 2.5})),
                "startTimeUnixNano": 1, "timeUnixNano": 2, "flags": 1,
                "count": 3, "sum": 6, "quantileValues": [{"quantile": 0.5, "value": 9}],
            }]}},
        ]}],
    }]});
    assert_eq!(OtlpEncoding::Protobuf.parse(&bytes).unwrap(), parse(&same));
}

/// Canonical JSON: integers of 64 bits and what is no number are texts, defaults are left out.
fn double(value: f64) -> Value {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => value.into(),
    }
}

fn any_value_json(value: &AnyValue) -> Value {
    use attribute::TypedValue as Any;
    match &value.value {
        None => json!({}),
        Some(Any::Text(text)) => json!({"stringValue": text}),
        Some(Any::Bool(truth)) => json!({"boolValue": truth}),
        Some(Any::Int(integer)) => json!({"intValue": integer.to_string()}),
        Some(Any::Double(value)) => json!({"doubleValue": double(*value)}),
        Some(Any::Array(array)) => {
            let values: Vec<_> = array.values.iter().map(any_value_json).collect();
            json!({"arrayValue": {"values": values}})
        }
        Some(Any::Map(map)) => json!({"kvlistValue": {"values": attributes_json(&map.values)}}),
        Some(Any::Bytes(_)) => unreachable!("none is generated"),
    }
}

fn attributes_json(attributes: &[KeyValue]) -> Value {
    let pairs = attributes.iter().map(|attribute| {
        let mut pair = json!({"key": attribute.key});
        if let Some(value) = &attribute.value {
            pair["value"] = any_value_json(value);
        }
        pair
    });
    pairs.collect()
}

fn number_json(point: &NumberDataPoint) -> Value {
    let mut json = json!({
        "attributes": attributes_json(&point.attributes),
        "startTimeUnixNano": point.start_time_unix_nano.to_string(),
        "timeUnixNano": point.time_unix_nano.to_string(),
    });
    if point.flags != 0 {
        json["flags"] = point.flags.into();
    }
    if let Some(value) = point.as_double {
        json["asDouble"] = double(value);
    }
    if let Some(value) = point.as_int {
        json["asInt"] = value.to_string().into();
    }
    json
}

fn histogram_json(point: &HistogramDataPoint) -> Value {
    let mut json = json!({
        "attributes": attributes_json(&point.attributes),
        "startTimeUnixNano": point.start_time_unix_nano.to_string(),
        "timeUnixNano": point.time_unix_nano.to_string(),
        "count": point.count.to_string(),
    });
    let optional = [("sum", point.sum), ("min", point.min), ("max", point.max)];
    for (name, value) in optional {
        if let Some(value) = value {
            json[name] = double(value);
        }
    }
    json
}

fn metric_json(metric: &Metric) -> Value {
    let mut json = json!({"name": metric.name});
    let numbers = |points: &[NumberDataPoint]| points.iter().map(number_json).collect::<Value>();
    if let Some(gauge) = &metric.gauge {
        json["gauge"] = json!({"dataPoints": numbers(&gauge.data_points)});
    }
    if let Some(sum) = &metric.sum {
        json["sum"] = json!({
            "dataPoints": numbers(&sum.data_points),
            "aggregationTemporality": sum.aggregation_temporality,
            "isMonotonic": sum.is_monotonic,
        });
    }
    if let Some(histogram) = &metric.histogram {
        let points: Vec<_> = histogram.data_points.iter().map(histogram_json).collect();
        json["histogram"] = json!({
            "dataPoints": points,
            "aggregationTemporality": histogram.aggregation_temporality,
        });
    }
    json
}

fn request_json(request: &ExportMetricsServiceRequest) -> Value {
    let resources = request.resource_metrics.iter().map(|of| {
        let scopes = of.scope_metrics.iter().map(|of| {
            let metrics: Vec<_> = of.metrics.iter().map(metric_json).collect();
            json!({
                "scope": of.scope.as_ref().map(|scope| json!({"name": scope.name})),
                "metrics": metrics,
            })
        });
        let attributes = of
            .resource
            .as_ref()
            .map(|of| attributes_json(&of.attributes));
        json!({
            "resource": attributes.map(|attributes| json!({"attributes": attributes})),
            "scopeMetrics": scopes.collect::<Value>(),
        })
    });
    json!({"resourceMetrics": resources.collect::<Value>()})
}

fn any_double() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => any::<f64>(),
        2 => (-9_i8..9).prop_map(f64::from),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
    ]
}

fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    use attribute::TypedValue as Any;
    let leaf = prop_oneof![
        Just(None),
        "\\PC{0,3}".prop_map(|text| Some(Any::Text(text))),
        any::<bool>().prop_map(|truth| Some(Any::Bool(truth))),
        any::<i64>().prop_map(|integer| Some(Any::Int(integer))),
        any_double().prop_map(|double| Some(Any::Double(double))),
    ];
    let leaf = leaf.prop_map(|value| AnyValue { value });
    let value = leaf.prop_recursive(2, 6, 2, |inner| {
        let pair = ("[a-z.]{0,3}", inner.clone());
        let pair = pair.prop_map(|(key, value)| KeyValue {
            key,
            value: Some(value),
        });
        let array = prop::collection::vec(inner, 0..3);
        let map = prop::collection::vec(pair, 0..3);
        prop_oneof![
            array.prop_map(|values| Any::Array(ArrayValue { values })),
            map.prop_map(|values| Any::Map(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    });
    let key = prop_oneof!["[a-c._0-9]{0,3}", Just("job".to_owned())];
    let pair = (key, prop::option::of(value)).prop_map(|(key, value)| KeyValue { key, value });
    prop::collection::vec(pair, 0..3)
}

fn any_times() -> impl Strategy<Value = (u64, u64)> {
    let near = (0..3_u64).prop_map(|secs| (NOW - secs) * NANOS_PER_SEC);
    let time = || prop_oneof![6 => near.clone(), 1 => any::<u64>(), 1 => Just(0)];
    (time(), time())
}

prop_compose! {
    fn any_number()(
        attributes in any_attributes(),
        (start_time_unix_nano, time_unix_nano) in any_times(),
        as_double in prop::option::of(any_double()),
        as_int in prop::option::of(any::<i64>()),
        flags in 0..4_u32,
    ) -> NumberDataPoint {
        NumberDataPoint { attributes, start_time_unix_nano, time_unix_nano, as_double, as_int, flags }
    }
}

prop_compose! {
    fn any_histogram()(
        attributes in any_attributes(),
        (start_time_unix_nano, time_unix_nano) in any_times(),
        count in any::<u64>(),
        sum in prop::option::of(any_double()),
        min in prop::option::of(any_double()),
        max in prop::option::of(any_double()),
    ) -> HistogramDataPoint {
        HistogramDataPoint { attributes, start_time_unix_nano, time_unix_nano, count, sum, min, max, flags: 0 }
    }
}

fn any_metric() -> impl Strategy<Value = Metric> {
    let numbers = || prop::collection::vec(any_number(), 0..4);
    let gauge = numbers().prop_map(|data_points| Box::new(Gauge { data_points }));
    let sum = (numbers(), -1..4_i32, any::<bool>());
    let sum = sum.prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
        Box::new(Sum {
            data_points,
            aggregation_temporality,
            is_monotonic,
        })
    });
    let histogram = (prop::collection::vec(any_histogram(), 0..4), -1..4_i32);
    let histogram = histogram.prop_map(|(data_points, aggregation_temporality)| {
        Box::new(Histogram {
            data_points,
            aggregation_temporality,
        })
    });
    let kinds = (
        prop::option::weighted(0.4, gauge),
        prop::option::weighted(0.4, sum),
        prop::option::weighted(0.4, histogram),
    );
    let name = prop_oneof!["[a-b.]{0,2}", "\\PC{0,3}"];
    (name, kinds).prop_map(|(name, (gauge, sum, histogram))| Metric {
        name,
        gauge,
        sum,
        histogram,
        ..Metric::default()
    })
}

fn any_request() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let scope = prop::option::of("[a-b]{0,1}".prop_map(|name| InstrumentationScope { name }));
    let scope = (scope, prop::collection::vec(any_metric(), 0..4));
    let scope = scope.prop_map(|(scope, metrics)| ScopeMetrics { scope, metrics });
    let host = prop::sample::select(vec![
        "host.name",
        "service.instance.id",
        "service.name",
        "x",
    ]);
    let attribute = (host, "[a-b]{0,1}").prop_map(|(key, text)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(attribute::TypedValue::Text(text)),
        }),
    });
    let attributes = prop::collection::vec(attribute, 0..4);
    let resource = attributes.prop_map(|attributes| Resource { attributes });
    let of = (
        prop::option::weighted(0.9, resource),
        prop::collection::vec(scope, 0..3),
    );
    let of = of.prop_map(|(resource, scope_metrics)| ResourceMetrics {
        resource,
        scope_metrics,
        ..ResourceMetrics::default()
    });
    let all = prop::collection::vec(of, 0..3);
    all.prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

/// How many data points a request has.
fn len(request: &ExportMetricsServiceRequest) -> u64 {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|of| &of.scope_metrics);
    let metrics = scopes.flat_map(|of| &of.metrics);
    let len = |metric: &Metric| {
        metric.gauge.as_ref().map_or(0, |of| of.data_points.len())
            + metric.sum.as_ref().map_or(0, |of| of.data_points.len())
            + metric
                .histogram
                .as_ref()
                .map_or(0, |of| of.data_points.len())
    };
    metrics.map(len).sum::<usize>() as u64
}

proptest! {
    /// The same points and the same reasons; and of what is not left out there is a point.
    #[test]
    fn both_encodings_are_the_same_request(request in any_request()) {
        let from_protobuf = OtlpEncoding::Protobuf.parse(&request.encode_to_vec()).unwrap();
        let from_json = parse(&request_json(&request));
        // A NaN is not itself.
        prop_assert_eq!(format!("{from_protobuf:?}"), format!("{from_json:?}"));
        prop_assert_eq!(format!("{request:?}"), format!("{from_json:?}"));
        let found = points(&from_protobuf, NOW);
        let same = points(&from_json, NOW);
        prop_assert_eq!(format!("{found:?}"), format!("{same:?}"));
        let taken = len(&request).checked_sub(found.left_out.points);
        prop_assert!(taken.is_some(), "more is left out than there is");
        let stored: usize = found.hosts.values().flat_map(|points| points.values()).map(Vec::len).sum();
        prop_assert!(stored as u64 >= taken.unwrap(), "what is taken has a point");
        prop_assert!(taken.unwrap() > 0 || stored == 0, "what is left out has none");
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        for encoding in OtlpEncoding::ALL {
            if let Ok(request) = encoding.parse(&bytes) {
                let _ = points(&request, NOW);
            }
        }
    }
}
