//! Each monitor sends at its own moment within the second.

use super::*;
use crate::offset::send_offset;

const NAME: &str = "web1";

fn spread() -> (DeliveryScheduler<MemoryBackend>, Duration) {
    let host: NodeName = NAME.parse().unwrap();
    let offset = send_offset(&host);
    assert!(offset > Duration::from_millis(100) && offset < Duration::from_millis(900));
    (new().spread(&host), offset)
}

/// A sample that is taken just after its second.
fn sample_at(scheduler: &mut DeliveryScheduler<MemoryBackend>, second: u64) -> Duration {
    let now = secs(second) + Duration::from_millis(3);
    let values = EncodedSamples::encode(&parse_sample_set(br#"{"a":1}"#).unwrap()).unwrap();
    scheduler.record(Epoch::new(second).unwrap(), values, now);
    now
}

/// Waits as the agent does. Returns the next batch and when it is sent.
fn next_batch(
    scheduler: &mut DeliveryScheduler<MemoryBackend>,
    mut now: Duration,
) -> (StoredBatch, Duration) {
    loop {
        match scheduler.next_step(0, now) {
            NextStep::Send(batch) => return (batch, now),
            NextStep::Wait(wait) => now += wait,
            other => panic!("a record waits: {other:?}"),
        }
    }
}

#[test]
fn records_are_sent_at_the_offset_of_the_name() {
    let (mut scheduler, offset) = spread();
    for second in 1000..1010 {
        let now = sample_at(&mut scheduler, second);
        let (batch, sent) = next_batch(&mut scheduler, now);
        assert_eq!(
            batch.records[0].epoch.secs(),
            second,
            "it has its whole second"
        );
        let expected = match second {
            1000 => now,
            _ => secs(second) + offset,
        };
        assert_eq!(sent, expected, "the first one goes at once, {second}");
        scheduler.on_result(0, &batch, Ok(()), sent, 0.5);
    }
    // A sample that is late does not wait for the next second.
    let late = secs(1010) + offset + Duration::from_millis(1);
    let values = EncodedSamples::encode(&parse_sample_set(br#"{"a":1}"#).unwrap()).unwrap();
    scheduler.record(Epoch::new(1010).unwrap(), values, late);
    assert_eq!(next_batch(&mut scheduler, late).1, late);
}

/// While a monitor was busy its moment passed: the record is not put off by the next sample.
#[test]
fn a_record_waits_for_one_offset_at_most() {
    let (mut scheduler, offset) = spread();
    let now = sample_at(&mut scheduler, 1000);
    let (batch, sent) = next_batch(&mut scheduler, now);
    scheduler.on_result(0, &batch, Ok(()), sent, 0.5);
    sample_at(&mut scheduler, 1001);
    let now = sample_at(&mut scheduler, 1002);
    let (batch, sent) = next_batch(&mut scheduler, now);
    assert_eq!((batch.records.len(), sent), (2, now));
    scheduler.on_result(0, &batch, Ok(()), sent, 0.5);
    let now = sample_at(&mut scheduler, 1003);
    assert_eq!(next_batch(&mut scheduler, now).1, secs(1003) + offset);
}

#[test]
fn retries_the_backlog_and_a_stop_do_not_wait_for_it() {
    let (mut scheduler, offset) = spread();
    let now = sample_at(&mut scheduler, 1000);
    let (batch, sent) = next_batch(&mut scheduler, now);
    scheduler.on_result(0, &batch, Ok(()), sent, 0.5);
    // A retry is due when its backoff says so, even at another moment of the second.
    let now = sample_at(&mut scheduler, 1001);
    let (batch, sent) = next_batch(&mut scheduler, now);
    let done = scheduler.on_result(0, &batch, Err(&away()), sent, 0.8);
    let Outcome::Retry(wait) = done else {
        panic!("{done:?}")
    };
    assert!(!wait.is_zero());
    (1002..4000).for_each(|second| {
        sample_at(&mut scheduler, second);
    });
    let (batch, now) = next_batch(&mut scheduler, sent + wait);
    assert_eq!(now, sent + wait);
    assert_eq!(seqs(&batch).first(), Some(&2));
    let now = secs(4000);
    scheduler.on_result(0, &batch, Ok(()), now, 0.0);
    // The backlog goes on at its own pace, and the newest wait for their moment.
    let now = sample_at(&mut scheduler, 4001);
    let (backlog, sent) = next_batch(&mut scheduler, now);
    assert_eq!(sent, now);
    assert_eq!((seqs(&backlog)[0], backlog.records.len()), (1002, 1000));
    scheduler.on_result(0, &backlog, Ok(()), sent, 1.0);
    let (newest, sent) = next_batch(&mut scheduler, sent);
    assert_eq!(
        (seqs(&newest).last(), newest.records.len()),
        (Some(&3001), 10)
    );
    assert_eq!(sent, secs(4001) + offset);
    scheduler.on_result(0, &newest, Ok(()), sent, 0.5);
    while scheduler.spool().pending(0) > 0 {
        let (batch, sent) = next_batch(&mut scheduler, sent);
        scheduler.on_result(0, &batch, Ok(()), sent, 0.5);
    }
    // A stop flushes at once.
    let now = sample_at(&mut scheduler, 4002);
    scheduler.flush();
    assert_eq!(next_batch(&mut scheduler, now).1, now);
}

#[test]
fn a_clock_that_is_set_back_delays_nothing() {
    let (mut scheduler, _) = spread();
    let now = sample_at(&mut scheduler, 1000);
    let (batch, sent) = next_batch(&mut scheduler, now);
    scheduler.on_result(0, &batch, Ok(()), sent, 0.5);
    sample_at(&mut scheduler, 1001);
    assert!(matches!(
        scheduler.next_step(0, secs(900)),
        NextStep::Send(_)
    ));
}
