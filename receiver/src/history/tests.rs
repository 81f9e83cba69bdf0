//! The history equals what a list of all samples gives, whatever happens in between.

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};
use proptest::prelude::*;

use super::*;
use crate::store::history::{KEEP_DAYS_SECS, KEEP_HOURS_SECS};
use crate::store::memory::{MemoryDisk, MemoryStore, WriteOutcome};
use crate::store::record::{Group, Submission};
use crate::store::{JournalStore, Store};
use crate::summarize::Summarizer;

const NOW: u64 = 1_465_001_814;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// A receiver's state without its threads and sockets, and every sample it was given.
struct Receiver {
    disk: MemoryDisk,
    store: MemoryStore,
    summarizer: Summarizer,
    histories: Histories,
    retention: HistoryRetention,
    now: u64,
    samples: Vec<(&'static str, u64, f64)>,
}

impl Receiver {
    fn new(retention: HistoryRetention) -> Self {
        let disk = MemoryDisk::default();
        let mut store = MemoryStore::open(disk.clone());
        let summarizer = Summarizer::open(&mut store, NOW)
            .unwrap()
            .keeping(retention);
        Self {
            histories: Histories::new(store.history().unwrap(), retention),
            disk,
            store,
            summarizer,
            retention,
            now: NOW,
            samples: Vec::new(),
        }
    }

    fn take(&mut self, label: &'static str, epoch: u64, value: f64, removes_ahead: bool) {
        let set = [(Label::new(label).unwrap(), Value::new(value).unwrap())];
        let set = SampleSet::new(set.to_vec());
        let epoch = Epoch::new(epoch).unwrap();
        let records = [(None::<Seq>, epoch, &set)];
        let host = "web1".parse().unwrap();
        let submission =
            Submission::new(&host, 9, None, self.now).with_records(records.into_iter());
        let mut group = Group::default();
        match removes_ahead {
            true => group.push_removing_ahead(&submission),
            false => group.push(&submission),
        }
        let shard = self.store.shard_count().shard_of("web1");
        let appended = self.store.append(&[(shard, group.seal())]).remove(0);
        let mut view = submission.view().unwrap();
        view.removes_ahead = removes_ahead;
        self.summarizer.begin_group();
        self.summarizer.apply(appended.unwrap(), &view);
        if removes_ahead {
            let from = self.now + AHEAD_SECS_MAX;
            self.samples.retain(|(_, epoch, _)| hour_of(*epoch) < from);
        }
        self.samples.push((label, epoch.secs(), value));
    }

    fn commit(&mut self) -> bool {
        let mut is_done = true;
        loop {
            let committed =
                self.summarizer
                    .commit_oldest(&mut self.store, u64::MAX, Some(self.now), 1);
            match committed {
                Ok(0) => return is_done,
                Ok(_) => (),
                Err(_) => {
                    is_done = false;
                    return is_done;
                }
            }
        }
    }

    fn crash(&mut self, is_unsynced_there: bool) {
        self.disk.set_outcomes(|| WriteOutcome::Done);
        self.disk.crash(is_unsynced_there);
        self.store = MemoryStore::open(self.disk.clone());
        let summarizer = Summarizer::open(&mut self.store, self.now).unwrap();
        self.summarizer = summarizer.keeping(self.retention);
    }

    fn sweep(&mut self) {
        for _ in 0..self.store.shard_count().get() {
            self.summarizer
                .sweep_next(&mut self.store, self.now)
                .unwrap();
        }
    }

    fn read(&self, label: &str, tier: HistoryTier, from: u64, to: u64) -> History {
        let range = HistoryRange {
            tier,
            from: Epoch::new(from),
            to: Epoch::new(to),
        };
        let table = self.summarizer.table();
        let read = self
            .histories
            .of_series(&table, "web1", label, &range, self.now);
        read.unwrap().unwrap_or_default()
    }

    /// All pages.
    fn read_all(&self, label: &str, tier: HistoryTier) -> Vec<Average> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let page = self.read(label, tier, from, 1 << 40);
            all.extend(page.intervals);
            match page.next {
                Some(next) => from = next,
                None => return all,
            }
        }
    }

    /// The same from the list of all samples.
    fn expected(&self, label: &str, tier: HistoryTier) -> Vec<Average> {
        let mut hours = BTreeMap::<u64, Bucket>::new();
        let of_label = self.samples.iter().filter(|(of, ..)| *of == label);
        for (_, epoch, value) in of_label {
            let start = hour_of(*epoch);
            let sample = bucket(start, *value);
            let hour = hours.get(&start).map_or(sample, |hour| join(hour, &sample));
            hours.insert(start, hour);
        }
        let mut intervals = BTreeMap::<u64, Bucket>::new();
        for (start, hour) in hours {
            let start = start - start % tier.width_secs();
            let hour = Bucket { start, ..hour };
            let joined = intervals
                .get(&start)
                .map_or(hour, |before| join(before, &hour));
            intervals.insert(start, joined);
        }
        let kept_from = self.now - self.retention.secs(tier);
        let width = tier.width_secs();
        let kept = intervals
            .into_values()
            .filter(|bucket| bucket.start + width > kept_from);
        kept.map(|bucket| average(&bucket, width).unwrap())
            .collect()
    }

    fn check(&self, labels: &[&str]) {
        for label in labels {
            for tier in HistoryTier::ALL {
                let (read, expected) = (self.read_all(label, tier), self.expected(label, tier));
                assert_eq!(read, expected, "{label} {tier:?} at {}", self.now);
            }
        }
    }
}

fn hour_of(epoch: u64) -> u64 {
    (epoch - 1) / HOUR * HOUR
}

fn bucket(start: u64, value: f64) -> Bucket {
    Bucket {
        start,
        count: 1,
        sum: value,
        min: value,
        max: value,
    }
}

fn join(one: &Bucket, other: &Bucket) -> Bucket {
    Bucket {
        start: one.start,
        count: one.count + other.count,
        sum: one.sum + other.sum,
        min: one.min.min(other.min),
        max: one.max.max(other.max),
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// So many seconds pass.
    Pass(u64),
    /// A sample that is so many seconds old.
    Take(usize, u64, f64),
    /// One that is so many seconds ahead, as of a wrong clock; then the clock is right, and a sample
    /// removes what is ahead.
    AheadThenCut(usize, u64, f64),
    Commit,
    Sweep,
    /// A commit that ends so, and a crash.
    CommitAndCrash(WriteOutcome, bool),
    Crash,
}

const LABELS: [&str; 2] = ["cpu", "disk-used:/"];

fn step() -> impl Strategy<Value = Step> {
    let label = 0..LABELS.len();
    let value = prop_oneof![Just(0.1), Just(-0.0), -1e9..1e9];
    let outcome = prop_oneof![
        Just(WriteOutcome::Fails),
        Just(WriteOutcome::Unsynced),
        Just(WriteOutcome::CrashBefore),
        Just(WriteOutcome::CrashTorn),
        Just(WriteOutcome::CrashAfter),
    ];
    prop_oneof![
        3 => (0..4 * HOUR).prop_map(Step::Pass),
        1 => (20 * HOUR..60 * HOUR).prop_map(Step::Pass),
        // The by-hour window is a day, and all of it is accepted.
        8 => (label.clone(), 0..DAY, value.clone()).prop_map(|(label, age, value)| Step::Take(label, age, value)),
        1 => (label, 0..2 * HOUR, value).prop_map(|(label, ahead, value)| Step::AheadThenCut(label, ahead, value)),
        2 => Just(Step::Commit),
        1 => Just(Step::Sweep),
        1 => (outcome, any::<bool>()).prop_map(|(outcome, there)| Step::CommitAndCrash(outcome, there)),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_a_list_of_all_samples(steps in prop::collection::vec(step(), 1..60)) {
        let mut receiver = Receiver::new(HistoryRetention {
            hours_secs: 10 * DAY,
            days_secs: 40 * DAY,
        });
        for step in steps {
            match step {
                Step::Pass(secs) => receiver.now += secs,
                Step::Take(label, age, value) => {
                    let epoch = receiver.now - age;
                    receiver.take(LABELS[label], epoch, value, false);
                }
                Step::AheadThenCut(label, ahead, value) => {
                    let (epoch, now) = (receiver.now + ahead, receiver.now);
                    receiver.take(LABELS[label], epoch, value, false);
                    receiver.take(LABELS[label], now, value, true);
                }
                Step::Commit => drop(receiver.commit()),
                Step::Sweep => receiver.sweep(),
                Step::CommitAndCrash(outcome, is_unsynced_there) => {
                    receiver.disk.set_outcomes(move || outcome);
                    receiver.commit();
                    receiver.crash(is_unsynced_there);
                }
                Step::Crash => receiver.crash(false),
            }
            receiver.check(&LABELS);
        }
        receiver.store.expire_history(&receiver.retention, receiver.now).unwrap();
        receiver.check(&LABELS);
    }
}

/// Nothing was added to the series since, and so nothing took the hour out of its ring.
#[test]
fn what_has_ended_is_not_shown_from_memory() {
    let mut receiver = Receiver::new(HistoryRetention {
        hours_secs: 10 * DAY,
        days_secs: 40 * DAY,
    });
    receiver.take("cpu", NOW, 1.0, false);
    for (secs, hours, days) in [
        (0, 1, 1),
        (9 * DAY, 1, 1),
        (2 * DAY, 0, 1),
        (31 * DAY, 0, 0),
    ] {
        receiver.now += secs;
        let shown = HistoryTier::ALL.map(|tier| receiver.read_all("cpu", tier).len());
        assert_eq!(shown, [hours, days], "{}", receiver.now);
    }
}

/// The day that is in memory is shown even so.
#[test]
fn where_nothing_is_kept_longer_memory_is_shown() {
    let mut receiver = Receiver::new(HistoryRetention {
        hours_secs: 0,
        days_secs: 0,
    });
    receiver.take("cpu", NOW, 1.0, false);
    assert_eq!(receiver.read_all("cpu", HistoryTier::ByHour).len(), 1);
}

#[test]
fn is_kept_to_the_interval() {
    let mut receiver = Receiver::new(HistoryRetention::default());
    receiver.now = NOW - NOW % DAY;
    receiver.take("cpu", receiver.now, 1.0, false);
    let end = receiver.now;
    receiver.now += 2 * DAY;
    receiver.sweep();
    for (tier, kept) in [
        (HistoryTier::ByHour, KEEP_HOURS_SECS),
        (HistoryTier::ByDay, KEEP_DAYS_SECS),
    ] {
        for (late, is_there) in [
            (0, true),
            (kept - 1, true),
            (kept, false),
            (kept + 1, false),
        ] {
            receiver.now = end + late;
            let is_found = !receiver.read_all("cpu", tier).is_empty();
            assert_eq!(is_found, is_there, "{tier:?} {late} s after its end");
        }
    }
}

#[test]
fn pages_follow_each_other() {
    let mut receiver = Receiver::new(HistoryRetention {
        hours_secs: 400 * DAY,
        days_secs: 400 * DAY,
    });
    let hours = INTERVALS_MAX as u64 + 100;
    for _ in 0..hours {
        receiver.now += HOUR;
        receiver.take("cpu", receiver.now, 1.0, false);
        receiver.commit();
    }
    let all = receiver.read_all("cpu", HistoryTier::ByHour);
    assert_eq!(all, receiver.expected("cpu", HistoryTier::ByHour));
    assert_eq!(all.len() as u64, hours);
    let page = |from, to| receiver.read("cpu", HistoryTier::ByHour, from, to);
    let first = page(0, 1 << 40);
    assert_eq!(first.intervals.len(), INTERVALS_MAX);
    assert_eq!(first.next, Some(all[INTERVALS_MAX].start_sec));
    // Exactly a page is the last one.
    let last = page(0, all[INTERVALS_MAX - 1].end_sec);
    assert_eq!((last.intervals.len(), last.next), (INTERVALS_MAX, None));
    // An interval is asked for by any of its seconds: its end, and not its start.
    let of = |from, to| page(from, to).intervals.len();
    let (start, end) = (all[5].start_sec, all[5].end_sec);
    assert_eq!(of(start, start + 1), 1);
    assert_eq!(of(end - 1, end), 1);
    assert_eq!(of(end, end), 0);
    assert_eq!(of(start, end), 1);
    assert_eq!(of(start - 1, end), 2);
    assert_eq!(of(start, end + 1), 2);
}

#[test]
fn memory_keeps_nothing_of_it() {
    let mut receiver = Receiver::new(HistoryRetention::default());
    let mut bytes = Vec::new();
    for day in 0..100 {
        for _ in 0..24 {
            receiver.now += HOUR;
            receiver.take("cpu", receiver.now, 1.0, false);
        }
        receiver.commit();
        let table = receiver.summarizer.table();
        let hosts = table.shard_with("web1");
        let host = &hosts["web1"];
        assert!(host.evicted.is_empty(), "day {day}");
        bytes.push(host.series["cpu"].memory_bytes());
    }
    assert_eq!(bytes[2], bytes[99]);
    assert_eq!(receiver.read_all("cpu", HistoryTier::ByDay).len(), 101);
}

#[test]
fn an_unknown_host_is_unknown_and_a_label_without_samples_empty() {
    let mut receiver = Receiver::new(HistoryRetention::default());
    receiver.take("cpu", NOW, 1.0, false);
    let read = |receiver: &Receiver, host: &str, label: &str| {
        let table = receiver.summarizer.table();
        let range = HistoryRange::default();
        let read = receiver
            .histories
            .of_series(&table, host, label, &range, receiver.now);
        read.unwrap().map(|history| history.intervals.len())
    };
    assert_eq!(read(&receiver, "web1", "cpu"), Some(1));
    assert_eq!(read(&receiver, "web1", "cp"), Some(0), "a label is exact");
    assert_eq!(read(&receiver, "web2", "cpu"), None);
    // A host that has ended is known for as long as something of it is kept.
    receiver.now += 10 * DAY;
    receiver.sweep();
    assert!(
        !receiver
            .summarizer
            .table()
            .shard_with("web1")
            .contains_key("web1")
    );
    assert_eq!(read(&receiver, "web1", "cpu"), Some(1));
    assert_eq!(read(&receiver, "web1", "mem"), Some(0));
    receiver.now += 500 * DAY;
    let (retention, now) = (receiver.retention, receiver.now);
    receiver.store.expire_history(&retention, now).unwrap();
    assert_eq!(read(&receiver, "web1", "cpu"), None);
}

#[test]
fn a_store_that_fails_is_an_error() {
    let mut receiver = Receiver::new(HistoryRetention::default());
    receiver.take("cpu", NOW, 1.0, false);
    receiver.disk.set_failing(true);
    let table = receiver.summarizer.table();
    let range = HistoryRange::default();
    let read = receiver
        .histories
        .of_series(&table, "web1", "cpu", &range, NOW);
    assert!(read.is_err());
}
