//! Metrics as they come over the wire: whose they are, what they become, and what is refused.

use std::io::Write as _;
use std::num::NonZeroU32;

use lizmon_protocol::name::Role;
use lizmon_receiver::otlp::OtlpEncoding;
use prost::Message as _;
use serde_json::{Value, json};

use super::stored;
use crate::harness::{Answer, Holder, World, answer};

/// Attributes of a resource, and its metrics.
fn of_resource(attributes: &[(&str, &str)], metrics: &Value) -> Value {
    let attributes = attributes.iter();
    let attributes = attributes
        .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
        .collect::<Value>();
    json!({"resource": {"attributes": attributes}, "scopeMetrics": [{"metrics": metrics}]})
}

/// A time so many seconds before now, in nanoseconds since 1970.
fn ago(world: &World, secs: u64) -> String {
    ((world.clock.now() - secs) * 1_000_000_000).to_string()
}

fn gauge(world: &World, name: &str, value: f64) -> Value {
    let point = json!({"timeUnixNano": ago(world, 0), "asDouble": value});
    json!([{"name": name, "gauge": {"dataPoints": [point]}}])
}

async fn post(world: &World, holder: &Holder, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let token = world.token(holder).await;
    post_with(world, holder, (&token, headers), body).await
}

async fn post_with(
    world: &World,
    holder: &Holder,
    (token, headers): (&str, &[(&str, &str)]),
    body: Vec<u8>,
) -> Answer {
    let post = holder
        .http
        .post(world.url("/v1/metrics"))
        .bearer_auth(token);
    let add =
        |post: reqwest::RequestBuilder, (name, value): &(&str, &str)| post.header(*name, *value);
    answer(headers.iter().fold(post, add).body(body)).await
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// The same request in both encodings.
fn encoded(resources: &Value) -> [((&'static str, &'static str), Vec<u8>); 2] {
    let json = json!({"resourceMetrics": resources}).to_string();
    let message = OtlpEncoding::Json.parse(json.as_bytes()).unwrap();
    [(PROTOBUF, message.encode_to_vec()), (JSON, json.into())]
}

/// What is answered in JSON.
async fn send(world: &World, holder: &Holder, resources: &Value) -> Value {
    let body = json!({"resourceMetrics": resources}).to_string();
    post(world, holder, &[JSON], body.into())
        .await
        .json("an export")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_counts_once() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let point = |secs: u64, value: u64| {
        json!({
            "startTimeUnixNano": ago(&world, 56),
            "timeUnixNano": ago(&world, secs),
            "asInt": value.to_string(),
        })
    };
    let counter = json!([{"name": "n", "sum": {
        "isMonotonic": true,
        "aggregationTemporality": 2,
        "dataPoints": [point(40, 40), point(20, 60), point(0, 20)],
    }}]);
    let resources = json!([of_resource(&[("host.name", "web1")], &counter)]);
    assert_eq!(send(&world, &web, &resources).await, json!({}));
    // 40 in 16 s, 20 in 20 s, and 20 in 20 s, from zero again.
    let expected = [("n".to_owned(), 3, 4.5)];
    assert_eq!(stored(&world, &reader, "web1").await, expected);
    // Sent again it is known, also in the other encoding. That is a warning, no loss.
    for (content_type, body) in encoded(&resources) {
        let got = post(&world, &web, &[content_type], body).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.header("content-type"), content_type.1);
        let said = got.text();
        assert!(said.contains("3 values were not later than"), "{said}");
        assert!(!said.contains("rejected"), "{said}");
    }
    assert_eq!(stored(&world, &reader, "web1").await, expected);
    let metrics = answer(reader.http.get(world.url("/metrics"))).await.text();
    for (outcome, count) in [("accepted", 3), ("duplicate", 6)] {
        let line =
            format!("lizmon_points_total{{protocol=\"otlp\",outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

/// A sample is taken only from the machine that it is about, whichever attribute names it, wherever
/// it is in the request, in both encodings.
#[tokio::test(flavor = "multi_thread")]
async fn another_hosts_resource_is_refused_and_nothing_is_stored() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let gateway = world.holder_with(Role::Gateway, "otel1", &["web*"]);
    let metrics = gauge(&world, "up", 1.0);
    let own = of_resource(&[("host.name", "web1")], &metrics);
    let nothing = gauge(&world, "up", -1e300);
    let senders = [
        (&web, world.token(&web).await),
        (&gateway, world.token(&gateway).await),
    ];
    for (story, attributes) in [
        ("host.name", &[("host.name", "db1")][..]),
        ("service.instance.id", &[("service.instance.id", "db1")]),
        (
            "host.name before service.instance.id",
            &[("service.instance.id", "web1"), ("host.name", "db1")],
        ),
        ("another case", &[("host.name", "WEB1")]),
        ("a longer name", &[("host.name", "my-web1")]),
        ("no name", &[("host.name", "../web1")]),
        ("a list", &[("host.name", "[\"web1\"]")]),
        ("twice", &[("host.name", "db1"), ("host.name", "web1")]),
    ] {
        // Also if there is nothing in it that would be stored.
        for of_other in [&metrics, &nothing, &json!([])] {
            let other = of_resource(attributes, of_other);
            for resources in [json!([other]), json!([own, other]), json!([other, own])] {
                for (content_type, body) in encoded(&resources) {
                    for (holder, token) in &senders {
                        let with = (&**token, &[content_type][..]);
                        let refused = post_with(&world, holder, with, body.clone()).await;
                        refused.refused("wrong_host", story);
                    }
                }
            }
        }
    }
    for host in ["web1", "db1"] {
        assert_eq!(stored(&world, &reader, host).await, [], "{host}");
    }
    // A reader writes nothing, and neither does a token of another node.
    let [(content_type, body), _] = encoded(&json!([own]));
    let refused = post(&world, &reader, &[content_type], body.clone()).await;
    refused.refused("insufficient_scope", "a reader");
    let db = world.node("db1");
    let token = world.token(&web).await;
    let refused = post_with(&world, &db, (&token, &[content_type]), body.clone()).await;
    refused.refused("certificate_mismatch", "another node's token");
    let renewed = world.node("web1");
    let refused = post_with(&world, &renewed, (&token, &[content_type]), body.clone()).await;
    refused.refused("certificate_renewed", "its own token of before");
    // A gateway brings what its certificate names.
    let of_web2 = of_resource(&[("service.instance.id", "web2")], &metrics);
    assert_eq!(
        send(&world, &gateway, &json!([own, of_web2])).await,
        json!({})
    );
    for host in ["web1", "web2"] {
        let expected = [("up".to_owned(), 1, 1.0)];
        assert_eq!(stored(&world, &reader, host).await, expected, "{host}");
    }
}

/// Each point is taken, or counted and named.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_named() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let point = |value: Value| json!({"timeUnixNano": ago(&world, 0), "asDouble": value});
    let old = json!({"timeUnixNano": ago(&world, 2 * 86_400), "asDouble": 1});
    let late = json!({"timeUnixNano": ago(&world, 0), "count": "3", "sum": "NaN"});
    let delta = json!({"dataPoints": [point(json!(1))], "aggregationTemporality": 1});
    let metrics = json!([
        {"name": "good", "gauge": {"dataPoints": [point(json!(1.5))]}},
        {"name": "odd", "gauge": {"dataPoints": [point(json!("NaN")), old]}},
        {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [late]}},
        {"name": "d", "sum": delta},
        {"name": "next", "timeline": {}},
    ]);
    let nobody = of_resource(&[("service.name", "shop")], &gauge(&world, "lost", 1.0));
    let resources = json!([of_resource(&[("host.name", "web1")], &metrics), nobody]);
    let answered = send(&world, &web, &resources).await;
    let partial = &answered["partialSuccess"];
    assert_eq!(partial["rejectedDataPoints"], "4", "{answered}");
    let said = partial["errorMessage"].as_str().unwrap();
    for reason in [
        "`odd`: a value is NaN",
        "`odd`: its time is too long ago",
        "`h_sum`: a value is NaN",
        "`d`: it is a delta without a start",
        "`next`: it is no gauge",
        "`lost`: its resource names no host",
    ] {
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let expected = [("good".to_owned(), 1, 1.5)];
    assert_eq!(stored(&world, &reader, "web1").await, expected);
    let metrics = answer(reader.http.get(world.url("/metrics"))).await.text();
    let line = "lizmon_points_total{protocol=\"otlp\",outcome=\"left_out\"} 4\n";
    assert!(metrics.contains(line), "{metrics}");
    // Nothing is left of it: that is not an error.
    let answered = send(&world, &web, &json!([nobody])).await;
    assert_eq!(answered["partialSuccess"]["rejectedDataPoints"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_bodies() {
    let world = World::start_with(|config| config.host_series_max = 30).await;
    let (web, reader) = (world.node("web1"), world.reader());
    let mut expected = Vec::new();
    let mut resources = |name: &str| {
        expected.push((name.to_owned(), 1, 1.0));
        json!([of_resource(
            &[("host.name", "web1")],
            &gauge(&world, name, 1.0)
        )])
    };
    for coding in ["identity", "gzip", "zstd"] {
        for (at, (content_type, body)) in encoded(&resources(coding)).into_iter().enumerate() {
            let body = match coding {
                "gzip" => gzip(&body),
                "zstd" => zstd::bulk::compress(&body, 0).unwrap(),
                _ => body,
            };
            let headers = [content_type, ("content-encoding", coding)];
            let got = post(&world, &web, &headers, body).await;
            assert_eq!(
                (got.status, got.body.is_empty()),
                (200, at == 0),
                "{coding}"
            );
        }
    }
    let charset = ("content-type", "application/json; charset=utf-8");
    let [_, (_, good)] = encoded(&resources("a_charset"));
    let got = post(&world, &web, &[charset], good.clone()).await;
    assert_eq!(got.json("a charset"), json!({}));
    let got = post(&world, &web, &[PROTOBUF], Vec::new()).await;
    assert_eq!(got.status, 200, "an empty message is one");
    let text = ("content-type", "text/plain");
    let snappy = ("content-encoding", "snappy");
    let deflate = ("content-encoding", "deflate");
    let many = |one: &str, count: usize| {
        let metrics = vec![one; count].join(",");
        format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#)
    };
    let packed = |text: String| gzip(text.as_bytes());
    let in_gzip = ("content-encoding", "gzip");
    let wrong_type = r#"{"resourceMetrics":[{"resource":{"attributes":{}}}]}"#;
    for (story, headers, body, code) in [
        ("no type", &[][..], good.clone(), "unsupported_media_type"),
        (
            "another type",
            &[text],
            good.clone(),
            "unsupported_media_type",
        ),
        (
            "snappy",
            &[JSON, snappy],
            good.clone(),
            "unsupported_encoding",
        ),
        (
            "deflate",
            &[JSON, deflate],
            good.clone(),
            "unsupported_encoding",
        ),
        ("protobuf as JSON", &[JSON], vec![0x0a, 0], "malformed_json"),
        (
            "JSON as protobuf",
            &[PROTOBUF],
            good.clone(),
            "malformed_protobuf",
        ),
        ("an array", &[JSON], b"[]".to_vec(), "malformed_json"),
        ("a wrong type", &[JSON], wrong_type.into(), "malformed_json"),
        (
            "a million metrics",
            &[JSON, in_gzip],
            packed(many("{}", 1_000_000)),
            "malformed_json",
        ),
        (
            "4 million resources",
            &[PROTOBUF, in_gzip],
            gzip(&[0x0a, 0].repeat(4 << 20)),
            "malformed_protobuf",
        ),
        (
            "9 MiB",
            &[JSON, in_gzip],
            packed(many(&" ".repeat(9 << 20), 1)),
            "body_too_large",
        ),
    ] {
        let refused = post(&world, &web, headers, body).await;
        let problem = refused.refused(code, story);
        if story == "a wrong type" {
            let detail = problem["detail"].as_str().unwrap();
            let place = "resourceMetrics[0].resource.attributes: ";
            assert!(detail.starts_with(place), "{detail}");
        }
    }
    // Too many series: nothing of the request is stored.
    let names = (0..40).map(|at| {
        json!({"name": format!("m{at}"), "gauge": {"dataPoints": [
            {"timeUnixNano": ago(&world, 0), "asInt": 1},
        ]}})
    });
    let too_many = of_resource(&[("host.name", "web1")], &names.collect());
    let [(content_type, body), _] = encoded(&json!([too_many]));
    let refused = post(&world, &web, &[content_type], body).await;
    let errors = refused.refused("too_many_labels", "40 series");
    assert!(errors.to_string().contains("--host-series"), "{errors}");
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(stored(&world, &reader, "web1").await, expected);
    world.healthy().await;
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

/// A few kilobytes of gzip whose points are all left out were work for nothing: the rate limit did not
/// count them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_counts_against_the_rate() {
    let world = World::start_with(|config| {
        config.limits.records_per_second_max = NonZeroU32::MIN;
    })
    .await;
    let (web, reader) = (world.node("web1"), world.reader());
    let metrics = gauge(&world, &"m".repeat(6 << 20), 1.0);
    let resources = json!([of_resource(&[("host.name", "web1")], &metrics)]);
    let [(content_type, body), _] = encoded(&resources);
    let packed = gzip(&body);
    let headers = [content_type, ("content-encoding", "gzip")];
    let token = world.token(&web).await;
    let mut answered = 0;
    let refused = loop {
        let got = post_with(&world, &web, (&token, &headers), packed.clone()).await;
        if got.status != 200 {
            break got;
        }
        answered += 1;
        assert!(answered <= 6, "it costs nothing");
    };
    refused.refused("rate_limited", "over the limit");
    // Of a million records each takes 196,608 for its bytes, and the sixth is the one too many.
    assert_eq!(answered, 6);
    assert_eq!(stored(&world, &reader, "web1").await, []);
}

/// A message names a metric once, and its series have that name at each of their values.
#[tokio::test(flavor = "multi_thread")]
async fn points_that_become_too_many_bytes_are_refused() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let points = (0..9_000_u64).map(|at| {
        let nanos = world.clock.now() * 1_000_000_000 - at * 1_000_000;
        json!({"timeUnixNano": nanos.to_string(), "asInt": "1"})
    });
    let points: Value = points.collect();
    let of = |name: &str| {
        let metrics = json!([{"name": name, "gauge": {"dataPoints": points}}]);
        json!([of_resource(&[("host.name", "web1")], &metrics)])
    };
    for (content_type, body) in encoded(&of(&"m".repeat(1_000))) {
        let headers = [content_type, ("content-encoding", "gzip")];
        let refused = post(&world, &web, &headers, gzip(&body)).await;
        let problem = refused.refused("too_many_records", "9,000 points of a long name");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("send fewer points at once"), "{detail}");
    }
    assert_eq!(stored(&world, &reader, "web1").await, []);
    assert_eq!(send(&world, &web, &of("m")).await, json!({}));
}
