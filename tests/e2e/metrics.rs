//! The receiver's metrics and log, also under unauthenticated clients.

use std::fs;

use lizmon_ca::pki::inspect::{Item, inspect};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::start_receiver;
use crate::harness::process::{PATIENCE, run};
use crate::harness::raw::{self, tls_config};
use crate::harness::{Holder, World, answer};
use crate::oauth_clients::python;

async fn scrape(world: &World, reader: &Holder) -> String {
    let got = answer(reader.http.get(world.url("/metrics"))).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(
        got.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = got.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

/// The value of the only line with this prefix.
#[track_caller]
fn value(text: &str, name: &str) -> u64 {
    let mut found = text.lines().filter_map(|line| line.strip_prefix(name));
    let value = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {text}"));
    assert_eq!(found.next(), None, "{name}");
    value.trim().parse().unwrap()
}

/// Queries until a refused connection has been counted: its client sees the refusal a moment
/// earlier.
async fn scrape_once(world: &World, reader: &Holder, rejected: u64) -> String {
    let name = "lizmon_connections_rejected_total{cause=\"certificate\"}";
    let asked = async {
        loop {
            let shown = scrape(world, reader).await;
            if value(&shown, name) >= rejected {
                return shown;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, asked).await;
    in_time.expect("they are counted in time")
}

/// The end of validity of all loaded files.
#[tokio::test(flavor = "multi_thread")]
async fn ends_are_shown() {
    let world = World::start().await;
    let reader = world.reader();
    let files = world.trust_files();
    let items = |file| inspect(&fs::read(file).unwrap()).unwrap();
    let shown = scrape(&world, &reader).await;
    let mut certificates = Vec::new();
    for (file, parts) in [
        (&files.cert, &["own", "issuing"][..]),
        (&files.ca, &["root"]),
    ] {
        for (item, part) in items(file).into_iter().zip(parts) {
            let Item::Certificate {
                subject, not_after, ..
            } = item
            else {
                panic!("{item:?}");
            };
            certificates.push((format!("part=\"{part}\",subject=\"{subject}\""), not_after));
        }
    }
    assert_eq!(certificates.len(), 3);
    for (labels, not_after) in certificates {
        let name = format!("lizmon_certificate_not_after_seconds{{{labels}}}");
        assert_eq!(value(&shown, &name), not_after, "{labels}");
    }
    let mut lists = 0;
    for item in items(&files.crl) {
        let Item::Crl {
            issuer,
            next_update,
            ..
        } = item
        else {
            panic!("{item:?}");
        };
        let name = format!("lizmon_crl_next_update_seconds{{issuer=\"{issuer}\"}}");
        assert_eq!(value(&shown, &name), next_update.unwrap());
        lists += 1;
    }
    assert_eq!(lists, 2);
    assert_eq!(value(&shown, "lizmon_trust_loads_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_minted_and_refused_is_counted() {
    let world = World::start().await;
    let (a, reader) = (world.node("a"), world.reader());
    let minted = "lizmon_tokens_minted_total";
    assert_eq!(value(&scrape(&world, &reader).await, minted), 0);
    let token = world.token(&a).await;
    let anonymous = world.client(None, &["http/1.1"]);
    for _ in 0..3 {
        let form = [("grant_type", "client_credentials")];
        world.ask_token(&anonymous, &form).await.token_error(
            401,
            "invalid_client",
            "no certificate",
        );
        world
            .get(&a, &token, "/api/perf/b")
            .await
            .refused("wrong_host", "another's");
    }
    // Samples do not pass the router, and are refused as everything is.
    let body = r#"{"cpu":1}"#;
    let posted = world.post(&a, &token, "/api/perf/b/1465001814", body).await;
    posted.refused("wrong_host", "another's");
    // A certificate of another CA is refused, and so is a client without TLS.
    let elsewhere = World::without_receiver(|_| ());
    let stranger = elsewhere.node("a");
    let config = tls_config(&world.root(), Some(stranger.shown()), &["http/1.1"]);
    let mut refused = raw::connect(&world, config).await;
    if let Ok(stream) = &mut refused {
        raw::exchange(stream, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap_err();
    }
    let shown = scrape_once(&world, &reader, 1).await;
    for (name, expected) in [
        (minted, 1),
        ("lizmon_tokens_refused_total{error=\"invalid_client\"}", 3),
        ("lizmon_requests_refused_total{code=\"wrong_host\"}", 4),
        (
            "lizmon_connections_rejected_total{cause=\"certificate\"}",
            1,
        ),
        ("lizmon_connections_rejected_total{cause=\"too_many\"}", 0),
    ] {
        assert_eq!(value(&shown, name), expected, "{name}");
    }
}

/// Whatever unauthenticated clients do, the log gets one line per second.
#[tokio::test(flavor = "multi_thread")]
async fn an_unauthenticated_client_does_not_fill_the_log() {
    const REQUESTS: u64 = 2_000;
    const HANDSHAKES: u64 = 300;
    let mut world = World::without_receiver(|_| ());
    let (a, reader) = (world.node("a"), world.reader());
    let elsewhere = World::without_receiver(|_| ());
    let stranger = elsewhere.node("a");
    let running = start_receiver(&mut world);
    let token = world.token(&a).await;
    let anonymous = world.client(None, &["http/1.1"]);
    for _ in 0..REQUESTS / 2 {
        answer(anonymous.get(world.url("/api/perf")))
            .await
            .refused("token_missing", "a stranger");
        world
            .get(&a, &token, "/api/perf/b")
            .await
            .refused("wrong_host", "a node, of another");
    }
    for _ in 0..HANDSHAKES {
        let config = tls_config(&world.root(), Some(stranger.shown()), &["http/1.1"]);
        if let Ok(mut stream) = raw::connect(&world, config).await {
            raw::exchange(&mut stream, b"GET / HTTP/1.1\r\n\r\n")
                .await
                .unwrap_err();
        }
    }
    let shown = scrape_once(&world, &reader, HANDSHAKES).await;
    for code in ["token_missing", "wrong_host"] {
        let name = format!("lizmon_requests_refused_total{{code=\"{code}\"}}");
        assert_eq!(value(&shown, &name), REQUESTS / 2);
    }
    let name = "lizmon_connections_rejected_total{cause=\"certificate\"}";
    assert_eq!(value(&shown, name), HANDSHAKES);
    running.signal(Signal::TERM);
    let log = running.wait_within(PATIENCE).stderr;
    for text in [" refused ", " connection rejected "] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
        // A burst of thirty and one per second: this took less than two minutes.
        assert!((30..150).contains(&lines.len()), "{text}: {}", lines.len());
    }
    assert!(
        log.contains("127.0.0.1") && log.contains("spiffe://lizmon.internal/node/a"),
        "{log}"
    );
    assert!(log.len() < 100_000, "{}", log.len());
}

/// A gauge's samples, as read by Prometheus' parser.
pub(crate) fn read_by_prometheus(world: &World, text: &str, gauge: &str) -> Vec<Value> {
    let file = world.folder().join("metrics.txt");
    fs::write(&file, text).unwrap();
    let mut parser = python("openmetrics_parser.py");
    parser.arg(file).arg(gauge);
    serde_json::from_str(&run(&mut parser).success()).unwrap()
}

/// The newest minute with samples of each series, for as long as it is in the window; with many
/// series, and with unusual names.
#[tokio::test(flavor = "multi_thread")]
async fn each_series_newest_minute_is_shown() {
    const MANY: usize = 1_000;
    let world = World::start().await;
    let (a, b, reader) = (world.node("a"), world.node("b.example"), world.reader());
    let minute = world.clock.now() / 60 * 60;
    world.clock.set(minute + 30);
    let samples = [
        (
            &a,
            minute - 60,
            r#"{"cpu":99,"disk:\"/ \\\"":1}"#.to_owned(),
        ),
        (&a, minute + 1, r#"{"cpu":4.8}"#.to_owned()),
        (&a, minute + 2, r#"{"cpu":5.1}"#.to_owned()),
        (&a, minute + 3, r#"{"cpu":5.04}"#.to_owned()),
        (&b, minute + 1, r#"{"cpu":-0.5}"#.to_owned()),
    ];
    // With `cpu` the maximum of a host.
    let many = (1..MANY).collect::<Vec<_>>();
    let many = many.chunks(250).map(|labels| {
        let values = labels.iter().map(|at| format!("\"many {at}\":{at}"));
        let values = values.collect::<Vec<_>>().join(",");
        (&b, minute + 2, format!("{{{values}}}"))
    });
    for (node, epoch, values) in samples.into_iter().chain(many) {
        let token = world.token(node).await;
        let path = format!("/api/perf/{}/{epoch}", node.name);
        world
            .post(node, &token, &path, values)
            .await
            .no_content(&path);
    }
    let shown = scrape(&world, &reader).await;
    let line = |what: &str, labels: &str, value: &dyn std::fmt::Display| {
        format!("lizmon_minute_{what}{{{labels}}} {value}\n")
    };
    let cpu = r#"host="a",label="cpu""#;
    let odd = r#"host="a",label="disk:\"/ \\\"""#;
    let below = r#"host="b.example",label="cpu""#;
    let last = r#"host="b.example",label="many 999""#;
    for expected in [
        line("average", cpu, &4.98),
        line("min", cpu, &4.8),
        line("max", cpu, &5.1),
        line("samples", cpu, &3),
        line("end_seconds", cpu, &(minute + 60)),
        line("average", odd, &"1.0"),
        line("end_seconds", odd, &(minute - 60)),
        line("min", below, &-0.5),
        line("max", last, &"999.0"),
    ] {
        assert_eq!(shown.matches(&expected).count(), 1, "{expected}");
    }
    let averages = read_by_prometheus(&world, &shown, "lizmon_minute_average");
    assert_eq!(averages.len(), 2 + MANY);
    assert!(averages.contains(&json!([{"host": "a", "label": "disk:\"/ \\\""}, 1.0])));
    world.clock.advance(2 * 3_600);
    let shown = scrape(&world, &reader).await;
    assert!(!shown.contains("lizmon_minute_average{"), "{shown}");
}
