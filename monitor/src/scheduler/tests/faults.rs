//! With any faults in any order, each record arrives or is reported as dropped.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::spool::memory::{self, Crash, Faults};

/// A receiver: the records that it has, by number, and what was reported to it.
#[derive(Default)]
struct Receiver {
    has: BTreeMap<(ProducerId, u64), u64>,
    told: BTreeSet<(ProducerId, u64)>,
}

impl Receiver {
    /// A duplicate changes nothing.
    fn take(&mut self, batch: &StoredBatch) {
        for record in &batch.records {
            let key = (batch.producer, record.seq.get());
            self.has.entry(key).or_insert(record.epoch.secs());
        }
        for dropped in &batch.dropped {
            let all = dropped.from.get()..=dropped.to.get();
            self.told.extend(all.map(|seq| (batch.producer, seq)));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Sample,
    /// Sends to a destination. It answers, its answer is lost, or the batch is lost.
    Arrives(usize),
    AnswerLost(usize),
    IsLost(usize),
    /// A record of the batch is refused by name.
    Refuses(usize, usize),
    TooLarge(usize),
    Passes(u64),
    Fails(Faults),
    Crash(Crash, bool),
    /// A crash. Then the backend is rolled back to the start of the process, or has lost its
    /// checkpoints, or a record of the active log.
    ComesBackOlder,
    LosesNote,
    LosesRecord(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let crash = prop_oneof![
        Just(memory::Crash::Killed),
        Just(memory::Crash::PowerFailed)
    ];
    let faults =
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(commits, checkpoints, reads)| {
            Fails(Faults {
                commits: commits || checkpoints,
                checkpoints,
                reads,
            })
        });
    let step = prop_oneof![
        20 => Just(Sample),
        6 => (0..2usize).prop_map(Arrives),
        3 => (0..2usize).prop_map(AnswerLost),
        3 => (0..2usize).prop_map(IsLost),
        2 => (0..2usize, 0..20usize).prop_map(|(at, record)| Refuses(at, record)),
        1 => (0..2usize).prop_map(TooLarge),
        4 => (1..40u64).prop_map(Passes),
        1 => faults,
        2 => Just(Fails(Faults::default())),
        1 => (crash, any::<bool>()).prop_map(|(crash, in_doubt)| Crash(crash, in_doubt)),
        1 => Just(ComesBackOlder),
        1 => Just(LosesNote),
        1 => (1..60u64).prop_map(LosesRecord),
    ];
    proptest::collection::vec(step, 0..250)
}

/// Drives the monitor, and remembers what must not be lost.
struct World {
    scheduler: DeliveryScheduler<MemoryBackend>,
    at_start: MemoryBackend,
    faults: Faults,
    now: u64,
    runs: u8,
    receivers: [Receiver; 2],
    /// By epoch: the number of the record, and whether that survives the process.
    sampled: BTreeMap<u64, ((ProducerId, u64), bool)>,
}

impl World {
    const LIMITS: SpoolLimits = SpoolLimits {
        bytes_max: 3000,
        unsaved_bytes_max: 500,
        age_secs_max: 2000,
        keep_secs: 0,
    };

    fn new() -> Self {
        Self {
            scheduler: start(MemoryBackend::default(), 2, Self::LIMITS, 1),
            at_start: MemoryBackend::default(),
            faults: Faults::default(),
            now: 1_000_000,
            runs: 1,
            receivers: Default::default(),
            sampled: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Sample => {
                self.now += 1;
                let key = sample(&mut self.scheduler, self.now);
                let number = (key.producer, key.seq.get());
                let open = self.scheduler.spool().producer();
                let is_persistent = Some(key.producer) == open;
                assert_eq!(is_persistent, !self.faults.checkpoints && open.is_some());
                self.sampled.insert(self.now, (number, is_persistent));
                if is_persistent {
                    // The checkpoint of its number has those of the producer in memory as well.
                    self.sampled.values_mut().for_each(|sample| sample.1 = true);
                }
            }
            Step::Arrives(at) => self.send(at, true, None),
            Step::AnswerLost(at) => self.send(at, true, Some(&|_| away())),
            Step::IsLost(at) => self.send(at, false, Some(&|_| away())),
            Step::Refuses(at, record) => {
                self.send(
                    at,
                    false,
                    Some(&|batch| match batch.records.len() {
                        0 => refused(Code::MalformedJson, &[]),
                        records => refused(Code::InvalidValues, &[record % records]),
                    }),
                );
            }
            Step::TooLarge(at) => {
                self.send(
                    at,
                    false,
                    Some(&|batch| match batch.records.len() {
                        0 | 1 => away(),
                        _ => refused(Code::BodyTooLarge, &[]),
                    }),
                );
            }
            Step::Passes(secs) => self.now += secs,
            Step::Fails(faults) => {
                self.faults = faults;
                self.scheduler.spool_mut().backend_mut().set_faults(faults);
            }
            Step::Crash(crash, in_doubt) => self.crash(|backend| backend.crash(crash, in_doubt)),
            Step::ComesBackOlder => {
                let mut earlier = self.at_start.clone();
                earlier.set_faults(Faults::default());
                let known = earlier.load().unwrap().logs;
                // Checkpoints tell of logs that are active or not written; others are as they were.
                let noted = self.scheduler.spool().producer();
                self.sampled.retain(|_, ((producer, seq), _)| {
                    let mut known = known.iter().map(|found| &found.state);
                    Some(*producer) == noted
                        || known.any(|state| state.producer == *producer && *seq < state.next)
                });
                // Only the checkpoints tell what is missing, until the next start has saved that.
                self.faults = Faults::default();
                self.crash(|backend| {
                    let mut backend = backend.crash(Crash::Killed, false);
                    backend.roll_back(&earlier);
                    backend
                });
            }
            // While commits fail, only the checkpoint tells which numbers are assigned: both must
            // not fail.
            Step::LosesNote if self.scheduler.close().is_err() => (),
            Step::LosesNote => self.crash(|backend| {
                let mut backend = backend.crash(Crash::Killed, true);
                backend.lose_checkpoints();
                backend
            }),
            Step::LosesRecord(seq) => {
                if let Some(producer) = self.scheduler.spool().producer() {
                    self.scheduler
                        .spool_mut()
                        .backend_mut()
                        .damage(producer, seq);
                }
            }
        }
    }

    fn send(&mut self, at: usize, arrives: bool, error: Option<&dyn Fn(&StoredBatch) -> Error>) {
        let now = secs(self.now);
        let NextStep::Send(batch) = self.scheduler.next_step(at, now) else {
            return;
        };
        for record in &batch.records {
            let number = (batch.producer, record.seq.get());
            for receiver in &self.receivers {
                let known = receiver.has.get(&number);
                assert!(
                    known.is_none_or(|epoch| *epoch == record.epoch.secs()),
                    "{number:?} was given twice"
                );
            }
        }
        if arrives {
            self.receivers[at].take(&batch);
        }
        let error = error.map(|error| error(&batch));
        let result = error.as_ref().map_or(Ok(()), Err);
        if let Outcome::ReportsRefused = self.scheduler.on_result(at, &batch, result, now, 0.5) {
            // A refused report counts as reported.
            self.receivers[at].take(&batch);
        }
    }

    /// Restarts with what is on the disk.
    fn crash(&mut self, what_is_left: impl FnOnce(MemoryBackend) -> MemoryBackend) {
        let spare = DeliveryScheduler::new(Spool::open(
            MemoryBackend::default(),
            Vec::new(),
            Self::LIMITS,
            || ProducerId::from_bytes([0; 16]),
        ));
        let mut backend =
            what_is_left(std::mem::replace(&mut self.scheduler, spare).into_backend());
        backend.set_faults(self.faults);
        self.runs += 1;
        self.scheduler = start(backend, 2, Self::LIMITS, self.runs);
        self.at_start = self.scheduler.spool().backend().clone();
        // Numbers that could not be written ended with the process.
        self.sampled.retain(|_, (_, is_persistent)| *is_persistent);
    }

    /// Ends all faults, and delivers the rest.
    fn ack(&mut self) {
        self.step(Step::Fails(Faults::default()));
        self.now += 100;
        self.step(Step::Sample);
        for _ in 0..200 {
            self.now += 2;
            for at in 0..2 {
                self.send(at, true, None);
            }
        }
        for at in 0..2 {
            assert_eq!(self.scheduler.spool().pending(at), 0);
        }
    }

    /// For each receiver, every sample has arrived, or was reported as dropped.
    fn check(&self) {
        for receiver in &self.receivers {
            let arrived: BTreeSet<u64> = receiver.has.values().copied().collect();
            for (epoch, (number, _)) in &self.sampled {
                assert!(
                    arrived.contains(epoch) || receiver.told.contains(number),
                    "the sample of {epoch}, {number:?}, is neither there nor reported"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// With any faults in any order, each record arrives or is reported as dropped, and no number
    /// is assigned twice.
    #[test]
    fn nothing_is_lost_in_silence(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.ack();
        world.check();
    }
}
