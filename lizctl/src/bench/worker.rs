//! Sends one request after the other over a link: when each is due, or as soon as the one before is
//! answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::route;
use lizmon_protocol::sample::{Batch, BatchAnswer, Epoch, IdempotencyKey, ProducerId, Record, Seq};
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::link::{Link, LoadAnswer, LoadRequest};
use super::pace::{RunClock, Schedule};
use super::tally::{Tallies, Times};

/// How long a request may go on after the end of the run: sent again, after what the receiver says.
const DRAIN: Duration = Duration::from_secs(10);
/// Wait before a request is sent again whose answer did not arrive.
const RESEND_AFTER: Duration = Duration::from_millis(100);
/// Wait after a refusal that does not say how long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Compression of a batch: the level of monitors.
const ZSTD_LEVEL: i32 = 3;
/// A batch has a record a second, as one of a monitor; a long one begins again after a minute, so
/// that all are within the time that receivers accept.
const BATCH_SECS: u64 = 60;

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    Sample,
    Batch { records: u32, is_packed: bool },
    Query,
}

/// What happens to the connection before each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    /// Connection and token are made anew.
    Forget,
}

/// What all workers of a run share.
pub(crate) struct RunState {
    pub(crate) clock: RunClock,
    /// Seconds since 1970, for the samples.
    pub(crate) epoch: fn() -> u64,
    pub(crate) tallies: Tallies,
    /// From when requests are measured: the warm-up ends.
    pub(crate) measured_from: Duration,
    pub(crate) values: Box<RawValue>,
    pub(crate) job: Job,
    pub(crate) before: Before,
    /// Told by the pacer; one for each worker.
    pub(crate) due: Vec<Notify>,
}

/// What became of the records of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sent {
    /// Acknowledged by the receiver.
    pub(crate) taken: u64,
    /// Sent, and nobody knows what became of them.
    pub(crate) unanswered: u64,
}

/// The one producer of a host, which all workers of that host share: a receiver knows a limited
/// number of them.
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    pub(crate) host: NodeName,
    next: AtomicU64,
    taken: AtomicU64,
    unanswered: AtomicU64,
}

impl Producer {
    pub(crate) fn new(id: ProducerId, host: NodeName) -> Self {
        Self {
            id,
            host,
            next: AtomicU64::new(1),
            taken: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        }
    }

    pub(crate) fn sent(&self) -> Sent {
        Sent {
            taken: self.taken.load(Ordering::Relaxed),
            unanswered: self.unanswered.load(Ordering::Relaxed),
        }
    }
}

/// One sender of requests.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) at: usize,
    pub(crate) link: Arc<Link>,
    /// The host of the samples, or of the queries.
    pub(crate) producer: Arc<Producer>,
}

impl Worker {
    /// Sends until the run is over.
    pub(crate) async fn run(&self, shared: &RunState, schedule: Option<Schedule>) {
        match schedule {
            None => {
                while !shared.clock.is_over() {
                    let due = shared.clock.now();
                    self.request(due, shared).await;
                }
            }
            Some(schedule) => self.run_paced(shared, schedule).await,
        }
    }

    async fn run_paced(&self, shared: &RunState, schedule: Schedule) {
        let clock = &shared.clock;
        for number in 0.. {
            let due = schedule.due(number);
            while clock.now() < due && !clock.is_over() {
                shared.due[self.at].notified().await;
            }
            if clock.is_over() {
                return self.count_not_sent(number, schedule, shared);
            }
            self.request(due, shared).await;
        }
    }

    /// What was due before the end and had no turn.
    fn count_not_sent(&self, from: u64, schedule: Schedule, shared: &RunState) {
        let end = shared.clock.end();
        let mut tally = shared.tallies.of(self.at);
        for number in from..schedule.due_before(end) {
            let due = schedule.due(number);
            if due >= shared.measured_from {
                tally.not_sent(end.saturating_sub(due));
            }
        }
    }

    /// One request, sent again until it is answered well or refused for good, or the time is over.
    pub(crate) async fn request(&self, due: Duration, shared: &RunState) {
        if shared.before == Before::Forget {
            self.link.forget().await;
        }
        let records = match shared.job {
            Job::Sample => 1,
            Job::Batch { records, .. } => u64::from(records),
            Job::Query => 0,
        };
        let Some(message) = self.message(records, shared) else {
            return;
        };
        let is_measured = due >= shared.measured_from;
        let mut may_have_arrived = false;
        loop {
            let sent = shared.clock.now();
            let (reason, wait) = match self.link.send(&message).await {
                Ok(answer) if is_taken(&answer, records) => {
                    let done = shared.clock.now();
                    self.producer.taken.fetch_add(records, Ordering::Relaxed);
                    if is_measured {
                        let times = Times { due, sent, done };
                        shared.tallies.of(self.at).done(times, records);
                    }
                    return;
                }
                Ok(answer) => {
                    may_have_arrived |= answer.status.is_server_error();
                    (answer.reason(), wait_after(&answer))
                }
                Err(no_answer) => {
                    may_have_arrived |= no_answer.may_have_arrived();
                    (no_answer.to_string(), Some(RESEND_AFTER))
                }
            };
            shared.tallies.of(self.at).refused(reason);
            let is_in_time =
                |wait: &Duration| shared.clock.now() + *wait < shared.clock.end() + DRAIN;
            match wait.filter(is_in_time) {
                Some(wait) => pause(wait).await,
                None => {
                    if may_have_arrived {
                        let unanswered = &self.producer.unanswered;
                        unanswered.fetch_add(records, Ordering::Relaxed);
                    }
                    return;
                }
            }
        }
    }

    /// A request with the next numbers; `None` where numbers or time do not fit.
    fn message(&self, records: u64, shared: &RunState) -> Option<LoadRequest> {
        let first = self.producer.next.fetch_add(records, Ordering::Relaxed);
        let json = (
            CONTENT_TYPE.as_str(),
            HeaderValue::from_static("application/json"),
        );
        let now = (shared.epoch)();
        match shared.job {
            Job::Query => Some(LoadRequest {
                method: Method::GET,
                path: route::host(&self.producer.host),
                body: Bytes::new(),
                headers: Vec::new(),
            }),
            Job::Sample => {
                let key = IdempotencyKey {
                    producer: self.producer.id,
                    seq: Seq::new(first)?,
                };
                let key = HeaderValue::from_str(&format!("\"{key}\"")).ok()?;
                Some(LoadRequest {
                    method: Method::POST,
                    path: route::sample(&self.producer.host, Epoch::new(now)?),
                    body: Bytes::copy_from_slice(shared.values.get().as_bytes()),
                    headers: vec![json, ("idempotency-key", key)],
                })
            }
            Job::Batch { is_packed, .. } => {
                let mut body = self.batch((first, records), now, &shared.values)?;
                let mut headers = vec![json];
                if is_packed {
                    body = zstd::bulk::compress(&body, ZSTD_LEVEL).ok()?;
                    headers.push((CONTENT_ENCODING.as_str(), HeaderValue::from_static("zstd")));
                }
                Some(LoadRequest {
                    method: Method::POST,
                    path: route::host(&self.producer.host),
                    body: body.into(),
                    headers,
                })
            }
        }
    }

    fn batch(&self, (first, count): (u64, u64), now: u64, values: &RawValue) -> Option<Vec<u8>> {
        let record = |at| {
            let age = (count - 1 - at) % BATCH_SECS;
            Some(Record {
                seq: Seq::new(first + at)?,
                epoch: Epoch::new(now.checked_sub(age)?)?,
                values,
            })
        };
        let batch = Batch {
            producer: self.producer.id,
            records: (0..count).map(record).collect::<Option<_>>()?,
            dropped: Vec::new(),
            repair: false,
        };
        serde_json::to_vec(&batch).ok()
    }
}

/// Whether the receiver has all of it. Duplicates are what an earlier attempt brought.
fn is_taken(answer: &LoadAnswer, records: u64) -> bool {
    match answer.status {
        StatusCode::NO_CONTENT => true,
        StatusCode::OK if records == 0 => true,
        StatusCode::OK => serde_json::from_slice::<BatchAnswer>(&answer.body)
            .is_ok_and(|batch| batch.accepted + batch.duplicate == records),
        _ => false,
    }
}

/// How long to wait before it is sent again; `None` if that is of no use.
fn wait_after(answer: &LoadAnswer) -> Option<Duration> {
    match answer.status {
        // The next attempt gets a new token.
        StatusCode::UNAUTHORIZED => Some(RESEND_AFTER),
        StatusCode::TOO_MANY_REQUESTS => Some(answer.retry_after.unwrap_or(RETRY_AFTER)),
        status if status.is_server_error() => Some(answer.retry_after.unwrap_or(RETRY_AFTER)),
        _ => None,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for as long as the receiver or a constant says"
)]
pub(crate) async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}
