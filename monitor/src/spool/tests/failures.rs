//! A backend that fails, is damaged, or comes back older than it was.

use super::*;

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

/// It was written a moment ago, and need not be read to be sent.
#[test]
fn the_newest_record_is_sent_while_reads_fail() {
    let mut spool = new();
    spool.backend_mut().set_faults(Faults {
        reads: true,
        ..Faults::default()
    });
    push(&mut spool, [100]);
    check(&mut spool, 0, (9, 9), &[1], &[]);
    deliver(&mut spool, 0, 9, 9);
    push(&mut spool, [101]);
    check(&mut spool, 0, (9, 9), &[2], &[]);
    // The other destination has two to get.
    check(&mut spool, 1, (9, 9), &[], &[]);
    spool.backend_mut().set_faults(Faults::default());
    check(&mut spool, 1, (9, 9), &[1, 2], &[]);
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
