//! Receivers and summarizers as processes, on a real Redis server that they share.

mod alarms;
mod faults;
mod full;
mod peers;
mod points;
mod prometheus;

use std::process::Command;
use std::time::Duration;

use lizmon_engines::{EngineNode, EngineSettings};
use lizmon_protocol::name::Role;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::receiver_command;
use crate::harness::process::{PATIENCE, Running, program};
use crate::harness::world::wall_clock;
use crate::harness::{Answer, Holder, World, answer};

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

/// A receiver of a group: its process, and where it listens.
struct GroupReceiver {
    running: Running,
    url: String,
}

/// The world's receiver, with a data folder of its own, on this store.
fn receiver_on(world: &World, store: &EngineNode, name: &str) -> Command {
    receiver_at(world, &store.url(), name)
}

fn receiver_at(world: &World, store: &str, name: &str) -> Command {
    let data = world.folder().join(name);
    let mut command = program("liz-receiver");
    let base = receiver_command(world);
    let args: Vec<_> = base.get_args().map(ToOwned::to_owned).collect();
    let at = args
        .iter()
        .position(|arg| arg == "--data")
        .expect("it has a folder");
    command.args(&args[..at]).arg("--data").arg(data);
    command.args(["--store", store]);
    command
}

impl GroupReceiver {
    fn start(world: &World, store: &EngineNode, name: &str) -> Self {
        Self::of(Running::start(&mut receiver_on(world, store, name)))
    }

    /// Waits until it is ready.
    fn of(mut running: Running) -> Self {
        let ready = running.wait_for("READY");
        let port = ready.split_once("127.0.0.1:").expect("the address").1;
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        let url = format!("https://localhost:{port}");
        Self { running, url }
    }

    async fn token(&self, holder: &Holder) -> String {
        let form = [("grant_type", "client_credentials")];
        let url = format!("{}/oauth2/token", self.url);
        let body = answer(holder.http.post(url).form(&form))
            .await
            .json("a token");
        body["access_token"].as_str().expect("a token").to_owned()
    }

    async fn post(&self, holder: &Holder, token: &str, seq: u64, epoch: u64) -> Answer {
        let record = json!({"seq": seq, "epoch": epoch, "values": {"cpu": 1.5}});
        let body = json!({"producer": PRODUCER, "records": [record]});
        let url = format!("{}/api/perf/{}", self.url, holder.name);
        let request = holder.http.post(url).bearer_auth(token);
        answer(request.body(body.to_string())).await
    }

    async fn get(&self, holder: &Holder, path: &str) -> Answer {
        let token = self.token(holder).await;
        let url = format!("{}{path}", self.url);
        answer(holder.http.get(url).bearer_auth(token)).await
    }

    /// What the delivery of web1 comes to here, once that is so.
    #[expect(
        clippy::disallowed_methods,
        reason = "what one process has done shows at another a moment later"
    )]
    async fn wait_for_delivery(&self, reader: &Holder, is_so: impl Fn(&Value) -> bool) {
        let mut delivery = Value::Null;
        let so = async {
            while !is_so(&delivery["producers"][0]) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let answer = self.get(reader, "/api/delivery/web1").await;
                delivery = serde_json::from_str(&answer.text()).unwrap_or_default();
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, so).await;
        assert!(in_time.is_ok(), "{}: {delivery}", self.url);
    }
}

fn summarizer(world: &World, store: &EngineNode, name: &str) -> Running {
    let mut running = Running::start(&mut summarizer_command(world, store, name));
    running.wait_for("READY");
    running
}

fn summarizer_command(world: &World, store: &EngineNode, name: &str) -> Command {
    let holder = world.holder(Role::Summarizer, name);
    let files = world.trust_files();
    let mut command = program("liz-summarizer");
    command.args(["--store", &store.url()]);
    command.arg("--cert").arg(&holder.cert);
    command.arg("--key").arg(&holder.key);
    command.arg("--ca").arg(files.ca);
    command.arg("--crl").arg(files.crl);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_and_summarizers_are_one() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let receivers = ["rx1", "rx2"].map(|name| GroupReceiver::start(&world, &store, name));
    let first = summarizer(&world, &store, "sum1");
    let second = summarizer(&world, &store, "sum2");
    let tokens = [
        receivers[0].token(&node).await,
        receivers[1].token(&node).await,
    ];
    let epoch = wall_clock();
    for seq in 1..=40 {
        let at = (seq % 2) as usize;
        let answered = receivers[at].post(&node, &tokens[at], seq, epoch).await;
        assert_eq!(
            answered.json("a batch"),
            json!({"accepted": 1, "duplicate": 0})
        );
    }
    let all = |one: &Value| one["received"] == 40 && one["missing"] == json!([]);
    for receiver in &receivers {
        receiver.wait_for_delivery(&reader, all).await;
    }
    let again = receivers[0].post(&node, &tokens[0], 7, epoch).await;
    assert_eq!(again.json("again"), json!({"accepted": 0, "duplicate": 1}));
    // What one of them owned is taken over; what was not committed is counted by the other.
    first.kill();
    for seq in 41..=60 {
        receivers[1]
            .post(&node, &tokens[1], seq, epoch)
            .await
            .json("a batch");
    }
    let more = |one: &Value| one["received"] == 60 && one["duplicate"] == 1;
    for receiver in &receivers {
        receiver.wait_for_delivery(&reader, more).await;
    }
    // A receiver that begins now has what was committed, and the journal after it.
    second.signal(Signal::TERM);
    second.wait().success();
    let late = GroupReceiver::start(&world, &store, "rx3");
    late.wait_for_delivery(&reader, more).await;
    let summaries = late
        .get(&reader, "/api/perf/web1/cpu")
        .await
        .json("summaries");
    let minute = &summaries["summary:by-minute:cpu"]["averages"][0];
    assert_eq!(
        (&minute["num-samples"], &minute["avg"]),
        (&json!(60), &json!(1.5))
    );
    for GroupReceiver { running, .. } in receivers {
        running.signal(Signal::TERM);
        running.wait().success();
    }
}

/// Whoever has the server's password can write to it, and can make no sample of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_receiver_signed_is_not_counted() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let mut receiver = GroupReceiver::start(&world, &store, "rx1");
    let token = receiver.token(&node).await;
    let epoch = wall_clock();
    receiver.post(&node, &token, 1, epoch).await.json("a batch");
    let one = |one: &Value| one["received"] == 1;
    receiver.wait_for_delivery(&reader, one).await;
    // Copied to the same shard under another number, and to another shard.
    let copy = "local e = redis.call('XRANGE', KEYS[1], '-', '+')[1][2] \
        for at = 1, #e, 2 do if e[at] == 'n' then e[at + 1] = ARGV[1] end end \
        return redis.call('XADD', KEYS[2], '0-*', unpack(e))";
    let journal = "lizmon:{0}:journal";
    store.cli(&["EVAL", copy, "2", journal, journal, "9"]);
    store.cli(&["EVAL", copy, "2", journal, "lizmon:{1}:journal", "1"]);
    store.cli(&["XADD", journal, "0-*", "g", "anything"]);
    receiver.post(&node, &token, 2, epoch).await.json("a batch");
    let two = |one: &Value| one["received"] == 2;
    receiver.wait_for_delivery(&reader, two).await;
    let summaries = receiver
        .get(&reader, "/api/perf/web1/cpu")
        .await
        .json("summaries");
    let minute = &summaries["summary:by-minute:cpu"]["averages"][0];
    assert_eq!(minute["num-samples"], 2);
    receiver.running.wait_for("journal groups are not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_lose_samples_is_refused_by_name() {
    let world = World::without_receiver(|_| ());
    let evicting = EngineSettings {
        maxmemory_policy: "allkeys-lru".to_owned(),
        ..EngineSettings::redis()
    };
    let store = EngineNode::start(&evicting);
    let refused = Running::start(&mut receiver_on(&world, &store, "rx1")).wait();
    assert!(
        refused.failure(1).contains("maxmemory-policy"),
        "{}",
        refused.failure(1)
    );
    let mut accepting = receiver_on(&world, &store, "rx1");
    accepting.arg("--accept-lossy-store");
    let mut running = Running::start(&mut accepting);
    running.wait_for("READY");
    running.signal(Signal::TERM);
    running.wait().success();
}
