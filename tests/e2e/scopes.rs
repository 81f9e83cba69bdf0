//! Tags of nodes, and readers that are limited to some hosts.

use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::crash::start_receiver;
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
        let metrics = answer(reader.http.get(world.url("/metrics"))).await;
        assert_eq!(metrics.status, 403, "they are of all hosts");
    }
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
