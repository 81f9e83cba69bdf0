mod clocks;
mod faults;
mod repair;
mod send_offset;

use std::collections::BTreeSet;

use lizmon_client::{BaseUrl, ConnectError, ConnectFailure};
use lizmon_protocol::delivery::{Delivery, ProducerDelivery};
use lizmon_protocol::problem::{Code, Problem, ValueError};
use lizmon_protocol::sample::{ProducerId, parse_sample_set};

use super::*;
use crate::spool::memory::MemoryBackend;
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
        // The receiver was restarted, and does not answer this.
        NextStep::CheckDelivery => {
            scheduler.on_delivery(0, Err(&away()), now, 0.5);
            send(scheduler, now)
        }
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
            other => panic!("records wait: {other:?}"),
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
    let mut asked = |run: u64, is_asked: bool, missing: &[(u64, u64)]| {
        let now = secs(112 + 10 * run);
        scheduler.on_server_clock(0, clock(run), now, now);
        let next = scheduler.next_step(0, now);
        assert_eq!(next == NextStep::CheckDelivery, is_asked, "{next:?}");
        let told = Delivery {
            as_of: None,
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
        let losses = scheduler.on_delivery(0, Ok(&told), now, 0.5);
        assert_eq!(losses.repairable, 0, "nothing is kept");
        losses.lost
    };
    assert_eq!(asked(1, true, &[]), 0);
    assert_eq!(asked(1, false, &[(1, 12)]), 0, "it was not restarted");
    // Records that still wait are not lost.
    assert_eq!(asked(2, true, &[(1, 12)]), 11);
    assert_eq!(asked(3, true, &[(1, 12)]), 0, "it is said once");
    sample(&mut scheduler, 113);
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
