//! What becomes of samples when receivers, summarizers and servers come and go.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lizmon_engines::{EngineNode, EngineSettings, MONITORED_NAME, SentinelGroup};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{GroupReceiver, receiver_at, summarizer, summarizer_command};
use crate::harness::process::{PATIENCE, Running};
use crate::harness::world::wall_clock;
use crate::harness::{Holder, World};
use crate::programs::monitor::monitor;

const PUBLISHED: &str = "Publish was successful to";

fn sentinels_url(servers: &SentinelGroup) -> String {
    let addresses = servers
        .sentinels()
        .iter()
        .map(|node| node.address().to_string());
    let addresses: Vec<_> = addresses.collect();
    format!("redis://{}/{MONITORED_NAME}", addresses.join(","))
}

fn start(world: &World, store: &str, name: &str, flags: &[&str]) -> GroupReceiver {
    GroupReceiver::of(Running::start(receiver_at(world, store, name).args(flags)))
}

/// How many samples of its newest label web1 has.
async fn samples(receiver: &GroupReceiver, reader: &Holder) -> u64 {
    let got = receiver.get(reader, "/api/perf/web1/by-minute:cpu").await;
    let got = got.json("summaries");
    let minutes = got["summary:by-minute:cpu"]["averages"].as_array().unwrap();
    let counts = minutes
        .iter()
        .map(|minute| minute["num-samples"].as_u64().unwrap());
    counts.sum()
}

/// Clients that post without numbers, as fast as they are answered, to the newest receiver that
/// they can connect to.
struct Posting {
    urls: Arc<Mutex<Vec<String>>>,
    posted: Arc<AtomicU64>,
    runs: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Posting {
    fn start(world: &World, node: &Holder, token: &str, receiver: &GroupReceiver) -> Self {
        let urls = Arc::new(Mutex::new(vec![receiver.url.clone()]));
        let (posted, runs) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let task = |alpn| {
            let client = world.client(Some(node.shown()), &[alpn]);
            let (urls, posted, runs) = (urls.clone(), Arc::clone(&posted), Arc::clone(&runs));
            tokio::spawn(post(client, token.to_owned(), urls, posted, runs))
        };
        let tasks = ["http/1.1", "http/1.1", "h2", "h2"].map(task).into();
        Self {
            urls,
            posted,
            runs,
            tasks,
        }
    }

    fn add(&self, receiver: &GroupReceiver) {
        self.urls.lock().unwrap().insert(0, receiver.url.clone());
    }

    /// Until more requests were answered.
    async fn go_on(&self) {
        let wanted = self.posted.load(Ordering::Relaxed) + 50;
        let more = async {
            while self.posted.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, more).await.unwrap();
    }

    async fn end(self) -> u64 {
        self.runs.store(false, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.posted.load(Ordering::Relaxed)
    }
}

/// Each request is sent once, unless there was no connection.
async fn post(
    client: reqwest::Client,
    token: String,
    urls: Arc<Mutex<Vec<String>>>,
    posted: Arc<AtomicU64>,
    runs: Arc<AtomicBool>,
) {
    let mut at = 0;
    while runs.load(Ordering::Relaxed) {
        let url = {
            let urls = urls.lock().unwrap();
            urls[at % urls.len()].clone()
        };
        let path = format!("{url}/api/perf/web1/{}", wall_clock());
        let request = client.post(path).bearer_auth(&token);
        match request.body(r#"{"cpu":1.5}"#).send().await {
            Ok(answer) => {
                assert_eq!(answer.status(), 204, "{:?}", answer.text().await);
                posted.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.is_connect() => at += 1,
            Err(error) => panic!("a request failed: {error:?}"),
        }
    }
}

/// One receiver after the other is replaced while clients post. A sample without a number must not
/// be sent again, so every request must be answered.
#[tokio::test(flavor = "multi_thread")]
async fn receivers_are_replaced_without_a_failed_request() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let flags = ["--summarize", "--connection-age", "200ms"];
    let start = |name| start(&world, &store.url(), name, &flags);
    let mut receivers = vec![start("rx1"), start("rx2")];
    let token = receivers[0].token(&node).await;
    let posting = Posting::start(&world, &node, &token, &receivers[0]);
    posting.add(&receivers[1]);
    for name in ["rx3", "rx4"] {
        posting.go_on().await;
        let new = start(name);
        posting.add(&new);
        let old = receivers.remove(0);
        old.running.signal(Signal::TERM);
        old.running.wait().success();
        receivers.push(new);
    }
    posting.go_on().await;
    let posted = posting.end().await;
    for receiver in &receivers {
        assert_eq!(samples(receiver, &reader).await, posted);
    }
}

/// A primary is lost three seconds ahead of its replica, and did not wait for it: what it had
/// acknowledged comes again from the monitor.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_primary_had_acknowledged_is_repaired() {
    let servers = SentinelGroup::start(&EngineSettings::redis(), 1);
    let mut world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let flags = ["--min-replicas", "0", "--summarize"];
    let receiver = start(&world, &sentinels_url(&servers), "rx1", &flags);
    let (_, port) = receiver.url.rsplit_once(':').unwrap();
    world.set_port(port.parse().unwrap());
    let mut running = Running::start(&mut monitor(&world, &node));
    running.wait_for(PUBLISHED);
    let [primary, replica] = servers.nodes() else {
        panic!("a primary and a replica");
    };
    primary.wait_until_replicated(1);
    replica.kill();
    let received = std::cell::Cell::new(0);
    let note = |one: &Value| {
        received.set(one["received"].as_u64().unwrap_or_default());
        received.get()
    };
    receiver
        .wait_for_delivery(&reader, |one| note(one) > 0)
        .await;
    let before = received.get();
    // One may have been on its way.
    let is_ahead = |one: &Value| note(one) >= before + 4;
    receiver.wait_for_delivery(&reader, is_ahead).await;
    primary.kill();
    replica.restart();
    running.wait_for("that it had acknowledged: sending them again");
    running.wait_for("records again that it had lost");
    running.signal(Signal::TERM);
    running.wait().success();
    let is_whole = |one: &Value| {
        note(one);
        one["missing"] == json!([]) && one["repaired"].as_u64() >= Some(3)
    };
    receiver.wait_for_delivery(&reader, is_whole).await;
    assert_eq!(samples(&receiver, &reader).await, received.get());
}

/// The replica hangs, then the primary is killed: what the new primary would not have was never
/// acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_replica_a_primary_acknowledges_nothing() {
    let servers = SentinelGroup::start(&EngineSettings::redis(), 1);
    let world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let flags = ["--min-replicas", "1", "--summarize"];
    let receiver = start(&world, &sentinels_url(&servers), "rx1", &flags);
    let token = receiver.token(&node).await;
    let epoch = wall_clock();
    let first = receiver.post(&node, &token, 1, epoch).await;
    assert_eq!(
        first.json("a batch"),
        json!({"accepted": 1, "duplicate": 0})
    );
    let [primary, replica] = servers.nodes() else {
        panic!("a primary and a replica");
    };
    replica.pause();
    for seq in 2..=4 {
        let said = receiver.post(&node, &token, seq, epoch).await;
        said.refused("store_unavailable", "no replica has it");
    }
    primary.kill();
    let said = receiver.post(&node, &token, 5, epoch).await;
    said.refused("store_unavailable", "there is no primary");
}

/// A summarizer stands still until another has its shards, and has committed them: what it still
/// has in memory it commits no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_summarizer_that_was_paused_commits_nothing() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let receiver = GroupReceiver::start(&world, &store, "rx1");
    let token = receiver.token(&node).await;
    let mut paused = summarizer(&world, &store, "sum1");
    paused.wait_for("acquired shards");
    let epoch = wall_clock();
    let post = async |seqs: std::ops::RangeInclusive<u64>| {
        for seq in seqs {
            let said = receiver.post(&node, &token, seq, epoch).await;
            assert_eq!(said.json("a batch"), json!({"accepted": 1, "duplicate": 0}));
        }
    };
    post(1..=10).await;
    paused.signal(Signal::STOP);
    let mut other = summarizer(&world, &store, "sum2");
    let mut acquired = 0;
    while acquired < 64 {
        let line = other.wait_for("acquired shards shards=");
        let (_, shards) = line.rsplit_once('=').unwrap();
        acquired += shards.parse::<u64>().unwrap();
    }
    post(11..=20).await;
    other.signal(Signal::TERM);
    other.wait().success();
    paused.signal(Signal::CONT);
    paused.wait_for("lost a shard");
    post(21..=30).await;
    paused.signal(Signal::TERM);
    paused.wait().success();
    let late = GroupReceiver::start(&world, &store, "rx2");
    let all = |one: &Value| one["received"] == 30 && one["duplicate"] == 0;
    late.wait_for_delivery(&reader, all).await;
    assert_eq!(samples(&late, &reader).await, 30);
}

/// A service manager that starts a program again and again gives up during a failover.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_start_while_the_servers_are_away_wait_for_them() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    store.kill();
    let [mut first, mut second] =
        ["rx1", "rx2"].map(|name| Running::start(&mut receiver_at(&world, &store.url(), name)));
    let mut third = Running::start(&mut summarizer_command(&world, &store, "sum1"));
    for member in [&mut first, &mut second, &mut third] {
        member.wait_for("cannot start yet, trying again");
    }
    second.signal(Signal::TERM);
    second.wait().success();
    store.restart();
    for mut member in [first, third] {
        member.wait_for("READY");
        member.signal(Signal::TERM);
        member.wait().success();
    }
}
