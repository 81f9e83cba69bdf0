//! Clients that continue whatever happens: some post batches and record what they posted, one
//! reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lizmon_client::{Client, Error};
use lizmon_protocol::name::{Label, NodeName, Role, TagFilter};
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::{Batch, Epoch, ProducerId, Record, SampleSet, Seq, Value};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::netns::TestNetwork;
use crate::programs::epoch_now;
use crate::reference::Reference;

const CLIENTS: u64 = 4;
const RECORDS: u64 = 20;
const LABELS: [&str; 5] = ["cpu", "mem", "disk/root", "net.rx", "naïve load"];
const POST_EVERY: Duration = Duration::from_millis(40);
const READ_EVERY: Duration = Duration::from_millis(50);
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What the clients have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) taken: AtomicU64,
    /// Records that had been accepted before, but the response was lost.
    pub(crate) known: AtomicU64,
    pub(crate) store_unavailable: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) read_failed: AtomicU64,
}

impl Counts {
    pub(crate) fn of(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

/// The running clients.
pub(crate) struct Load {
    pub(crate) counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    runtime: Runtime,
    posting: Vec<JoinHandle<(NodeName, Reference)>>,
    reading: JoinHandle<()>,
}

impl Load {
    pub(crate) fn start(network: &TestNetwork, seed: u64) -> Self {
        let runtime = Runtime::new().unwrap();
        let counts = Arc::new(Counts::default());
        let stop = Arc::new(AtomicBool::new(false));
        let posting = (0..CLIENTS).map(|at| {
            let name = format!("client{at}");
            let poster = Poster {
                client: network.client(Role::Node, &name),
                host: name.parse().unwrap(),
                rng: fastrand::Rng::with_seed(seed ^ at),
                counts: counts.clone(),
                reference: Reference::default(),
            };
            runtime.spawn(poster.run(stop.clone()))
        });
        let posting = posting.collect();
        let reader = network.client(Role::Reader, "chaos-reader");
        let reading = runtime.spawn(read(reader, counts.clone(), stop.clone()));
        Self {
            counts,
            stop,
            runtime,
            posting,
            reading,
        }
    }

    /// Each client ends when its current batch is accepted. Returns what each has posted.
    pub(crate) fn end(self) -> Vec<(NodeName, Reference)> {
        self.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            self.reading.await.unwrap();
            let mut done = Vec::new();
            for client in self.posting {
                done.push(client.await.unwrap());
            }
            done
        })
    }
}

struct Poster {
    client: Client,
    host: NodeName,
    rng: fastrand::Rng,
    counts: Arc<Counts>,
    reference: Reference,
}

impl Poster {
    /// One batch at a time, repeated until it is accepted, so that the receiver sums in the same
    /// order.
    async fn run(mut self, stop: Arc<AtomicBool>) -> (NodeName, Reference) {
        let producer = ProducerId::from_bytes(self.rng.u128(..).to_le_bytes());
        let mut next = 1;
        while !stop.load(Ordering::Relaxed) {
            let records = (0..RECORDS).map(|at| self.record(next + at)).collect();
            next += RECORDS;
            let batch = Batch {
                producer,
                records,
                dropped: Vec::new(),
                repair: false,
            };
            while let Err(error) = self.post(&batch).await {
                self.note(&error);
                sleep(RETRY_AFTER).await;
            }
            sleep(POST_EVERY).await;
        }
        (self.host, self.reference)
    }

    fn record(&mut self, seq: u64) -> Record<SampleSet<'static>> {
        let epoch = epoch_now();
        let values = LABELS.map(|label| {
            let value = f64::from(self.rng.i32(-5_000..1_000_000)) / 100.0;
            self.reference.add(label, epoch, value);
            (Label::new(label).unwrap(), Value::new(value).unwrap())
        });
        Record {
            seq: Seq::new(seq).unwrap(),
            epoch: Epoch::new(epoch).unwrap(),
            values: SampleSet::new(values.to_vec()),
        }
    }

    async fn post(&self, batch: &Batch<SampleSet<'_>>) -> Result<(), Error> {
        let answer = self
            .client
            .publish_batch(&self.host, batch, epoch_now())
            .await?;
        assert_eq!(answer.accepted + answer.duplicate, RECORDS, "{answer:?}");
        self.counts.taken.fetch_add(RECORDS, Ordering::Relaxed);
        self.counts
            .known
            .fetch_add(answer.duplicate, Ordering::Relaxed);
        Ok(())
    }

    fn note(&self, error: &Error) {
        let count = match error.code() {
            Some(Code::StoreUnavailable) => &self.counts.store_unavailable,
            Some(Code::Overloaded) | None => &self.counts.failed,
            Some(_) => panic!("{}: an honest batch is refused: {error}", self.host),
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read(client: Client, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        match client.hosts(&TagFilter::default(), epoch_now()).await {
            Ok(_) => counts.read.fetch_add(1, Ordering::Relaxed),
            Err(_) => counts.read_failed.fetch_add(1, Ordering::Relaxed),
        };
        sleep(READ_EVERY).await;
    }
}
