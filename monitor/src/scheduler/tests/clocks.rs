//! Clocks that jump, and clocks that differ.

use super::*;

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
                other => panic!("records wait: {other:?}"),
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
