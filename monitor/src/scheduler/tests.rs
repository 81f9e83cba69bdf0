use std::collections::{BTreeMap, BTreeSet};

use lizmon_client::{BaseUrl, ConnectError, ConnectFailure};
use lizmon_protocol::problem::{Code, Problem, ValueError};
use lizmon_protocol::sample::{ProducerId, parse_sample_set};
use proptest::prelude::*;

use super::*;
use crate::spool::memory::{self, Crash, Faults, MemoryBackend};
use crate::spool::{SpoolLimits, drop_reason};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn url() -> BaseUrl {
    "https://a:1".parse().unwrap()
}

fn away() -> Error {
    Error::Connect(ConnectError::Unreachable {
        url: url(),
        failure: ConnectFailure::Broken,
        cause: "cut".into(),
    })
}

fn refused(code: Code, records: &[usize]) -> Error {
    let mut problem = Problem::new(code);
    problem.errors = records
        .iter()
        .map(|record| ValueError {
            record: Some(*record),
            label: None,
            reason: "no".into(),
        })
        .collect();
    Error::Refused {
        url: url(),
        status: problem.status,
        problem: Some(Box::new(problem)),
        retry_after: None,
    }
}

fn start(
    backend: MemoryBackend,
    destinations: usize,
    limits: SpoolLimits,
    id: u8,
) -> DeliveryScheduler<MemoryBackend> {
    let urls = (0..destinations).map(|at| format!("https://r{at}:1/api/perf"));
    let mut last = (id, 0);
    let new_producer = move || {
        last.1 += 1;
        let mut bytes = [last.0; 16];
        bytes[15] = last.1;
        ProducerId::from_bytes(bytes)
    };
    DeliveryScheduler::new(Spool::open(backend, urls.collect(), limits, new_producer))
}

fn new() -> DeliveryScheduler<MemoryBackend> {
    start(MemoryBackend::default(), 1, SpoolLimits::new(1 << 20), 1)
}

fn sample(scheduler: &mut DeliveryScheduler<MemoryBackend>, epoch: u64) -> IdempotencyKey {
    let values = parse_sample_set(br#"{"a":1}"#).unwrap();
    let values = EncodedSamples::encode(&values).unwrap();
    let at = Epoch::new(epoch).unwrap();
    scheduler.record(at, values, secs(epoch)).unwrap()
}

fn seqs(batch: &StoredBatch) -> Vec<u64> {
    batch
        .records
        .iter()
        .map(|record| record.seq.get())
        .collect()
}

fn send(scheduler: &mut DeliveryScheduler<MemoryBackend>, now: Duration) -> StoredBatch {
    match scheduler.next_step(0, now) {
        NextStep::Send(batch) => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_backlog_each_record_is_sent_alone() {
    let mut scheduler = new();
    assert_eq!(scheduler.next_step(0, secs(99)), NextStep::Idle);
    for epoch in 100..105 {
        let key = sample(&mut scheduler, epoch);
        let batch = send(&mut scheduler, secs(epoch));
        assert_eq!(seqs(&batch), [key.seq.get()]);
        let done = scheduler.on_result(0, &batch, Ok(()), secs(epoch), 0.5);
        assert_eq!(done, Outcome::Delivered(1));
        assert_eq!(scheduler.next_step(0, secs(epoch)), NextStep::Idle);
    }
    assert_eq!(scheduler.delivered_records(0), 5);
}

#[test]
fn after_an_outage_the_newest_records_go_first() {
    let mut scheduler = new();
    (0..5000).for_each(|second| {
        sample(&mut scheduler, 1000 + second);
    });
    let mut now = secs(6000);
    // While it fails, the same oldest records are tried.
    for _ in 0..3 {
        let batch = send(&mut scheduler, now);
        let oldest: Vec<u64> = (1..=1000).collect();
        let possibly_delivered = seqs(&batch);
        if scheduler.states[0].is_failing {
            assert_eq!(possibly_delivered, oldest);
        } else {
            assert_eq!(possibly_delivered.last(), Some(&5000));
        }
        let done = scheduler.on_result(0, &batch, Err(&away()), now, 1.0);
        let Outcome::Retry(wait) = done else {
            panic!("{done:?}")
        };
        assert_eq!(scheduler.next_step(0, now), NextStep::Wait(wait));
        now += wait;
    }
    let batch = send(&mut scheduler, now);
    scheduler.on_result(0, &batch, Ok(()), now, 0.5);
    // It is back: the newest records are sent at once, without the oldest.
    assert_eq!(
        seqs(&send(&mut scheduler, now)),
        (4991..=5000).collect::<Vec<_>>()
    );
    let batch = send(&mut scheduler, now);
    scheduler.on_result(0, &batch, Ok(()), now, 0.5);
    let NextStep::Wait(wait) = scheduler.next_step(0, now) else {
        panic!("the backlog waits")
    };
    assert!(wait <= BACKLOG_INTERVAL);
    // A new record does not wait for the backlog, and does not delay it.
    let seq = sample(&mut scheduler, 6007).seq.get();
    let batch = send(&mut scheduler, now);
    assert_eq!(seqs(&batch), [seq]);
    scheduler.on_result(0, &batch, Ok(()), now, 0.5);
    assert_eq!(scheduler.next_step(0, now), NextStep::Wait(wait));
    // Five batches, one a second, deliver everything.
    let began = now;
    while scheduler.spool().pending(0) > 0 {
        match scheduler.next_step(0, now) {
            NextStep::Send(batch) => {
                assert!(batch.records.len() <= 1000);
                scheduler.on_result(0, &batch, Ok(()), now, 0.5);
            }
            NextStep::Wait(wait) => now += wait,
            NextStep::Idle => panic!("records wait"),
        }
    }
    assert_eq!(now - began, secs(4));
}

#[test]
fn a_stop_flushes_the_backlog() {
    let mut scheduler = new();
    (0..3000).for_each(|second| {
        sample(&mut scheduler, 1000 + second);
    });
    scheduler.flush();
    for expected in [2000, 1000, 0] {
        let batch = send(&mut scheduler, secs(4000));
        scheduler.on_result(0, &batch, Ok(()), secs(4000), 0.5);
        assert_eq!(scheduler.spool().pending(0), expected);
    }
}

/// The answer, its outcome, and what is sent next: numbers of records, and the count of reports.
#[test]
fn outcomes_of_answers() {
    let zero = Duration::ZERO;
    let minute = secs(60);
    type Case = (Error, Outcome, (Vec<u64>, usize));
    let dropped_records = |code, at: &[usize]| {
        let dropped = at.iter().map(|at| RefusedRecord {
            index: *at,
            code,
            why: format!("{}: no", code.as_str()),
        });
        Outcome::Dropped(dropped.collect())
    };
    let all = || (vec![1, 2, 3, 4], 0);
    let cases: [Case; 7] = [
        (
            refused(Code::InvalidValues, &[0, 2]),
            dropped_records(Code::InvalidValues, &[0, 2]),
            (vec![2, 4], 2),
        ),
        (
            refused(Code::BodyTooLarge, &[]),
            Outcome::Retry(zero),
            (vec![3, 4], 0),
        ),
        (
            refused(Code::TokenExpired, &[]),
            Outcome::Retry(zero),
            all(),
        ),
        (refused(Code::WrongHost, &[]), Outcome::Retry(minute), all()),
        (
            refused(Code::CertificateRevoked, &[]),
            Outcome::Retry(minute),
            all(),
        ),
        (
            refused(Code::Overloaded, &[]),
            Outcome::Retry(secs(1)),
            all(),
        ),
        (away(), Outcome::Retry(secs(1)), all()),
    ];
    for (error, expected, (records, reports)) in cases {
        let mut scheduler = new();
        (100..104).for_each(|epoch| {
            sample(&mut scheduler, epoch);
        });
        let now = secs(104);
        let batch = send(&mut scheduler, now);
        let done = scheduler.on_result(0, &batch, Err(&error), now, 1.0);
        assert_eq!(done, expected, "{error}");
        if let Outcome::Retry(wait) = done
            && !wait.is_zero()
        {
            assert_eq!(scheduler.next_step(0, now), NextStep::Wait(wait));
        }
        let batch = send(&mut scheduler, now + minute);
        assert_eq!(
            (seqs(&batch), batch.dropped.len()),
            (records, reports),
            "{error}"
        );
    }
}

#[test]
fn refused_reports_cost_no_record() {
    let mut scheduler = new();
    (100..103).for_each(|epoch| {
        sample(&mut scheduler, epoch);
    });
    let now = secs(103);
    let batch = send(&mut scheduler, now);
    scheduler.on_result(
        0,
        &batch,
        Err(&refused(Code::InvalidValues, &[1])),
        now,
        0.5,
    );
    let batch = send(&mut scheduler, now);
    assert_eq!((seqs(&batch), batch.dropped.len()), (vec![1, 3], 1));
    // No record is named: it may be the report.
    let done = scheduler.on_result(0, &batch, Err(&refused(Code::MalformedJson, &[])), now, 0.5);
    assert_eq!(done, Outcome::Retry(Duration::ZERO));
    while let NextStep::Send(batch) = scheduler.next_step(0, now)
        && !batch.records.is_empty()
    {
        assert_eq!(batch.dropped, []);
        scheduler.on_result(0, &batch, Ok(()), now, 0.5);
    }
    let batch = send(&mut scheduler, now + secs(2));
    assert_eq!((seqs(&batch), batch.dropped.len()), (vec![], 1));
    let done = scheduler.on_result(0, &batch, Err(&refused(Code::MalformedJson, &[])), now, 0.5);
    assert_eq!(done, Outcome::ReportsRefused);
    assert_eq!(scheduler.next_step(0, now + secs(4)), NextStep::Idle);
}

#[test]
fn a_step_back_of_the_clock_ends_a_pause() {
    let mut scheduler = new();
    sample(&mut scheduler, 1000);
    let batch = send(&mut scheduler, secs(1000));
    scheduler.on_result(0, &batch, Err(&away()), secs(1000), 1.0);
    assert!(matches!(
        scheduler.next_step(0, secs(1000)),
        NextStep::Wait(_)
    ));
    assert!(matches!(
        scheduler.next_step(0, secs(10)),
        NextStep::Send(_)
    ));
}

#[test]
fn a_wrong_clock_drops_nothing() {
    let mut scheduler = new();
    sample(&mut scheduler, 1_000_000);
    let clock = |at: u64| ServerClock {
        at: secs(at),
        is_steady: true,
        run: 1,
    };
    scheduler.on_server_clock(0, clock(1_000_000), secs(1_000_000), secs(1_000_000));
    // The clock is set forward by two days, and the receivers say so.
    let wrong = 1_000_000 + 2 * 86_400;
    scheduler.on_server_clock(0, clock(1_000_001), secs(wrong + 1), secs(wrong + 1));
    sample(&mut scheduler, wrong + 2);
    assert_eq!(seqs(&send(&mut scheduler, secs(wrong + 2))), [1, 2]);
    assert_eq!(
        scheduler.clock_ahead_secs().map(f64::round),
        Some(172_800.0)
    );
}

fn refused_at(code: Code, records: &[usize], theirs: u64) -> Error {
    let mut error = refused(code, records);
    if let Error::Refused {
        problem: Some(problem),
        ..
    } = &mut error
    {
        problem.now = Some(theirs);
    }
    error
}

/// A receiver booted with its clock hours behind or ahead, for seconds: the whole backlog was
/// dropped.
#[test]
fn a_receiver_with_a_wrong_clock_costs_no_record() {
    const NOW: u64 = 1_465_001_814;
    for (code, theirs) in [
        (Code::EpochInFuture, NOW - 3 * 3_600),
        (Code::EpochInFuture, NOW - 10 * 86_400),
        (Code::EpochTooOld, NOW + 2 * 86_400),
    ] {
        let mut scheduler = new();
        (0..900).for_each(|second| {
            sample(&mut scheduler, NOW - 900 + second);
        });
        let mut requests = 0;
        // It names the first hundred.
        let error = refused_at(code, &(0..100).collect::<Vec<_>>(), theirs);
        let mut now = secs(NOW);
        while now < secs(NOW + 20) {
            match scheduler.next_step(0, now) {
                NextStep::Send(batch) => {
                    requests += 1;
                    let done = scheduler.on_result(0, &batch, Err(&error), now, 0.5);
                    assert!(matches!(done, Outcome::Deferred(_)), "{done:?}");
                }
                NextStep::Wait(wait) => now += wait.min(secs(1)),
                NextStep::Idle => panic!("records wait"),
            }
        }
        assert!(requests <= 10, "{code:?} {requests}");
        assert_eq!(scheduler.spool().dropped_records(), 0);
        assert_eq!(scheduler.spool().pending(0), 900);
        // New records do not wait behind them.
        sample(&mut scheduler, NOW + 20);
        let batch = send(&mut scheduler, now + secs(2));
        assert_eq!(seqs(&batch), [901], "{code:?}");
        scheduler.on_result(0, &batch, Ok(()), now, 0.5);
        // They are sent again after a while, and at once when the receiver's clock changes.
        let batch = send(&mut scheduler, secs(NOW + 61));
        assert!(batch.records.len() >= 890);
        scheduler.on_result(0, &batch, Err(&error), secs(NOW + 61), 0.5);
        let clock = ServerClock {
            at: secs(NOW + 62),
            is_steady: false,
            run: 1,
        };
        scheduler.on_server_clock(0, clock, secs(NOW + 62), secs(NOW + 62));
        let batch = send(&mut scheduler, secs(NOW + 64));
        assert!(batch.records.len() >= 890);
        scheduler.on_result(0, &batch, Ok(()), secs(NOW + 64), 0.5);
    }
}

/// Records that are too old by both clocks are dropped, once ours has been steady for a while.
/// Records that are ahead never are.
#[test]
fn records_too_old_for_both_clocks_are_dropped() {
    // A whole hour.
    const OLD: u64 = 1_000_000_800;
    let now = OLD + 86_400 + 1;
    let mut scheduler = new();
    sample(&mut scheduler, OLD);
    sample(&mut scheduler, OLD + 1);
    sample(&mut scheduler, now);
    let refuse = |scheduler: &mut DeliveryScheduler<MemoryBackend>, at: u64| {
        scheduler.flush();
        let batch = send(scheduler, secs(at));
        // The receiver says that its clock is an hour behind; all records have the code of the
        // first.
        let error = refused_at(Code::EpochTooOld, &[0, 1, 2], now - 3_600);
        let done = scheduler.on_result(0, &batch, Err(&error), secs(at), 0.0);
        (seqs(&batch), done)
    };
    assert_eq!(
        refuse(&mut scheduler, now + 590),
        (vec![1, 2, 3], Outcome::Deferred(3))
    );
    let (sent, done) = refuse(&mut scheduler, now + 700);
    assert_eq!(sent, [1, 2, 3]);
    let Outcome::Dropped(dropped) = done else {
        panic!("{done:?}")
    };
    let told: Vec<_> = dropped
        .iter()
        .map(|dropped| (dropped.index, dropped.code))
        .collect();
    assert_eq!(told, [(0, Code::EpochTooOld)]);
    assert_eq!(scheduler.spool().pending(0), 2);
}

/// A new receiver misses records of before; one that has lost its data misses records that it had.
#[test]
fn records_of_before_are_reported_to_the_receiver() {
    let mut scheduler = start(MemoryBackend::default(), 1, SpoolLimits::new(1 << 20), 1);
    (100..110).for_each(|epoch| {
        sample(&mut scheduler, epoch);
    });
    let batch = send(&mut scheduler, secs(110));
    scheduler.on_result(0, &batch, Ok(()), secs(110), 0.5);
    sample(&mut scheduler, 111);
    scheduler.close().unwrap();
    // A second one is added.
    let mut scheduler = start(scheduler.into_backend(), 2, SpoolLimits::new(1 << 20), 2);
    let told = |next: NextStep| match next {
        NextStep::Send(batch) => {
            let dropped = batch.dropped.iter();
            let dropped: Vec<_> = dropped
                .map(|dropped| {
                    (
                        dropped.from.get(),
                        dropped.to.get(),
                        dropped.why.to_string(),
                    )
                })
                .collect();
            (seqs(&batch), dropped)
        }
        other => panic!("{other:?}"),
    };
    let (first, second) = (
        scheduler.next_step(0, secs(112)),
        scheduler.next_step(1, secs(112)),
    );
    assert_eq!(told(first.clone()), (vec![11], vec![]));
    assert_eq!(
        told(second),
        (
            vec![11],
            vec![(1, 10, drop_reason::BEFORE_ASKED.to_owned())]
        )
    );
    let NextStep::Send(batch) = first else {
        panic!()
    };
    let producer = batch.producer;
    scheduler.on_result(0, &batch, Ok(()), secs(112), 0.5);
    // The first one was restarted without its data, and has got number 12 since.
    let clock = |run: u64| ServerClock {
        at: secs(112),
        is_steady: true,
        run,
    };
    scheduler.on_server_clock(0, clock(1), secs(112), secs(112));
    assert!(scheduler.take_delivery_check_due(0) && !scheduler.take_delivery_check_due(0));
    scheduler.on_server_clock(0, clock(1), secs(112), secs(112));
    assert!(!scheduler.take_delivery_check_due(0));
    scheduler.on_server_clock(0, clock(2), secs(112), secs(112));
    assert!(scheduler.take_delivery_check_due(0));
    let missing = |missing: &[(u64, u64)]| Delivery {
        producers: vec![ProducerDelivery {
            producer,
            received: 1,
            duplicate: 0,
            missing: missing.to_vec(),
            dropped: Vec::new(),
            repaired: 0,
            highest: None,
        }],
        removed: None,
        clock: None,
    };
    sample(&mut scheduler, 113);
    // Records that still wait are not lost.
    assert_eq!(scheduler.on_missing(0, &missing(&[(1, 12)])), 11);
    assert_eq!(
        scheduler.on_missing(0, &missing(&[(1, 12)])),
        0,
        "it is said once"
    );
    let expected = (vec![12], vec![(1, 11, drop_reason::BEFORE_DATA.to_owned())]);
    assert_eq!(told(scheduler.next_step(0, secs(113))), expected);
}

/// Answers are lost for a day: a receiver that takes each batch without an answer still keeps few
/// ranges.
#[test]
fn lost_answers_make_no_gaps() {
    let mut scheduler = new();
    let mut received = BTreeSet::new();
    let mut chance = 0.0;
    for second in 0..86_400 {
        sample(&mut scheduler, 1_000_000 + second);
        let now = secs(1_000_000 + second);
        if let NextStep::Send(batch) = scheduler.next_step(0, now) {
            received.extend(seqs(&batch));
            chance = (chance + 0.618) % 1.0;
            let result = if second % 1000 == 0 {
                Ok(())
            } else {
                Err(away())
            };
            scheduler.on_result(0, &batch, result.as_ref().copied(), now, chance);
        }
    }
    let all: Vec<u64> = received.into_iter().collect();
    let ranges = 1 + all.windows(2).filter(|pair| pair[0] + 1 < pair[1]).count();
    assert!(ranges < 300, "{ranges}");
}

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

#[test]
fn drop_reasons_are_labels() {
    for word in [
        drop_reason::TOO_OLD,
        drop_reason::SPOOL_FULL,
        drop_reason::DISK_FAILED,
        drop_reason::DAMAGED,
    ] {
        assert!(
            word.parse::<lizmon_protocol::name::Label<'static>>()
                .is_ok()
        );
    }
    for code in Code::ALL {
        assert!(
            code.as_str()
                .parse::<lizmon_protocol::name::Label<'static>>()
                .is_ok()
        );
    }
}
