//! A clock that is wrong for a while costs nothing that was there, and hides nothing that is
//! acknowledged.

use std::collections::BTreeSet;

use lizmon_protocol::history::HistoryTier;

use super::*;
use crate::clock::{BEHIND_SECS, EXPIRY_SECS};
use crate::store::JournalStore as _;
use crate::store::history::StoredChunk;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: i64 = 86_400;

/// What came of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It was counted, and is found.
    Counted,
    /// Not now: 503.
    Later,
}
use Came::{Counted, Later};

/// A receiver, and the machine's clocks.
struct Machine {
    disk: MemoryDisk,
    committer: Committer,
    monotonic: u64,
    wrong: i64,
    boot: u8,
    /// In truth.
    booted_at: u64,
    seq: u64,
}

impl Machine {
    fn new() -> Self {
        let disk = MemoryDisk::default();
        let monotonic = 1_000;
        let at = ClockReading {
            wall: NOW + monotonic,
            monotonic,
            boot: Some([1; 16]),
        };
        let committer = open(&disk, at);
        Self {
            disk,
            committer,
            monotonic,
            booted_at: NOW,
            wrong: 0,
            boot: 1,
            seq: 0,
        }
    }

    fn at(&self) -> ClockReading {
        ClockReading {
            wall: (self.booted_at + self.monotonic).saturating_add_signed(self.wrong),
            monotonic: self.monotonic,
            boot: Some([self.boot; 16]),
        }
    }

    fn pass(&mut self, secs: u64) {
        for _ in 0..secs {
            self.monotonic += 1;
            self.committer.maintain(self.at());
        }
    }

    /// The clock is wrong by so much from now on.
    fn set(&mut self, wrong: i64) {
        self.wrong = wrong;
        self.committer.maintain(self.at());
    }

    /// The process ends and starts again; the machine too if it is `boot`ed.
    fn restart(&mut self, is_boot: bool) {
        self.committer.finish().unwrap();
        if is_boot {
            self.boot += 1;
            self.booted_at += self.monotonic + 10;
            self.monotonic = 10;
        }
        self.committer = open(&self.disk, self.at());
    }

    /// As a power failure: nothing is committed, the journal is all there is.
    fn crash(&mut self) {
        self.disk.crash(false);
        self.committer = open(&self.disk, self.at());
    }

    fn send(&mut self, records: &[(u64, u64)], name: &str) -> Result<BatchAnswer, SubmitError> {
        let names = ["l0".to_owned(), name.to_owned()];
        let at = self.at();
        let submission = taken_at(at.wall, producer(1), records, &names);
        let mut answers = self
            .committer
            .take(std::iter::once((&submission, at.wall)), at);
        answers.remove(0)
    }

    /// One sample of this moment, by the machine's clock, under a label of its own: what is
    /// acknowledged is found.
    #[track_caller]
    fn sample(&mut self, expected: Came) {
        self.sample_of(0, expected);
    }

    /// One of so many seconds ago.
    #[track_caller]
    fn sample_of(&mut self, ago: u64, expected: Came) {
        self.seq += 1;
        let epoch = self.at().wall - ago;
        let before = self.found("l0");
        let came = self.send(&[(self.seq, epoch)], "l1");
        match (came, expected) {
            (Ok(answer), Counted) => {
                assert_eq!(answer.accepted, 1);
                let (by_minute, by_hour) = self.found("l0");
                let is_last_hour = ago < HOUR - MINUTE;
                assert!(by_hour.contains(&epoch), "it is found");
                assert!(!is_last_hour || by_minute.contains(&epoch), "it is found");
            }
            (Err(SubmitError::Refused(AdmissionError::ClockUnsteady { .. })), Later) => {
                assert_eq!(self.found("l0"), before)
            }
            (came, expected) => panic!("{came:?} instead of {expected:?}"),
        }
    }

    /// Which chunks of the history are stored.
    fn history(&self) -> BTreeSet<(HistoryTier, u64)> {
        let mut store = MemoryStore::open(self.disk.clone());
        let shards: Vec<_> = store.shard_count().all().collect();
        let mut chunks = BTreeSet::new();
        let mut note = |chunk: StoredChunk| {
            chunks.insert((chunk.tier, chunk.start));
            Ok(())
        };
        store.all_chunks(&shards, &mut note).unwrap();
        chunks
    }

    /// What of a label is found now, by minute and by hour.
    fn found(&self, label: &str) -> (Spans, Spans) {
        let summaries = self.committer.summarizer().table();
        let hosts = summaries.shard_with("web1");
        let of = |tier| {
            let host = hosts.get("web1");
            let series = host.and_then(|host| host.series.get(label));
            let window = series.and_then(|series| series.window(tier, self.at().wall));
            let averages = window.map_or(Vec::new(), |window| window.averages);
            Spans(averages.iter().map(|a| (a.start, a.end, a.count)).collect())
        };
        (of(0), of(1))
    }

    fn samples_by_hour(&self) -> u64 {
        self.found("l0").1.0.iter().map(|(.., count)| count).sum()
    }

    fn removed(&self) -> u64 {
        let summaries = self.committer.summarizer().table();
        let hosts = summaries.shard_with("web1");
        hosts.get("web1").map_or(0, |host| host.removed.samples)
    }

    /// A sample a minute for a day, up to now.
    fn day(&mut self) {
        let now = self.at().wall;
        let before = self.samples_by_hour();
        let records: Vec<_> = (0..1_433)
            .map(|minute| (minute + 1_000_000, now - 85_920 + minute * MINUTE))
            .collect();
        // In several lots, the newest first among them, as a spool sends them.
        for lot in [&records[1_400..], &records[..700], &records[700..1_400]] {
            assert_eq!(self.send(lot, "l1").unwrap().accepted, lot.len() as u64);
        }
        assert_eq!(self.samples_by_hour(), before + 1_433);
    }
}

#[derive(Debug, PartialEq)]
struct Spans(Vec<(u64, u64, u64)>);

impl Spans {
    fn contains(&self, epoch: &u64) -> bool {
        self.0
            .iter()
            .any(|(start, end, _)| start < epoch && epoch <= end)
    }
}

fn open(disk: &MemoryDisk, at: ClockReading) -> Committer {
    let mut store = MemoryStore::open(disk.clone());
    let summarizer = Summarizer::open(&mut store, at.wall).unwrap();
    Committer::new(Box::new(store), summarizer, at)
}

fn taken_at(now: u64, id: ProducerId, records: &[(u64, u64)], labels: &[String]) -> Submission {
    let value = |label: &String| (Label::new(label.clone()).unwrap(), Value::new(1.0).unwrap());
    let set = SampleSet::new(labels.iter().map(value).collect());
    let records = records
        .iter()
        .map(|(seq, epoch)| (Seq::new(*seq), Epoch::new(*epoch).unwrap(), &set));
    Submission::new(&"web1".parse().unwrap(), 9, Some(id), now).with_records(records)
}

/// Receiver and node share a clock that runs ahead for one sample: the host's whole day was pushed
/// out.
#[test]
fn a_clock_ahead_for_a_moment_pushes_nothing_out() {
    for wrong in [600, 2 * 3_600, 2 * DAY, 400 * DAY] {
        for how in 0..3 {
            let mut machine = Machine::new();
            machine.day();
            machine.pass(if how == 0 { 5 } else { 700 });
            let begin = |machine: &mut Machine| match how {
                0 => machine.restart(false),
                1 => machine.restart(true),
                _ => (),
            };
            begin(&mut machine);
            machine.set(wrong);
            machine.sample(Later);
            machine.pass(30);
            machine.sample(Later);
            machine.set(0);
            begin(&mut machine);
            machine.sample(Counted);
            assert!(machine.samples_by_hour() > 1_000, "{wrong} {how}");
            assert_eq!(machine.removed(), 0);
        }
    }
}

/// A new receiver on a machine whose clock runs ahead takes what is sent; then the clock is set
/// right.
#[test]
fn what_a_wrong_clock_wrote_does_not_hide_what_comes_after() {
    for wrong in [2 * 3_600, 3 * DAY] {
        for is_crash in [false, true] {
            let mut machine = Machine::new();
            machine.set(wrong);
            (0..3).for_each(|_| machine.sample(Counted));
            machine.pass(5);
            machine.set(0);
            machine.sample(Later);
            machine.pass(59);
            machine.sample(Later);
            machine.pass(1);
            machine.sample(Counted);
            // Under both labels.
            assert_eq!(machine.removed(), 6);
            machine.sample(Counted);
            let before = machine.found("l0");
            if is_crash {
                machine.crash();
            } else {
                machine.restart(false);
            }
            assert_eq!(machine.found("l0"), before, "in a replay as the first time");
            assert_eq!(machine.removed(), 6);
            machine.sample(Counted);
        }
    }
}

/// A clock behind at the start makes true history look as if it were in the future.
#[test]
fn a_clock_behind_takes_nothing_away_that_was_there() {
    for wrong in [-3 * 3_600, -2 * DAY] {
        for is_boot in [false, true] {
            let mut machine = Machine::new();
            machine.day();
            machine.pass(700);
            machine.restart(is_boot);
            machine.set(wrong);
            machine.sample(Later);
            // Nor after a minute: it contradicts a clock that had been steady.
            machine.pass(200);
            machine.sample(Later);
            machine.set(0);
            machine.sample(Counted);
            assert!(machine.samples_by_hour() > 1_000, "{wrong} {is_boot}");
            assert_eq!(machine.removed(), 0);
        }
    }
}

#[test]
fn a_clock_that_stays_is_believed_in_the_end() {
    // Ahead: windows move on.
    let mut machine = Machine::new();
    machine.day();
    machine.set(2 * DAY);
    machine.pass(59);
    machine.sample(Later);
    machine.pass(1);
    machine.sample(Counted);
    // Behind what was believed for ten minutes: that was wrong, then.
    machine.pass(600);
    machine.set(0);
    machine.pass(200);
    machine.sample(Later);
    machine.pass(100);
    machine.sample(Counted);
    assert_eq!(machine.removed(), 2);
}

#[test]
fn a_clock_that_steps_to_and_fro_is_never_believed() {
    let mut machine = Machine::new();
    machine.day();
    for turn in 0..100 {
        machine.set(if turn % 2 == 0 { 2 * DAY } else { 0 });
        machine.sample(if turn % 2 == 0 { Later } else { Counted });
        machine.pass(40);
    }
    assert!(machine.samples_by_hour() > 1_000);
}

/// What happens every day is not held up.
#[test]
fn a_right_clock_holds_nothing_up() {
    let mut machine = Machine::new();
    machine.sample(Counted);
    machine.day();
    for _ in 0..5 {
        machine.pass(61);
        machine.sample(Counted);
        machine.restart(false);
        machine.sample(Counted);
        machine.sample_of(HOUR - 2 * MINUTE, Counted);
        machine.sample_of(23 * HOUR, Counted);
    }
    // Set right by a few seconds, and by some more.
    for wrong in [-3, 20, -20, 70, -70] {
        machine.set(wrong);
        machine.sample(Counted);
        machine.pass(3);
    }
    // The machine slept for a weekend.
    machine.set(0);
    machine.pass(70);
    machine.monotonic += 2 * 86_400;
    machine.sample(Counted);
}

/// A sample that one clock accepted and another one would refuse is never visible.
#[test]
fn a_request_that_was_checked_by_another_clock_is_checked_again() {
    let mut machine = Machine::new();
    let at = machine.at();
    for wrong in [-DAY, -61, 61, DAY] {
        let judged_at = at.wall.saturating_add_signed(wrong);
        let submission = taken_at(judged_at, producer(1), &[(1, judged_at)], &labels(0..1));
        let request = std::iter::once((&submission, judged_at));
        let answer = machine.committer.take(request, at).remove(0);
        let refused = answer.unwrap_err();
        let is_unsteady = matches!(
            refused,
            SubmitError::Refused(AdmissionError::ClockUnsteady { .. })
        );
        assert!(is_unsteady, "{wrong}: {refused:?}");
    }
}

/// What is removed of the history does not come back. The clock is ahead by more than it is kept,
/// for longer than a clock must be steady before anything ends by it.
#[test]
fn a_clock_that_stays_ahead_removes_no_history() {
    let mut machine = Machine::new();
    for _ in 0..60 {
        machine.monotonic += HOUR - 60;
        machine.pass(60);
        machine.sample(Counted);
    }
    machine.pass(60);
    let kept = machine.history();
    assert!(kept.len() > 2, "{kept:?}");
    machine.set(500 * DAY);
    machine.pass(2 * EXPIRY_SECS);
    assert!(machine.history().is_superset(&kept));
    machine.set(0);
    machine.pass(2 * EXPIRY_SECS);
    machine.sample(Counted);
    machine.pass(60);
    assert!(machine.history().is_superset(&kept));
    // It ends in its time.
    for _ in 0..33 * 24 {
        machine.monotonic += HOUR - 60;
        machine.pass(60);
        machine.sample(Counted);
    }
    let hours = |kept: &BTreeSet<(HistoryTier, u64)>| {
        let hours = kept.iter().filter(|(tier, _)| *tier == HistoryTier::ByHour);
        hours.map(|(_, start)| *start).min()
    };
    assert!(hours(&machine.history()) > hours(&kept));
}

/// Its hour would go into the history half full, and begin again: of two halves only one is counted.
#[test]
fn a_clock_that_stays_ahead_removes_no_host() {
    let mut machine = Machine::new();
    machine.pass(MINUTE);
    for _ in 0..10 {
        machine.sample(Counted);
        machine.pass(1);
    }
    machine.set(5 * DAY);
    machine.pass(3 * EXPIRY_SECS);
    machine.set(0);
    machine.pass(BEHIND_SECS);
    machine.sample(Counted);
    let (_, Spans(hours)) = machine.found("l0");
    assert_eq!(
        hours.iter().map(|(_, _, count)| count).sum::<u64>(),
        11,
        "{hours:?}"
    );
}
