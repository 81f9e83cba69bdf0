mod failures;
mod kept;

use std::collections::BTreeSet;

use lizmon_protocol::sample::{EncodedSamples, Epoch, ProducerId, Seq, parse_sample_set};

use super::memory::{Crash, Faults, MemoryBackend};
use super::*;

const URLS: [&str; 2] = ["https://a:1/api/perf", "https://b:1/api/perf"];
/// What one record costs.
const RECORD_BYTES: u64 = 49;

fn producers(from: u8) -> impl FnMut() -> ProducerId + Send + 'static {
    let mut last = from;
    move || {
        last += 1;
        ProducerId::from_bytes([last; 16])
    }
}

fn limits() -> SpoolLimits {
    SpoolLimits {
        bytes_max: 1 << 20,
        unsaved_bytes_max: 3 * RECORD_BYTES,
        age_secs_max: 1000,
        keep_secs: 0,
    }
}

fn open(backend: MemoryBackend, limits: SpoolLimits, first_producer: u8) -> Spool<MemoryBackend> {
    let urls = URLS.map(str::to_owned).to_vec();
    Spool::open(backend, urls, limits, producers(first_producer))
}

fn new() -> Spool<MemoryBackend> {
    open(MemoryBackend::default(), limits(), 0)
}

fn push(spool: &mut Spool<MemoryBackend>, epochs: impl IntoIterator<Item = u64>) {
    let values = parse_sample_set(br#"{"a":1}"#).unwrap();
    let values = EncodedSamples::encode(&values).unwrap();
    for epoch in epochs {
        spool
            .push(Epoch::new(epoch).unwrap(), values.clone(), epoch)
            .unwrap();
    }
}

fn seqs(batch: &Option<StoredBatch>) -> Vec<u64> {
    let records = batch.iter().flat_map(|batch| &batch.records);
    records.map(|record| record.seq.get()).collect()
}

fn reports(batch: &Option<StoredBatch>) -> Vec<(u64, u64, &str)> {
    let dropped = batch.iter().flat_map(|batch| &batch.dropped);
    dropped
        .map(|dropped| (dropped.from.get(), dropped.to.get(), dropped.why.as_str()))
        .collect()
}

/// Checks the next batch of a destination: the numbers of records, and the reports.
fn check(
    spool: &mut Spool<MemoryBackend>,
    destination: usize,
    (newest_max, oldest_max): (usize, usize),
    records: &[u64],
    told: &[(u64, u64, &str)],
) {
    let batch = spool.next_batch(destination, newest_max, oldest_max);
    assert_eq!(seqs(&batch), records);
    assert_eq!(reports(&batch), told);
}

fn deliver(
    spool: &mut Spool<MemoryBackend>,
    destination: usize,
    newest_max: usize,
    oldest_max: usize,
) {
    let batch = spool
        .next_batch(destination, newest_max, oldest_max)
        .unwrap();
    spool.ack(destination, &batch);
}

#[test]
fn records_are_read_until_they_are_acknowledged() {
    let mut spool = new();
    check(&mut spool, 0, (10, 10), &[], &[]);
    push(&mut spool, 100..103);
    check(&mut spool, 0, (0, 2), &[1, 2], &[]);
    check(&mut spool, 0, (0, 2), &[1, 2], &[]);
    deliver(&mut spool, 0, 0, 2);
    assert_eq!(spool.pending(0), 1);
    check(&mut spool, 0, (0, 9), &[3], &[]);
    deliver(&mut spool, 0, 0, 9);
    check(&mut spool, 0, (10, 10), &[], &[]);
}

#[test]
fn the_newest_records_go_first() {
    let mut spool = new();
    push(&mut spool, 100..120);
    check(&mut spool, 0, (3, 0), &[18, 19, 20], &[]);
    check(&mut spool, 0, (3, 5), &[1, 2, 18, 19, 20], &[]);
    check(&mut spool, 0, (10, 100), &(1..=20).collect::<Vec<_>>(), &[]);
    deliver(&mut spool, 0, 3, 5);
    // The newest have arrived: only the backlog is left.
    check(&mut spool, 0, (3, 0), &[], &[]);
    check(&mut spool, 0, (3, 5), &[3, 4, 5, 6, 7], &[]);
    push(&mut spool, [120]);
    check(&mut spool, 0, (3, 0), &[21], &[]);
    check(&mut spool, 0, (3, 3), &[3, 4, 21], &[]);
}

#[test]
fn a_slow_destination_does_not_delay_others() {
    let mut spool = new();
    push(&mut spool, 100..104);
    deliver(&mut spool, 0, 0, 9);
    check(&mut spool, 0, (9, 9), &[], &[]);
    check(&mut spool, 1, (0, 9), &[1, 2, 3, 4], &[]);
    spool.save().unwrap();
    assert_eq!(spool.backend().records(), 4);
    deliver(&mut spool, 1, 0, 9);
    spool.save().unwrap();
    assert_eq!((spool.backend().records(), spool.stored_bytes()), (0, 0));
}

#[test]
fn a_full_spool_drops_and_reports_the_oldest() {
    let bytes_max = 4 * RECORD_BYTES;
    let mut spool = open(
        MemoryBackend::default(),
        SpoolLimits {
            bytes_max,
            ..limits()
        },
        0,
    );
    push(&mut spool, 100..104);
    assert_eq!(spool.stored_bytes(), bytes_max);
    deliver(&mut spool, 0, 0, 1);
    push(&mut spool, 104..106);
    let full = |from, to| (from, to, drop_reason::SPOOL_FULL);
    // A little more is dropped than needed, so that it is not done for each record.
    check(&mut spool, 0, (0, 9), &[3, 4, 5, 6], &[full(2, 2)]);
    check(&mut spool, 1, (0, 9), &[3, 4, 5, 6], &[full(1, 2)]);
    assert_eq!(spool.stored_bytes(), bytes_max);
    assert_eq!(spool.dropped_records(), 2);
    let events = spool.take_events();
    let dropped_records = events.iter().map(|event| match event {
        Event::RecordsDropped {
            records,
            why: drop_reason::SPOOL_FULL,
        } => *records,
        other => panic!("{other:?}"),
    });
    assert_eq!(dropped_records.sum::<u64>(), 2);
    // It is reported once.
    deliver(&mut spool, 0, 0, 9);
    check(&mut spool, 0, (9, 9), &[], &[]);
    check(&mut spool, 1, (0, 9), &[3, 4, 5, 6], &[full(1, 2)]);
}

#[test]
fn records_too_old_for_receivers_are_dropped() {
    let mut spool = new();
    push(&mut spool, [100, 101, 1100]);
    check(&mut spool, 0, (0, 9), &[1, 2, 3], &[]);
    push(&mut spool, [1101]);
    check(
        &mut spool,
        0,
        (0, 9),
        &[2, 3, 4],
        &[(1, 1, drop_reason::TOO_OLD)],
    );
    push(&mut spool, [5000]);
    check(&mut spool, 0, (0, 9), &[5], &[(1, 4, drop_reason::TOO_OLD)]);
}

/// Power failed in an outage of more than a day. The log that ended there had nothing left but its
/// reports, and was removed with them: the receiver never learned why those numbers were missing.
#[test]
fn drops_of_a_finished_log_are_reported_after_its_records_are_too_old() {
    let mut spool = new();
    push(&mut spool, [100]);
    let producer = spool.producer().unwrap();
    let mut backend = spool.into_backend().crash(Crash::Killed, false);
    backend.lose_checkpoints();
    let mut spool = open(backend, limits(), 7);
    push(&mut spool, (2000..4000).step_by(100));
    let mut told = Vec::new();
    while let Some(batch) = spool.next_batch(0, 0, 100) {
        let dropped = batch.dropped.iter();
        told.extend(dropped.map(|range| (batch.producer, range.from.get(), range.to.get())));
        spool.ack(0, &batch);
    }
    assert!(told.contains(&(producer, 1, 1)), "{told:?}");
}

#[test]
fn a_clock_jump_drops_nothing_for_ten_minutes() {
    let mut spool = new();
    let day = 86_400;
    push(&mut spool, [100, day, day + 599]);
    check(&mut spool, 0, (0, 9), &[1, 2, 3], &[]);
    push(&mut spool, [day + 600]);
    check(
        &mut spool,
        0,
        (0, 9),
        &[2, 3, 4],
        &[(1, 1, drop_reason::TOO_OLD)],
    );
    push(&mut spool, [200, 3 * day]);
    check(
        &mut spool,
        0,
        (0, 9),
        &[2, 3, 4, 5, 6],
        &[(1, 1, drop_reason::TOO_OLD)],
    );
}

#[test]
fn refused_records_are_reported_and_not_sent_again() {
    let mut spool = new();
    push(&mut spool, 100..104);
    let producer = spool.producer().unwrap();
    let named = [1, 2, 4].map(|seq| Seq::new(seq).unwrap());
    spool.drop_records(0, producer, &named, "invalid_values");
    let told = [(1, 2, "invalid_values"), (4, 4, "invalid_values")];
    check(&mut spool, 0, (0, 9), &[3], &told);
    check(&mut spool, 1, (0, 9), &[1, 2, 3, 4], &[]);
    // A report that grew while it was sent is sent again, as far as it grew.
    let batch = spool.next_batch(0, 0, 9).unwrap();
    push(&mut spool, [104]);
    spool.drop_records(0, producer, &[Seq::new(5).unwrap()], "invalid_values");
    spool.ack(0, &batch);
    check(&mut spool, 0, (0, 9), &[], &[(5, 5, "invalid_values")]);
    deliver(&mut spool, 0, 0, 9);
    check(&mut spool, 0, (0, 9), &[], &[]);
}

#[test]
fn destinations_come_and_go() {
    let mut spool = new();
    push(&mut spool, 100..103);
    deliver(&mut spool, 0, 0, 2);
    deliver(&mut spool, 1, 0, 1);
    spool.save().unwrap();
    let backend = spool.into_backend();
    let urls = vec!["https://new:1/api/perf".to_owned(), URLS[0].to_owned()];
    let mut spool = Spool::open(backend, urls, limits(), producers(50));
    check(&mut spool, 1, (0, 9), &[3], &[]);
    check(
        &mut spool,
        0,
        (0, 9),
        &[2, 3],
        &[(1, 1, drop_reason::BEFORE_ASKED)],
    );
}

#[test]
fn many_gaps_start_a_new_producer() {
    let mut spool = new();
    let first = spool.producer().unwrap();
    for gap in 0..u64::from(GAPS_MAX) {
        push(&mut spool, [100, 100]);
        let batch = spool.next_batch(0, 0, 9).unwrap();
        let refused = Seq::new(2 * gap + 2).unwrap();
        spool.drop_records(0, first, &[refused], "invalid_values");
        spool.ack(0, &batch);
        deliver(&mut spool, 1, 0, 9);
        assert_eq!(spool.producer(), Some(first));
    }
    push(&mut spool, [100]);
    assert_ne!(spool.producer(), Some(first));
}

#[test]
fn producer_logs_are_bounded() {
    let mut backend = MemoryBackend::default();
    for run in 0..60 {
        let mut spool = open(backend, limits(), 4 * run);
        push(&mut spool, [100]);
        assert!(spool.logs.len() <= PRODUCER_LOGS_MAX + 1);
        backend = spool.into_backend();
        backend.lose_checkpoints();
    }
    // No destination gets them, and in the end they are too old.
    let mut spool = open(backend, limits(), 250);
    push(&mut spool, [2000, 700_000, 700_700, 700_701]);
    assert_eq!(spool.logs.len(), 1);
}
