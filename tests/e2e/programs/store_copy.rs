//! A site moves from SQLite to a server that its receivers share, and back.

use lizmon_engines::{EngineNode, EngineSettings};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::receiver::replaced;
use crate::crash::{receiver_command, start_receiver, started};
use crate::harness::process::{Finished, Running, program, run};
use crate::harness::world::wall_clock;
use crate::harness::{Answer, Holder, World};

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

fn copy(from: &str, to: &str) -> Finished {
    run(program("lizctl").args(["store", "copy", from, to]))
}

async fn post(world: &World, node: &Holder, seq: u64, epoch: u64) -> Answer {
    let record = json!({"seq": seq, "epoch": epoch + seq, "values": {"cpu": 0.1 + seq as f64}});
    let body =
        json!({"producer": PRODUCER, "records": [record], "dropped": [[100, 110, "too old"]]});
    let token = world.token(node).await;
    let path = format!("/api/perf/{}", node.name);
    world.post(node, &token, &path, body.to_string()).await
}

/// What a reader is told, as it is told: of the summaries all but the moment of asking.
async fn told(world: &World, reader: &Holder) -> [String; 2] {
    let token = world.token(reader).await;
    let summaries = world.get(reader, &token, "/api/perf/web1").await.text();
    let mut without = String::new();
    for part in summaries.split_inclusive(['{', ',']) {
        if !part.contains("\"start\":") && !part.contains("\"end\":") {
            without.push_str(part);
        }
    }
    let delivery = world.get(reader, &token, "/api/delivery/web1").await.text();
    [without, delivery]
}

fn receiver_on(world: &mut World, store: &str) -> Running {
    let mut command = receiver_command(world);
    command.args(["--store", store, "--summarize"]);
    started(world, &mut command)
}

/// Whether somebody owns all shards.
fn is_owned(store: &str) -> bool {
    let status = run(program("lizctl").args(["store", "status", store, "--json"])).success();
    let status: Value = serde_json::from_str(&status).unwrap();
    let mut shards = status["shards"].as_array().unwrap().iter();
    shards.all(|shard| shard["owner"].is_string())
}

/// What was acknowledged before the move is there after it, to the byte, and is known: also what
/// the last receiver had no time to commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_moves_and_each_number_still_counts_once() {
    let mut world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let server = EngineNode::start(&EngineSettings::redis());
    let (folder, url) = (world.data().display().to_string(), server.url());
    let receiver = start_receiver(&mut world);
    let epoch = wall_clock() - 60;
    for seq in 1..=20 {
        let answered = post(&world, &node, seq, epoch).await;
        assert_eq!(answered.json("new"), json!({"accepted": 1, "duplicate": 0}));
    }
    let before = told(&world, &reader).await;
    let busy = copy(&folder, &url);
    assert!(busy.failure(1).contains("using this folder"), "{busy:?}");
    // Killed: much of it is in the journal alone.
    receiver.kill();
    let copied = copy(&folder, &url);
    assert!(
        copied.stderr.contains("verified: shards 64/64"),
        "{copied:?}"
    );
    assert!(
        copied.stderr.contains("next: liz-receiver --store"),
        "{copied:?}"
    );
    let totals = copied.success();
    assert!(
        totals.contains("copied and verified: hosts 1, series 1,"),
        "{totals}"
    );

    let receiver = receiver_on(&mut world, &url);
    assert_eq!(told(&world, &reader).await, before);
    assert!((0..1_000).any(|_| is_owned(&url)), "it takes its share");
    let in_use = copy(&url, &format!("{folder}-back"));
    assert!(in_use.failure(1).contains("is in use by"), "{in_use:?}");
    for seq in 1..=20 {
        let again = post(&world, &node, seq, epoch).await;
        assert_eq!(
            again.json("again"),
            json!({"accepted": 0, "duplicate": 1}),
            "{seq}"
        );
    }
    post(&world, &node, 21, epoch).await.json("a new one");
    receiver.signal(Signal::TERM);
    receiver.wait().success();

    // Back to a folder of its own: what was counted since is there.
    let back = format!("{folder}-back");
    copy(&url, &back).success();
    let arguments = replaced(&mut receiver_command(&world), "--data", &back);
    let receiver = started(&mut world, program("liz-receiver").args(arguments));
    let [summaries, delivery] = told(&world, &reader).await;
    let delivery: Value = serde_json::from_str(&delivery).unwrap();
    let web1 = &delivery["producers"][0];
    assert_eq!(
        (&web1["received"], &web1["missing"]),
        (&json!(21), &json!([])),
        "{delivery}"
    );
    assert_ne!(summaries, before[0]);
    drop(receiver);
}

#[test]
fn receivers_refuse_a_copy_that_is_incomplete() {
    let world = World::without_receiver(|_| ());
    let server = EngineNode::start(&EngineSettings::redis());
    let url = server.url();
    let store = ["format", "1", "shards", "64", "id", "x", "copying", "y"];
    server.cli(&[&["HSET", "lizmon:{store}"][..], &store].concat());
    let mut command = receiver_command(&world);
    command.args(["--store", &url, "--accept-lossy-store"]);
    let refused = run(&mut command);
    assert!(
        refused.failure(1).contains("lizctl store copy"),
        "{refused:?}"
    );
    let judged = run(program("lizctl").args(["store", "check", &url]));
    assert!(judged.failure(1).contains("was interrupted"), "{judged:?}");
}
