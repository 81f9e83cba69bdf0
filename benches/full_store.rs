//! A store of hosts of ten labels whose windows are full.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement: it measures time, and fails by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};
use lizmon_receiver::store::record::{ShardGroups, Submission};
use lizmon_receiver::store::{LockedFolder, Store, open};
use lizmon_receiver::summarize::Summarizer;

pub(crate) const LABELS: u64 = 10;
const HOUR: u64 = 3_600;
/// So many hosts are in one group of the journal, as with as many busy connections.
pub(crate) const HOSTS_A_GROUP: u64 = 25;
/// So many are filled before they are committed.
const HOSTS_A_COMMIT: u64 = 1_000;

/// A sample of every series in each minute of the last hour and each hour of the last day.
pub(crate) fn fill(folder: &Path, hosts: u64, now: u64) {
    let mut store = store(folder, now);
    let mut summarizer = Summarizer::open(&mut *store, now).unwrap();
    let hours = (1..24).rev().map(|ago| now - ago * HOUR - 60);
    let minutes = (0..60).rev().map(|ago| now - ago * 60);
    let epochs: Vec<u64> = hours.chain(minutes).collect();
    for first in (0..hosts).step_by(HOSTS_A_GROUP as usize) {
        let submissions = of_group(first, hosts).map(|host| submission(host, &epochs, now));
        take(
            &mut *store,
            &mut summarizer,
            &submissions.collect::<Vec<_>>(),
        );
        if first % HOSTS_A_COMMIT == 0 {
            commit_all(&mut *store, &mut summarizer);
        }
    }
    commit_all(&mut *store, &mut summarizer);
}

/// How long each commit of a shard took.
pub(crate) fn commit_all(store: &mut dyn Store, summarizer: &mut Summarizer) -> Vec<Duration> {
    let mut pauses = Vec::new();
    loop {
        let began = Instant::now();
        if summarizer.commit_oldest(store, u64::MAX, None, 1).unwrap() == 0 {
            return pauses;
        }
        pauses.push(began.elapsed());
    }
}

pub(crate) fn store(folder: &Path, now: u64) -> Box<dyn Store> {
    open(LockedFolder::lock(folder).unwrap(), now).unwrap()
}

pub(crate) fn name(host: u64) -> NodeName {
    format!("host-{host}").parse().unwrap()
}

pub(crate) fn of_group(first: u64, hosts: u64) -> std::ops::Range<u64> {
    first..(first + HOSTS_A_GROUP).min(hosts)
}

pub(crate) fn submission(host: u64, epochs: &[u64], now: u64) -> Submission {
    let sets: Vec<_> = epochs.iter().map(|epoch| samples(host, *epoch)).collect();
    let records = epochs.iter().zip(&sets);
    let records = records.map(|(epoch, set)| (None::<Seq>, Epoch::new(*epoch).unwrap(), set));
    Submission::new(&name(host), now, None, now).with_records(records)
}

/// Values with two decimals, as monitors send most.
fn samples(host: u64, epoch: u64) -> SampleSet<'static> {
    let values = (0..LABELS).map(|at| {
        let hundredths = (host * 31 + at * 17 + epoch / 60 * 13) % 10_000;
        let label = Label::new(format!("label-{at}")).unwrap();
        (label, Value::new(hundredths as f64 / 100.0).unwrap())
    });
    SampleSet::new(values.collect())
}

/// Appends a group and counts it; the CPU time of either.
pub(crate) fn take(
    store: &mut dyn Store,
    summarizer: &mut Summarizer,
    submissions: &[Submission],
) -> (Duration, Duration) {
    let count = store.shard_count();
    let views: Vec<_> = submissions.iter().map(|of| of.view().unwrap()).collect();
    let mut groups = ShardGroups::new(count);
    for (submission, view) in submissions.iter().zip(&views) {
        groups.group(count.shard_of(view.host)).push(submission);
    }
    let sealed = groups.seal();
    let began = cpu_time();
    let position = store.append(&sealed).remove(0).unwrap();
    let appended = cpu_time();
    summarizer.begin_group();
    for view in &views {
        summarizer.apply(position, view);
    }
    (appended - began, cpu_time() - appended)
}

/// The CPU time of this thread.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
