//! Prometheus reads from any receiver of a group.

use std::time::Duration;

use lizmon_engines::{EngineNode, EngineSettings};
use lizmon_receiver::prometheus::message::MatcherType;
use prost::Message as _;
use serde_json::json;

use super::{GroupReceiver, receiver_on};
use crate::harness::process::{PATIENCE, Running};
use crate::harness::world::wall_clock;
use crate::harness::{Answer, Holder, World, answer};
use crate::prometheus::requests::{pack, read_request, series};

async fn read(receiver: &GroupReceiver, reader: &Holder, now: u64) -> Answer {
    let of_host = [(MatcherType::Equal, "host", "web1")];
    let body = pack(&read_request(&of_host, (now - 3_600, now)).encode_to_vec());
    let url = format!("{}/api/v1/read", receiver.url);
    let request = reader.http.post(url).body(body);
    let request = request.header("content-type", "application/x-protobuf");
    let request = request.header("content-encoding", "snappy");
    let token = receiver.token(reader).await;
    answer(request.bearer_auth(token)).await
}

/// What another receiver has acknowledged is there at once; while the servers are away, what was read
/// last, with the time until when.
#[expect(
    clippy::disallowed_methods,
    reason = "that the servers are away shows a moment later"
)]
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_from_any_receiver() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let mut first = receiver_on(&world, &store, "rx1");
    let first = GroupReceiver::of(Running::start(first.arg("--summarize")));
    let second = GroupReceiver::start(&world, &store, "rx2");
    let token = first.token(&node).await;
    // Minutes that have ended.
    let epoch = wall_clock() - 600;
    for seq in 1..=5 {
        first
            .post(&node, &token, seq, epoch + seq * 60)
            .await
            .json("a sample");
        let found = read(&second, &reader, wall_clock()).await;
        let expected = ("__name__=cpu,host=web1".to_owned(), seq as usize);
        assert_eq!(series(&found), [expected]);
        assert_eq!(found.header("lizmon-as-of"), "");
    }
    let names = async || {
        second
            .get(&reader, "/api/v1/label/host/values")
            .await
            .json("names")
    };
    assert_eq!(
        names().await,
        json!({"status": "success", "data": ["web1"]})
    );
    store.kill();
    let lags = async {
        loop {
            let found = read(&second, &reader, wall_clock()).await;
            assert_eq!(series(&found).len(), 1);
            if let Ok(as_of) = found.header("lizmon-as-of").parse::<u64>() {
                return as_of;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let as_of = tokio::time::timeout(PATIENCE, lags).await.unwrap();
    assert!(as_of >= epoch && as_of <= wall_clock(), "{as_of}");
    let warned = names().await;
    assert_eq!(warned["data"], json!(["web1"]));
    assert!(
        warned["warnings"][0]
            .as_str()
            .is_some_and(|said| said.contains("may be missing"))
    );
}
