use std::collections::{BTreeMap, BTreeSet};

use lizmon_client::{BaseUrl, Obstacle};
use lizmon_protocol::problem::{Code, Problem, ValueError};
use lizmon_protocol::sample::{ProducerId, parse_sample_set};
use proptest::prelude::*;

use super::*;
use crate::spool::memory::{self, Crash, Faults, Memory};
use crate::spool::{Limits, why};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn url() -> BaseUrl {
    "https://a:1".parse().unwrap()
}

fn away() -> Error {
    Error::Unreachable {
        url: url(),
        obstacle: Obstacle::Broken,
        cause: "cut".into(),
    }
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

fn start(keep: Memory, destinations: usize, limits: Limits, id: u8) -> Dispatch<Memory> {
    let urls = (0..destinations).map(|at| format!("https://r{at}:1/api/perf"));
    let mut last = (id, 0);
    let new_producer = move || {
        last.1 += 1;
        let mut bytes = [last.0; 16];
        bytes[15] = last.1;
        ProducerId::from_bytes(bytes)
    };
    Dispatch::new(Spool::open(keep, urls.collect(), limits, new_producer))
}

fn new() -> Dispatch<Memory> {
    start(Memory::default(), 1, Limits::new(1 << 20), 1)
}

fn sample(dispatch: &mut Dispatch<Memory>, epoch: u64) -> IdempotencyKey {
    let values = parse_sample_set(br#"{"a":1}"#).unwrap();
    let at = Epoch::new(epoch).unwrap();
    dispatch.sampled(at, &values, secs(epoch)).unwrap()
}

fn seqs(lot: &Lot) -> Vec<u64> {
    lot.records.iter().map(|record| record.seq.get()).collect()
}

fn send(dispatch: &mut Dispatch<Memory>, now: Duration) -> Lot {
    match dispatch.next(0, now) {
        Next::Send(lot) => lot,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_record_goes_by_itself_while_all_is_well() {
    let mut dispatch = new();
    assert_eq!(dispatch.next(0, secs(99)), Next::Idle);
    for epoch in 100..105 {
        let key = sample(&mut dispatch, epoch);
        let lot = send(&mut dispatch, secs(epoch));
        assert_eq!(seqs(&lot), [key.seq.get()]);
        let done = dispatch.done(0, &lot, Ok(()), secs(epoch), 0.5);
        assert_eq!(done, Done::Delivered(1));
        assert_eq!(dispatch.next(0, secs(epoch)), Next::Idle);
    }
    assert_eq!(dispatch.delivered_records(0), 5);
}

#[test]
fn after_an_outage_the_newest_go_at_once_and_the_rest_beside_them() {
    let mut dispatch = new();
    (0..5000).for_each(|second| {
        sample(&mut dispatch, 1000 + second);
    });
    let mut now = secs(6000);
    // While it fails, the same oldest records are tried.
    for _ in 0..3 {
        let lot = send(&mut dispatch, now);
        let oldest: Vec<u64> = (1..=1000).collect();
        let tried = seqs(&lot);
        if dispatch.couriers[0].is_failing {
            assert_eq!(tried, oldest);
        } else {
            assert_eq!(tried.last(), Some(&5000));
        }
        let done = dispatch.done(0, &lot, Err(&away()), now, 1.0);
        let Done::Again(wait) = done else {
            panic!("{done:?}")
        };
        assert_eq!(dispatch.next(0, now), Next::Wait(wait));
        now += wait;
    }
    let lot = send(&mut dispatch, now);
    dispatch.done(0, &lot, Ok(()), now, 0.5);
    // It is back: the newest at once, without the old.
    assert_eq!(
        seqs(&send(&mut dispatch, now)),
        (4991..=5000).collect::<Vec<_>>()
    );
    let lot = send(&mut dispatch, now);
    dispatch.done(0, &lot, Ok(()), now, 0.5);
    let Next::Wait(wait) = dispatch.next(0, now) else {
        panic!("the backlog waits")
    };
    assert!(wait <= BACKLOG_EVERY);
    // A new record does not wait for the backlog, and does not put it off.
    let seq = sample(&mut dispatch, 6007).seq.get();
    let lot = send(&mut dispatch, now);
    assert_eq!(seqs(&lot), [seq]);
    dispatch.done(0, &lot, Ok(()), now, 0.5);
    assert_eq!(dispatch.next(0, now), Next::Wait(wait));
    // In five lots, one a second, all is there.
    let began = now;
    while dispatch.spool().pending(0) > 0 {
        match dispatch.next(0, now) {
            Next::Send(lot) => {
                assert!(lot.records.len() <= 1000);
                dispatch.done(0, &lot, Ok(()), now, 0.5);
            }
            Next::Wait(wait) => now += wait,
            Next::Idle => panic!("records wait"),
        }
    }
    assert_eq!(now - began, secs(4));
}

#[test]
fn a_stop_hurries_the_backlog() {
    let mut dispatch = new();
    (0..3000).for_each(|second| {
        sample(&mut dispatch, 1000 + second);
    });
    dispatch.hurry();
    for expected in [2000, 1000, 0] {
        let lot = send(&mut dispatch, secs(4000));
        dispatch.done(0, &lot, Ok(()), secs(4000), 0.5);
        assert_eq!(dispatch.spool().pending(0), expected);
    }
}

/// What is sent, how it is answered, what is done, and what is sent next: numbers of records, and of reports.
#[test]
fn answers() {
    let zero = Duration::ZERO;
    let minute = secs(60);
    type Case = (Error, Done, (Vec<u64>, usize));
    let given_up = |code, at: &[usize]| {
        let dropped = at.iter().map(|at| Dropped {
            at: *at,
            code,
            why: format!("{}: no", code.as_str()),
        });
        Done::GivenUp(dropped.collect())
    };
    let all = || (vec![1, 2, 3, 4], 0);
    let cases: [Case; 7] = [
        (
            refused(Code::InvalidValues, &[0, 2]),
            given_up(Code::InvalidValues, &[0, 2]),
            (vec![2, 4], 2),
        ),
        (
            refused(Code::BodyTooLarge, &[]),
            Done::Again(zero),
            (vec![3, 4], 0),
        ),
        (refused(Code::TokenExpired, &[]), Done::Again(zero), all()),
        (refused(Code::WrongHost, &[]), Done::Again(minute), all()),
        (
            refused(Code::CertificateRevoked, &[]),
            Done::Again(minute),
            all(),
        ),
        (refused(Code::Overloaded, &[]), Done::Again(secs(1)), all()),
        (away(), Done::Again(secs(1)), all()),
    ];
    for (error, expected, (records, reports)) in cases {
        let mut dispatch = new();
        (100..104).for_each(|epoch| {
            sample(&mut dispatch, epoch);
        });
        let now = secs(104);
        let lot = send(&mut dispatch, now);
        let done = dispatch.done(0, &lot, Err(&error), now, 1.0);
        assert_eq!(done, expected, "{error}");
        if let Done::Again(wait) = done
            && !wait.is_zero()
        {
            assert_eq!(dispatch.next(0, now), Next::Wait(wait));
        }
        let lot = send(&mut dispatch, now + minute);
        assert_eq!(
            (seqs(&lot), lot.dropped.len()),
            (records, reports),
            "{error}"
        );
    }
}

#[test]
fn reports_that_are_not_wanted_cost_no_record() {
    let mut dispatch = new();
    (100..103).for_each(|epoch| {
        sample(&mut dispatch, epoch);
    });
    let now = secs(103);
    let lot = send(&mut dispatch, now);
    dispatch.done(0, &lot, Err(&refused(Code::InvalidValues, &[1])), now, 0.5);
    let lot = send(&mut dispatch, now);
    assert_eq!((seqs(&lot), lot.dropped.len()), (vec![1, 3], 1));
    // No record is named: is it the report?
    let done = dispatch.done(0, &lot, Err(&refused(Code::MalformedJson, &[])), now, 0.5);
    assert_eq!(done, Done::Again(Duration::ZERO));
    while let Next::Send(lot) = dispatch.next(0, now)
        && !lot.records.is_empty()
    {
        assert_eq!(lot.dropped, []);
        dispatch.done(0, &lot, Ok(()), now, 0.5);
    }
    let lot = send(&mut dispatch, now + secs(2));
    assert_eq!((seqs(&lot), lot.dropped.len()), (vec![], 1));
    let done = dispatch.done(0, &lot, Err(&refused(Code::MalformedJson, &[])), now, 0.5);
    assert_eq!(done, Done::NotTold);
    assert_eq!(dispatch.next(0, now + secs(4)), Next::Idle);
}

#[test]
fn a_clock_set_back_ends_a_rest() {
    let mut dispatch = new();
    sample(&mut dispatch, 1000);
    let lot = send(&mut dispatch, secs(1000));
    dispatch.done(0, &lot, Err(&away()), secs(1000), 1.0);
    assert!(matches!(dispatch.next(0, secs(1000)), Next::Wait(_)));
    assert!(matches!(dispatch.next(0, secs(10)), Next::Send(_)));
}

#[test]
fn a_clock_that_is_wrong_makes_nothing_old() {
    let mut dispatch = new();
    sample(&mut dispatch, 1_000_000);
    let clock = |at: u64| ServerClock {
        at: secs(at),
        is_steady: true,
        run: 1,
    };
    dispatch.heard_clock(0, clock(1_000_000), secs(1_000_000), secs(1_000_000));
    // Set forward by two days, and the receivers say so.
    let wrong = 1_000_000 + 2 * 86_400;
    dispatch.heard_clock(0, clock(1_000_001), secs(wrong + 1), secs(wrong + 1));
    sample(&mut dispatch, wrong + 2);
    assert_eq!(seqs(&send(&mut dispatch, secs(wrong + 2))), [1, 2]);
    assert_eq!(dispatch.clock_ahead_secs().map(f64::round), Some(172_800.0));
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

/// A receiver that boots hours behind, or ahead, for seconds: the whole backlog was given up.
#[test]
fn a_receiver_at_another_time_costs_no_record() {
    const NOW: u64 = 1_465_001_814;
    for (code, theirs) in [
        (Code::EpochInFuture, NOW - 3 * 3_600),
        (Code::EpochInFuture, NOW - 10 * 86_400),
        (Code::EpochTooOld, NOW + 2 * 86_400),
    ] {
        let mut dispatch = new();
        (0..900).for_each(|second| {
            sample(&mut dispatch, NOW - 900 + second);
        });
        let mut requests = 0;
        // It names the first hundred.
        let error = refused_at(code, &(0..100).collect::<Vec<_>>(), theirs);
        let mut now = secs(NOW);
        while now < secs(NOW + 20) {
            match dispatch.next(0, now) {
                Next::Send(lot) => {
                    requests += 1;
                    let done = dispatch.done(0, &lot, Err(&error), now, 0.5);
                    assert!(matches!(done, Done::PutOff(_)), "{done:?}");
                }
                Next::Wait(wait) => now += wait.min(secs(1)),
                Next::Idle => panic!("records wait"),
            }
        }
        assert!(requests <= 10, "{code:?} {requests}");
        assert_eq!(dispatch.spool().given_up(), 0);
        assert_eq!(dispatch.spool().pending(0), 900);
        // What comes meanwhile is not behind them.
        sample(&mut dispatch, NOW + 20);
        let lot = send(&mut dispatch, now + secs(2));
        assert_eq!(seqs(&lot), [901], "{code:?}");
        dispatch.done(0, &lot, Ok(()), now, 0.5);
        // They come again by themselves, and at once when the receiver's clock is another.
        let lot = send(&mut dispatch, secs(NOW + 61));
        assert!(lot.records.len() >= 890);
        dispatch.done(0, &lot, Err(&error), secs(NOW + 61), 0.5);
        let clock = ServerClock {
            at: secs(NOW + 62),
            is_steady: false,
            run: 1,
        };
        dispatch.heard_clock(0, clock, secs(NOW + 62), secs(NOW + 62));
        let lot = send(&mut dispatch, secs(NOW + 64));
        assert!(lot.records.len() >= 890);
        dispatch.done(0, &lot, Ok(()), secs(NOW + 64), 0.5);
    }
}

/// What both clocks call too old is given up, once ours has run on for a while. What is ahead never is.
#[test]
fn what_is_too_old_for_both_is_given_up() {
    // A whole hour.
    const OLD: u64 = 1_000_000_800;
    let now = OLD + 86_400 + 1;
    let mut dispatch = new();
    sample(&mut dispatch, OLD);
    sample(&mut dispatch, OLD + 1);
    sample(&mut dispatch, now);
    let refuse = |dispatch: &mut Dispatch<Memory>, at: u64| {
        dispatch.hurry();
        let lot = send(dispatch, secs(at));
        // The receiver's clock is an hour behind, or so it says: the first word stands for all.
        let error = refused_at(Code::EpochTooOld, &[0, 1, 2], now - 3_600);
        let done = dispatch.done(0, &lot, Err(&error), secs(at), 0.0);
        (seqs(&lot), done)
    };
    assert_eq!(
        refuse(&mut dispatch, now + 590),
        (vec![1, 2, 3], Done::PutOff(3))
    );
    let (sent, done) = refuse(&mut dispatch, now + 700);
    assert_eq!(sent, [1, 2, 3]);
    let Done::GivenUp(dropped) = done else {
        panic!("{done:?}")
    };
    let told: Vec<_> = dropped
        .iter()
        .map(|dropped| (dropped.at, dropped.code))
        .collect();
    assert_eq!(told, [(0, Code::EpochTooOld)]);
    assert_eq!(dispatch.spool().pending(0), 2);
}

/// A second receiver, or one that has lost its data, misses what it was never to get, or once had.
#[test]
fn who_has_no_part_in_a_record_is_told_so() {
    let mut dispatch = start(Memory::default(), 1, Limits::new(1 << 20), 1);
    (100..110).for_each(|epoch| {
        sample(&mut dispatch, epoch);
    });
    let lot = send(&mut dispatch, secs(110));
    dispatch.done(0, &lot, Ok(()), secs(110), 0.5);
    sample(&mut dispatch, 111);
    dispatch.close().unwrap();
    // A second one is added.
    let mut dispatch = start(dispatch.into_keep(), 2, Limits::new(1 << 20), 2);
    let told = |next: Next| match next {
        Next::Send(lot) => {
            let dropped = lot.dropped.iter();
            let dropped: Vec<_> = dropped
                .map(|dropped| {
                    (
                        dropped.from.get(),
                        dropped.to.get(),
                        dropped.why.to_string(),
                    )
                })
                .collect();
            (seqs(&lot), dropped)
        }
        other => panic!("{other:?}"),
    };
    let (first, second) = (dispatch.next(0, secs(112)), dispatch.next(1, secs(112)));
    assert_eq!(told(first.clone()), (vec![11], vec![]));
    assert_eq!(
        told(second),
        (vec![11], vec![(1, 10, why::BEFORE.to_owned())])
    );
    let Next::Send(lot) = first else { panic!() };
    let producer = lot.producer;
    dispatch.done(0, &lot, Ok(()), secs(112), 0.5);
    // The first one starts anew, without its data, and has got number 12 since.
    let clock = |run: u64| ServerClock {
        at: secs(112),
        is_steady: true,
        run,
    };
    dispatch.heard_clock(0, clock(1), secs(112), secs(112));
    assert!(dispatch.take_may_have_lost(0) && !dispatch.take_may_have_lost(0));
    dispatch.heard_clock(0, clock(1), secs(112), secs(112));
    assert!(!dispatch.take_may_have_lost(0));
    dispatch.heard_clock(0, clock(2), secs(112), secs(112));
    assert!(dispatch.take_may_have_lost(0));
    let missing = |missing: &[(u64, u64)]| Delivery {
        producers: vec![ProducerDelivery {
            producer,
            received: 1,
            duplicate: 0,
            missing: missing.to_vec(),
            dropped: Vec::new(),
        }],
        removed: None,
        clock: None,
    };
    sample(&mut dispatch, 113);
    // What still waits is no loss.
    assert_eq!(dispatch.missed(0, &missing(&[(1, 12)])), 11);
    assert_eq!(
        dispatch.missed(0, &missing(&[(1, 12)])),
        0,
        "it is said once"
    );
    let expected = (vec![12], vec![(1, 11, why::GONE.to_owned())]);
    assert_eq!(told(dispatch.next(0, secs(113))), expected);
}

/// Answers get lost for a day: a receiver that takes every lot and cannot say so keeps few ranges.
#[test]
fn lost_answers_make_no_gaps() {
    let mut dispatch = new();
    let mut received = BTreeSet::new();
    let mut chance = 0.0;
    for second in 0..86_400 {
        sample(&mut dispatch, 1_000_000 + second);
        let now = secs(1_000_000 + second);
        if let Next::Send(lot) = dispatch.next(0, now) {
            received.extend(seqs(&lot));
            chance = (chance + 0.618) % 1.0;
            let result = if second % 1000 == 0 {
                Ok(())
            } else {
                Err(away())
            };
            dispatch.done(0, &lot, result.as_ref().copied(), now, chance);
        }
    }
    let all: Vec<u64> = received.into_iter().collect();
    let ranges = 1 + all.windows(2).filter(|pair| pair[0] + 1 < pair[1]).count();
    assert!(ranges < 300, "{ranges}");
}

/// A receiver as the contract has it: what it has, by number, and what it was told.
#[derive(Default)]
struct Receiver {
    has: BTreeMap<(ProducerId, u64), u64>,
    told: BTreeSet<(ProducerId, u64)>,
}

impl Receiver {
    /// A number that is known changes nothing.
    fn take(&mut self, lot: &Lot) {
        for record in &lot.records {
            let key = (lot.producer, record.seq.get());
            self.has.entry(key).or_insert(record.epoch.secs());
        }
        for dropped in &lot.dropped {
            let all = dropped.from.get()..=dropped.to.get();
            self.told.extend(all.map(|seq| (lot.producer, seq)));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Sample,
    /// To a destination, which answers, or whose answer is lost, or which the lot does not reach.
    Arrives(usize),
    AnswerLost(usize),
    IsLost(usize),
    /// A record of the lot is refused by name.
    Refuses(usize, usize),
    TooLarge(usize),
    Passes(u64),
    Fails(Faults),
    Crash(Crash, bool),
    /// A crash, and then the keep is as it was when the process began; or it has lost its note; or a record of the open tape.
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
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(commits, notes, reads)| {
            Fails(Faults {
                commits: commits || notes,
                notes,
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

/// What drives the monitor, and remembers what must not get lost.
struct World {
    dispatch: Dispatch<Memory>,
    at_start: Memory,
    faults: Faults,
    now: u64,
    runs: u8,
    receivers: [Receiver; 2],
    /// By when it was measured: the number it got, and whether that outlives the process.
    sampled: BTreeMap<u64, ((ProducerId, u64), bool)>,
}

impl World {
    const LIMITS: Limits = Limits {
        bytes_max: 3000,
        tail_bytes_max: 500,
        age_secs_max: 2000,
    };

    fn new() -> Self {
        Self {
            dispatch: start(Memory::default(), 2, Self::LIMITS, 1),
            at_start: Memory::default(),
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
                let key = sample(&mut self.dispatch, self.now);
                let number = (key.producer, key.seq.get());
                let open = self.dispatch.spool().producer();
                let is_lasting = Some(key.producer) == open;
                assert_eq!(is_lasting, !self.faults.notes && open.is_some());
                self.sampled.insert(self.now, (number, is_lasting));
                if is_lasting {
                    // With its number those of the producer in memory were noted.
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
                    Some(&|lot| match lot.records.len() {
                        0 => refused(Code::MalformedJson, &[]),
                        records => refused(Code::InvalidValues, &[record % records]),
                    }),
                );
            }
            Step::TooLarge(at) => {
                self.send(
                    at,
                    false,
                    Some(&|lot| match lot.records.len() {
                        0 | 1 => away(),
                        _ => refused(Code::BodyTooLarge, &[]),
                    }),
                );
            }
            Step::Passes(secs) => self.now += secs,
            Step::Fails(faults) => {
                self.faults = faults;
                self.dispatch.spool_mut().keep_mut().set_faults(faults);
            }
            Step::Crash(crash, in_doubt) => self.crash(|keep| keep.crash(crash, in_doubt)),
            Step::ComesBackOlder => {
                let mut earlier = self.at_start.clone();
                earlier.set_faults(Faults::default());
                let known = earlier.load().unwrap().tapes;
                // Notes tell of tapes that are open or not written; others are as they were.
                let noted = self.dispatch.spool().producer();
                self.sampled.retain(|_, ((producer, seq), _)| {
                    let mut known = known.iter().map(|found| &found.state);
                    Some(*producer) == noted
                        || known.any(|state| state.producer == *producer && *seq < state.next)
                });
                // What is missing stands in the notes alone until the next start has written it down.
                self.faults = Faults::default();
                self.crash(|keep| {
                    let mut keep = keep.crash(Crash::Killed, false);
                    keep.roll_back(&earlier);
                    keep
                });
            }
            // While nothing can be committed, the note alone tells which numbers are taken: then both must not fail.
            Step::LosesNote if self.dispatch.close().is_err() => (),
            Step::LosesNote => self.crash(|keep| {
                let mut keep = keep.crash(Crash::Killed, true);
                keep.lose_notes();
                keep
            }),
            Step::LosesRecord(seq) => {
                if let Some(producer) = self.dispatch.spool().producer() {
                    self.dispatch.spool_mut().keep_mut().damage(producer, seq);
                }
            }
        }
    }

    fn send(&mut self, at: usize, arrives: bool, error: Option<&dyn Fn(&Lot) -> Error>) {
        let now = secs(self.now);
        let Next::Send(lot) = self.dispatch.next(at, now) else {
            return;
        };
        for record in &lot.records {
            let number = (lot.producer, record.seq.get());
            for receiver in &self.receivers {
                let known = receiver.has.get(&number);
                assert!(
                    known.is_none_or(|epoch| *epoch == record.epoch.secs()),
                    "{number:?} was given twice"
                );
            }
        }
        if arrives {
            self.receivers[at].take(&lot);
        }
        let error = error.map(|error| error(&lot));
        let result = error.as_ref().map_or(Ok(()), Err);
        if let Done::NotTold = self.dispatch.done(at, &lot, result, now, 0.5) {
            // It does not want to know: that is as good as told.
            self.receivers[at].take(&lot);
        }
    }

    /// The next start finds what is left, on a disk that is as it was.
    fn crash(&mut self, what_is_left: impl FnOnce(Memory) -> Memory) {
        let spare = Dispatch::new(Spool::open(
            Memory::default(),
            Vec::new(),
            Self::LIMITS,
            || ProducerId::from_bytes([0; 16]),
        ));
        let mut keep = what_is_left(std::mem::replace(&mut self.dispatch, spare).into_keep());
        keep.set_faults(self.faults);
        self.runs += 1;
        self.dispatch = start(keep, 2, Self::LIMITS, self.runs);
        self.at_start = self.dispatch.spool().keep().clone();
        // Numbers of a disk that took none ended with the process.
        self.sampled.retain(|_, (_, is_lasting)| *is_lasting);
    }

    /// Nothing fails any more: what is left arrives.
    fn settle(&mut self) {
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
            assert_eq!(self.dispatch.spool().pending(at), 0);
        }
    }

    /// For each receiver, every sample has arrived, or was reported as given up.
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

    /// Whatever fails in whatever order: every record arrives, or is reported as given up, and no number is given twice.
    #[test]
    fn nothing_is_lost_in_silence(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}

#[test]
fn words_for_receivers_are_labels() {
    for word in [why::OLD, why::FULL, why::DISK, why::DAMAGED] {
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
