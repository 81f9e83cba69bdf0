//! kill -9 at any moment: what was acknowledged is there, once.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::process::{Running, program};
use crate::harness::world::wall_clock;
use crate::harness::{Holder, World, answer};

/// Receivers that are killed at the same time, each with its own data.
const RECEIVERS: u64 = 4;
/// How often each is killed: 200 times in all.
const KILLS: u64 = 50;
const CLIENTS: u64 = 4;
const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
const URL: &str = "https://metrics.example";

/// The shipped receiver on the world's files, on any port.
pub(crate) fn receiver_command(world: &World) -> Command {
    let files = world.trust_files();
    let mut command = program("liz-receiver");
    command.args(["--listen", "127.0.0.1:0"]);
    command.args(["--issuer", URL, "--audience", URL]);
    command
        .arg("--cert")
        .arg(files.cert)
        .arg("--key")
        .arg(files.key);
    command
        .arg("--ca")
        .arg(files.ca)
        .arg("--crl")
        .arg(files.crl);
    command.arg("--data").arg(world.data());
    command
}

/// Starts it, and sets the world's port once it is ready.
pub(crate) fn started(world: &mut World, command: &mut Command) -> Running {
    let mut running = Running::start(command);
    let ready = running.wait_for("READY");
    let port = ready.split_once("127.0.0.1:").expect("the address").1;
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    world.set_port(port.parse().expect("a port"));
    running
}

pub(crate) fn start_receiver(world: &mut World) -> Running {
    let mut command = receiver_command(world);
    started(world, &mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills() {
    let receivers = (0..RECEIVERS).map(|seed| {
        tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(one_receiver(seed));
        })
    });
    for done in futures_util::future::join_all(receivers).await {
        done.expect("every receiver kept its promise");
    }
}

/// xorshift64*: moments that differ from round to round, the same in every run except for
/// scheduling.
struct Moments(u64);

impl Moments {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

/// What the clients of one receiver have recorded.
#[derive(Default)]
struct Known {
    /// Numbers given to records so far.
    numbered: AtomicU64,
    acknowledged: AtomicU64,
    /// POSTs without a key: started, and answered with 204.
    plain_begun: AtomicU64,
    plain_acknowledged: AtomicU64,
}

async fn one_receiver(seed: u64) {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("a");
    let mut moments = Moments(seed + 1);
    let known = Arc::new(Known::default());
    let mut unsure: Vec<u64> = Vec::new();
    for round in 0..KILLS {
        let story = format!("receiver {seed}, round {round}");
        let receiver = start_receiver(&mut world);
        let token = world.token(&node).await;
        // Everything acknowledged before the kill is there before anything is sent again.
        let before = numbers(&world, &node, &token).await;
        let sure = known.acknowledged.load(Ordering::SeqCst);
        let most = sure + unsure.len() as u64;
        assert!(
            (sure..=most).contains(&before.numbered),
            "{story}: {} of {sure} to {most}",
            before.numbered
        );
        assert_eq!(
            before.received, before.numbered,
            "{story}: numbers and delivery go together"
        );
        let sure = known.plain_acknowledged.load(Ordering::SeqCst);
        let most = known.plain_begun.load(Ordering::SeqCst);
        assert!(
            (sure..=most).contains(&before.plain),
            "{story}: {} of {sure} to {most}",
            before.plain
        );
        // Requests without a response are sent again, and count once.
        for seq in unsure.drain(..) {
            assert!(post_numbered(&world, &node, &token, seq).await, "{story}");
            known.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        let settled = numbers(&world, &node, &token).await;
        assert_eq!(
            settled.numbered,
            known.numbered.load(Ordering::SeqCst),
            "{story}: each once"
        );
        assert_eq!(settled.missing, 0, "{story}");
        // Several clients post, until the receiver is killed under them.
        let until = known.acknowledged.load(Ordering::SeqCst) + moments.below(25);
        let (kill_at, receiver) = (Arc::new(tokio::sync::Notify::new()), receiver);
        let clients = (0..CLIENTS).map(|at| {
            let (known, kill_at, world, node, token) = (&known, &kill_at, &world, &node, &token);
            async move {
                let mut failed = Vec::new();
                loop {
                    if at == 0 {
                        known.plain_begun.fetch_add(1, Ordering::SeqCst);
                        if !post_plain(world, node, token).await {
                            break;
                        }
                        known.plain_acknowledged.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                    let seq = known.numbered.fetch_add(1, Ordering::SeqCst) + 1;
                    if !post_numbered(world, node, token, seq).await {
                        failed.push(seq);
                        break;
                    }
                    if known.acknowledged.fetch_add(1, Ordering::SeqCst) >= until {
                        kill_at.notify_one();
                    }
                }
                // Do not wait for a receiver that failed by itself.
                kill_at.notify_one();
                failed
            }
        });
        // Kill it either while it works, or while it commits after SIGTERM.
        let (stop_first, linger) = (round % 4 == 3, moments.below(20_000));
        let kill = async {
            kill_at.notified().await;
            if stop_first {
                receiver.signal(Signal::TERM);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the kill comes at a random moment"
                )]
                tokio::time::sleep(Duration::from_micros(linger)).await;
            }
            receiver.kill();
        };
        let (failed, ()) = tokio::join!(futures_util::future::join_all(clients), kill);
        unsure = failed.into_iter().flatten().collect();
        unsure.sort_unstable();
    }
    let total = known.acknowledged.load(Ordering::SeqCst);
    assert!(
        total >= KILLS * 5,
        "receiver {seed}: only {total} were acknowledged"
    );
}

fn sample() -> String {
    format!("/api/perf/a/{}", wall_clock())
}

/// Whether it was acknowledged; anything except 204 or a broken connection is a failure.
async fn post(request: reqwest::RequestBuilder) -> bool {
    match request.send().await {
        Ok(response) => {
            assert!(
                matches!(response.status().as_u16(), 204 | 503),
                "{}",
                response.status()
            );
            response.status().as_u16() == 204
        }
        Err(_) => false,
    }
}

async fn post_numbered(world: &World, node: &Holder, token: &str, seq: u64) -> bool {
    let request = node.http.post(world.url(&sample())).bearer_auth(token);
    let key = format!("\"{PRODUCER}/{seq}\"");
    post(
        request
            .header("idempotency-key", key)
            .body(json!({"numbered": seq}).to_string()),
    )
    .await
}

async fn post_plain(world: &World, node: &Holder, token: &str) -> bool {
    post(
        node.http
            .post(world.url(&sample()))
            .bearer_auth(token)
            .body(r#"{"plain":1}"#),
    )
    .await
}

#[derive(Debug, Default)]
struct Numbers {
    numbered: u64,
    plain: u64,
    received: u64,
    missing: usize,
}

async fn numbers(world: &World, node: &Holder, token: &str) -> Numbers {
    let got = world.get(node, token, "/api/perf/a").await;
    if got.status == 404 {
        return Numbers::default();
    }
    let summaries = got.json("summaries");
    let count = |label: &str| {
        let averages = summaries[format!("summary:by-hour:{label}")]["averages"].as_array();
        averages.map_or(0, |averages| {
            averages
                .iter()
                .map(|a| a["num-samples"].as_u64().unwrap())
                .sum()
        })
    };
    let delivery = answer(
        node.http
            .get(world.url("/api/delivery/a"))
            .bearer_auth(token),
    )
    .await
    .json("delivery");
    let producer = &delivery["producers"][0];
    Numbers {
        numbered: count("numbered"),
        plain: count("plain"),
        received: producer["received"].as_u64().unwrap_or(0),
        missing: producer["missing"].as_array().map_or(0, Vec::len),
    }
}
