//! Expired data leaves every answer at the exact second of its window: docs/http-api.md.

use serde_json::{Value, json};

use crate::harness::{Holder, World};

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

async fn send(world: &World, node: &Holder, sample: &str) {
    let token = world.token(node).await;
    let path = format!("/api/perf/{}/{}", node.name, world.clock.now());
    let sent = world.post(node, &token, &path, sample.to_owned()).await;
    sent.no_content(&path);
}

/// Name, labels and silence of every listed host.
async fn listed(world: &World, reader: &Holder) -> Vec<(String, Value, bool)> {
    let token = world.token(reader).await;
    let list = world.get(reader, &token, "/api/perf").await.json("hosts");
    let hosts = list["hosts"].as_array().unwrap().iter();
    hosts
        .map(|host| {
            let name = host["name"].as_str().unwrap().to_owned();
            let silent = host["silent"].as_bool().unwrap();
            (name, host["labels"].clone(), silent)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_falls_silent_and_is_gone_after_a_day() {
    let world = World::start().await;
    let (here, gone, reader) = (world.node("here"), world.node("gone"), world.reader());
    let last = world.clock.now();
    send(&world, &gone, r#"{"cpu":1}"#).await;
    // The by-hour window begins at a whole hour.
    let end = last.div_ceil(HOUR) * HOUR + DAY;
    for (now, is_listed, silent) in [
        (last, true, false),
        (last + 120, true, false),
        (last + 121, true, true),
        (last + 2 * HOUR, true, true),
        (end - 1, true, true),
        (end, false, true),
        (end + 3 * DAY, false, true),
    ] {
        world.clock.set(now);
        send(&world, &here, r#"{"cpu":1}"#).await;
        let story = format!("{} s after its last sample", now - last);
        let mut expected = vec![("here".to_owned(), json!(["cpu"]), false)];
        if is_listed {
            expected.insert(0, ("gone".to_owned(), json!(["cpu"]), silent));
        }
        assert_eq!(listed(&world, &reader).await, expected, "{story}");
        let token = world.token(&reader).await;
        let answer = world.get(&reader, &token, "/api/perf/gone").await;
        match is_listed {
            true => assert_ne!(answer.json(&story), json!({}), "{story}"),
            false => drop(answer.refused("unknown_host", &story)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_is_gone_after_a_day_though_its_host_is_there() {
    let world = World::start().await;
    let (node, reader) = (world.node("a"), world.reader());
    let last = world.clock.now();
    send(&world, &node, r#"{"cpu":1,"disk:/old":1}"#).await;
    let end = last.div_ceil(HOUR) * HOUR + DAY;
    for (now, labels, by_minute) in [
        (last, json!(["cpu", "disk:/old"]), true),
        (last + 2 * HOUR, json!(["cpu", "disk:/old"]), false),
        (end - 1, json!(["cpu", "disk:/old"]), false),
        (end, json!(["cpu"]), false),
    ] {
        world.clock.set(now);
        send(&world, &node, r#"{"cpu":1}"#).await;
        let story = format!("{} s after its last value", now - last);
        let hosts = listed(&world, &reader).await;
        assert_eq!(hosts[0].1, labels, "{story}");
        let token = world.token(&reader).await;
        let path = "/api/perf/a/disk:/old";
        let found = world.get(&reader, &token, path).await.json(&story);
        let names: Vec<_> = found.as_object().unwrap().keys().cloned().collect();
        let expected: Vec<_> = [
            (labels != json!(["cpu"]), "summary:by-hour:disk:/old"),
            (by_minute, "summary:by-minute:disk:/old"),
        ]
        .into_iter()
        .filter_map(|(is_there, name)| is_there.then_some(name.to_owned()))
        .collect();
        assert_eq!(names, expected, "{story}");
    }
}
