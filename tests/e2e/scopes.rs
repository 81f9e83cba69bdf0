//! Tags of nodes, and readers that are limited to some hosts.

use std::collections::BTreeSet;

use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::crash::start_receiver;
use crate::harness::process::{Finished, program, run};
use crate::harness::world::{Holder, wall_clock};
use crate::harness::{World, answer};

/// The hosts, with their tags.
const HOSTS: [(&str, &[&str]); 4] = [
    ("web1", &["env=prod", "team=a"]),
    ("web2", &["env=test"]),
    ("db1", &["env=prod"]),
    ("plain", &[]),
];

async fn report(world: &World, node: &Holder) {
    let token = world.token(node).await;
    let path = format!("/api/perf/{}/{}", node.name, wall_clock() - 1);
    let body = json!({"cpu": 1.5}).to_string();
    let got = world.post(node, &token, &path, body).await;
    assert_eq!(got.status, 204, "{}", got.text());
}

/// Each host that is listed, with its tags.
async fn listed(world: &World, reader: &Holder) -> Vec<(String, Value)> {
    let token = world.token(reader).await;
    let got = world.get(reader, &token, "/api/perf").await.json("hosts");
    let hosts = got["hosts"].as_array().unwrap().iter();
    let entry = |host: &Value| {
        (
            host["name"].as_str().unwrap().to_owned(),
            host["tags"].clone(),
        )
    };
    hosts.map(entry).collect()
}

fn names(listed: &[(String, Value)]) -> Vec<&str> {
    listed.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_reader_sees_its_hosts_and_no_others() {
    let mut world = World::without_receiver(|_| ());
    let nodes = HOSTS.map(|(name, tags)| world.holder_with(Role::Node, name, tags));
    let all = world.reader();
    let limits: [(&str, &[&str], &[&str]); 5] = [
        ("r1", &["web*"], &["web1", "web2"]),
        ("r2", &["env=prod"], &["db1", "web1"]),
        ("r3", &["web*", "env=prod"], &["web1"]),
        ("r4", &["env=prod", "env=test", "team=a"], &["web1"]),
        ("r5", &["nothing"], &[]),
    ];
    let readers =
        limits.map(|(name, limits, sees)| (world.holder_with(Role::Reader, name, limits), sees));
    let receiver = start_receiver(&mut world);
    for node in &nodes {
        report(&world, node).await;
    }
    let unlimited = listed(&world, &all).await;
    assert_eq!(names(&unlimited), ["db1", "plain", "web1", "web2"]);
    assert_eq!(unlimited[1].1, Value::Null, "no tags, no key");
    assert_eq!(unlimited[2].1, json!(["env=prod", "team=a"]));
    // Tags and limits hold from the first moment after a crash.
    receiver.kill();
    let _receiver = start_receiver(&mut world);
    for (reader, sees) in &readers {
        assert_eq!(
            names(&listed(&world, reader).await),
            *sees,
            "{}",
            reader.name
        );
        let token = world.token(reader).await;
        for host in ["web1", "web2", "db1", "plain", "unknown", "no%20host"] {
            for path in ["/api/perf/", "/api/delivery/"] {
                let got = world.get(reader, &token, &format!("{path}{host}")).await;
                let expected = if sees.contains(&host) { 200 } else { 403 };
                let story = format!("{} {path}{host}: {}", reader.name, got.text());
                assert_eq!(got.status, expected, "{story}");
                let is_told = got.text().contains("\"code\":\"insufficient_scope\"");
                assert_eq!(is_told, expected == 403, "{story}");
            }
        }
        if let Some(first) = sees.first() {
            let url = world.url("/api/live?events=1");
            let event = answer(reader.http.get(url).bearer_auth(&token))
                .await
                .text();
            assert!(event.contains(first), "{event}");
            for (host, _) in HOSTS.iter().filter(|(host, _)| !sees.contains(host)) {
                assert!(!event.contains(host), "{}: {event}", reader.name);
            }
        }
        let metrics = answer(reader.http.get(world.url("/metrics"))).await;
        assert_eq!(metrics.status, 200, "{}", metrics.text());
        assert_eq!(hosts_of_metrics(&metrics.text()), *sees, "{}", reader.name);
        for family in OF_ALL_CLIENTS {
            let family = format!("# TYPE {family}");
            assert!(!metrics.text().contains(&family), "{}", metrics.text());
        }
    }
    let metrics = answer(all.http.get(world.url("/metrics"))).await.text();
    assert_eq!(
        hosts_of_metrics(&metrics),
        ["db1", "plain", "web1", "web2"],
        "of everybody"
    );
    for family in OF_ALL_CLIENTS {
        assert!(metrics.contains(&format!("# TYPE {family}")), "{metrics}");
    }
    assert_eq!(metrics.matches("# EOF").count(), 1);
    a_filter_chooses_by_tags(&world, &all).await;
    the_reader_is_told_of_the_limits(&world, &readers[4].0, &readers[1].0).await;
}

/// Families that tell of all clients together, and so of other hosts.
const OF_ALL_CLIENTS: [&str; 5] = [
    "lizmon_tokens_minted",
    "lizmon_requests_refused",
    "lizmon_journal_syncs",
    "lizmon_connections_open",
    "lizmon_alarm_messages",
];

/// The hosts that have a series in them.
fn hosts_of_metrics(text: &str) -> Vec<&str> {
    let hosts = text
        .lines()
        .filter_map(|line| line.split_once("host=\"")?.1.split_once('"'));
    let hosts: BTreeSet<&str> = hosts.map(|(host, _)| host).collect();
    hosts.into_iter().collect()
}

/// The same filter everywhere: of several values of one key one is enough, every key is needed.
async fn a_filter_chooses_by_tags(world: &World, all: &Holder) {
    let token = world.token(all).await;
    for (query, expected) in [
        ("tag=env=prod", &["db1", "web1"][..]),
        ("tag=env=prod&tag=env=test", &["db1", "web1", "web2"]),
        ("tag=env=prod&tag=team=a", &["web1"]),
        ("tag=env%3Dprod", &["db1", "web1"]),
        ("tag=env=pro", &[]),
        ("", &["db1", "plain", "web1", "web2"]),
    ] {
        let path = format!("/api/perf?{query}");
        let got = world.get(all, &token, &path).await.json("hosts");
        let names: Vec<_> = got["hosts"].as_array().unwrap().iter().collect();
        let names: Vec<_> = names.iter().map(|host| host["name"].as_str()).collect();
        let expected: Vec<_> = expected.iter().copied().map(Some).collect();
        assert_eq!(names, expected, "{query}");
        let metrics = answer(all.http.get(world.url(&format!("/metrics?{query}")))).await;
        let names: Vec<_> = hosts_of_metrics(&metrics.text())
            .into_iter()
            .map(str::to_owned)
            .collect();
        let expected: Vec<_> = expected.into_iter().flatten().collect();
        assert_eq!(names, expected, "the metrics, {query}");
        let alarms = world
            .get(all, &token, &format!("/api/alarms?{query}"))
            .await;
        assert_eq!(alarms.status, 200, "{}", alarms.text());
    }
    for path in ["/api/perf", "/api/alarms", "/api/live"] {
        for query in ["tag=env", "tags=env=prod", "tag="] {
            let got = world.get(all, &token, &format!("{path}?{query}")).await;
            assert_eq!(got.status, 400, "{path}?{query}: {}", got.text());
            assert!(got.text().contains("malformed_query"), "{}", got.text());
        }
    }
    for events in ["", "-1", "one", "1.5", "9007199254740992"] {
        let path = format!("/api/live?events={events}");
        let got = world.get(all, &token, &path).await;
        got.refused("malformed_query", &path);
    }
    let url = world.url("/api/live?events=1&tag=env=test");
    let event = answer(all.http.get(url).bearer_auth(&token)).await.text();
    assert!(event.contains("web2") && !event.contains("web1"), "{event}");
    let shown = lizctl(world, all, &["hosts", "--tag", "env=prod"]).success();
    assert!(shown.contains("env=prod team=a"), "{shown}");
    assert!(!shown.contains("web2") && shown.contains("db1"), "{shown}");
    let none = lizctl(world, all, &["hosts", "--tag", "env=none"]);
    assert!(
        none.stderr.contains("no host with these tags"),
        "{}",
        none.stderr
    );
    let alarms = lizctl(world, all, &["alarms", "--tag", "env=prod"]);
    alarms.success();
}

/// A list without hosts looks like a receiver without hosts.
async fn the_reader_is_told_of_the_limits(world: &World, none: &Holder, some: &Holder) {
    let token = world.token(none).await;
    let got = world.get(none, &token, "/api/perf").await.json("limits");
    assert_eq!(got["limits"], json!(["nothing"]));
    let token = world.token(some).await;
    let got = world.get(some, &token, "/api/perf").await.json("limits");
    assert_eq!(got["limits"], json!(["env=prod"]));
    let told = lizctl(world, none, &["hosts"]);
    assert!(
        told.stderr
            .contains("your certificate is limited to nothing"),
        "{}",
        told.stderr
    );
    let page = answer(none.http.get(world.url("/"))).await.text();
    assert!(page.contains("Your certificate is limited to"), "{page}");
    let page = answer(some.http.get(world.url("/"))).await.text();
    assert!(!page.contains("Your certificate is limited to"), "{page}");
}

fn lizctl(world: &World, reader: &Holder, arguments: &[&str]) -> Finished {
    let mut command = program("lizctl");
    command
        .args(arguments)
        .arg("--receiver")
        .arg(world.issuer());
    command.arg("--cert").arg(&reader.cert);
    command.arg("--key").arg(&reader.key);
    command.arg("--ca").arg(world.root());
    run(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_certificate_of_a_node_has_its_tags() {
    let mut world = World::without_receiver(|_| ());
    let all = world.reader();
    let prod = world.holder_with(Role::Reader, "prod", &["env=prod"]);
    let before = world.holder_with(Role::Node, "web1", &["env=test"]);
    let _receiver = start_receiver(&mut world);
    report(&world, &before).await;
    assert!(listed(&world, &prod).await.is_empty());
    let moved = world.holder_with(Role::Node, "web1", &["env=prod"]);
    report(&world, &moved).await;
    assert_eq!(names(&listed(&world, &prod).await), ["web1"]);
    let untagged = world.holder_with(Role::Node, "web1", &[]);
    report(&world, &untagged).await;
    assert!(listed(&world, &prod).await.is_empty());
    assert_eq!(listed(&world, &all).await[0].1, Value::Null);
}
