//! From a POST to a summary: the vectors of the first lizmon, duplicates, restarts.

use serde_json::{Value, json};

use crate::harness::{Holder, World};

const VECTORS: &str = include_str!("../vectors/summaries.json");
const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
const HOUR: u64 = 3_600;

/// A vector shifted by whole hours into the present, and its host.
struct Case {
    name: String,
    now: u64,
    samples: Vec<(u64, Value)>,
    too_old: Vec<u64>,
    expected: Value,
    node: Holder,
}

impl Case {
    fn new(vector: &Value, at: usize, world: &World) -> Self {
        let then = vector["now"].as_u64().unwrap();
        let shift = world.clock.now() / HOUR * HOUR - then / HOUR * HOUR;
        let now = then + shift;
        let oldest = now / HOUR * HOUR - 24 * HOUR;
        let samples: Vec<_> = vector["samples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|sample| {
                let label = sample["label"].as_str().unwrap();
                (
                    sample["epoch"].as_u64().unwrap() + shift,
                    json!({label: sample["value"]}),
                )
            })
            .collect();
        let (samples, too_old): (Vec<_>, Vec<_>) =
            samples.into_iter().partition(|(epoch, _)| *epoch > oldest);
        let mut expected = vector["expect"].clone();
        for summary in expected.as_object_mut().unwrap().values_mut() {
            shift_times(summary, &["start", "end"], shift);
            for average in summary["averages"].as_array_mut().unwrap() {
                shift_times(average, &["start-sec", "end-sec"], shift);
            }
        }
        Self {
            name: vector["name"].as_str().unwrap().to_owned(),
            now,
            samples,
            too_old: too_old.into_iter().map(|(epoch, _)| epoch).collect(),
            expected,
            node: world.node(&format!("v{at}")),
        }
    }
}

fn shift_times(value: &mut Value, keys: &[&str], shift: u64) {
    for key in keys {
        value[key] = json!(value[key].as_u64().unwrap() + shift);
    }
}

/// What the first lizmon did not report.
fn without_least_and_greatest(mut summaries: Value) -> Value {
    for summary in summaries.as_object_mut().unwrap().values_mut() {
        for average in summary["averages"].as_array_mut().unwrap() {
            let average = average.as_object_mut().unwrap();
            let (min, max) = (
                average.remove("min").unwrap(),
                average.remove("max").unwrap(),
            );
            assert!(min.as_f64() <= max.as_f64());
        }
    }
    summaries
}

async fn check(world: &World, case: &Case, story: &str) {
    world.clock.set(case.now);
    let token = world.token(&case.node).await;
    let got = world
        .get(&case.node, &token, &format!("/api/perf/{}", case.node.name))
        .await;
    let got = without_least_and_greatest(got.json(&case.name));
    // Compared as text, because -0.0 == 0.0.
    assert_eq!(
        got.to_string(),
        case.expected.to_string(),
        "{}, {story}",
        case.name
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_vector_through_the_receiver_and_its_restarts() {
    let mut world = World::start().await;
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let mut cases: Vec<_> = vectors
        .iter()
        .enumerate()
        .map(|(at, vector)| Case::new(vector, at, &world))
        .collect();
    // Time moves forward from one vector to the next.
    cases.sort_by_key(|case| case.now);
    let mut refused = 0;
    for (at, case) in cases.iter().enumerate() {
        world.clock.set(case.now);
        let (node, token) = (&case.node, world.token(&case.node).await);
        for epoch in &case.too_old {
            let path = format!("/api/perf/{}/{epoch}", node.name);
            let got = world.post(node, &token, &path, r#"{"cpu":1}"#).await;
            got.refused("epoch_too_old", &case.name);
            refused += 1;
        }
        // Every second vector is sent sample by sample, the others in batches.
        if at % 2 == 0 && case.samples.len() < 200 {
            for (epoch, values) in &case.samples {
                let path = format!("/api/perf/{}/{epoch}", node.name);
                let got = world.post(node, &token, &path, values.to_string()).await;
                got.no_content(&case.name);
            }
        } else {
            let records: Vec<_> = (1..)
                .zip(&case.samples)
                .map(|(seq, (epoch, values))| json!({"seq": seq, "epoch": epoch, "values": values}))
                .collect();
            for records in records.chunks(997) {
                let batch = json!({"producer": PRODUCER, "records": records});
                let got = world
                    .post(
                        node,
                        &token,
                        &format!("/api/perf/{}", node.name),
                        batch.to_string(),
                    )
                    .await;
                let expected = json!({"accepted": records.len(), "duplicate": 0});
                assert_eq!(got.json(&case.name), expected, "{}", case.name);
            }
        }
        check(&world, case, "at once").await;
    }
    assert!(
        refused > 0,
        "some samples are at or before the start of the by-hour window"
    );
    for story in ["after a restart", "after another"] {
        world.restart().await;
        for case in &cases {
            check(&world, case, story).await;
        }
    }
}

async fn samples(world: &World, node: &Holder, label: &str) -> u64 {
    let token = world.token(node).await;
    let path = format!("/api/perf/{}/summary:by-hour:{label}", node.name);
    let got = world.get(node, &token, &path).await.json(label);
    let averages = got[&format!("summary:by-hour:{label}")]["averages"].clone();
    averages.as_array().map_or(0, |averages| {
        averages
            .iter()
            .map(|a| a["num-samples"].as_u64().unwrap())
            .sum()
    })
}

async fn delivery(world: &World, node: &Holder) -> Value {
    let token = world.token(node).await;
    let path = format!("/api/delivery/{}", node.name);
    world.get(node, &token, &path).await.json("delivery")["producers"][0].clone()
}

/// However often and in whatever batches records arrive, each counts once, also across restarts.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_come_again_change_nothing() {
    let mut world = World::start().await;
    let node = world.node("a");
    let epoch = world.clock.now();
    let mut duplicates = 0;
    for (sent, accepted, missing) in [
        (vec![1, 2, 3], 3, json!([])),
        (vec![1, 2, 3], 0, json!([])),
        (vec![3, 4], 1, json!([])),
        (vec![7], 1, json!([[5, 6]])),
        // Twice in one batch.
        (vec![9, 9, 9], 1, json!([[5, 6], [8, 8]])),
        (vec![6, 5, 8], 3, json!([])),
        (vec![1, 20, 2], 1, json!([[10, 19]])),
        (
            vec![9_007_199_254_740_991],
            1,
            json!([[10, 19], [21, 9_007_199_254_740_990_u64]]),
        ),
    ] {
        let records: Vec<_> = sent
            .iter()
            .map(|seq: &u64| json!({"seq": seq, "epoch": epoch, "values": {"cpu": 1}}))
            .collect();
        let batch = json!({"producer": PRODUCER, "records": records}).to_string();
        let token = world.token(&node).await;
        let got = world
            .post(&node, &token, "/api/perf/a", batch)
            .await
            .json("a batch");
        let duplicate = sent.len() - accepted;
        assert_eq!(
            got,
            json!({"accepted": accepted, "duplicate": duplicate}),
            "{sent:?}"
        );
        duplicates += duplicate;
        let told = delivery(&world, &node).await;
        assert_eq!(
            (&told["missing"], &told["duplicate"]),
            (&missing, &json!(duplicates)),
            "{sent:?}"
        );
        let received = told["received"].as_u64().unwrap();
        assert_eq!(samples(&world, &node, "cpu").await, received, "{sent:?}");
        world.restart().await;
        assert_eq!(
            samples(&world, &node, "cpu").await,
            received,
            "{sent:?} after a restart"
        );
        let again = delivery(&world, &node).await;
        assert_eq!(
            (&again["missing"], &again["received"]),
            (&missing, &json!(received)),
            "{sent:?}"
        );
    }
}

/// Two clients of one node that send the same numbers at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_records_at_the_same_time() {
    let world = World::start().await;
    let node = world.node("a");
    let token = world.token(&node).await;
    let epoch = world.clock.now();
    for round in 0..20_u64 {
        let posts = (0..8).map(|_| {
            let key = format!("\"{PRODUCER}/{}\"", round + 1);
            let path = format!("/api/perf/a/{epoch}");
            let request = node.http.post(world.url(&path)).bearer_auth(&token);
            crate::harness::answer(request.header("idempotency-key", key).body(r#"{"cpu":1}"#))
        });
        for got in futures_util::future::join_all(posts).await {
            got.no_content("the same record");
        }
    }
    assert_eq!(samples(&world, &node, "cpu").await, 20);
    let told = delivery(&world, &node).await;
    assert_eq!(
        (&told["received"], &told["duplicate"]),
        (&json!(20), &json!(140))
    );
}

/// Without a key every POST counts, as in the first lizmon.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_every_post_counts() {
    let world = World::start().await;
    let node = world.node("a");
    let token = world.token(&node).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let posts = (0..50).map(|_| world.post(&node, &token, &path, r#"{"cpu":1}"#));
    for got in futures_util::future::join_all(posts).await {
        got.no_content("the same body");
    }
    assert_eq!(samples(&world, &node, "cpu").await, 50);
}

/// Samples that have left every window are gone, when queried and after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn old_numbers_leave() {
    let mut world = World::start().await;
    let (node, reader) = (world.node("a"), world.reader());
    let epoch = world.clock.now();
    let token = world.token(&node).await;
    world
        .post(
            &node,
            &token,
            &format!("/api/perf/a/{epoch}"),
            r#"{"cpu":1}"#,
        )
        .await
        .no_content("a sample");
    for (later, names) in [
        (0, vec!["summary:by-hour:cpu", "summary:by-minute:cpu"]),
        (2 * HOUR, vec!["summary:by-hour:cpu"]),
        (20 * HOUR, vec!["summary:by-hour:cpu"]),
    ] {
        world.clock.advance(later);
        let token = world.token(&reader).await;
        let got = world.get(&reader, &token, "/api/perf/a").await.json("a");
        let found: Vec<_> = got.as_object().unwrap().keys().cloned().collect();
        assert_eq!(found, names, "{later} s later");
    }
    world.clock.advance(4 * HOUR);
    for story in ["by time", "after a restart"] {
        let token = world.token(&reader).await;
        world
            .get(&reader, &token, "/api/perf/a")
            .await
            .refused("unknown_host", story);
        let hosts = world.get(&reader, &token, "/api/perf").await.json(story);
        assert_eq!(hosts, json!({"hosts": []}), "{story}");
        world.restart().await;
    }
}

/// Labels and newest epoch of a host, whatever arrived last.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_listed_by_name() {
    let mut world = World::start().await;
    let reader = world.reader();
    let now = world.clock.now();
    for (name, epoch, label) in [
        ("b", now, "cpu"),
        ("a", now - 5, "mem"),
        ("b", now - 60, "mem"),
        ("a", now - 4, "cpu"),
    ] {
        let node = world.node(name);
        let token = world.token(&node).await;
        let path = format!("/api/perf/{name}/{epoch}");
        world
            .post(&node, &token, &path, format!(r#"{{"{label}":1}}"#))
            .await
            .no_content(name);
    }
    for story in ["at once", "after a restart"] {
        let token = world.token(&reader).await;
        let got = world.get(&reader, &token, "/api/perf").await.json(story);
        let told: Vec<_> = got["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|h| {
                (
                    h["name"].clone(),
                    h["last-epoch"].clone(),
                    h["labels"].clone(),
                )
            })
            .collect();
        let labels = json!(["cpu", "mem"]);
        assert_eq!(
            told,
            [
                (json!("a"), json!(now - 4), labels.clone()),
                (json!("b"), json!(now), labels)
            ],
            "{story}"
        );
        world.restart().await;
    }
}

/// Over HTTP/2, many requests at once on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn http2_does_the_same() {
    let world = World::start().await;
    let mut node = world.node("a");
    node.http = world.client(Some(node.shown()), &["h2"]);
    let token = world.token(&node).await;
    let path = format!("/api/perf/a/{}", world.clock.now());
    let posts = (0..200).map(|_| world.post(&node, &token, &path, r#"{"cpu":1}"#));
    for got in futures_util::future::join_all(posts).await {
        got.no_content("over HTTP/2");
    }
    assert_eq!(samples(&world, &node, "cpu").await, 200);
}
