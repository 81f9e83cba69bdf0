//! Remote writes as they come over the wire: whose they are, what they become, and what is refused.

use lizmon_protocol::name::Role;
use lizmon_receiver::prometheus::message::{
    LabelPair, MetricMetadata, MetricType, STALE_NAN_BITS, SamplePair, TimeSeries, WriteRequest,
};
use lizmon_receiver::protobuf::Skipped;
use prost::Message as _;
use serde_json::{Value, json};

use super::requests::pack;
use crate::harness::{Answer, Holder, World, answer};

const REQUESTS: &str = r#"requests_total{code="200"}"#;

/// Labels, and samples: milliseconds before now, value.
pub(crate) type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn series((labels, samples): Series<'_>, now: u64) -> TimeSeries {
    let now = now as i64 * 1_000;
    let labels = labels.iter().map(|(name, value)| LabelPair {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    let samples = samples.iter().map(|(ago, value)| SamplePair {
        value: *value,
        timestamp: now - ago,
    });
    TimeSeries {
        labels: labels.collect(),
        samples: samples.collect(),
        ..TimeSeries::default()
    }
}

fn request(world: &World, all: &[Series<'_>]) -> WriteRequest {
    request_at(world.clock.now(), all)
}

pub(crate) fn request_at(now: u64, all: &[Series<'_>]) -> WriteRequest {
    WriteRequest {
        timeseries: all.iter().map(|one| series(*one, now)).collect(),
        ..WriteRequest::default()
    }
}

async fn post_with(
    world: &World,
    holder: &Holder,
    token: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Answer {
    let post = holder.http.post(world.url("/api/v1/write"));
    let post = post.bearer_auth(token).body(body);
    let add =
        |post: reqwest::RequestBuilder, (name, value): &(&str, &str)| post.header(*name, *value);
    answer(headers.iter().fold(post, add)).await
}

pub(crate) const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

async fn write(world: &World, holder: &Holder, message: &WriteRequest) -> Answer {
    let token = world.token(holder).await;
    let body = pack(&message.encode_to_vec());
    post_with(world, holder, &token, &HEADERS, body).await
}

/// By label, number and sum of the last day's samples; nothing of an unknown host.
async fn stored_sums(world: &World, reader: &Holder, host: &str) -> Vec<(String, u64, f64)> {
    let token = world.token(reader).await;
    let got = world
        .get(reader, &token, &format!("/api/perf/{host}"))
        .await;
    if got.status == 404 {
        return Vec::new();
    }
    sums(&got.json(host))
}

/// The same of an answer.
pub(crate) fn sums(summaries: &Value) -> Vec<(String, u64, f64)> {
    let summaries = summaries.as_object().unwrap().iter();
    let by_hour = summaries.filter_map(|(name, summary)| {
        let label = name.strip_prefix("summary:by-hour:")?;
        let averages = summary["averages"].as_array().unwrap();
        let count = |average: &Value| average["num-samples"].as_u64().unwrap();
        let sum = averages
            .iter()
            .map(|one| one["avg"].as_f64().unwrap() * count(one) as f64);
        Some((
            label.to_owned(),
            averages.iter().map(count).sum(),
            sum.sum(),
        ))
    });
    by_hour.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_sends_counts_once() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let up = [
        ("__name__", "up"),
        ("instance", "web1:9100"),
        ("job", "node"),
    ];
    let requests = [
        ("code", "200"),
        ("__name__", "requests_total"),
        ("host", "web1"),
    ];
    let stale = f64::from_bits(STALE_NAN_BITS);
    let message = request(
        &world,
        &[
            (&up, &[(30_000, 1.0), (15_000, 0.0), (0, 1.0)]),
            (
                &requests,
                &[(30_000, 100.0), (15_000, 130.0), (10_000, stale), (0, 7.0)],
            ),
        ],
    );
    let expected = [
        (REQUESTS.to_owned(), 1, 2.0),
        (r#"up{job="node"}"#.to_owned(), 3, 2.0),
    ];
    for _ in 0..2 {
        write(&world, &web, &message).await.no_content("a write");
        let found = stored_sums(&world, &reader, "web1").await;
        assert_eq!(found.len(), 2, "{found:?}");
        for ((label, count, sum), expected) in found.iter().zip(&expected) {
            assert_eq!((label, *count), (&expected.0, expected.1));
            assert!(
                (sum - expected.2).abs() <= 0.005 * *count as f64,
                "{found:?}"
            );
        }
    }
    let metrics = answer(reader.http.get(world.url("/metrics"))).await.text();
    for (outcome, count) in [("accepted", 7), ("duplicate", 7)] {
        let line = format!(
            "lizmon_points_total{{protocol=\"remote_write\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

/// A sample is taken only from the machine that it is about, whichever label names it.
#[tokio::test(flavor = "multi_thread")]
async fn another_hosts_label_is_refused_and_nothing_is_stored() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let gateway = world.holder_with(Role::Gateway, "prom1", &["web*"]);
    let own: Series<'_> = (&[("__name__", "up"), ("host", "web1")], &[(0, 1.0)]);
    for (story, labels) in [
        ("host", &[("__name__", "up"), ("host", "db1")][..]),
        ("instance", &[("__name__", "up"), ("instance", "db1:9100")]),
        (
            "instance without a port",
            &[("__name__", "up"), ("instance", "db1")],
        ),
        (
            "host before instance",
            &[("__name__", "up"), ("host", "db1"), ("instance", "web1")],
        ),
        ("another case", &[("__name__", "up"), ("host", "WEB1")]),
        ("a longer name", &[("__name__", "up"), ("host", "my-web1")]),
        ("no name", &[("__name__", "up"), ("host", "../web1")]),
        (
            "a port of host",
            &[("__name__", "up"), ("host", "web1:9100")],
        ),
        (
            "twice",
            &[("__name__", "up"), ("host", "db1"), ("host", "web1")],
        ),
    ] {
        let other: Series<'_> = (labels, &[(0, 1.0)]);
        for holder in [&web, &gateway] {
            for order in [[own, other], [other, own]] {
                let refused = write(&world, holder, &request(&world, &order)).await;
                refused.refused("wrong_host", story);
            }
        }
    }
    assert_eq!(stored_sums(&world, &reader, "web1").await, []);
    assert_eq!(stored_sums(&world, &reader, "db1").await, []);
    // A reader writes nothing, and neither does a token of another node.
    let message = request(&world, &[own]);
    let refused = write(&world, &reader, &message).await;
    refused.refused("insufficient_scope", "a reader");
    let db = world.node("db1");
    let body = pack(&message.encode_to_vec());
    let token = world.token(&web).await;
    let refused = post_with(&world, &db, &token, &HEADERS, body.clone()).await;
    refused.refused("certificate_mismatch", "another node's token");
    // Prometheus would drop what it sends until its token ends.
    let renewed = world.node("web1");
    let refused = post_with(&world, &renewed, &token, &HEADERS, body).await;
    refused.refused("certificate_renewed", "its own token of before");
    assert!(!refused.header("retry-after").is_empty());
    write(&world, &renewed, &message)
        .await
        .no_content("with a new one");
}

/// The whole request or nothing: what is refused is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_taken_whole_or_not_at_all() {
    let world = World::start_with(|config| config.host_series_max = 2).await;
    let (web, reader) = (world.node("web1"), world.reader());
    let gateway = world.holder_with(Role::Gateway, "prom1", &["web*"]);
    let good: Series<'_> = (&[("__name__", "up"), ("host", "web1")], &[(0, 1.0)]);
    let of = |value: f64, ago: i64| [(ago, value)];
    let long = "x".repeat(1_024);
    let day = 86_400_000;
    let named = |name: &'static str| [("__name__", name), ("host", "web1")];
    for (story, labels, samples, code) in [
        ("NaN", &named("a")[..], of(f64::NAN, 0), "invalid_values"),
        (
            "infinity",
            &named("a"),
            of(f64::INFINITY, 0),
            "invalid_values",
        ),
        (
            "a metric's name",
            &named("1a"),
            of(1.0, 0),
            "invalid_values",
        ),
        (
            "no metric",
            &[("host", "web1")],
            of(1.0, 0),
            "invalid_values",
        ),
        (
            "no host",
            &[("__name__", "a")],
            of(1.0, 0),
            "invalid_values",
        ),
        (
            "a label's name",
            &[("__name__", "a"), ("host", "web1"), ("a-b", "1")],
            of(1.0, 0),
            "invalid_values",
        ),
        (
            "a long label",
            &[("__name__", "a"), ("host", "web1"), ("l", &long)],
            of(1.0, 0),
            "invalid_values",
        ),
        (
            "two days old",
            &named("a"),
            of(1.0, 2 * day),
            "epoch_too_old",
        ),
        ("a day ahead", &named("a"), of(1.0, -day), "epoch_in_future"),
        (
            "before 1970",
            &named("a"),
            of(1.0, i64::MAX / 4),
            "invalid_values",
        ),
    ] {
        let bad: Series<'_> = (labels, &samples);
        let refused = write(&world, &web, &request(&world, &[good, bad])).await;
        refused.refused(code, story);
        let refused = write(&world, &gateway, &request(&world, &[good, bad])).await;
        refused.refused(code, story);
    }
    // One host has too many series: nothing of the other is stored either.
    let of_web2 = |name| [("__name__", name), ("host", "web2")];
    let (a, b, c) = (of_web2("a"), of_web2("b"), of_web2("c"));
    let three = [
        good,
        (&a, &[(0, 1.0)]),
        (&b, &[(0, 1.0)]),
        (&c, &[(0, 1.0)]),
    ];
    let refused = write(&world, &gateway, &request(&world, &three)).await;
    let errors = refused.refused("too_many_labels", "three series");
    assert!(errors.to_string().contains("--host-series"), "{errors}");
    let mut histograms = request(&world, &[good]);
    histograms.timeseries[0].histograms.push(Skipped {});
    let refused = write(&world, &web, &histograms).await;
    refused.refused("invalid_values", "a native histogram");
    for host in ["web1", "web2"] {
        assert_eq!(stored_sums(&world, &reader, host).await, [], "{host}");
    }
    write(&world, &gateway, &request(&world, &three[..3]))
        .await
        .no_content("two of them");
    for host in ["web1", "web2"] {
        assert!(
            !stored_sums(&world, &reader, host).await.is_empty(),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_not_understood() {
    let world = World::start().await;
    let web = world.node("web1");
    let token = world.token(&web).await;
    let message = request(
        &world,
        &[(&[("__name__", "up"), ("host", "web1")], &[(0, 1.0)])],
    );
    let good = pack(&message.encode_to_vec());
    let [proto, snappy, version] = HEADERS;
    let of_write = "application/x-protobuf;proto=prometheus.WriteRequest";
    let headers = [("content-type", of_write), snappy];
    let got = post_with(&world, &web, &token, &headers, good.clone()).await;
    got.no_content("as 2.0 names it");
    let of_2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    for (story, headers, code) in [
        (
            "2.0",
            &[("content-type", of_2), snappy][..],
            "unsupported_media_type",
        ),
        (
            "2.0 by its version",
            &[
                proto,
                snappy,
                ("x-prometheus-remote-write-version", "2.0.0"),
            ],
            "unsupported_media_type",
        ),
        ("no type", &[snappy, version], "unsupported_media_type"),
        ("not packed", &[proto, version], "unsupported_encoding"),
        (
            "gzip",
            &[proto, ("content-encoding", "gzip")],
            "unsupported_encoding",
        ),
    ] {
        let refused = post_with(&world, &web, &token, headers, good.clone()).await;
        refused.refused(code, story);
    }
    for (story, body, code) in [
        ("no snappy", b"abc".to_vec(), "malformed_protobuf"),
        ("no message", pack(b"abc"), "malformed_protobuf"),
        (
            "2 GiB",
            vec![0xff, 0xff, 0xff, 0xff, 7, 0, b'a'],
            "body_too_large",
        ),
        (
            "4 million series",
            pack(&[0x0a, 0].repeat(4 << 20)),
            "malformed_protobuf",
        ),
        ("9 MiB", pack(&vec![0; 9 << 20]), "body_too_large"),
    ] {
        let refused = post_with(&world, &web, &token, &HEADERS, body).await;
        refused.refused(code, story);
    }
    // What is small as it comes and large as it is stored, and what only takes time.
    let label = "x".repeat(900);
    let many = request(&world, &[(&[("__name__", &label), ("host", "web1")], &[])]);
    let mut many = many;
    many.timeseries[0].samples = vec![message.timeseries[0].samples[0]; 10_000];
    let hosts = (0..2_001).map(|at| format!("web{at}"));
    let of_hosts: Vec<_> = hosts
        .map(|host| series((&[("__name__", "up"), ("host", &host)], &[(0, 1.0)]), 9))
        .collect();
    let metadata = MetricMetadata {
        r#type: MetricType::Histogram.into(),
        metric_family_name: "h".to_owned(),
        ..MetricMetadata::default()
    };
    for (story, timeseries, metadata) in [
        ("a long label 10,000 times", many.timeseries, vec![]),
        ("2,001 hosts", of_hosts, vec![]),
        ("20,001 metrics", vec![], vec![metadata; 20_001]),
    ] {
        let sent = WriteRequest {
            timeseries,
            metadata,
        };
        let refused = write(&world, &web, &sent).await;
        refused.refused("too_many_records", story);
    }
    // Nothing is asked for by an empty message, and an example is passed over, and counted.
    write(&world, &web, &WriteRequest::default())
        .await
        .no_content("empty");
    let mut with_example = message;
    with_example.timeseries[0].exemplars.push(Skipped {});
    write(&world, &web, &with_example)
        .await
        .no_content("an example");
    let reader = world.reader();
    let metrics = answer(reader.http.get(world.url("/metrics"))).await.text();
    let line = "lizmon_points_total{protocol=\"remote_write\",outcome=\"passed_over\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    world.healthy().await;
}

/// Which metrics are counters is known by their names, and by metadata where that differs. It is
/// kept with the host, also what a gateway says.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_says_what_names_do_not() {
    let world = World::start().await;
    let (web, reader) = (world.node("web1"), world.reader());
    let gateway = world.holder_with(Role::Gateway, "prom1", &["web*"]);
    let says = |family: &str, r#type: MetricType| WriteRequest {
        metadata: vec![MetricMetadata {
            r#type: r#type.into(),
            metric_family_name: family.to_owned(),
            ..MetricMetadata::default()
        }],
        ..WriteRequest::default()
    };
    for (sender, host) in [(&web, "web1"), (&gateway, "web2")] {
        write(&world, sender, &says("forks", MetricType::Counter))
            .await
            .no_content("metadata");
        write(&world, sender, &says("file_count", MetricType::Gauge))
            .await
            .no_content("metadata");
        let forks = [("__name__", "forks"), ("host", host)];
        let files = [("__name__", "file_count"), ("host", host)];
        let sent = request(
            &world,
            &[
                (&forks, &[(10_000, 100.0), (0, 120.0)]),
                (&files, &[(10_000, 5.0), (0, 4.0)]),
            ],
        );
        write(&world, sender, &sent).await.no_content(host);
        let expected = [
            ("file_count".to_owned(), 2, 9.0),
            ("forks".to_owned(), 1, 2.0),
        ];
        assert_eq!(stored_sums(&world, &reader, host).await, expected, "{host}");
    }
    // A correction comes to the hosts of a gateway as well.
    write(&world, &gateway, &says("forks", MetricType::Gauge))
        .await
        .no_content("metadata");
    world.clock.advance(10);
    let forks: Series<'_> = (&[("__name__", "forks"), ("host", "web2")], &[(0, 130.0)]);
    let mut refused = request(
        &world,
        &[
            forks,
            (&[("__name__", "x"), ("host", "web3")], &[(0, f64::NAN)]),
        ],
    );
    write(&world, &gateway, &refused)
        .await
        .refused("invalid_values", "NaN");
    refused.timeseries.truncate(1);
    write(&world, &gateway, &refused).await.no_content("web2");
    let found = stored_sums(&world, &reader, "web2").await;
    assert_eq!(found[1].0, "forks");
    assert_eq!(found[1].1, 2);
    assert!((found[1].2 - 132.0).abs() < 0.02, "{found:?}");
    // Metadata alone makes no host.
    let silent = world.node("db1");
    write(&world, &silent, &says("forks", MetricType::Counter))
        .await
        .no_content("metadata");
    assert_eq!(stored_sums(&world, &reader, "db1").await, []);
    let token = world.token(&reader).await;
    let listed = world
        .get(&reader, &token, "/api/perf")
        .await
        .json("hosts")
        .to_string();
    assert!(!listed.contains("db1"), "{listed}");
    assert_eq!(
        json!(listed.contains("gateway/prom1")),
        json!(true),
        "who reports web2"
    );
}

/// Where other routes answer 429 Prometheus would drop the samples.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_now_is_sent_again() {
    let world = World::start_with(|config| {
        config.limits.requests_per_second_max = std::num::NonZeroU32::MIN;
    })
    .await;
    let web = world.node("web1");
    let token = world.token(&web).await;
    let up = request(
        &world,
        &[(&[("__name__", "up"), ("host", "web1")], &[(0, 1.0)])],
    );
    let body = pack(&up.encode_to_vec());
    let mut refused = None;
    for _ in 0..20 {
        let got = post_with(&world, &web, &token, &HEADERS, body.clone()).await;
        if got.status != 204 {
            refused = Some(got);
            break;
        }
    }
    let refused = refused.expect("too many at once");
    refused.refused("overloaded", "too many requests");
    assert!(!refused.header("retry-after").is_empty());
}
