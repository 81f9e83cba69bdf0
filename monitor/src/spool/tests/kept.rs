//! Acknowledged records are kept for a while, and sent again to a destination that has lost them.

use lizmon_protocol::delivery::{Delivery, ProducerDelivery};

use super::*;

/// A destination that knows nothing of this host.
fn nothing() -> Delivery {
    Delivery {
        as_of: None,
        producers: Vec::new(),
        removed: None,
        clock: None,
    }
}

fn keeping(bytes_max: u64) -> SpoolLimits {
    SpoolLimits {
        bytes_max,
        ..limits().keeping(600)
    }
}

/// So many records that both destinations have acknowledged.
fn acknowledged(limits: SpoolLimits, records: u64) -> Spool<MemoryBackend> {
    let mut spool = open(MemoryBackend::default(), limits, 0);
    push(&mut spool, 100..100 + records);
    deliver(&mut spool, 0, 0, 1000);
    deliver(&mut spool, 1, 0, 1000);
    spool.save().unwrap();
    spool
}

fn repair(spool: &mut Spool<MemoryBackend>, destination: usize, records_max: usize) -> Vec<u64> {
    let batch = spool.next_repair(destination, records_max, None);
    assert!(
        batch
            .iter()
            .all(|batch| batch.repair && batch.dropped.is_empty())
    );
    seqs(&batch)
}

fn is_about_kept(event: &Event) -> bool {
    matches!(event, Event::KeptForLess { .. })
}

#[test]
fn kept_records_take_a_quarter_and_make_room() {
    let mut spool = acknowledged(keeping(40 * RECORD_BYTES), 20);
    assert_eq!(spool.kept_records(), 20);
    spool.age_kept(1);
    assert_eq!(spool.kept_records(), 10, "the newest");
    assert_eq!(
        spool
            .take_events()
            .iter()
            .filter(|event| is_about_kept(event))
            .count(),
        1
    );
    assert_eq!(spool.plan_repair(0, &nothing()), 10);
    assert_eq!(repair(&mut spool, 0, 100), (11..=20).collect::<Vec<_>>());
    spool.discard_repair_plan(0);
    // Those that wait need all of the space.
    push(&mut spool, 200..240);
    assert_eq!((spool.kept_records(), spool.pending(0)), (0, 40));
    assert_eq!(
        (spool.dropped_records(), spool.stored_bytes()),
        (0, 40 * RECORD_BYTES)
    );
    assert_eq!(spool.plan_repair(0, &nothing()), 0);
    assert!(
        !spool.take_events().iter().any(is_about_kept),
        "it is said once"
    );
    push(&mut spool, [240]);
    assert_eq!(spool.dropped_records(), 2, "and only then they go");
}

#[test]
fn kept_records_go_when_their_time_is_over() {
    let mut spool = acknowledged(keeping(1 << 20), 5);
    spool.age_kept(0);
    push(&mut spool, 105..108);
    deliver(&mut spool, 0, 0, 1000);
    deliver(&mut spool, 1, 0, 1000);
    for (secs, kept) in [(300, 8), (299, 8), (1, 3), (299, 3), (1, 0)] {
        spool.age_kept(secs);
        assert_eq!(spool.kept_records(), kept, "{secs}");
    }
    spool.save().unwrap();
    assert_eq!((spool.stored_bytes(), spool.backend().records()), (0, 0));
}

/// What is to be sent again stays until that is done.
#[test]
fn a_plan_holds_its_records() {
    let mut spool = acknowledged(keeping(1 << 20), 5);
    spool.age_kept(0);
    let producer = spool.producer().unwrap();
    let told = Delivery {
        producers: vec![ProducerDelivery {
            producer,
            received: 3,
            duplicate: 0,
            missing: vec![(3, 3)],
            dropped: Vec::new(),
            repaired: 0,
            highest: Some(4),
        }],
        ..nothing()
    };
    assert_eq!(spool.plan_repair(1, &told), 2);
    spool.age_kept(10_000);
    assert_eq!(spool.kept_records(), 3);
    assert_eq!(repair(&mut spool, 1, 1), [3]);
    for expected in [3, 5] {
        // Until it is acknowledged it is given again.
        let batch = spool.next_repair(1, 1, None).unwrap();
        assert_eq!(batch.records[0].seq.get(), expected);
        spool.on_repaired(1, &batch);
    }
    assert_eq!(
        (spool.to_repair(1), spool.next_repair(1, 9, None)),
        (0, None)
    );
    spool.age_kept(1);
    assert_eq!(spool.kept_records(), 0);
}

/// A record that was refused, is not for this destination, or never reached it is not sent again.
#[test]
fn only_what_a_destination_acknowledged_is_sent_to_it_again() {
    let mut spool = open(MemoryBackend::default(), keeping(1 << 20), 0);
    push(&mut spool, 100..104);
    let producer = spool.producer().unwrap();
    let refused = [Seq::new(2).unwrap()];
    spool.drop_records(0, producer, &refused, "invalid_values");
    deliver(&mut spool, 0, 0, 2);
    deliver(&mut spool, 1, 0, 1000);
    assert_eq!(spool.plan_repair(0, &nothing()), 2);
    assert_eq!(repair(&mut spool, 0, 100), [1, 3]);
    assert_eq!(spool.plan_repair(1, &nothing()), 4);
    // A destination that is added later.
    spool.save().unwrap();
    let urls = [URLS[0], URLS[1], "https://c:1/api/perf"].map(str::to_owned);
    let backend = spool.into_backend().crash(Crash::Killed, true);
    let mut spool = Spool::open(backend, urls.into(), keeping(1 << 20), producers(9));
    let planned = [0, 1, 2].map(|destination| spool.plan_repair(destination, &nothing()));
    assert_eq!(planned, [2, 4, 0]);
    assert_eq!(repair(&mut spool, 0, 100), [1, 3]);
}

/// Records that got new numbers, because another process has theirs, count under these alone.
#[test]
fn numbers_that_another_process_uses_are_not_repaired() {
    let mut spool = open(MemoryBackend::default(), keeping(1 << 20), 0);
    push(&mut spool, 100..103);
    let batch = spool.next_batch(0, 0, 9).unwrap();
    assert_eq!(spool.on_duplicates(0, &batch, 2, 103), 2);
    spool.ack(0, &batch);
    while let Some(batch) = spool.next_batch(0, 9, 9) {
        spool.ack(0, &batch);
    }
    while let Some(batch) = spool.next_batch(1, 9, 9) {
        spool.ack(1, &batch);
    }
    for story in ["at once", "after a restart"] {
        // The first has two under new numbers; the second has all under the old ones.
        assert_eq!(spool.plan_repair(0, &nothing()), 2, "{story}");
        let again = spool.next_repair(0, 9, None).unwrap();
        assert_ne!(again.producer, batch.producer, "{story}");
        assert_eq!(spool.plan_repair(1, &nothing()), 3, "{story}");
        let again = spool.next_repair(1, 9, None).unwrap();
        assert_eq!(again.producer, batch.producer, "{story}");
        spool.save().unwrap();
        let backend = spool.into_backend().crash(Crash::Killed, true);
        spool = open(backend, keeping(1 << 20), 9);
    }
}

#[test]
fn a_damaged_record_is_left_out() {
    let mut spool = acknowledged(keeping(1 << 20), 4);
    let producer = spool.producer().unwrap();
    spool.plan_repair(0, &nothing());
    assert!(spool.backend_mut().damage(producer, 2));
    let batch = spool.next_repair(0, 9, None).unwrap();
    assert_eq!(seqs(&Some(batch.clone())), [1, 3, 4]);
    spool.on_repaired(0, &batch);
    assert_eq!((spool.to_repair(0), spool.dropped_records()), (0, 0));
    // While nothing can be read, the plan stays.
    spool.plan_repair(0, &nothing());
    let faults = Faults {
        reads: true,
        ..Faults::default()
    };
    spool.backend_mut().set_faults(faults);
    assert_eq!((repair(&mut spool, 0, 9), spool.to_repair(0)), (vec![], 3));
    spool.backend_mut().set_faults(Faults::default());
    assert_eq!(repair(&mut spool, 0, 9), [1, 3, 4]);
}

#[test]
fn what_is_too_old_is_reported() {
    let mut spool = acknowledged(keeping(1 << 20), 4);
    spool.plan_repair(0, &nothing());
    let batch = spool.next_repair(0, 9, Some(101)).unwrap();
    assert_eq!(seqs(&Some(batch)), [3, 4]);
    assert_eq!(spool.dropped_records(), 2);
    check(&mut spool, 0, (9, 9), &[], &[(1, 2, drop_reason::TOO_OLD)]);
    assert_eq!(spool.plan_repair(0, &nothing()), 2);
}

/// While the disk fails, what is acknowledged waits in memory with the rest, and goes first.
#[test]
fn kept_records_in_memory_make_room_too() {
    let mut spool = open(MemoryBackend::default(), keeping(1 << 20), 0);
    push(&mut spool, [100]);
    let faults = Faults {
        commits: true,
        ..Faults::default()
    };
    spool.backend_mut().set_faults(faults);
    push(&mut spool, 101..103);
    deliver(&mut spool, 0, 0, 9);
    deliver(&mut spool, 1, 0, 9);
    push(&mut spool, 103..106);
    assert_eq!((spool.pending(0), spool.dropped_records()), (3, 0));
    spool.plan_repair(0, &nothing());
    assert!(repair(&mut spool, 0, 9).iter().all(|seq| *seq <= 3));
}

/// A log whose records are only kept goes before one with records that wait.
#[test]
fn too_many_logs_cost_kept_records_first() {
    let mut spool = open(MemoryBackend::default(), keeping(1 << 20), 0);
    let mut backend = MemoryBackend::default();
    for log in 0..PRODUCER_LOGS_MAX as u8 + 3 {
        spool = open(backend, keeping(1 << 20), 3 * log + 1);
        push(&mut spool, [100 + u64::from(log)]);
        // The second one waits for ever.
        if log != 1 {
            for destination in 0..2 {
                while let Some(batch) = spool.next_batch(destination, 9, 0) {
                    spool.ack(destination, &batch);
                }
            }
        }
        spool.save().unwrap();
        backend = spool.into_backend();
        // Without its checkpoint a log gets no more records.
        backend.lose_checkpoints();
        spool = new();
    }
    drop(spool);
    let mut spool = open(backend, keeping(1 << 20), 200);
    push(&mut spool, 300..310);
    assert_eq!(spool.dropped_records(), 0);
    let waiting = spool.next_batch(0, 0, 1).unwrap();
    assert_eq!(waiting.records[0].epoch.secs(), 101);
}

/// What a destination knows of the first producer: these numbers are dropped, and the highest.
fn knows(producer: ProducerId, dropped: &[(u64, u64)], highest: u64) -> Delivery {
    let why = || drop_reason::SPOOL_FULL.to_owned();
    let dropped = dropped.iter().map(|(from, to)| (*from, *to, why()));
    Delivery {
        producers: vec![ProducerDelivery {
            producer,
            received: 1,
            duplicate: 0,
            missing: vec![(1, highest - 1)],
            dropped: dropped.collect(),
            repaired: 0,
            highest: Some(highest),
        }],
        ..nothing()
    }
}

/// A spool that was full: the first ten records are dropped, and not kept. Both destinations have
/// the others, and know that.
fn overflowed() -> Spool<MemoryBackend> {
    let mut spool = open(MemoryBackend::default(), keeping(64 * RECORD_BYTES), 0);
    push(&mut spool, 100..173);
    assert_eq!(spool.dropped_records(), 10);
    push(&mut spool, [173]);
    for destination in 0..2 {
        let batch = spool.next_batch(destination, 0, 1000);
        assert_eq!(reports(&batch), [(1, 10, drop_reason::SPOOL_FULL)]);
        spool.ack(destination, &batch.unwrap());
        check(&mut spool, destination, (9, 9), &[], &[]);
    }
    spool.save().unwrap();
    spool
}

/// A failover forgot the report, and the numbers were called lost from then on: their records had
/// not been kept.
#[test]
fn a_forgotten_report_is_repeated() {
    let mut spool = overflowed();
    let producer = spool.producer().unwrap();
    let full = drop_reason::SPOOL_FULL;
    spool.repeat_reports(0, &knows(producer, &[(1, 10)], 74));
    check(&mut spool, 0, (9, 9), &[], &[]);
    // A part of it, and then all.
    spool.repeat_reports(0, &knows(producer, &[(3, 8)], 74));
    check(&mut spool, 0, (9, 9), &[], &[(1, 2, full), (9, 10, full)]);
    check(&mut spool, 1, (9, 9), &[], &[]);
    deliver(&mut spool, 0, 9, 9);
    spool.repeat_reports(0, &nothing());
    let batch = spool.next_batch(0, 9, 9);
    let mut told = reports(&batch);
    told.sort_unstable();
    assert_eq!(told, [(1, 2, full), (3, 8, full), (9, 10, full)]);
    // After a restart, too.
    let backend = spool.into_backend().crash(Crash::Killed, true);
    let mut spool = open(backend, keeping(64 * RECORD_BYTES), 9);
    spool.age_kept(599);
    spool.repeat_reports(1, &nothing());
    check(&mut spool, 1, (9, 9), &[], &[(1, 10, full)]);
    deliver(&mut spool, 1, 9, 9);
    spool.age_kept(599);
    spool.repeat_reports(0, &nothing());
    check(&mut spool, 0, (9, 9), &[], &[]);
    spool.repeat_reports(1, &nothing());
    check(&mut spool, 1, (9, 9), &[], &[(1, 10, full)]);
}

/// A log without records stays while a report of it may have to be repeated, and no longer.
#[test]
fn reports_are_remembered_as_long_as_records() {
    let mut spool = overflowed();
    let old = spool.producer().unwrap();
    let at = spool.active_log().unwrap();
    spool.rotate_log(at, 180);
    spool.logs[at].release(74);
    let has_old = |spool: &Spool<MemoryBackend>| spool.logs.iter().any(|log| log.producer == old);
    spool.age_kept(0);
    for (secs, is_there) in [(599, true), (1, false)] {
        spool.age_kept(secs);
        assert!(spool.try_save(200));
        push(&mut spool, [200]);
        assert_eq!(has_old(&spool), is_there, "{secs}");
    }
}

/// Each report is small, but there may be one for every other record.
#[test]
fn so_many_reports_are_remembered() {
    let mut spool = open(MemoryBackend::default(), keeping(1 << 20), 0);
    push(&mut spool, 100..700);
    let producer = spool.producer().unwrap();
    for seq in (2..=600).step_by(2) {
        let refused = [Seq::new(seq).unwrap()];
        spool.drop_records(0, producer, &refused, "invalid_values");
        deliver(&mut spool, 0, 0, 1);
    }
    let remembered = &spool.logs[0].destinations[0].reported_drops;
    assert_eq!((remembered.len(), remembered[0].from), (256, 90));
}
