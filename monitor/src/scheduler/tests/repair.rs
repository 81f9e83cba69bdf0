//! A receiver that has lost what it had acknowledged gets it again.

mod answers;

use std::collections::{BTreeMap, BTreeSet};

use lizmon_protocol::delivery::{Delivery, ProducerDelivery};
use lizmon_protocol::problem::Problem;
use proptest::prelude::*;

use super::*;
use crate::spool::memory::Crash;

const KEEP_SECS: u64 = 600;
const LIMITS: SpoolLimits = SpoolLimits::new(1 << 20).keeping(KEEP_SECS);
const NOW: u64 = 1_000_000;

type Number = (ProducerId, u64);

/// A receiver's numbers, and what they show of a monitor.
#[derive(Default)]
struct Ledger {
    has: BTreeSet<Number>,
    /// In the order of their arrival.
    arrived: Vec<Number>,
    /// Everything that it has acknowledged.
    acknowledged: BTreeSet<Number>,
    told: Vec<(u64, u64, String)>,
    told_of: Vec<ProducerId>,
    run: u64,
}

impl Ledger {
    fn take(&mut self, batch: &StoredBatch) -> u64 {
        let mut duplicates = 0;
        for record in &batch.records {
            let number = (batch.producer, record.seq.get());
            match self.has.insert(number) {
                true => self.arrived.push(number),
                false => duplicates += 1,
            }
        }
        let told = batch.dropped.iter();
        let told = told.map(|d| (d.from.get(), d.to.get(), d.why.as_str().to_owned()));
        self.told.extend(told);
        self.told_of.resize(self.told.len(), batch.producer);
        duplicates
    }

    fn acknowledge(&mut self, batch: &StoredBatch) {
        let numbers = batch.records.iter();
        let numbers = numbers.map(|record| (batch.producer, record.seq.get()));
        self.acknowledged.extend(numbers);
    }

    /// A failover or an older copy: the last of what arrived is gone.
    fn forget(&mut self, count: usize) {
        let left = self.arrived.len().saturating_sub(count);
        for number in self.arrived.drain(left..) {
            self.has.remove(&number);
        }
    }

    fn delivery(&self) -> Delivery {
        let mut producers: BTreeMap<ProducerId, Vec<u64>> = BTreeMap::new();
        for (producer, seq) in &self.has {
            producers.entry(*producer).or_default().push(*seq);
        }
        let told = producers.into_iter().map(|(producer, seqs)| {
            let dropped = self.told.iter().zip(&self.told_of);
            let dropped = dropped.filter(|(_, of)| **of == producer);
            let before = std::iter::once(0).chain(seqs.iter().copied());
            let gaps = before.zip(&seqs).map(|(before, seq)| (before + 1, seq - 1));
            ProducerDelivery {
                producer,
                received: seqs.len() as u64,
                duplicate: 0,
                missing: gaps.filter(|(from, to)| from <= to).collect(),
                dropped: dropped.map(|(told, _)| told.clone()).collect(),
                repaired: 0,
                highest: seqs.last().copied(),
            }
        });
        Delivery {
            as_of: None,
            producers: told.collect(),
            removed: None,
            clock: None,
        }
    }
}

/// A monitor with one receiver, and the time.
struct Pair {
    scheduler: DeliveryScheduler<MemoryBackend>,
    receiver: Ledger,
    now: u64,
    runs: u8,
    checks: u64,
    duplicates: u64,
}

impl Pair {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: SpoolLimits) -> Self {
        Self {
            scheduler: start(MemoryBackend::default(), 1, limits, 1),
            receiver: Ledger::default(),
            now: NOW,
            runs: 1,
            checks: 0,
            duplicates: 0,
        }
    }

    /// A second passes, and a sample is taken.
    fn sample(&mut self) {
        self.now += 1;
        sample(&mut self.scheduler, self.now);
    }

    /// Does all there is to do in this second, without faults.
    fn act(&mut self) {
        while self.act_once(None, true) {}
    }

    /// `answer`: an error instead of one; `arrives`: whether the request does. Returns whether
    /// there was anything to do.
    fn act_once(&mut self, answer: Option<&Error>, arrives: bool) -> bool {
        let now = secs(self.now);
        match self.scheduler.next_step(0, now) {
            NextStep::CheckDelivery => {
                self.checks += 1;
                let told = self.receiver.delivery();
                let told = answer.map_or(Ok(&told), Err);
                self.scheduler.on_delivery(0, told, now, 0.5);
            }
            NextStep::Send(batch) => {
                self.check_repair(&batch);
                let duplicates = if arrives {
                    self.receiver.take(&batch)
                } else {
                    0
                };
                self.duplicates += duplicates;
                if answer.is_none() && arrives {
                    self.receiver.acknowledge(&batch);
                    if duplicates > 0 {
                        self.scheduler.on_duplicates(0, &batch, duplicates, now);
                    }
                }
                self.scheduler
                    .on_result(0, &batch, answer.map_or(Ok(()), Err), now, 0.5);
            }
            NextStep::Wait(_) | NextStep::Idle => return false,
        }
        true
    }

    /// Only what had been acknowledged is sent again, and nothing that is there.
    fn check_repair(&self, batch: &StoredBatch) {
        let numbers = batch.records.iter();
        let numbers = numbers.map(|record| (batch.producer, record.seq.get()));
        for number in numbers.filter(|_| batch.repair) {
            assert!(self.receiver.acknowledged.contains(&number), "{number:?}");
            assert!(!self.receiver.has.contains(&number), "{number:?}");
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.sample();
            self.act();
        }
    }

    /// The monitor is killed and started again.
    fn kill(&mut self) {
        self.runs += 1;
        let spare = start(MemoryBackend::default(), 1, LIMITS, 0);
        let backend = std::mem::replace(&mut self.scheduler, spare).into_backend();
        let backend = backend.crash(Crash::Killed, true);
        self.scheduler = start(backend, 1, LIMITS, self.runs);
    }

    /// The receiver is another process from now on, and says so.
    fn restart_receiver(&mut self) {
        self.receiver.run += 1;
        let clock = ServerClock {
            at: secs(self.now),
            is_steady: true,
            run: self.receiver.run,
        };
        let now = secs(self.now);
        self.scheduler.on_server_clock(0, clock, now, now);
    }

    fn repaired(&self) -> u64 {
        self.scheduler.repaired_records(0)
    }
}

/// The last records that a receiver had are gone: nothing is missing below its highest number.
#[test]
fn a_lost_suffix_is_sent_again_within_a_minute() {
    let mut pair = Pair::new();
    pair.run(100);
    pair.receiver.forget(7);
    // It is the minute's check that finds it; the receiver's process goes on.
    for second in 0..=60 {
        assert!(second < 60, "nothing was repaired");
        pair.run(1);
        if pair.repaired() == 7 {
            break;
        }
    }
    assert_eq!(pair.receiver.has.len() as u64, pair.now - NOW);
    pair.run(120);
    assert_eq!(pair.repaired(), 7, "once");
    assert!((3..=6).contains(&pair.checks), "{}", pair.checks);
}

#[test]
fn a_host_that_is_not_known_any_more_gets_everything() {
    let mut pair = Pair::new();
    pair.run(300);
    pair.receiver.forget(usize::MAX);
    // As the client says it: 404 unknown_host.
    let error = refused(Code::UnknownHost, &[]);
    pair.restart_receiver();
    assert_eq!(
        pair.scheduler.next_step(0, secs(pair.now)),
        NextStep::CheckDelivery
    );
    let losses = pair
        .scheduler
        .on_delivery(0, Err(&error), secs(pair.now), 0.5);
    assert_eq!((losses.repairable, losses.lost), (300, 0));
    pair.act();
    assert_eq!(pair.receiver.has.len(), 300);
    assert!(pair.receiver.told.is_empty());
}

/// In other senders each restart of the receiver sent again what had been acknowledged before it,
/// and every time more.
#[test]
fn restarts_that_lose_nothing_repeat_nothing() {
    let mut pair = Pair::new();
    for _ in 0..20 {
        pair.run(30);
        pair.sample();
        assert!(pair.act_once(Some(&away()), false));
        pair.restart_receiver();
        pair.run(60);
        pair.kill();
    }
    // A killed monitor sends its last record twice, as it did not save that it was acknowledged.
    assert_eq!((pair.repaired(), pair.duplicates), (0, 20 - 1));
    assert_eq!(pair.receiver.has.len() as u64, pair.now - NOW);
}

/// Behind a proxy each request reaches another receiver of a group.
#[test]
fn changing_receivers_are_not_asked_each_time() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        pair.run(1);
        pair.restart_receiver();
        pair.act();
    }
    assert!((15..=25).contains(&pair.checks), "{}", pair.checks);
}

/// It was away, so the check does not wait for the minute.
#[test]
fn after_a_failure_it_is_asked_at_once() {
    let mut pair = Pair::new();
    pair.run(100);
    pair.sample();
    assert!(pair.act_once(Some(&away()), false));
    pair.receiver.forget(40);
    let checks = pair.checks;
    while pair.checks == checks {
        pair.sample();
        pair.act();
        assert!(pair.now < NOW + 110);
    }
    pair.run(2);
    assert_eq!(pair.repaired(), 40);
    assert_eq!(pair.receiver.has.len() as u64, pair.now - NOW);
}

#[test]
fn kept_records_survive_the_process() {
    let mut pair = Pair::new();
    pair.run(100);
    pair.kill();
    // The last acknowledgement was not saved: that record waits again.
    let spool = pair.scheduler.spool();
    assert_eq!((spool.kept_records(), spool.pending(0)), (99, 1));
    pair.receiver.forget(50);
    pair.run(3);
    assert_eq!(pair.repaired(), 49);
    assert_eq!(pair.receiver.has.len() as u64, pair.now - NOW);
}

/// They are kept for so long after they were acknowledged, and while nobody can say whether they
/// are lost the time does not count.
#[test]
fn kept_records_go_after_a_while() {
    let mut pair = Pair::new();
    pair.run(2 * KEEP_SECS);
    let kept = pair.scheduler.spool().kept_records();
    assert!((KEEP_SECS..KEEP_SECS + 20).contains(&kept), "{kept}");
    // An outage of an hour.
    for _ in 0..3600 {
        pair.sample();
        while pair.act_once(Some(&away()), false) {}
    }
    assert_eq!(pair.scheduler.spool().kept_records(), kept);
    pair.receiver.forget(500);
    pair.run(60);
    assert_eq!(pair.repaired(), 500);
    assert_eq!(pair.receiver.has.len() as u64, pair.now - NOW);
    pair.run(KEEP_SECS + 20);
    let kept = pair.scheduler.spool().kept_records();
    assert!((KEEP_SECS..KEEP_SECS + 20).contains(&kept), "{kept}");
}

#[test]
fn nothing_is_kept_if_that_is_off() {
    let mut pair = Pair::with(SpoolLimits::new(1 << 20));
    pair.run(100);
    assert_eq!(pair.scheduler.spool().kept_records(), 0);
    pair.receiver.forget(10);
    pair.run(200);
    assert_eq!((pair.repaired(), pair.checks), (0, 0));
}

/// What is lost for good is told to a receiver that was restarted, as ever; what is repaired is
/// not.
#[test]
fn what_is_not_kept_any_more_is_told() {
    let mut pair = Pair::new();
    pair.run(KEEP_SECS + 400);
    let kept = pair.scheduler.spool().kept_records();
    pair.receiver.forget(usize::MAX);
    pair.sample();
    pair.restart_receiver();
    pair.act();
    pair.run(2);
    assert_eq!(pair.repaired(), kept);
    let last_lost = KEEP_SECS + 400 - kept;
    let expected = (1, last_lost, drop_reason::BEFORE_DATA.to_owned());
    assert_eq!(pair.receiver.told, [expected]);
}

/// A failover of a shared store forgot that a record had been dropped, and its receiver went on:
/// the record was missing from then on, and called lost.
#[test]
fn a_forgotten_report_of_a_drop_is_told_again() {
    let mut pair = Pair::new();
    pair.run(3);
    pair.sample();
    assert!(pair.act_once(Some(&refused(Code::InvalidValues, &[0])), false));
    pair.run(70);
    let dropped = (4, 4, "invalid_values".to_owned());
    assert_eq!(pair.receiver.told, [dropped]);
    pair.receiver.told.clear();
    pair.receiver.told_of.clear();
    pair.run(300);
    let expected = (4, 4, "invalid_values".to_owned());
    assert_eq!(pair.receiver.told, [expected], "and not again");
    assert_eq!(pair.repaired(), 0);
}

/// Nothing is sent that no receiver accepts any more.
#[test]
fn what_is_too_old_is_not_sent_again() {
    const DAY: u64 = 86_400;
    let mut pair = Pair::new();
    pair.run(700);
    // The receiver is away until they are before the day that ends with the present hour, and comes
    // back without its data.
    pair.sample();
    assert!(pair.act_once(Some(&away()), false));
    let kept = pair.scheduler.spool().kept_records();
    pair.receiver.forget(usize::MAX);
    while pair.now < NOW + 1500 + DAY {
        pair.now += 59;
        pair.sample();
        while pair.act_once(Some(&away()), false) {}
    }
    assert_eq!(pair.scheduler.spool().kept_records(), kept);
    pair.run(200);
    assert_eq!(pair.repaired(), 0, "of {kept}");
    let told: Vec<_> = pair
        .receiver
        .told
        .iter()
        .map(|(.., why)| why.as_str())
        .collect();
    assert!(told.contains(&drop_reason::TOO_OLD), "{told:?}");
}

#[derive(Debug, Clone)]
enum Fate {
    Run(u64),
    Samples(u64),
    AnswerLost,
    RequestLost,
    Away,
    Forgets(usize),
    ForgetsAndRestarts(usize),
    Kill,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    use Fate::{AnswerLost, Away, Forgets, ForgetsAndRestarts, Kill, RequestLost, Run, Samples};
    let fate = prop_oneof![
        6 => (1..40u64).prop_map(Run),
        2 => (1..20u64).prop_map(Samples),
        3 => Just(AnswerLost),
        3 => Just(RequestLost),
        1 => Just(Away),
        2 => (1..200usize).prop_map(Forgets),
        2 => (1..200usize).prop_map(ForgetsAndRestarts),
        1 => Just(Kill),
    ];
    proptest::collection::vec(fate, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever a receiver forgets of the last minutes, and whatever the network loses meanwhile:
    /// in the end it has everything. Nothing that it has is sent to it as a repair.
    #[test]
    fn what_is_forgotten_is_repaired(fates in fates()) {
        let mut pair = Pair::new();
        for fate in fates {
            match fate {
                Fate::Run(seconds) => pair.run(seconds),
                Fate::Samples(seconds) => (0..seconds).for_each(|_| pair.sample()),
                Fate::AnswerLost => {
                    pair.act_once(Some(&away()), true);
                }
                Fate::RequestLost => {
                    pair.act_once(Some(&away()), false);
                }
                Fate::Away => pair.now += 45,
                Fate::Forgets(count) => pair.receiver.forget(count),
                Fate::ForgetsAndRestarts(count) => {
                    pair.receiver.forget(count);
                    pair.restart_receiver();
                }
                Fate::Kill => pair.kill(),
            }
        }
        pair.run(130);
        let sampled: BTreeSet<u64> = pair.receiver.has.iter().map(|(_, seq)| *seq).collect();
        let producers: BTreeSet<_> = pair.receiver.has.iter().map(|(producer, _)| *producer).collect();
        prop_assert_eq!(producers.len(), 1);
        let last = sampled.last().copied().unwrap_or(0);
        prop_assert_eq!(sampled.len() as u64, last);
        prop_assert_eq!(pair.scheduler.spool().pending(0), 0);
        prop_assert_eq!(pair.scheduler.spool().to_repair(0), 0);
        prop_assert!(pair.receiver.told.is_empty(), "{:?}", pair.receiver.told);
    }
}
