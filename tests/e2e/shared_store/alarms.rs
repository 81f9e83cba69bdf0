//! Alarms where several summarizers own the shards: every receiver shows those of all.

use std::collections::BTreeMap;
use std::time::Duration;

use lizmon_engines::{EngineNode, EngineSettings};
use serde_json::Value;

use super::{GroupReceiver, summarizer_command};
use crate::harness::process::{PATIENCE, Running};
use crate::harness::world::wall_clock;
use crate::harness::{Holder, World};

const RULES: &str = "evaluation-interval = \"1s\"\n[rules.records-lost]\nfor = \"0s\"\n";
/// So many that each of two summarizers has some.
const HOSTS: usize = 24;

fn summarizer(world: &World, store: &EngineNode, name: &str) -> Running {
    let mut command = summarizer_command(world, store, name);
    command
        .arg("--rules")
        .arg(world.folder().join("rules.toml"));
    let mut running = Running::start(&mut command);
    running.wait_for("READY");
    running.wait_for("acquired shards");
    running
}

/// How many alarms of lost records there are in each state.
async fn states(receiver: &GroupReceiver, reader: &Holder) -> BTreeMap<String, usize> {
    let list = receiver.get(reader, "/api/alarms").await.json("alarms");
    let mut states = BTreeMap::new();
    let alarms = list["alarms"].as_array().expect("a list").iter();
    for alarm in alarms.filter(|alarm| alarm["rule"] == "records-lost") {
        let state = alarm["state"].as_str().map(str::to_owned);
        *states.entry(state.expect("a state")).or_default() += 1;
    }
    states
}

#[expect(
    clippy::disallowed_methods,
    reason = "what one process has done shows at another a moment later"
)]
async fn until_all_are(state: &str, receiver: &GroupReceiver, reader: &Holder) {
    let mut last = BTreeMap::new();
    let so = async {
        while last != BTreeMap::from([(state.to_owned(), HOSTS)]) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            last = states(receiver, reader).await;
        }
    };
    let in_time = tokio::time::timeout(2 * PATIENCE, so).await;
    assert!(in_time.is_ok(), "not all are {state}: {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_shows_the_alarms_of_all_owners() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let reader = world.reader();
    std::fs::write(world.folder().join("rules.toml"), RULES).unwrap();
    let receiver = GroupReceiver::start(&world, &store, "rx1");
    let first = summarizer(&world, &store, "sum1");
    // It has its share, so both have some.
    let _second = summarizer(&world, &store, "sum2");
    let hosts: Vec<Holder> = (0..HOSTS)
        .map(|at| world.node(&format!("web{at}")))
        .collect();
    let mut tokens = Vec::new();
    for host in &hosts {
        let token = receiver.token(host).await;
        // Those before it are missing.
        let got = receiver.post(host, &token, 3, wall_clock()).await;
        assert_eq!(got.status, 200, "{}", got.text());
        tokens.push(token);
    }
    until_all_are("firing", &receiver, &reader).await;
    // What the one that is gone had stored is shown as before, whoever owns it now.
    first.kill();
    let shown = states(&receiver, &reader).await;
    assert_eq!(shown, BTreeMap::from([("firing".to_owned(), HOSTS)]));
    for (host, token) in hosts.iter().zip(&tokens) {
        for seq in [1, 2] {
            let got = receiver.post(host, token, seq, wall_clock()).await;
            let got: Value = got.json("a batch");
            assert_eq!(got["accepted"], 1, "{got}");
        }
    }
    until_all_are("resolved", &receiver, &reader).await;
}
