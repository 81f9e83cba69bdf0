//! A receiver in the simulation: all of it but sockets, threads and SQLite.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastrand::Rng;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use lizmon_client::ServerClock;
use lizmon_mtls::identity::Identity;
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::history::{HistoryRange, HistoryTier};
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::{BatchAnswer, ProducerId};
use lizmon_protocol::summary::{Average, Summaries};
use lizmon_protocol::token::{Claims, Confirmation, Scopes};
use lizmon_receiver::authorize::{Caller, Permit, ReadHost};
use lizmon_receiver::clock::ClockReading;
use lizmon_receiver::history::Histories;
use lizmon_receiver::journal::{Committer, GroupCommit, SharedCommitter, SubmitError};
use lizmon_receiver::router::Rejection;
use lizmon_receiver::store::memory::engine::MemoryEngine;
use lizmon_receiver::store::memory::shared::SharedMemoryStore;
use lizmon_receiver::store::memory::{MemoryDisk, MemoryStore};
use lizmon_receiver::store::record::Submission;
use lizmon_receiver::store::{HistoryRetention, Store as _, StoreError};
use lizmon_receiver::summarize::group::GroupRole;
use lizmon_receiver::summarize::{Summarizer, SummaryTable};
use lizmon_receiver::{ingest, query};
use uuid::Uuid;

use crate::summarizer::SharedSummarizer;
use crate::wire::{Answer, Request, Target};

/// Most requests that wait; few in the simulation, so that the limit is reached.
const QUEUE_MAX: usize = 8;

/// The node that a monitor is by its certificate and token.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    identity: Identity,
    claims: Arc<Claims>,
}

impl Node {
    pub(crate) fn new(name: String) -> Self {
        let identity = Identity {
            spiffe_id: format!("spiffe://lizmon.internal/node/{name}")
                .parse()
                .unwrap(),
            attributes: lizmon_protocol::name::Attributes::default(),
            serial: Box::new([1]),
            thumbprint: [7; 32],
            not_before: 0,
            not_after: u64::MAX / 2,
        };
        let claims = Arc::new(Claims {
            iss: String::new(),
            aud: String::new(),
            sub: identity.spiffe_id.name.clone(),
            client_id: identity.spiffe_id.clone(),
            scope: Scopes::of(identity.spiffe_id.role),
            iat: 0,
            nbf: 0,
            exp: u64::MAX / 2,
            jti: String::new(),
            cnf: Confirmation {
                x5t_s256: URL_SAFE_NO_PAD.encode(identity.thumbprint),
            },
        });
        Self {
            name,
            identity,
            claims,
        }
    }

    fn permit_to_read(&self) -> Permit<ReadHost> {
        let name = self.name.parse().unwrap();
        self.caller()
            .read_host(Some(&name), |_| std::collections::BTreeSet::new())
            .unwrap()
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(&self.identity, &self.claims).unwrap()
    }
}

/// A request that waits for the journal.
pub(crate) struct Waiting {
    /// The id of the request.
    pub(crate) id: u64,
    /// The monitor that sent it; none for a sample without a number.
    pub(crate) monitor: Option<usize>,
    pub(crate) submission: Submission,
    is_single: bool,
    now: u64,
}

/// A request with its result.
pub(crate) struct Completed {
    pub(crate) waiting: Waiting,
    pub(crate) result: Result<BatchAnswer, SubmitError>,
}

impl Completed {
    pub(crate) fn answer(self, clock: ServerClock) -> Answer {
        match self.result {
            Ok(_) if self.waiting.is_single => Answer {
                status: 204,
                retry_after: None,
                clock,
                body: Vec::new(),
            },
            Ok(answer) => Answer {
                status: 200,
                retry_after: None,
                clock,
                body: serde_json::to_vec(&answer).unwrap(),
            },
            Err(error) => refusal(error.into(), clock),
        }
    }
}

/// A process that runs.
enum Running {
    /// It has a store of its own.
    Alone(Box<Committer>),
    /// It shares one: what it appends with, and what reads on.
    Shared(Box<(SharedCommitter, SharedSummarizer)>),
}

pub(crate) struct Receiver {
    pub(crate) disk: MemoryDisk,
    /// Where the store is shared, instead of the disk: what it does there, and names of its runs.
    shared: Option<(MemoryEngine, GroupRole, Rng)>,
    /// In this run, the name that it appends under.
    writer: Uuid,
    running: Option<Running>,
    waiting: Vec<Waiting>,
    pub(crate) is_busy: bool,
    pub(crate) clock_wrong_ms: i64,
    /// Incremented by each end of the process: events of an earlier one are ignored.
    pub(crate) generation: u64,
}

/// A shard that was read so many seconds ago is not called late.
const LAG_SECS: u64 = 2;
/// More than any receiver has generations.
const GENERATIONS_MAX: u64 = 1 << 20;

impl Receiver {
    pub(crate) fn new() -> Self {
        Self::on(MemoryDisk::default())
    }

    /// One that is not running, with this disk.
    pub(crate) fn on(disk: MemoryDisk) -> Self {
        Self {
            disk,
            shared: None,
            writer: Uuid::nil(),
            running: None,
            waiting: Vec::new(),
            is_busy: false,
            clock_wrong_ms: 0,
            generation: 0,
        }
    }

    /// The receiver with this index that shares an engine.
    pub(crate) fn sharing(at: usize, engine: MemoryEngine, role: GroupRole, names: Rng) -> Self {
        Self {
            shared: Some((engine, role, names)),
            generation: at as u64 * GENERATIONS_MAX,
            ..Self::new()
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// The requests that wait.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        self.waiting.iter().map(|waiting| waiting.id).collect()
    }

    /// What reads on, if it shares a store and runs.
    pub(crate) fn summarizer(&mut self) -> Option<&mut SharedSummarizer> {
        match &mut self.running {
            Some(Running::Shared(running)) => Some(&mut running.1),
            _ => None,
        }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn start(&mut self, at: ClockReading) -> Result<(), StoreError> {
        if let Some((engine, role, names)) = &mut self.shared {
            let member = SharedSummarizer::start(engine, *role, names, at)?;
            self.writer = Uuid::from_u128(names.u128(..));
            let store = SharedMemoryStore::open(engine.clone(), self.writer);
            let committer = SharedCommitter::new(Box::new(store), member.table(), at);
            self.running = Some(Running::Shared(Box::new((committer, member))));
            return Ok(());
        }
        let mut store = MemoryStore::open(self.disk.clone());
        let summarizer = Summarizer::open(&mut store, at.wall)?;
        let committer = Committer::new(Box::new(store), summarizer, at);
        self.running = Some(Running::Alone(Box::new(committer)));
        Ok(())
    }

    /// The process ends, and the requests that wait are lost.
    pub(crate) fn crash(&mut self, is_unsynced_there: bool) {
        if let Some(summarizer) = self.summarizer() {
            summarizer.kill();
        }
        if let Some((engine, _, _)) = &self.shared {
            engine.kill(self.writer);
        }
        self.running = None;
        self.waiting.clear();
        self.generation += 1;
        self.disk.crash(is_unsynced_there);
    }

    /// SIGTERM: the requests that wait have been taken; everything is committed.
    pub(crate) fn stop(&mut self) {
        match self.running.take() {
            Some(Running::Alone(mut committer)) => {
                let _it_is_in_the_journal = committer.finish();
            }
            Some(Running::Shared(running)) => {
                let (mut committer, member) = *running;
                let _nothing_waits = committer.finish();
                drop(committer);
                member.finish();
            }
            None => (),
        }
        self.waiting.clear();
        self.generation += 1;
        self.disk.crash(false);
    }

    /// Puts a request into the journal's queue, and returns whether the journal has to be woken; or
    /// answers it.
    pub(crate) fn accept(
        &mut self,
        id: u64,
        monitor: Option<usize>,
        node: &Node,
        request: &Request,
        at: Duration,
    ) -> Result<bool, Answer> {
        let (now, clock) = (at.as_secs(), self.clock(at));
        if self.is_busy || self.waiting.len() >= QUEUE_MAX {
            return Err(refusal(Code::Overloaded.into(), clock));
        }
        let submission =
            submission(node, request, now).map_err(|rejection| refusal(rejection, clock))?;
        self.waiting.push(Waiting {
            id,
            monitor,
            submission,
            is_single: !matches!(request.target, Target::Batch),
            now,
        });
        Ok(self.waiting.len() == 1)
    }

    /// Takes all requests that wait as one group.
    pub(crate) fn take(&mut self, at: ClockReading) -> Vec<Completed> {
        let group = std::mem::take(&mut self.waiting);
        let requests = group.iter().map(|w| (&w.submission, w.now));
        let results = match &mut self.running {
            Some(Running::Alone(committer)) => committer.take(requests, at),
            Some(Running::Shared(running)) => running.0.take(requests, at),
            None => return Vec::new(),
        };
        group
            .into_iter()
            .zip(results)
            .map(|(waiting, result)| Completed { waiting, result })
            .collect()
    }

    /// What it tells of its clock.
    pub(crate) fn clock(&self, at: Duration) -> ServerClock {
        let status = self.running.as_ref().map(|running| match running {
            Running::Alone(committer) => committer.clock_status(),
            Running::Shared(running) => running.0.clock_status(),
        });
        ServerClock {
            at,
            is_steady: status.is_some_and(|status| status.is_steady()),
            run: self.generation,
        }
    }

    pub(crate) fn maintain(&mut self, at: ClockReading) {
        match &mut self.running {
            Some(Running::Alone(committer)) => {
                committer.maintain(at);
            }
            Some(Running::Shared(running)) => {
                running.0.maintain(at);
            }
            None => (),
        }
    }

    /// Answers what it has of a host.
    pub(crate) fn answer_delivery(&self, node: &Node, at: Duration) -> Answer {
        let clock = self.clock(at);
        if self.is_busy {
            return refusal(Code::Overloaded.into(), clock);
        }
        // Where it could not read on it answers after a wait, and says how late it is.
        let waited = match self.running {
            Some(Running::Shared(_)) => at.as_secs() + LAG_SECS,
            _ => 0,
        };
        match self.delivery(node, waited) {
            Some(delivery) => Answer {
                status: 200,
                retry_after: None,
                clock,
                body: serde_json::to_vec(&delivery).unwrap(),
            },
            None => refusal(Code::UnknownHost.into(), clock),
        }
    }

    pub(crate) fn summaries(&self, node: &Node, now: u64) -> Summaries {
        self.read(|table| {
            let permit = node.permit_to_read();
            let found = query::summaries(&permit, table, "", now);
            found.map(|json| serde_json::from_slice(&json.unwrap()).unwrap())
        })
        .unwrap_or_default()
    }

    pub(crate) fn delivery(&self, node: &Node, now: u64) -> Option<Delivery> {
        self.read(|table| query::delivery(&node.permit_to_read(), table, now))
    }

    /// The intervals of all that it still has of a series, in memory and in the store; none while
    /// the disk cannot be read.
    pub(crate) fn history(
        &self,
        node: &Node,
        label: &str,
        tier: HistoryTier,
        now: u64,
    ) -> Option<Vec<Average>> {
        let range = HistoryRange {
            tier,
            ..HistoryRange::default()
        };
        let reader = MemoryStore::open(self.disk.clone()).history().unwrap();
        let histories = Histories::new(reader, HistoryRetention::default());
        let permit = node.permit_to_read();
        let read = self.read(|table| Some(histories.read(&permit, table, label, &range, now)));
        let read = read.transpose().ok()?.flatten().unwrap_or_default();
        assert_eq!(read.next, None, "a run is shorter than a page");
        Some(read.intervals)
    }

    /// The numbers it has of a host, by producer.
    pub(crate) fn held(&self, node: &Node) -> HashMap<ProducerId, Vec<(u64, u64)>> {
        self.read(|table| {
            let hosts = table.shard_with(&node.name);
            let host = hosts.get(&*node.name)?;
            let sets = host.producers.iter();
            Some(
                sets.map(|(id, producer)| (*id, producer.set.ranges().to_vec()))
                    .collect(),
            )
        })
        .unwrap_or_default()
    }

    fn read<T>(&self, read: impl FnOnce(&SummaryTable) -> Option<T>) -> Option<T> {
        let table: Arc<SummaryTable> = match self.running.as_ref()? {
            Running::Alone(committer) => committer.summarizer().table(),
            Running::Shared(running) => running.1.table(),
        };
        read(&table)
    }
}

fn submission(node: &Node, request: &Request, now: u64) -> Result<Submission, Rejection> {
    let name = node.name.parse().unwrap();
    let permit = node.caller().report(Some(&name))?;
    let submission = match &request.target {
        Target::Batch => ingest::batch(&permit, &request.body, now),
        Target::Single { epoch, key } => {
            let key = ingest::idempotency_key(format!("\"{key}\"").as_bytes()).unwrap();
            ingest::single(&permit, *epoch, Some(key), &request.body, now)
        }
        Target::Unnumbered { epoch } => ingest::single(&permit, *epoch, None, &request.body, now),
    };
    submission.map_err(|error| Rejection::of_body(error, now))
}

/// A refusal as it is sent.
fn refusal(rejection: Rejection, clock: ServerClock) -> Answer {
    let response = axum::response::IntoResponse::into_response(rejection);
    let retry_after = response.headers().get(http::header::RETRY_AFTER);
    Answer {
        status: response.status().as_u16(),
        retry_after: retry_after.map(|secs| secs.to_str().unwrap().parse().unwrap()),
        clock,
        body: response
            .into_body()
            .collect()
            .now_or_never()
            .unwrap()
            .unwrap()
            .to_bytes()
            .to_vec(),
    }
}
