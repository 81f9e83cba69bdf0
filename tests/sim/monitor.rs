//! A monitor in the simulation: all of it but measuring and sending.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use lizmon_client::{BaseUrl, ConnectError, ConnectFailure, Error};
use lizmon_monitor::scheduler::{DeliveryScheduler, NextStep};
use lizmon_monitor::spool::memory::{Crash, Faults, MemoryBackend};
use lizmon_monitor::spool::{Spool, SpoolBackend, SpoolLimits, StoredBatch};
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::problem::{Code, Problem};
use lizmon_protocol::sample::{
    BatchAnswer, EncodedSamples, Epoch, IdempotencyKey, ProducerId, SampleSet, Value,
};

use crate::wire::{Answer, Request, Target};

/// A record's producer and number.
pub(crate) type RecordId = (ProducerId, u64);

/// One machine's monitor, running or not, and its disk.
pub(crate) struct Monitor {
    state: State,
    host: NodeName,
    urls: Vec<String>,
    limits: SpoolLimits,
    /// The source of producer ids.
    producers: Arc<Mutex<Rng>>,
    faults: Faults,
    /// The database was rolled back.
    is_rolled_back: bool,
    /// What the disk held after the start of the process.
    at_start: MemoryBackend,
    /// Recorded since then, or not written then.
    since_start: Vec<RecordId>,
    /// Of those, the ones that are only in memory: not even a checkpoint could be written.
    only_in_memory: Vec<RecordId>,
}

enum State {
    Alive(Box<DeliveryScheduler<MemoryBackend>>),
    Dead(Box<MemoryBackend>),
}

/// How a process ends, and what happens to its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By SIGTERM: everything is saved.
    Stopped,
    /// kill -9.
    Killed,
    /// What was not synced is lost.
    PowerFailed,
    /// By kill -9, and a record is damaged.
    RecordDamaged,
    /// By kill -9, and the database is rolled back to the start of the process; the checkpoints are
    /// stored apart.
    RolledBack,
    /// By kill -9, and the checkpoints are lost.
    CheckpointsLost,
}

impl Monitor {
    pub(crate) fn new(host: NodeName, limits: SpoolLimits, receivers: usize, rng: Rng) -> Self {
        Self {
            state: State::Dead(Box::default()),
            host,
            urls: (0..receivers)
                .map(|at| format!("https://r{at}:8443/api/perf"))
                .collect(),
            limits,
            producers: Arc::new(Mutex::new(rng)),
            faults: Faults::default(),
            is_rolled_back: false,
            at_start: MemoryBackend::default(),
            since_start: Vec::new(),
            only_in_memory: Vec::new(),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.state, State::Alive(_))
    }

    fn alive(&mut self) -> Option<&mut DeliveryScheduler<MemoryBackend>> {
        match &mut self.state {
            State::Alive(scheduler) => Some(scheduler),
            State::Dead(_) => None,
        }
    }

    /// Starts with what is on the disk. Does nothing if it runs already.
    pub(crate) fn start(&mut self) {
        let State::Dead(backend) = &mut self.state else {
            return;
        };
        let mut backend = std::mem::take(&mut **backend);
        let faults = match std::mem::take(&mut self.is_rolled_back) {
            // Only the checkpoints tell what is missing, until this start has saved that.
            true => Faults::default(),
            false => self.faults,
        };
        backend.set_faults(faults);
        self.only_in_memory.clear();
        let producers = self.producers.clone();
        let new_producer = move || {
            let id: u128 = producers.lock().unwrap().u128(..);
            ProducerId::from_bytes(id.to_le_bytes())
        };
        let spool = Spool::open(backend, self.urls.clone(), self.limits, new_producer);
        // It is not rolled back further than this: a start saves what it finds missing, and no disk
        // is damaged twice in a minute.
        self.at_start = spool.backend().clone();
        self.at_start.set_faults(Faults::default());
        let known = self.at_start.load().unwrap().logs;
        self.since_start.retain(|(producer, seq)| {
            let mut known = known.iter().map(|found| &found.state);
            !known.any(|state| state.producer == *producer && *seq < state.next)
        });
        let mut scheduler = DeliveryScheduler::new(spool);
        if self.limits.keep_secs > 0 {
            scheduler = scheduler.spread(&self.host);
        }
        scheduler.spool_mut().backend_mut().set_faults(self.faults);
        self.state = State::Alive(Box::new(scheduler));
    }

    /// The process ends. Returns the records that may be lost.
    pub(crate) fn end(&mut self, exit: Exit, rng: &mut Rng) -> Vec<RecordId> {
        let State::Alive(scheduler) = &mut self.state else {
            return Vec::new();
        };
        if exit == Exit::Stopped {
            let _or_as_if_killed = scheduler.close();
        }
        let noted = scheduler.spool().producer();
        let State::Alive(scheduler) =
            std::mem::replace(&mut self.state, State::Dead(Box::default()))
        else {
            return Vec::new();
        };
        let crash = match exit {
            Exit::PowerFailed => Crash::PowerFailed,
            _ => Crash::Killed,
        };
        let mut backend = scheduler.into_backend().crash(crash, rng.bool());
        let mut excused = std::mem::take(&mut self.only_in_memory);
        match exit {
            Exit::RecordDamaged => {
                if let Some((producer, seq)) = rng.choice(&self.since_start) {
                    backend.damage(*producer, *seq);
                }
            }
            Exit::RolledBack => {
                backend.roll_back(&self.at_start);
                self.is_rolled_back = true;
                // Checkpoints tell of what was not written, and of the last producer.
                let others = self.since_start.iter().filter(|id| Some(id.0) != noted);
                excused.extend(others);
            }
            Exit::CheckpointsLost => {
                // Only the checkpoints told of what was not written.
                let mut is_held = |(producer, seq): &RecordId| {
                    let read = backend.read(*producer, *seq, *seq, 1);
                    read.is_ok_and(|found| !found.is_empty())
                };
                let unknown: Vec<_> = self.since_start.drain(..).collect();
                excused.extend(unknown.into_iter().filter(|id| !is_held(id)));
                backend.lose_checkpoints();
            }
            Exit::Stopped | Exit::Killed | Exit::PowerFailed => (),
        }
        self.state = State::Dead(Box::new(backend));
        excused
    }

    /// Sets what fails on the disk from now on.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        if let Some(scheduler) = self.alive() {
            scheduler.spool_mut().backend_mut().set_faults(faults);
        }
    }

    pub(crate) fn record(
        &mut self,
        epoch: Epoch,
        values: &[(&'static str, f64)],
        now: Duration,
    ) -> Option<RecordId> {
        let values = values
            .iter()
            .map(|(label, value)| (Label::new(*label).unwrap(), Value::new(*value).unwrap()));
        let values = EncodedSamples::encode(&SampleSet::new(values.collect())).unwrap();
        let scheduler = self.alive()?;
        let key = scheduler.record(epoch, values, now)?;
        let open = scheduler.spool().producer();
        let id = (key.producer, key.seq.get());
        self.since_start.push(id);
        if Some(key.producer) == open {
            // The checkpoint of its number has those of the producer in memory as well.
            self.only_in_memory.clear();
        } else {
            self.only_in_memory.push(id);
        }
        Some(id)
    }

    /// What to do for a receiver now; nothing if it does not run.
    pub(crate) fn next(&mut self, receiver: usize, now: Duration) -> NextStep {
        self.alive().map_or(NextStep::Idle, |scheduler| {
            scheduler.next_step(receiver, now)
        })
    }

    /// Takes an answer, or an error instead. `times` of this monitor's clock: when the request was
    /// sent, and now.
    pub(crate) fn done(
        &mut self,
        receiver: usize,
        batch: &StoredBatch,
        answer: &Result<Answer, ConnectFailure>,
        times: (Duration, Duration),
        chance: f64,
    ) {
        let Some(scheduler) = self.alive() else {
            return;
        };
        let (sent, now) = times;
        if let Ok(answer) = answer {
            let _told = scheduler.on_server_clock(receiver, answer.clock, sent, now);
        }
        let result = match answer {
            Ok(answer) if answer.status == 204 => Ok(()),
            Ok(answer) if answer.status == 200 => {
                let told: BatchAnswer = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(told.accepted + told.duplicate, batch.records.len() as u64);
                if batch.repair {
                    scheduler.on_duplicates(receiver, batch, told.duplicate, now);
                }
                Ok(())
            }
            other => Err(error_of(other)),
        };
        let _done = scheduler.on_result(receiver, batch, result.as_ref().copied(), now, chance);
    }

    /// Takes what a receiver says it has, or an error instead. Returns whether it said so.
    pub(crate) fn told(
        &mut self,
        receiver: usize,
        answer: &Result<Answer, ConnectFailure>,
        now: Duration,
        chance: f64,
    ) -> bool {
        let Some(scheduler) = self.alive() else {
            return false;
        };
        let told = match answer {
            Ok(answer) if answer.status == 200 => {
                Ok(serde_json::from_slice::<Delivery>(&answer.body).unwrap())
            }
            other => Err(error_of(other)),
        };
        let is_unknown = |error: &Error| matches!(error.code(), Some(Code::UnknownHost));
        scheduler.on_delivery(receiver, told.as_ref(), now, chance);
        told.as_ref().map_or_else(is_unknown, |_| true)
    }

    /// How many records were sent again to a receiver since the start.
    pub(crate) fn repaired(&mut self, receiver: usize) -> u64 {
        self.alive()
            .map_or(0, |scheduler| scheduler.repaired_records(receiver))
    }

    /// How far its clock is ahead of the time that it stamps samples with.
    pub(crate) fn correction_secs(&mut self) -> Option<f64> {
        self.alive()
            .and_then(|scheduler| scheduler.correction_secs())
    }

    pub(crate) fn has_loaded_spool(&mut self) -> bool {
        self.alive()
            .is_some_and(|scheduler| scheduler.spool().producer().is_some())
    }

    /// Whether every record is delivered or dropped, and all drops are reported.
    pub(crate) fn is_done(&mut self, now: Duration) -> bool {
        let receivers = self.urls.len();
        let keeps = self.limits.keep_secs > 0;
        let has_read = self.has_loaded_spool();
        self.alive().is_some_and(|scheduler| {
            has_read
                && scheduler.pending_records_max() == 0
                && (0..receivers).all(|at| {
                    let next = scheduler.next_step(at, now);
                    // A check that is due comes before the reports, and does not tell of them.
                    matches!(next, NextStep::Idle | NextStep::CheckDelivery)
                        && !scheduler.spool().has_unreported_drops(at)
                        && scheduler.spool().to_repair(at) == 0
                        && !(keeps && scheduler.may_have_losses(at))
                })
        })
    }

    /// What happened to its spool, for the log.
    pub(crate) fn events(&mut self) -> Vec<String> {
        self.alive().map_or_else(Vec::new, |scheduler| {
            let events = scheduler.spool_mut().take_events();
            events.iter().map(|event| format!("{event:?}")).collect()
        })
    }
}

/// What the client makes of an answer that is no success.
fn error_of(answer: &Result<Answer, ConnectFailure>) -> Error {
    let url: BaseUrl = "https://r:8443".parse().unwrap();
    match answer {
        Ok(answer) => Error::Refused {
            url,
            status: answer.status,
            problem: serde_json::from_slice::<Problem>(&answer.body)
                .ok()
                .map(Box::new),
            retry_after: answer.retry_after.map(Duration::from_secs),
        },
        Err(failure) => Error::Connect(ConnectError::Unreachable {
            url,
            failure: *failure,
            cause: "simulated".into(),
        }),
    }
}

/// Encodes a request as the agent does: a single record with a key, several or reports as a batch.
pub(crate) fn encode(batch: &StoredBatch) -> Request {
    let is_single = batch.dropped.is_empty() && !batch.repair;
    if let ([record], true) = (&batch.records[..], is_single) {
        let key = IdempotencyKey {
            producer: batch.producer,
            seq: record.seq,
        };
        return Request {
            target: Target::Single {
                epoch: record.epoch,
                key: key.to_string(),
            },
            body: serde_json::to_vec(&record.values).unwrap(),
        };
    }
    Request {
        target: Target::Batch,
        body: serde_json::to_vec(batch).unwrap(),
    }
}
