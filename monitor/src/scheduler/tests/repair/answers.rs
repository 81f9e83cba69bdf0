//! Answers that are wrong, refuse a repair, or do not come.

use super::*;

/// A receiver that reports what it has, or what was never sent, gets nothing for that.
#[test]
fn nonsense_costs_nothing() {
    let mut pair = Pair::new();
    pair.run(100);
    let producer = pair.scheduler.spool().producer().unwrap();
    let stranger = ProducerId::from_bytes([9; 16]);
    let told = |producer, missing: &[(u64, u64)], highest| ProducerDelivery {
        producer,
        received: u64::MAX,
        duplicate: u64::MAX,
        missing: missing.to_vec(),
        dropped: Vec::new(),
        repaired: u64::MAX,
        highest,
    };
    let mut many: Vec<_> = (0..200_000).map(|at| (2 * at, 2 * at)).collect();
    many.push((3, 2));
    for (producers, expected) in [
        (vec![told(producer, &[(101, u64::MAX)], Some(100))], 0),
        (vec![told(producer, &[(u64::MAX, 1), (5, 4)], Some(100))], 0),
        (vec![told(producer, &[], Some(u64::MAX))], 0),
        (vec![told(producer, &[], None)], 0),
        (
            vec![
                told(producer, &[], Some(100)),
                told(stranger, &[(1, u64::MAX)], Some(0)),
            ],
            0,
        ),
        (vec![told(producer, &[(0, u64::MAX)], Some(100))], 100),
        (
            vec![told(producer, &[(1, 10), (5, 20), (5, 20)], Some(100))],
            20,
        ),
        (vec![told(producer, &many, Some(100))], 50),
        (vec![told(producer, &[], Some(60))], 40),
        (
            vec![told(producer, &[], Some(0)), told(producer, &[], Some(0))],
            100,
        ),
    ] {
        let delivery = Delivery {
            as_of: None,
            producers,
            removed: None,
            clock: None,
        };
        let losses = pair
            .scheduler
            .on_delivery(0, Ok(&delivery), secs(pair.now), 0.5);
        assert_eq!((losses.repairable, losses.lost), (expected, 0));
    }
    // A receiver that lags behind its store has more than it says.
    let lagging = Delivery {
        as_of: Some(pair.now - 60),
        producers: Vec::new(),
        removed: None,
        clock: None,
    };
    let losses = pair
        .scheduler
        .on_delivery(0, Ok(&lagging), secs(pair.now), 0.5);
    assert_eq!((losses.repairable, losses.lost), (0, 0));
    assert!(pair.scheduler.may_have_losses(0));
    // It is believed once, and then less and less often.
    let mut batches = 0;
    for _ in 0..7200 {
        pair.now += 1;
        sample(&mut pair.scheduler, pair.now);
        let now = secs(pair.now);
        loop {
            match pair.scheduler.next_step(0, now) {
                NextStep::CheckDelivery => {
                    let delivery = Delivery {
                        as_of: None,
                        producers: vec![told(producer, &[(1, u64::MAX)], Some(0))],
                        removed: None,
                        clock: None,
                    };
                    pair.scheduler.on_delivery(0, Ok(&delivery), now, 0.5);
                }
                NextStep::Send(batch) => {
                    if batch.repair {
                        batches += 1;
                        let all = batch.records.len() as u64;
                        pair.scheduler.on_duplicates(0, &batch, all, now);
                    }
                    pair.scheduler.on_result(0, &batch, Ok(()), now, 0.5);
                }
                NextStep::Wait(_) | NextStep::Idle => break,
            }
        }
    }
    assert!((3..=8).contains(&batches), "{batches}");
    assert_eq!(
        (pair.repaired(), pair.scheduler.spool().producer()),
        (0, Some(producer))
    );
}

/// The answer to a repair was lost: it is not sent again before the receiver was asked once more.
#[test]
fn an_unanswered_repair_is_not_repeated() {
    let mut pair = Pair::new();
    pair.run(100);
    pair.receiver.forget(30);
    pair.restart_receiver();
    assert!(pair.act_once(None, true));
    assert!(pair.act_once(Some(&away()), true), "the repair");
    assert_eq!(pair.receiver.has.len(), 100);
    let later = secs(pair.now + 30);
    let next = pair.scheduler.next_step(0, later);
    assert_eq!(next, NextStep::CheckDelivery, "nothing else is to be done");
    pair.run(60);
    assert_eq!(pair.receiver.has.len(), 160);
    assert_eq!(pair.repaired(), 0, "by what it knows");
}

/// A receiver that does not say what it has is asked less often, and gets its records meanwhile.
#[test]
fn a_check_without_an_answer_delays_nothing() {
    let mut pair = Pair::new();
    pair.run(100);
    pair.receiver.forget(20);
    pair.restart_receiver();
    let mut asked = Vec::new();
    for _ in 0..400 {
        pair.sample();
        while let NextStep::CheckDelivery = pair.scheduler.next_step(0, secs(pair.now)) {
            asked.push(pair.now - NOW);
            let failed = pair
                .scheduler
                .on_delivery(0, Err(&away()), secs(pair.now), 0.5);
            assert_eq!(failed, Losses::default());
        }
        pair.act();
        assert_eq!(pair.scheduler.spool().pending(0), 0);
    }
    let waits: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits[..6], [10, 20, 40, 60, 60, 60], "{asked:?}");
    // Meanwhile nothing that is kept gets older.
    pair.run(130);
    assert_eq!(pair.repaired(), 20);
}

/// A refused repair delays no new record, and is reported where it is refused for good.
#[test]
fn a_refused_repair() {
    let full = || {
        let mut problem = Problem::new(Code::InvalidValues);
        problem.errors = vec![ValueError {
            record: None,
            label: None,
            reason: "the host has 64 producers already".into(),
        }];
        Error::Refused {
            url: url(),
            status: problem.status,
            problem: Some(Box::new(problem)),
            retry_after: None,
        }
    };
    let labels = || refused(Code::TooManyLabels, &[0, 2]);
    let ahead = || refused(Code::EpochInFuture, &[0, 1]);
    let kinds = [full as fn() -> Error, ahead, labels];
    let (nothing, two) = (vec![], vec![(91, 91), (93, 93)]);
    for (error, told) in kinds.into_iter().zip([nothing.clone(), nothing, two]) {
        let dropped = told.len() as u64;
        let mut pair = Pair::new();
        pair.run(100);
        pair.receiver.forget(10);
        pair.restart_receiver();
        assert!(pair.act_once(None, true), "the check");
        assert!(pair.act_once(Some(&error()), false), "the repair");
        pair.sample();
        let batch = send(&mut pair.scheduler, secs(pair.now));
        assert!(!batch.repair, "{batch:?}");
        assert_eq!(seqs(&batch), [101]);
        assert_eq!(pair.scheduler.spool().dropped_records(), dropped);
        pair.run(130);
        let reported: Vec<_> = pair
            .receiver
            .told
            .iter()
            .map(|(from, to, _)| (*from, *to))
            .collect();
        assert_eq!(reported, told);
        assert_eq!(pair.receiver.has.len() as u64, pair.now - NOW - dropped);
    }
}
