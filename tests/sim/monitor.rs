//! A monitor in the simulation: all of it but the measuring and the sending.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use lizmon_client::{BaseUrl, ConnectError, ConnectFailure, Error};
use lizmon_monitor::scheduler::{DeliveryScheduler, NextStep};
use lizmon_monitor::spool::memory::{Crash, Faults, MemoryBackend};
use lizmon_monitor::spool::{Spool, SpoolBackend, SpoolLimits, StoredBatch};
use lizmon_protocol::name::Label;
use lizmon_protocol::problem::Problem;
use lizmon_protocol::sample::{
    BatchAnswer, EncodedSamples, Epoch, IdempotencyKey, ProducerId, SampleSet, Value,
};

use crate::wire::{Answer, Request, Target};

/// Who numbered a record, and its number.
pub(crate) type RecordId = (ProducerId, u64);

/// One machine's monitor, dead or alive, and its disk.
pub(crate) struct Monitor {
    state: State,
    urls: Vec<String>,
    limits: SpoolLimits,
    /// Where producers come from.
    producers: Arc<Mutex<Rng>>,
    faults: Faults,
    /// The disk has come back older than it was.
    is_older: bool,
    /// What the disk held once the process had started.
    at_start: MemoryBackend,
    /// Recorded since then, or not yet written then.
    since_start: Vec<RecordId>,
    /// Of those, what stands in memory alone, and nowhere that it ever was: not even a note could be written.
    in_memory_alone: Vec<RecordId>,
}

enum State {
    Alive(Box<DeliveryScheduler<MemoryBackend>>),
    Dead(Box<MemoryBackend>),
}

/// What happens to the disk of a process that dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// It was asked to, and wrote everything down.
    Stopped,
    /// kill -9.
    Killed,
    /// What was not synced is gone.
    PowerFailed,
    /// A record is damaged as well.
    RecordDamaged,
    /// The database comes back as it was once the process had started; the note is apart.
    RolledBack,
    /// The note is gone.
    NoteLost,
}

impl Monitor {
    pub(crate) fn new(limits: SpoolLimits, receivers: usize, rng: Rng) -> Self {
        Self {
            state: State::Dead(Box::default()),
            urls: (0..receivers)
                .map(|at| format!("https://r{at}:8443/api/perf"))
                .collect(),
            limits,
            producers: Arc::new(Mutex::new(rng)),
            faults: Faults::default(),
            is_older: false,
            at_start: MemoryBackend::default(),
            since_start: Vec::new(),
            in_memory_alone: Vec::new(),
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

    /// Starts with what the disk has. Nothing if it is up already.
    pub(crate) fn start(&mut self) {
        let State::Dead(backend) = &mut self.state else {
            return;
        };
        let mut backend = std::mem::take(&mut **backend);
        let faults = match std::mem::take(&mut self.is_older) {
            // What is missing stands in the notes alone until this start has written it down.
            true => Faults::default(),
            false => self.faults,
        };
        backend.set_faults(faults);
        self.in_memory_alone.clear();
        let producers = self.producers.clone();
        let new_producer = move || {
            let id: u128 = producers.lock().unwrap().u128(..);
            ProducerId::from_bytes(id.to_le_bytes())
        };
        let spool = Spool::open(backend, self.urls.clone(), self.limits, new_producer);
        // Not older than this: what a start finds missing it writes down, and no disk is damaged twice in a minute.
        self.at_start = spool.backend().clone();
        self.at_start.set_faults(Faults::default());
        let known = self.at_start.load().unwrap().logs;
        self.since_start.retain(|(producer, seq)| {
            let mut known = known.iter().map(|found| &found.state);
            !known.any(|state| state.producer == *producer && *seq < state.next)
        });
        let mut scheduler = DeliveryScheduler::new(spool);
        scheduler.spool_mut().backend_mut().set_faults(self.faults);
        self.state = State::Alive(Box::new(scheduler));
    }

    /// The process ends. Which records nobody can be blamed for if they are lost.
    pub(crate) fn die(&mut self, death: Death, rng: &mut Rng) -> Vec<RecordId> {
        let State::Alive(scheduler) = &mut self.state else {
            return Vec::new();
        };
        if death == Death::Stopped {
            let _or_as_if_killed = scheduler.close();
        }
        let noted = scheduler.spool().producer();
        let State::Alive(scheduler) =
            std::mem::replace(&mut self.state, State::Dead(Box::default()))
        else {
            return Vec::new();
        };
        let crash = match death {
            Death::PowerFailed => Crash::PowerFailed,
            _ => Crash::Killed,
        };
        let mut backend = scheduler.into_backend().crash(crash, rng.bool());
        let mut excused = std::mem::take(&mut self.in_memory_alone);
        match death {
            Death::RecordDamaged => {
                if let Some((producer, seq)) = rng.choice(&self.since_start) {
                    backend.damage(*producer, *seq);
                }
            }
            Death::RolledBack => {
                backend.roll_back(&self.at_start);
                self.is_older = true;
                // Notes tell of what was not written, and of the last producer.
                let others = self.since_start.iter().filter(|id| Some(id.0) != noted);
                excused.extend(others);
            }
            Death::NoteLost => {
                // Of what the disk had not taken, only the note knew.
                let mut is_held = |(producer, seq): &RecordId| {
                    let read = backend.read(*producer, *seq, *seq, 1);
                    read.is_ok_and(|kept| !kept.is_empty())
                };
                let unknown: Vec<_> = self.since_start.drain(..).collect();
                excused.extend(unknown.into_iter().filter(|id| !is_held(id)));
                backend.lose_checkpoints();
            }
            Death::Stopped | Death::Killed | Death::PowerFailed => (),
        }
        self.state = State::Dead(Box::new(backend));
        excused
    }

    /// What the disk refuses from now on.
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
            // With its number those of the producer in memory were noted.
            self.in_memory_alone.clear();
        } else {
            self.in_memory_alone.push(id);
        }
        Some(id)
    }

    /// What to do for a receiver now; nothing if it is dead.
    pub(crate) fn next(&mut self, receiver: usize, now: Duration) -> NextStep {
        self.alive().map_or(NextStep::Idle, |scheduler| {
            scheduler.next_step(receiver, now)
        })
    }

    /// An answer has come, or will never come. `times` are our clock's, of sending and of this moment.
    pub(crate) fn done(
        &mut self,
        receiver: usize,
        batch: &StoredBatch,
        answer: &Result<Answer, ConnectFailure>,
        times: (Duration, Duration),
        chance: f64,
    ) {
        let url: BaseUrl = "https://r:8443".parse().unwrap();
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
                Ok(())
            }
            Ok(answer) => Err(Error::Refused {
                url,
                status: answer.status,
                problem: serde_json::from_slice::<Problem>(&answer.body)
                    .ok()
                    .map(Box::new),
                retry_after: answer.retry_after.map(Duration::from_secs),
            }),
            Err(obstacle) => Err(Error::Connect(ConnectError::Unreachable {
                url,
                failure: *obstacle,
                cause: "simulated".into(),
            })),
        };
        let _done = scheduler.on_result(receiver, batch, result.as_ref().copied(), now, chance);
    }

    /// How far its clock is ahead of what it stamps samples by.
    pub(crate) fn correction_secs(&mut self) -> Option<f64> {
        self.alive()
            .and_then(|scheduler| scheduler.correction_secs())
    }

    pub(crate) fn has_read_its_disk(&mut self) -> bool {
        self.alive()
            .is_some_and(|scheduler| scheduler.spool().producer().is_some())
    }

    /// Whether everything is delivered or given up, and every receiver has been told.
    pub(crate) fn is_done(&mut self, now: Duration) -> bool {
        let receivers = self.urls.len();
        let has_read = self.has_read_its_disk();
        self.alive().is_some_and(|scheduler| {
            has_read
                && scheduler.pending_records_max() == 0
                && (0..receivers).all(|at| scheduler.next_step(at, now) == NextStep::Idle)
        })
    }

    /// Writes what it says, for whoever reads a run.
    pub(crate) fn events(&mut self) -> Vec<String> {
        self.alive().map_or_else(Vec::new, |scheduler| {
            let events = scheduler.spool_mut().take_events();
            events.iter().map(|event| format!("{event:?}")).collect()
        })
    }
}

/// One record by itself goes with a key, several or reports as a batch: as the agent does it.
pub(crate) fn encode(batch: &StoredBatch) -> Request {
    if let ([record], true) = (&batch.records[..], batch.dropped.is_empty()) {
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
