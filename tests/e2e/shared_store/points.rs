//! Points by remote write at any receiver of a group, while summarizers are killed.

use lizmon_engines::{EngineNode, EngineSettings};
use prost::Message as _;

use super::{GroupReceiver, receiver_on};
use crate::harness::process::Running;
use crate::harness::world::wall_clock;
use crate::harness::{Answer, Holder, World, answer};
use crate::prometheus::requests::pack;
use crate::prometheus::writes::{HEADERS, request_at, sums};

async fn write(receiver: &GroupReceiver, node: &Holder, nth: u64, start: u64) -> Answer {
    let requests = [("__name__", "requests_total"), ("host", "web1")];
    let up = [("__name__", "up"), ("host", "web1")];
    // Every second of time one more request than in the second before.
    let total = [(0, (nth * (nth + 1) / 2) as f64)];
    let sent = request_at(start + nth, &[(&requests, &total), (&up, &[(0, 1.0)])]);
    let token = receiver.token(node).await;
    let post = node.http.post(format!("{}/api/v1/write", receiver.url));
    let post = HEADERS
        .iter()
        .fold(post, |post, (name, value)| post.header(*name, *value));
    answer(post.bearer_auth(token).body(pack(&sent.encode_to_vec()))).await
}

/// Each request comes at both receivers, and one of them, which summarizes, is killed now and then:
/// the last point is committed with the intervals that it counts in.
#[tokio::test(flavor = "multi_thread")]
async fn points_count_once_whoever_takes_them() {
    const REQUESTS: u64 = 24;
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, reader) = (world.node("web1"), world.reader());
    let summarizing = || {
        let mut command = receiver_on(&world, &store, "rx1");
        GroupReceiver::of(Running::start(command.arg("--summarize")))
    };
    let mut first = summarizing();
    let second = GroupReceiver::start(&world, &store, "rx2");
    let start = wall_clock() - 600;
    for nth in 1..=REQUESTS {
        for receiver in [&first, &second] {
            let got = write(receiver, &node, nth, start).await;
            got.no_content(&format!("request {nth}"));
        }
        // One that comes late, after all.
        let late = write(&second, &node, nth.div_ceil(2), start).await;
        late.no_content("late");
        if nth % 8 == 0 {
            first.running.kill();
            first = summarizing();
        }
    }
    // Each second's rise is a rate: 2 and 3 and so on.
    let rates = (REQUESTS * (REQUESTS + 1) / 2 - 1) as f64;
    for receiver in [&first, &second] {
        let found = sums(&receiver.get(&reader, "/api/perf/web1").await.json("web1"));
        let [(_, rates_count, rates_sum), (_, up_count, up_sum)] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(
            (*rates_count, *up_count),
            (REQUESTS - 1, REQUESTS),
            "{found:?}"
        );
        assert!(
            (rates_sum - rates).abs() <= 0.005 * REQUESTS as f64,
            "{found:?}"
        );
        assert!((up_sum - REQUESTS as f64).abs() < 1e-9, "{found:?}");
    }
}
