//! Monitors without a machine to measure, clients that post without numbers, and a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use lizmon_client::{Client, ConnectError, ConnectFailure, Error};
use lizmon_monitor::scheduler::{DeliveryScheduler, NextStep, Outcome};
use lizmon_monitor::spool::memory::MemoryBackend;
use lizmon_monitor::spool::{KEEP_SECS, MEMORY_BYTES_MAX, Spool, SpoolLimits, StoredBatch};
use lizmon_protocol::name::{NodeName, Role};
use lizmon_protocol::sample::{
    EncodedSamples, Epoch, IdempotencyKey, ProducerId, parse_sample_set,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::network::GroupNetwork;
use super::{POLL_INTERVAL, Plan};

const POST_EVERY: Duration = Duration::from_millis(100);
const READ_EVERY: Duration = Duration::from_millis(100);
/// A reader asks another receiver then, as a person would.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// As the monitor does.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What the senders and the reader have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: AtomicU64,
    pub(crate) repaired: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) read: AtomicU64,
}

/// What a client that posts without numbers knows.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Posted {
    /// Answered 204.
    pub(crate) acknowledged: u64,
    /// Counted or not: no answer, or one that does not say.
    pub(crate) unknown: u64,
    /// Not counted: refused, or never sent.
    pub(crate) refused: u64,
}

/// What the reader has seen.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ReadGaps {
    pub(crate) failed: u64,
    /// The longest time without an answer.
    pub(crate) longest: Duration,
}

pub(crate) struct Load {
    pub(crate) counts: Arc<Counts>,
    pub(crate) runtime: Runtime,
    measures: Arc<AtomicBool>,
    runs: Arc<AtomicBool>,
    monitors: Vec<JoinHandle<NodeName>>,
    /// How many records each monitor has numbered.
    recorded: Vec<Arc<AtomicU64>>,
    clients: Vec<JoinHandle<(NodeName, Posted)>>,
    reader: JoinHandle<ReadGaps>,
}

fn now() -> Duration {
    UNIX_EPOCH.elapsed().unwrap()
}

impl Load {
    pub(crate) fn start(network: &GroupNetwork, plan: Plan) -> Self {
        let runtime = Runtime::new().unwrap();
        let counts = Arc::new(Counts::default());
        let [measures, runs] = [(); 2].map(|()| Arc::new(AtomicBool::new(true)));
        let recorded: Vec<Arc<AtomicU64>> = (0..plan.monitors).map(|_| Arc::default()).collect();
        let monitors = recorded.iter().enumerate().map(|(at, recorded)| {
            let name = format!("m{at}");
            let seed = plan.seed ^ at as u64;
            let monitor = LeanMonitor::new(network, &name, seed, counts.clone(), recorded.clone());
            runtime.spawn(monitor.run(measures.clone(), runs.clone()))
        });
        let monitors = monitors.collect();
        let clients = (0..plan.clients).map(|at| {
            let name = format!("u{at}");
            let clients = network.clients(Role::Node, &name);
            let rng = fastrand::Rng::with_seed(plan.seed ^ at as u64);
            let host = name.parse().unwrap();
            runtime.spawn(post(host, clients, rng, measures.clone()))
        });
        let clients = clients.collect();
        let reading = network.clients(Role::Reader, "chaos-reader");
        let reader = runtime.spawn(read(reading, counts.clone(), measures.clone()));
        Self {
            counts,
            runtime,
            measures,
            runs,
            monitors,
            recorded,
            clients,
            reader,
        }
    }

    /// Until each receiver has been up: it counts from here.
    pub(crate) fn wait_until_it_flows(&self) {
        let by = Instant::now() + START_TIMEOUT;
        let wanted = 2 * self.monitors.len() as u64;
        while self.counts.delivered.load(Ordering::Relaxed) < wanted
            || self.counts.read.load(Ordering::Relaxed) < 2
        {
            assert!(
                Instant::now() < by,
                "nothing is delivered: {:?}",
                self.counts
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Monitors go on sending what they have, and asking what is missing.
    pub(crate) fn stop_measuring(&mut self) -> (Vec<(NodeName, Posted)>, ReadGaps) {
        self.measures.store(false, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let reader = &mut self.reader;
        self.runtime.block_on(async {
            let mut posted = Vec::new();
            for client in clients {
                posted.push(client.await.unwrap());
            }
            (posted, reader.await.unwrap())
        })
    }

    /// Each monitor, and how many records it has numbered.
    pub(crate) fn recorded(&self) -> Vec<(NodeName, u64)> {
        let counts = self
            .recorded
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let named = counts.enumerate();
        named
            .map(|(at, count)| (format!("m{at}").parse().unwrap(), count))
            .collect()
    }

    /// Ends the monitors: how many records each has numbered.
    pub(crate) fn end(self) -> Vec<(NodeName, u64)> {
        self.runs.store(false, Ordering::Relaxed);
        let recorded = self.recorded();
        self.runtime.block_on(async {
            for monitor in self.monitors {
                monitor.await.unwrap();
            }
        });
        recorded
    }
}

/// Spool and scheduler of a monitor, without collectors. Receivers are one destination, as behind a
/// balancer: it uses one for as long as that answers.
struct LeanMonitor {
    host: NodeName,
    clients: Vec<Client>,
    current: usize,
    scheduler: DeliveryScheduler<MemoryBackend>,
    rng: fastrand::Rng,
    recorded: Arc<AtomicU64>,
    counts: Arc<Counts>,
}

impl LeanMonitor {
    fn new(
        network: &GroupNetwork,
        name: &str,
        seed: u64,
        counts: Arc<Counts>,
        recorded: Arc<AtomicU64>,
    ) -> Self {
        let host: NodeName = name.parse().unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let producer = ProducerId::from_bytes(rng.u128(..).to_le_bytes());
        let limits = SpoolLimits::new(MEMORY_BYTES_MAX).keeping(KEEP_SECS);
        let urls = vec!["the group".to_owned()];
        let spool = Spool::open(MemoryBackend::default(), urls, limits, move || producer);
        Self {
            clients: network.clients(Role::Node, name),
            current: rng.usize(0..3),
            scheduler: DeliveryScheduler::new(spool).spread(&host),
            host,
            rng,
            recorded,
            counts,
        }
    }

    async fn run(mut self, measures: Arc<AtomicBool>, runs: Arc<AtomicBool>) -> NodeName {
        let mut measured = now().as_secs();
        while runs.load(Ordering::Relaxed) {
            let epoch = now().as_secs();
            while measures.load(Ordering::Relaxed) && epoch > measured {
                measured += 1;
                self.record(measured);
            }
            match self.scheduler.next_step(0, now()) {
                NextStep::Send(batch) => self.deliver(batch).await,
                NextStep::CheckDelivery => self.check_delivery().await,
                NextStep::Wait(wait) => sleep(wait.min(until_next_second())).await,
                NextStep::Idle => sleep(until_next_second()).await,
            }
        }
        self.host
    }

    fn record(&mut self, epoch: u64) {
        let values = format!("{{\"cpu\":{}}}", self.rng.u8(0..100));
        let values = parse_sample_set(values.as_bytes()).unwrap();
        let values = EncodedSamples::encode(&values).unwrap();
        let key = self
            .scheduler
            .record(Epoch::new(epoch).unwrap(), values, now());
        let recorded = self.recorded.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(key.unwrap().seq.get(), recorded);
    }

    fn client(&self) -> &Client {
        &self.clients[self.current]
    }

    async fn deliver(&mut self, batch: StoredBatch) {
        let sent = now();
        let result = send(self.client(), &self.host, &batch).await;
        let answered = now();
        if let Some(theirs) = self.client().take_server_clock() {
            self.scheduler.on_server_clock(0, theirs, sent, answered);
        }
        if let Ok(duplicates @ 1..) = result {
            self.scheduler
                .on_duplicates(0, &batch, duplicates, answered);
        }
        let told = result.as_ref().map(|_| ());
        let chance = self.rng.f64();
        let outcome = self.scheduler.on_result(0, &batch, told, answered, chance);
        match outcome {
            Outcome::Delivered(records) => {
                self.counts
                    .delivered
                    .fetch_add(records as u64, Ordering::Relaxed);
            }
            Outcome::Repaired { records, .. } => {
                self.counts.repaired.fetch_add(records, Ordering::Relaxed);
            }
            Outcome::Retry(_) => {
                self.counts.retried.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("{}: {other:?} {result:?}", self.host),
        }
        if matches!(result, Err(Error::Connect(_))) {
            self.current = (self.current + 1) % self.clients.len();
        }
    }

    async fn check_delivery(&mut self) {
        let client = self.client();
        let asked = client.delivery(&self.host, now().as_secs());
        let too_late = |_| {
            Err(Error::Connect(ConnectError::Unreachable {
                url: client.url().clone(),
                failure: ConnectFailure::Timeout,
                cause: "no answer in time".into(),
            }))
        };
        let answer = timeout(DELIVERY_TIMEOUT, asked)
            .await
            .unwrap_or_else(too_late);
        let chance = self.rng.f64();
        let losses = self
            .scheduler
            .on_delivery(0, answer.as_ref(), now(), chance);
        assert_eq!(losses.lost, 0, "{}", self.host);
        if matches!(answer, Err(Error::Connect(_))) {
            self.current = (self.current + 1) % self.clients.len();
        }
    }
}

/// How many of the records were known.
async fn send(client: &Client, host: &NodeName, batch: &StoredBatch) -> Result<u64, Error> {
    let now = now().as_secs();
    let is_single = batch.dropped.is_empty() && !batch.repair;
    if let ([record], true) = (&batch.records[..], is_single) {
        let key = IdempotencyKey {
            producer: batch.producer,
            seq: record.seq,
        };
        client
            .publish(host, record.epoch, &record.values, Some(key), now)
            .await?;
        return Ok(client.take_replayed().into());
    }
    let answer = client.publish_batch(host, batch, now).await?;
    Ok(answer.duplicate)
}

fn until_next_second() -> Duration {
    Duration::from_secs(1) - Duration::from_nanos(now().subsec_nanos().into())
}

/// Posts one sample at a time, each once.
async fn post(
    host: NodeName,
    clients: Vec<Client>,
    mut rng: fastrand::Rng,
    measures: Arc<AtomicBool>,
) -> (NodeName, Posted) {
    let values = parse_sample_set(br#"{"cpu":1}"#).unwrap();
    let values = EncodedSamples::encode(&values).unwrap();
    let mut posted = Posted::default();
    while measures.load(Ordering::Relaxed) {
        let client = &clients[rng.usize(0..clients.len())];
        let epoch = now().as_secs();
        let answer = client
            .publish(&host, Epoch::new(epoch).unwrap(), &values, None, epoch)
            .await;
        match answer {
            Ok(()) => posted.acknowledged += 1,
            Err(error) if was_not_sent(&error) => posted.refused += 1,
            Err(_) => posted.unknown += 1,
        }
        sleep(POST_EVERY).await;
    }
    (host, posted)
}

fn was_not_sent(error: &Error) -> bool {
    match error {
        Error::Connect(ConnectError::Unreachable { failure, .. }) => {
            *failure == ConnectFailure::Connect
        }
        Error::NoToken { .. } => true,
        Error::Refused { status, .. } => *status < 500,
        _ => false,
    }
}

/// Asks for summaries, of another receiver where one does not answer.
async fn read(clients: Vec<Client>, counts: Arc<Counts>, measures: Arc<AtomicBool>) -> ReadGaps {
    let host: NodeName = "m0".parse().unwrap();
    let (mut gaps, mut at) = (ReadGaps::default(), 0);
    let mut answered = Instant::now();
    while measures.load(Ordering::Relaxed) {
        let asked = clients[at].summaries(&host, None, now().as_secs());
        match timeout(READ_TIMEOUT, asked).await {
            Ok(Ok(_)) => {
                if counts.read.fetch_add(1, Ordering::Relaxed) > 0 {
                    gaps.longest = gaps.longest.max(answered.elapsed());
                }
                answered = Instant::now();
            }
            _ => {
                gaps.failed += 1;
                at = (at + 1) % clients.len();
            }
        }
        sleep(READ_EVERY).await;
    }
    gaps
}
