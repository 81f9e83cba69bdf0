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

fn commits_fail() -> Faults {
    Faults {
        commits: true,
        ..Faults::default()
    }
}

#[test]
fn a_full_disk_stops_nothing() {
    let mut spool = new();
    push(&mut spool, [100]);
    spool.backend_mut().set_faults(commits_fail());
    push(&mut spool, 101..104);
    let events = spool.take_events();
    assert!(
        matches!(&events[..], [Event::BackendFailed(_)]),
        "{events:?}"
    );
    check(&mut spool, 0, (9, 9), &[1, 2, 3, 4], &[]);
    deliver(&mut spool, 0, 0, 2);
    // Memory holds three: of those that are not delivered everywhere, the oldest is dropped.
    push(&mut spool, [104]);
    let told = [(2, 2, drop_reason::DISK_FAILED)];
    check(&mut spool, 0, (9, 9), &[3, 4, 5], &[]);
    check(&mut spool, 1, (9, 9), &[1, 3, 4, 5], &told);
    assert_eq!(
        spool.take_events(),
        [dropped_records(1, drop_reason::DISK_FAILED)]
    );
    spool.backend_mut().set_faults(Faults::default());
    push(&mut spool, [105]);
    assert_eq!(spool.take_events(), [Event::BackendRecovered]);
    check(&mut spool, 0, (9, 9), &[3, 4, 5, 6], &[]);
    assert_eq!(spool.backend().records(), 5);
}

/// A disk may block before it fails: it is not tried each second.
#[test]
fn a_failing_disk_is_retried_after_a_while() {
    let mut spool = new();
    push(&mut spool, [100]);
    spool.backend_mut().set_faults(Faults {
        checkpoints: true,
        ..Faults::default()
    });
    push(&mut spool, [101]);
    spool.backend_mut().set_faults(Faults::default());
    push(&mut spool, [102, 110]);
    assert_eq!(spool.backend().records(), 1);
    push(&mut spool, [111]);
    assert_eq!(spool.backend().records(), 5);
}

/// The records that the first destination gets, and the drops that are reported to it.
fn drain(spool: &mut Spool<MemoryBackend>, known: &mut BTreeSet<(ProducerId, u64)>) {
    while let Some(batch) = spool.next_batch(0, 0, 100) {
        known.extend(
            batch
                .records
                .iter()
                .map(|record| (batch.producer, record.seq.get())),
        );
        for dropped in &batch.dropped {
            let range = dropped.from.get()..=dropped.to.get();
            known.extend(range.map(|seq| (batch.producer, seq)));
        }
        spool.ack(0, &batch);
    }
}

/// The disk filled up, the process was killed, restarted on the full disk, and killed again, with
/// no receiver. The records in between had a producer in memory, which was never reported: neither
/// after the second kill, nor if the disk had free space before it.
#[test]
fn a_start_on_a_full_disk_reports_every_loss() {
    let notes_fail = Faults {
        checkpoints: true,
        ..commits_fail()
    };
    for (at_start, before_the_kill, lost) in [
        (commits_fail(), commits_fail(), 4),
        (commits_fail(), Faults::default(), 2),
        (notes_fail, commits_fail(), 4),
        (notes_fail, Faults::default(), 2),
        (unreadable(), commits_fail(), 4),
        (unreadable(), Faults::default(), 2),
    ] {
        let mut spool = new();
        let mut pushed = Vec::new();
        let mut push = |spool: &mut Spool<MemoryBackend>, epoch: u64| {
            let values = parse_sample_set(br#"{"a":1}"#).unwrap();
            let values = EncodedSamples::encode(&values).unwrap();
            let key = spool.push(Epoch::new(epoch).unwrap(), values, epoch);
            pushed.extend(key.map(|key| (key.producer, key.seq.get())));
        };
        push(&mut spool, 100);
        spool.backend_mut().set_faults(commits_fail());
        push(&mut spool, 101);
        push(&mut spool, 102);
        let mut backend = spool.into_backend().crash(Crash::Killed, false);
        backend.set_faults(at_start);
        let mut spool = open(backend, limits(), 50);
        push(&mut spool, 103);
        spool.backend_mut().set_faults(before_the_kill);
        push(&mut spool, 113);
        let backend = spool.into_backend().crash(Crash::PowerFailed, false);
        let mut spool = open(backend, limits(), 90);
        let mut known = BTreeSet::new();
        drain(&mut spool, &mut known);
        let story = format!("{at_start:?}, {before_the_kill:?}");
        assert_eq!(known, pushed.into_iter().collect(), "{story}");
        let stored = 5 - lost;
        assert_eq!(spool.backend().records(), stored, "{story}");
    }
}

fn unreadable() -> Faults {
    Faults {
        reads: true,
        ..Faults::default()
    }
}

#[test]
fn an_unreadable_backend_is_read_later() {
    let mut spool = new();
    push(&mut spool, [100]);
    let old = spool.producer();
    let mut backend = spool.into_backend();
    backend.set_faults(unreadable());
    let mut spool = open(backend, limits(), 50);
    assert_eq!(spool.producer(), None);
    push(&mut spool, [101]);
    let events = spool.take_events();
    assert!(
        matches!(&events[..], [Event::BackendFailed(_)]),
        "{events:?}"
    );
    check(&mut spool, 0, (9, 9), &[1], &[]);
    assert!(spool.save().is_err());
    spool.backend_mut().set_faults(Faults::default());
    push(&mut spool, [111]);
    assert_eq!(spool.producer(), old);
    assert_eq!(spool.take_events(), [Event::BackendRecovered]);
    assert_eq!((spool.pending(0), spool.backend().records()), (3, 3));
    // Its numbers continue, and the records of the meantime keep their producer.
    check(&mut spool, 0, (9, 9), &[1], &[]);
    deliver(&mut spool, 0, 9, 9);
    check(&mut spool, 0, (9, 9), &[1, 2], &[]);
}

fn dropped_records(records: u64, why: &'static str) -> Event {
    Event::RecordsDropped { records, why }
}

/// A crash while the disk is full: the records in memory are lost, and counted; no number is used
/// again.
#[test]
fn a_crash_during_a_full_disk_is_counted() {
    for (crash, in_doubt_is_there, left) in [
        (Crash::Killed, false, &[1][..]),
        (Crash::PowerFailed, false, &[1]),
        (Crash::Killed, true, &[1, 2, 3]),
    ] {
        let mut spool = new();
        push(&mut spool, [100]);
        spool.backend_mut().set_faults(commits_fail());
        push(&mut spool, 101..103);
        let backend = spool.into_backend().crash(crash, in_doubt_is_there);
        let mut spool = open(backend, limits(), 50);
        let lost = (left.len() as u64 + 1..=3).count() as u64;
        let (said, told) = match lost {
            0 => (vec![], vec![]),
            _ => (
                vec![dropped_records(lost, drop_reason::DAMAGED)],
                vec![(4 - lost, 3, drop_reason::DAMAGED)],
            ),
        };
        assert_eq!(spool.take_events(), said);
        push(&mut spool, [110]);
        let expected: Vec<u64> = left.iter().copied().chain([4]).collect();
        check(&mut spool, 0, (9, 9), &expected, &told);
    }
}

#[test]
fn without_checkpoints_records_get_a_volatile_producer() {
    let mut spool = new();
    push(&mut spool, [100]);
    spool.backend_mut().set_faults(Faults {
        checkpoints: true,
        commits: true,
        reads: true,
    });
    push(&mut spool, [101, 102]);
    let batch = spool.next_batch(0, 9, 9);
    assert_eq!(seqs(&batch), [1, 2]);
    assert_ne!(batch.map(|batch| batch.producer), spool.producer());
    assert_eq!(spool.pending(0), 3);
    deliver(&mut spool, 0, 9, 9);
    spool.backend_mut().set_faults(Faults::default());
    push(&mut spool, [120]);
    check(&mut spool, 0, (9, 9), &[1, 2], &[]);
}

#[test]
fn damaged_records_are_counted_when_they_are_read() {
    let mut spool = new();
    push(&mut spool, 100..106);
    let producer = spool.producer().unwrap();
    assert!(spool.backend_mut().damage(producer, 2));
    assert!(spool.backend_mut().damage(producer, 6));
    check(
        &mut spool,
        0,
        (0, 3),
        &[1, 3, 4],
        &[(2, 2, drop_reason::DAMAGED)],
    );
    check(
        &mut spool,
        0,
        (0, 9),
        &[1, 3, 4, 5],
        &[(2, 2, drop_reason::DAMAGED), (6, 6, drop_reason::DAMAGED)],
    );
    assert_eq!(spool.dropped_records(), 2);
}

#[test]
fn a_rolled_back_backend_reuses_no_number() {
    let mut spool = new();
    push(&mut spool, 100..102);
    let earlier = spool.backend().clone();
    push(&mut spool, 102..105);
    let mut backend = spool.into_backend();
    backend.roll_back(&earlier);
    let mut spool = open(backend, limits(), 50);
    push(&mut spool, [105]);
    check(
        &mut spool,
        0,
        (9, 9),
        &[1, 2, 6],
        &[(3, 5, drop_reason::DAMAGED)],
    );
}

#[test]
fn a_log_without_checkpoint_is_closed() {
    let mut spool = new();
    push(&mut spool, 100..102);
    let old = spool.producer().unwrap();
    let mut backend = spool.into_backend();
    backend.lose_checkpoints();
    let mut spool = open(backend, limits(), 50);
    let new = spool.producer().unwrap();
    assert_ne!(old, new);
    assert_eq!(spool.take_events(), [Event::NewProducer(new)]);
    push(&mut spool, [102]);
    let newest = spool.next_batch(0, 9, 9).unwrap();
    assert_eq!((newest.producer, seqs(&Some(newest))), (new, vec![1]));
    for destination in 0..2 {
        deliver(&mut spool, destination, 9, 9);
        let rest = spool.next_batch(destination, 9, 9);
        assert_eq!(rest.as_ref().map(|batch| batch.producer), Some(old));
        assert_eq!(seqs(&rest), [1, 2]);
        deliver(&mut spool, destination, 9, 9);
    }
    // The old log is removed with its last record.
    spool.save().unwrap();
    let spool = open(spool.into_backend(), limits(), 60);
    assert_eq!(spool.producer(), Some(new));
    assert_eq!(spool.logs.len(), 1);
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
