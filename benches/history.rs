//! What the history costs in SQLite: time of commits with and without it, and bytes on disk.
//!
//! `cargo bench --workspace --profile dev --bench history`

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement: it measures time, prints, and fails by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};
use lizmon_receiver::store::record::{Group, Submission};
use lizmon_receiver::store::{
    EvictedHour, HistoryRetention, LockedFolder, ShardChanges, Store, open,
};
use lizmon_receiver::summarize::Summarizer;
use lizmon_summary::Bucket;

const HOSTS: u64 = 10;
const LABELS: u64 = 20;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
const START: u64 = 17_000 * DAY;
const NONE: HistoryRetention = HistoryRetention {
    hours_secs: 0,
    days_secs: 0,
};

fn main() {
    println!("{HOSTS} hosts of {LABELS} series; commits of one host each");
    for (name, retention) in [("without", NONE), ("with", HistoryRetention::default())] {
        let folder = tempfile::tempdir().unwrap();
        let mut rounds = hourly_rounds(folder.path(), retention, 5 * 24);
        // The first hours leave their rings after 26.
        let mut rounds = rounds.split_off(30);
        rounds.sort();
        let median = rounds[rounds.len() / 2] / HOSTS as u32;
        let mean = rounds.iter().sum::<Duration>() / (rounds.len() as u32 * HOSTS as u32);
        println!(
            "{name} history: a commit that begins an hour takes {median:?} (median), {mean:?} (mean)"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let empty = bytes(folder.path(), 0);
    for days in [1, 31, 100, 400] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes(folder.path(), days) - empty;
        let per_series = bytes / (HOSTS * LABELS);
        println!("after {days} days the history takes {per_series} bytes a series on disk");
    }
}

fn store(folder: &Path) -> Box<dyn Store> {
    open(LockedFolder::lock(folder).unwrap(), START).unwrap()
}

fn label(at: u64) -> String {
    format!("disk-used:/var/lib/{at}")
}

/// A sample of each series in each hour, and how long it took to commit all of them.
fn hourly_rounds(folder: &Path, retention: HistoryRetention, hours: u64) -> Vec<Duration> {
    let mut store = store(folder);
    let summarizer = Summarizer::open(&mut *store, START).unwrap();
    let mut summarizer = summarizer.keeping(retention);
    let mut rounds = Vec::new();
    for hour in 0..hours {
        let now = START + hour * HOUR + 1;
        for host in 0..HOSTS {
            let values = (0..LABELS).map(|at| {
                let value = Value::new(at as f64 + hour as f64 / 7.0).unwrap();
                (Label::new(label(at)).unwrap(), value)
            });
            let set = SampleSet::new(values.collect());
            let name = format!("host-{host}").parse().unwrap();
            let record = (None::<Seq>, Epoch::new(now).unwrap(), &set);
            let submission = Submission::new(&name, now, None, now);
            let submission = submission.with_records([record].into_iter());
            let mut group = Group::default();
            group.push(&submission);
            let shard = store.shard_count().shard_of(name.as_str());
            let position = store.append(&[(shard, group.seal())]).remove(0).unwrap();
            summarizer.begin_group();
            summarizer.apply(position, &submission.view().unwrap());
        }
        let began = Instant::now();
        while summarizer
            .commit_oldest(&mut *store, u64::MAX, None, 1)
            .unwrap()
            > 0
        {}
        rounds.push(began.elapsed());
    }
    rounds
}

/// The size of a database that has kept so many days, the last 31 with their hours.
fn bytes(folder: &Path, days: u64) -> u64 {
    let mut store = store(folder);
    let shards: Vec<_> = store.shard_count().all().collect();
    let fences = store.acquire(&shards).unwrap();
    store.load(&shards, START).unwrap();
    for day in 0..days {
        for host in 0..HOSTS {
            let name = format!("host-{host}");
            let shard = store.shard_count().shard_of(&name);
            let evicted = (0..LABELS).flat_map(|at| {
                let host: Box<str> = name.as_str().into();
                (0..24).map(move |hour| EvictedHour {
                    host: host.clone(),
                    label: label(at).into(),
                    bucket: Bucket {
                        start: START + day * DAY + hour * HOUR,
                        count: 3_600,
                        sum: 3_600.0 * (at as f64 + 0.1),
                        min: at as f64,
                        max: at as f64 + 1.0 / 3.0,
                    },
                })
            });
            let changes = ShardChanges {
                evicted: evicted.collect(),
                ..ShardChanges::default()
            };
            store.commit(fences[shard.index()], &changes).unwrap();
        }
        for step in 0..8 {
            let now = START + (day + 1) * DAY + step;
            store
                .expire_history(&HistoryRetention::default(), now)
                .unwrap();
        }
    }
    drop(store);
    let file = folder.join("lizmon.db");
    std::fs::metadata(file).unwrap().len()
}
