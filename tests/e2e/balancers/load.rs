//! Many clients that send all the time and expect an answer to each request.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::set_up::Balancer;
use crate::harness::process::PATIENCE;
use crate::harness::world::wall_clock;
use crate::harness::{Answer, Holder, World, answer};

/// Between two requests of a client at least, and so many times that between those of all. A
/// connection that is idle for 1.5 s may be closed by a receiver that stops.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_OF_ALL: Duration = Duration::from_millis(5);

/// What was acknowledged of one client's samples.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) host: String,
    pub(super) numbered: u64,
    pub(super) unnumbered: u64,
}

/// Clients at work.
pub(super) struct Load {
    balancer: Balancer,
    clients: Vec<Arc<LoadClient>>,
    tasks: Vec<JoinHandle<Sent>>,
}

struct LoadClient {
    http: reqwest::Client,
    host: String,
    token: String,
    url: String,
    pause: Duration,
    answers: AtomicU64,
    stops: AtomicBool,
}

impl Load {
    /// So many clients from this address, each with its certificate and connection.
    pub(super) async fn start(
        world: &World,
        balancer: Balancer,
        connections: usize,
        from: Ipv4Addr,
    ) -> Self {
        let mut clients = Vec::new();
        for at in 0..connections {
            let host = format!("load-{}-{at}", from.octets()[3]);
            let holder: Holder = world.node(&host);
            let http = balancer.client(world, Some(&holder), from);
            clients.push(Arc::new(LoadClient {
                token: balancer.token(&http).await,
                http,
                host,
                url: balancer.url(""),
                pause: PAUSE.max(PAUSE_OF_ALL * u32::try_from(connections).expect("few")),
                answers: AtomicU64::new(0),
                stops: AtomicBool::new(false),
            }));
        }
        let tasks = clients
            .iter()
            .map(|client| tokio::spawn(client.clone().run()))
            .collect();
        Self {
            balancer,
            clients,
            tasks,
        }
    }

    /// Until every client has been answered some times more.
    #[expect(clippy::disallowed_methods, reason = "looks again and again")]
    pub(super) async fn progress(&self) {
        let answers = |client: &Arc<LoadClient>| client.answers.load(Ordering::SeqCst);
        let before: Vec<u64> = self.clients.iter().map(answers).collect();
        let moved = async {
            for (client, before) in self.clients.iter().zip(before) {
                while answers(client) < before + 2 && !self.has_failed() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, moved).await;
        assert!(in_time.is_ok(), "clients are answered");
    }

    fn has_failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Ends all clients.
    pub(super) async fn stop(self) -> (Balancer, Vec<Sent>) {
        for client in &self.clients {
            client.stops.store(true, Ordering::SeqCst);
        }
        let mut sent = Vec::new();
        for task in self.tasks {
            let one = task.await;
            let story = &self.balancer.story;
            sent.push(one.unwrap_or_else(|error| panic!("{story}: a request failed: {error}")));
        }
        (self.balancer, sent)
    }
}

impl LoadClient {
    async fn run(self: Arc<Self>) -> Sent {
        let mut sent = Sent {
            host: self.host.clone(),
            numbered: 0,
            unnumbered: 0,
        };
        let producer = Uuid::new_v4();
        while !self.stops.load(Ordering::SeqCst) {
            let epoch = wall_clock();
            sent.numbered += 1;
            let records = json!([{"seq": sent.numbered, "epoch": epoch, "values": {"cpu": 1}}]);
            let batch = json!({"producer": producer, "records": records}).to_string();
            let path = format!("/api/perf/{}", self.host);
            self.answered(|| self.http.post(self.of(&path)).body(batch.clone()), 200)
                .await;
            sent.numbered += 1;
            let single = format!("/api/perf/{}/{epoch}", self.host);
            let key = format!("\"{producer}/{}\"", sent.numbered);
            let keyed = || {
                let request = self.http.post(self.of(&single)).body(r#"{"cpu": 1}"#);
                request.header("Idempotency-Key", &key)
            };
            self.answered(keyed, 204).await;
            sent.unnumbered += 1;
            let once = || self.http.post(self.of(&single)).body(r#"{"once": 1}"#);
            self.answered(once, 204).await;
            self.answered(|| self.http.get(self.of(&path)), 200).await;
        }
        sent
    }

    fn of(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Sends it, and again where the answer says so and when.
    #[expect(
        clippy::disallowed_methods,
        reason = "paces the load, and waits as told"
    )]
    async fn answered(&self, request: impl Fn() -> reqwest::RequestBuilder, good: u16) -> Answer {
        loop {
            let got = answer(request().bearer_auth(&self.token)).await;
            if got.status == good {
                self.answers.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(self.pause).await;
                return got;
            }
            let retry_after = got.header("retry-after").parse().ok();
            let is_asked_to = got.status == 503 && retry_after.is_some();
            // A summary appears a moment after its sample where a store is shared.
            let is_early = got.status == 404 && good == 200;
            assert!(is_asked_to || is_early, "{}: {}", got.status, got.text());
            tokio::time::sleep(Duration::from_secs(retry_after.unwrap_or(0))).await;
        }
    }
}
