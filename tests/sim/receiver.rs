//! A receiver in the simulation: all of it but sockets, threads and SQLite.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use lizmon_client::ServerClock;
use lizmon_mtls::identity::Identity;
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::{BatchAnswer, ProducerId};
use lizmon_protocol::summary::Summaries;
use lizmon_protocol::token::{Claims, Confirmation, Scopes};
use lizmon_receiver::authorize::{Caller, Permit, ReadHost};
use lizmon_receiver::clock::ClockReading;
use lizmon_receiver::journal::{Committer, GroupCommit, SubmitError};
use lizmon_receiver::router::Rejection;
use lizmon_receiver::store::StoreError;
use lizmon_receiver::store::memory::{MemoryDisk, MemoryStore};
use lizmon_receiver::store::record::Submission;
use lizmon_receiver::summarize::Summarizer;
use lizmon_receiver::{ingest, query};

use crate::wire::{Answer, Request, Target};

/// Most requests that wait; few in the simulation, so that the limit is reached.
const QUEUE_MAX: usize = 8;

/// The node that a monitor is by its certificate and token.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    identity: Identity,
    claims: Claims,
}

impl Node {
    pub(crate) fn new(name: String) -> Self {
        let identity = Identity {
            spiffe_id: format!("spiffe://lizmon.internal/node/{name}")
                .parse()
                .unwrap(),
            serial: Box::new([1]),
            thumbprint: [7; 32],
            not_before: 0,
            not_after: u64::MAX / 2,
        };
        let claims = Claims {
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
        };
        Self {
            name,
            identity,
            claims,
        }
    }

    fn permit_to_read(&self) -> Permit<ReadHost> {
        let name = self.name.parse().unwrap();
        self.caller().read_host(Some(&name)).unwrap()
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

pub(crate) struct Receiver {
    pub(crate) disk: MemoryDisk,
    committer: Option<Committer>,
    waiting: Vec<Waiting>,
    pub(crate) is_busy: bool,
    pub(crate) clock_wrong_ms: i64,
    /// Incremented by each end of the process: events of an earlier one are ignored.
    pub(crate) generation: u64,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self::on(MemoryDisk::default())
    }

    /// One that is not running, with this disk.
    pub(crate) fn on(disk: MemoryDisk) -> Self {
        Self {
            disk,
            committer: None,
            waiting: Vec::new(),
            is_busy: false,
            clock_wrong_ms: 0,
            generation: 0,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.committer.is_some()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn start(&mut self, at: ClockReading) -> Result<(), StoreError> {
        let mut store = MemoryStore::open(self.disk.clone());
        let summarizer = Summarizer::open(&mut store, at.wall)?;
        self.committer = Some(Committer::new(Box::new(store), summarizer, at));
        Ok(())
    }

    /// The process ends, and the requests that wait are lost.
    pub(crate) fn crash(&mut self, is_unsynced_there: bool) {
        self.committer = None;
        self.waiting.clear();
        self.generation += 1;
        self.disk.crash(is_unsynced_there);
    }

    /// SIGTERM: the requests that wait have been taken; everything is committed.
    pub(crate) fn stop(&mut self) {
        if let Some(mut committer) = self.committer.take() {
            let _it_is_in_the_journal = committer.finish();
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
        let Some(committer) = &mut self.committer else {
            return Vec::new();
        };
        let group = std::mem::take(&mut self.waiting);
        let requests = group.iter().map(|w| (&w.submission, w.now));
        let results = committer.take(requests, at);
        group
            .into_iter()
            .zip(results)
            .map(|(waiting, result)| Completed { waiting, result })
            .collect()
    }

    /// What it tells of its clock.
    pub(crate) fn clock(&self, at: Duration) -> ServerClock {
        let is_steady = self.committer.as_ref();
        ServerClock {
            at,
            is_steady: is_steady.is_some_and(Committer::is_clock_steady),
            run: self.generation,
        }
    }

    pub(crate) fn maintain(&mut self, at: ClockReading) {
        if let Some(committer) = &mut self.committer {
            committer.maintain(at);
        }
    }

    /// Answers what it has of a host.
    pub(crate) fn answer_delivery(&self, node: &Node, at: Duration) -> Answer {
        let clock = self.clock(at);
        if self.is_busy {
            return refusal(Code::Overloaded.into(), clock);
        }
        match self.delivery(node) {
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
        self.read(|committer| {
            let permit = node.permit_to_read();
            query::summaries(&permit, &committer.summarizer().table(), "", now)
        })
        .unwrap_or_default()
    }

    pub(crate) fn delivery(&self, node: &Node) -> Option<Delivery> {
        self.read(|committer| {
            let permit = node.permit_to_read();
            query::delivery(&permit, &committer.summarizer().table(), 0)
        })
    }

    /// The numbers it has of a host, by producer.
    pub(crate) fn held(&self, node: &Node) -> HashMap<ProducerId, Vec<(u64, u64)>> {
        self.read(|committer| {
            let summaries = committer.summarizer().table();
            let hosts = summaries.shard_with(&node.name);
            let host = hosts.get(&*node.name)?;
            let sets = host.producers.iter();
            Some(
                sets.map(|(id, producer)| (*id, producer.set.ranges().to_vec()))
                    .collect(),
            )
        })
        .unwrap_or_default()
    }

    fn read<T>(&self, read: impl FnOnce(&Committer) -> Option<T>) -> Option<T> {
        read(self.committer.as_ref()?)
    }
}

fn submission(node: &Node, request: &Request, now: u64) -> Result<Submission, Rejection> {
    let name = node.name.parse().unwrap();
    let permit = node.caller().ingest(Some(&name))?;
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
