//! Debian's Prometheus writes what it scrapes of Debian's node_exporter, and has its own storage: what
//! a receiver has is what that says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use lizmon_protocol::name::Role;
use lizmon_receiver::prometheus::message::MatcherType;
use prost::Message as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::dump::{Total, by_minute, counted, series_of, written};
use super::link::Link;
use super::requests::{pack, post_read, read_request, unpacked};
use super::server::{NodeExporter, Prometheus, documented, replaced};
use super::{moment, until};
use crate::crash::start_receiver;
use crate::harness::process::Running;
use crate::harness::{Holder, World, answer};

const HOUR: u64 = 3_600;
/// So that the samples of a scrape are sent at once, in several requests.
const SENDS: &str = "max_samples_per_send: 100\n      batch_send_deadline: 100ms";
/// The receiver is killed at most so long after a scrape was seen: while its samples are sent.
const KILLED_WITHIN_MS: u64 = 80;
/// Scrapes during which the receiver is down, once.
const DOWN_FOR: u64 = 2;

/// Who writes, of which hosts, and for how long.
struct Story {
    /// Above the configuration in docs/prometheus.md.
    heading: &'static str,
    role: Role,
    writer: &'static str,
    hosts: &'static [&'static str],
    scrapes: u64,
    kills: u64,
    /// After SIGKILL all is made again of the journal, after SIGTERM all has been committed.
    ends_by: Signal,
}

fn of_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

const OF_NODE: Story = Story {
    heading: "### A Prometheus on each machine",
    role: Role::Node,
    writer: "web1",
    hosts: &["web1"],
    scrapes: 9,
    kills: 3,
    ends_by: Signal::KILL,
};

const OF_GATEWAY: Story = Story {
    heading: "### One Prometheus for many machines",
    role: Role::Gateway,
    writer: "prom1",
    hosts: &["web1", "web2"],
    ends_by: Signal::TERM,
    ..OF_NODE
};

/// `LIZMON_WRITING_SCRAPES=600 LIZMON_WRITING_KILLS=30` for more than the gate has time for.
#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_has_is_there_once() {
    let stories = [OF_NODE, OF_GATEWAY].map(|story| Story {
        scrapes: of_env("LIZMON_WRITING_SCRAPES", story.scrapes),
        kills: of_env("LIZMON_WRITING_KILLS", story.kills),
        ..story
    });
    let checks = stories
        .map(|story| tokio::task::spawn_blocking(move || Handle::current().block_on(check(story))));
    for checked in join_all(checks).await {
        checked.unwrap();
    }
}

/// A request that has series of another host is refused; Prometheus does not send it again.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_drops_what_is_of_another_host() {
    let mut world = World::without_receiver(|_| ());
    let (writer, reader) = (world.node("web1"), world.reader());
    let exporter = NodeExporter::start(world.folder());
    let _receiver = start_receiver(&mut world);
    let config = config(&world, &OF_NODE, &exporter);
    let config = replaced(&config, "web1:9100", "web2:9100");
    let mut prometheus = Prometheus::start(&world, &writer, &config);
    let dropped = prometheus.wait_for("non-recoverable error");
    for part in ["403 Forbidden", "wrong_host"] {
        assert!(dropped.contains(part), "{dropped}");
    }
    let failed = async || {
        let name = "prometheus_remote_storage_samples_failed_total";
        prometheus.metric(name).await
    };
    until("all of it is dropped", async || failed().await > 400.0).await;
    assert_eq!(prometheus.metric(RETRIED).await, 0.0);
    assert_eq!(world.stored(&reader).await, json!({}));
}

/// What a metric's name does not say is known from the moment on at which Prometheus has told it.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_says_what_is_a_counter() {
    let mut world = World::without_receiver(|_| ());
    let (writer, reader) = (world.node("web1"), world.reader());
    let texts = "# TYPE jobs counter\njobs 5\n# TYPE parts_count gauge\nparts_count 7\n";
    std::fs::write(world.folder().join("jobs.prom"), texts).unwrap();
    let exporter = NodeExporter::start(world.folder());
    let _receiver = start_receiver(&mut world);
    let config = config(&world, &OF_NODE, &exporter);
    let config = replaced(&config, "send: false", "send: true");
    let config = replaced(&config, "send_interval: 1m", "send_interval: 1s");
    let _prometheus = Prometheus::start(&world, &writer, &config);
    let token = world.token(&reader).await;
    // The rate of a counter that stands still is 0, and neither stands at it.
    for (label, extreme, expected) in [("jobs", "min", 0.0), ("parts_count", "max", 7.0)] {
        until(label, async || {
            let got = world.get(&reader, &token, "/api/perf/web1").await;
            let summaries: Value = serde_json::from_slice(&got.body).unwrap();
            let key = format!("summary:by-hour:{label}{{job=\"node\"}}");
            let hours = summaries[key]["averages"].as_array();
            hours.is_some_and(|hours| hours.iter().any(|hour| hour[extreme] == expected))
        })
        .await;
    }
}

async fn check(story: Story) {
    let mut world = World::without_receiver(|_| ());
    let attributes: &[&str] = match story.role {
        Role::Gateway => &["web*"],
        _ => &[],
    };
    let writer = world.holder_with(story.role, story.writer, attributes);
    let reader = world.reader();
    change_metrics(&world, 0);
    let exporter = NodeExporter::start(world.folder());
    let mut receiver = start_receiver(&mut world);
    let link = Link::to(world.port()).await;
    world.set_port(link.port);
    let config = config(&world, &story, &exporter);
    let mut prometheus = Prometheus::start(&world, &writer, &config);

    let mut random = fastrand::Rng::with_seed(story.kills);
    for kill in 1..=story.kills {
        let scrapes = story.scrapes * kill / (story.kills + 1);
        scraped(&prometheus, scrapes).await;
        if (story.kills - kill).is_multiple_of(2) {
            take_unanswered(&reader, &link).await;
        }
        moment(Duration::from_millis(random.u64(0..KILLED_WITHIN_MS))).await;
        receiver.kill();
        change_metrics(&world, kill);
        if kill == story.kills {
            scraped(&prometheus, scrapes + DOWN_FOR).await;
        }
        receiver = start_again(&mut world, &link);
    }
    scraped(&prometheus, story.scrapes).await;
    end_scraping(&mut prometheus, &config);
    everything_sent(&prometheus).await;
    let retried = prometheus.metric(RETRIED).await;
    let duplicates = points(&reader, &link, "duplicate").await;
    match story.ends_by {
        Signal::KILL => receiver.kill(),
        signal => {
            receiver.signal(signal);
            receiver.wait().success();
        }
    }
    let dump = prometheus.stop_and_dump();
    assert!(dump.contains(" NaN "), "no series has ended");

    let expected = expected(&dump, story.hosts);
    let last = expected.values().flat_map(BTreeMap::keys).max().unwrap();
    // The minute of the last sample ends, so that it can be read.
    world.clock.set(*last + 1);
    world.set_port(0);
    world.boot_on_same_port().await;
    let of_all = expected.values().flat_map(BTreeMap::values);
    let values: u64 = of_all.map(|of| of.count).sum();
    let (writer, kills, series) = (story.writer, story.kills, expected.len());
    eprintln!("{writer}: {kills} kills, {series} series, {values} values, {retried} sent again");
    let found = found(&world, &reader).await;
    assert_same(&expected, &found);
    for host in story.hosts {
        api_has_the_same(&world, &reader, host, &expected).await;
    }
    assert!(duplicates > 0, "nothing that was taken was sent again");
    let of_up = expected
        .keys()
        .filter(|(_, label)| label.starts_with("up{"));
    assert_eq!(of_up.count(), story.hosts.len());
    assert!(
        expected.len() > 400 * story.hosts.len(),
        "{}",
        expected.len()
    );
}

/// The documented one, for this exporter in place of each host's, and each second.
fn config(world: &World, story: &Story, exporter: &NodeExporter) -> String {
    let target = |host: &str| {
        let address = &exporter.address;
        format!("- targets: [\"{address}\"]\n        labels:\n          instance: {host}:9100\n")
    };
    let targets: Vec<String> = story.hosts.iter().map(|host| target(host)).collect();
    let documented = documented(world, story.heading);
    let config = match story.role {
        Role::Gateway => {
            let both = "- targets: [\"web1:9100\", \"web2:9100\"]\n";
            replaced(&documented, both, &targets.join("      "))
        }
        _ => replaced(&documented, "localhost:9100", &exporter.address),
    };
    let config = replaced(&config, "scrape_interval: 15s", "scrape_interval: 1s");
    let config = replaced(&config, "max_samples_per_send: 2000", SENDS);
    // A metric whose kind comes to be known has other values from then on.
    replaced(&config, "send: true", "send: false")
}

/// A counter begins again with each change, and one is there every second time alone: Prometheus
/// stores where it ends.
fn change_metrics(world: &World, change: u64) {
    let texts = format!("again_total {}\n", 1_000 - change);
    std::fs::write(world.folder().join("again.prom"), texts).unwrap();
    let sometimes = world.folder().join("sometimes.prom");
    match change % 2 {
        0 => std::fs::write(sometimes, "sometimes_total 5\n").unwrap(),
        _ => std::fs::remove_file(sometimes).unwrap(),
    }
}

/// Starts the receiver again, and leads to it.
fn start_again(world: &mut World, link: &Link) -> Running {
    let receiver = start_receiver(world);
    link.leads_to(world.port());
    world.set_port(link.port);
    receiver
}

/// Loses the answers to requests, until there was one: it was taken, and its sender does not know.
async fn take_unanswered(reader: &Holder, link: &Link) {
    // There is a connection.
    until("a request", async || {
        points(reader, link, "accepted").await > 0
    })
    .await;
    let before = link.losses();
    link.cut_answers();
    until("a lost answer", async || link.losses() > before).await;
}

/// How many points this receiver counts so, since its start.
async fn points(reader: &Holder, link: &Link, outcome: &str) -> u64 {
    let url = format!("https://localhost:{}/metrics", link.receiver());
    let shown = answer(reader.http.get(url)).await.text();
    let name = format!("lizmon_points_total{{protocol=\"remote_write\",outcome=\"{outcome}\"}} ");
    let line = shown.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Waits until each target was asked so often.
async fn scraped(prometheus: &Prometheus, scrapes: u64) {
    let asked = async || {
        let counts = prometheus.values("count_over_time(up[1h])").await;
        counts.into_iter().reduce(f64::min).unwrap_or(0.0)
    };
    let what = format!("{scrapes} scrapes");
    until(&what, async || asked().await >= scrapes as f64).await;
}

/// Prometheus goes on without targets. Nothing of them is stored from then on, not even that they are
/// no longer there.
fn end_scraping(prometheus: &mut Prometheus, config: &str) {
    let (before, rest) = config.split_once("scrape_configs:\n").unwrap();
    let (_, writing) = rest.split_once("remote_write:\n").unwrap();
    prometheus.reload(&format!("{before}remote_write:\n{writing}"));
}

const RETRIED: &str = "prometheus_remote_storage_samples_retried_total";

/// What came to be sent has been sent, and was taken.
async fn everything_sent(prometheus: &Prometheus) {
    let of = async |name: &str| {
        let name = format!("prometheus_remote_storage_samples_{name}");
        prometheus.metric(&name).await
    };
    until("everything is sent", async || {
        // Each attempt counts as sent.
        of("in_total").await == of("total").await - of("retried_total").await
            && of("pending").await == 0.0
    })
    .await;
    for name in ["failed_total", "dropped_total"] {
        assert_eq!(of(name).await, 0.0, "{name}");
    }
}

/// By host and label, for each minute.
type Totals = BTreeMap<(String, String), BTreeMap<u64, Total>>;

fn expected(dump: &str, hosts: &[&str]) -> Totals {
    let series = series_of(dump);
    let of_series = series.iter().filter_map(|(labels, points)| {
        let host = labels["instance"].strip_suffix(":9100").unwrap();
        assert!(hosts.contains(&host), "{labels:?}");
        let minutes = by_minute(&counted(&labels["__name__"], points));
        let key = (host.to_owned(), written(labels, "instance"));
        (!minutes.is_empty()).then_some((key, minutes))
    });
    of_series.collect()
}

/// What a remote read finds of sums and counts.
async fn found(world: &World, reader: &Holder) -> Totals {
    let now = world.clock.now();
    let stats = [(MatcherType::Matches, "stat", "sum|count")];
    let request = read_request(&stats, (now - HOUR, now)).encode_to_vec();
    let read = unpacked(&post_read(world, reader, pack(&request)).await);
    let mut totals = Totals::new();
    for series in read.results.into_iter().flat_map(|of| of.timeseries) {
        let pairs = series.labels.into_iter();
        let mut labels: BTreeMap<_, _> = pairs.map(|of| (of.name, of.value)).collect();
        let stat = labels.remove("stat").unwrap();
        let host = labels.remove("host").unwrap();
        // One that cannot be said in labels, for it has such labels itself, is there as a whole.
        let label = labels.remove("label");
        let label = label.unwrap_or_else(|| written(&labels, ""));
        let minutes = totals.entry((host, label)).or_default();
        for sample in series.samples {
            let end = sample.timestamp as u64 / 1_000;
            let total: &mut Total = minutes.entry(end).or_default();
            match &*stat {
                "count" => total.count = sample.value as u64,
                _ => total.sum = sample.value,
            }
        }
    }
    totals
}

/// Sums are compared to what their rounding can differ by.
fn assert_same(expected: &Totals, found: &Totals) {
    let is_same = |one: &Total, other: &Total| {
        one.count == other.count && (one.sum - other.sum).abs() <= one.magnitude * 1e-12
    };
    let mut wrong = Vec::new();
    for (key, minutes) in expected {
        let none = BTreeMap::new();
        let of_found = found.get(key).unwrap_or(&none);
        let ends: BTreeSet<_> = minutes.keys().chain(of_found.keys()).collect();
        for end in ends {
            let [one, other] = [minutes, of_found].map(|of| of.get(end).copied());
            let [one, other] = [one, other].map(Option::unwrap_or_default);
            if !is_same(&one, &other) {
                wrong.push(format!("{key:?} until {end}: {one:?}, found {other:?}"));
            }
        }
    }
    let others = found.keys().filter(|key| !expected.contains_key(key));
    wrong.extend(others.map(|key| format!("{key:?}: not in the dump")));
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same by `GET /api/perf`, which rounds averages.
async fn api_has_the_same(world: &World, reader: &Holder, host: &str, expected: &Totals) {
    let token = world.token(reader).await;
    let path = format!("/api/perf/{host}");
    let summaries = world.get(reader, &token, &path).await.json(host);
    for ((_, label), minutes) in expected.iter().filter(|((of, _), _)| of == host) {
        let hours = &summaries[format!("summary:by-hour:{label}")]["averages"];
        let mut total = Total::default();
        for hour in hours.as_array().unwrap_or(&Vec::new()) {
            let count = hour["num-samples"].as_u64().unwrap();
            total.count += count;
            total.sum += hour["avg"].as_f64().unwrap() * count as f64;
        }
        let count = minutes.values().map(|of| of.count).sum::<u64>();
        assert_eq!(total.count, count, "{host} {label}");
        let sum = minutes.values().map(|of| of.sum).sum::<f64>();
        let magnitude = minutes.values().map(|of| of.magnitude).sum::<f64>();
        let rounding = count as f64 * 0.005 + magnitude * 1e-12;
        let is_near = (total.sum - sum).abs() <= rounding;
        assert!(is_near, "{host} {label}: {} {sum}", total.sum);
    }
}
