//! What receivers say about a server that is nearly full.

use std::time::Duration;

use lizmon_engines::{EngineNode, EngineSettings};
use serde_json::{Value, json};

use super::{GroupReceiver, summarizer};
use crate::harness::process::PATIENCE;
use crate::harness::world::wall_clock;
use crate::harness::{Holder, World, answer};
use crate::metrics::read_by_prometheus;

impl GroupReceiver {
    /// Asks until the answer is so.
    #[expect(
        clippy::disallowed_methods,
        reason = "a receiver notices a moment later"
    )]
    async fn wait_for(&self, reader: &Holder, path: &str, is_so: impl Fn(&str) -> bool) -> String {
        let url = format!("{}{path}", self.url);
        let mut text = String::new();
        let so = async {
            loop {
                text = answer(reader.http.get(&url)).await.text();
                if is_so(&text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, so).await;
        assert!(in_time.is_ok(), "{text}");
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_refused_before_a_server_is_full() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let receiver = GroupReceiver::start(&world, &store, "rx1");
    let token = receiver.token(&node).await;
    let epoch = wall_clock();
    receiver.post(&node, &token, 1, epoch).await.json("a batch");
    let used: u64 = store.info_line("used_memory").parse().expect("a number");
    let limit = used / 92 * 100;
    store.cli(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    let is_full = |health: &str| health.contains("samples are answered 503 overloaded");
    receiver.wait_for(&reader, "/healthz", is_full).await;
    let refused = receiver.post(&node, &token, 2, epoch).await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.refused("overloaded", "a full server");
    // Readers are answered, so it is ready.
    let ready = answer(reader.http.get(format!("{}/readyz", receiver.url))).await;
    assert_eq!(ready.status, 200);
    assert!(is_full(&ready.text()));
    // The shards are asked for once a second.
    let waits = |shown: &str| shown.contains("lizmon_shard_waiting_groups{shard=\"0\"} 1\n");
    let shown = receiver.wait_for(&reader, "/metrics", waits).await;
    crate::monitoring::has_what_rules_name(&shown);
    let gauges = |name: &str| read_by_prometheus(&world, &shown, name);
    let server = json!({"server": store.address().to_string()});
    let full = [json!([server, 1])];
    assert_eq!(gauges("lizmon_store_full"), full);
    let limits = [json!([server, limit])];
    assert_eq!(gauges("lizmon_store_memory_limit_bytes"), limits);
    let waiting = gauges("lizmon_shard_waiting_groups");
    assert_eq!(waiting.len(), 64);
    for counter in [
        "lizmon_journal_groups_appended_total 1\n",
        "lizmon_journal_groups_refused_total{reason=\"malformed\"} 0\n",
        "lizmon_shard_lease_changes_total{change=\"acquired\"} 0\n",
    ] {
        assert_eq!(shown.matches(counter).count(), 1, "{counter}");
    }
    assert!(!store.info().contains("errorstat_OOM"));
    // And again, once there is room.
    store.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let has_room = |health: &str| !is_full(health);
    receiver.wait_for(&reader, "/healthz", has_room).await;
    receiver.post(&node, &token, 2, epoch).await.json("a batch");
    let _summarizer = summarizer(&world, &store, "sum1");
    let both = |one: &Value| one["received"] == 2 && one["missing"] == json!([]);
    receiver.wait_for_delivery(&reader, both).await;
}
