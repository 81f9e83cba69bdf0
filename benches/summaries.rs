//! What summaries cost by the number of hosts: memory, the start, answers, samples and commits.
//!
//! `cargo bench -p lizmon-benches --profile release --bench summaries -- 100 1000 10000`

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement: it measures time, prints, and fails by panicking"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};
use lizmon_protocol::token::{Claims, Confirmation, Scope};
use lizmon_receiver::authorize::Caller;
use lizmon_receiver::query;
use lizmon_receiver::store::record::{Group, Submission};
use lizmon_receiver::store::{LockedFolder, Store, open};
use lizmon_receiver::summarize::Summarizer;

const LABELS: u64 = 10;
const HOUR: u64 = 3_600;
const NOW: u64 = 17_000 * 86_400;
/// So many hosts are in one group of the journal, as with as many busy connections.
const HOSTS_A_GROUP: u64 = 25;
const ANSWERS: u64 = 2_000;
/// The rest of the command line is for this process, which another one has started.
const MEASURES: &str = "measure-in";

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [first, folder, hosts] = &arguments[..]
        && first == MEASURES
    {
        measure(Path::new(folder), hosts.parse().unwrap());
        return;
    }
    let counts: Vec<u64> = arguments.iter().filter_map(|of| of.parse().ok()).collect();
    let counts = match &counts[..] {
        [] => vec![100, 1_000],
        _ => counts,
    };
    for hosts in counts {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), hosts);
        // In a process of its own, whose memory is of this store alone.
        let measured = Command::new(std::env::current_exe().unwrap())
            .arg(MEASURES)
            .arg(folder.path())
            .arg(hosts.to_string())
            .status();
        assert!(measured.unwrap().success());
    }
}

/// A sample of every series in each minute of the last hour and each hour of the last day.
fn fill(folder: &Path, hosts: u64) {
    let mut store = store(folder);
    let mut summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    let hours = (1..24).rev().map(|ago| NOW - ago * HOUR - 60);
    let minutes = (0..60).rev().map(|ago| NOW - ago * 60);
    let epochs: Vec<u64> = hours.chain(minutes).collect();
    for host in 0..hosts {
        let sets: Vec<_> = epochs.iter().map(|epoch| samples(host, *epoch)).collect();
        let records = epochs.iter().zip(&sets);
        let records = records.map(|(epoch, set)| (None::<Seq>, Epoch::new(*epoch).unwrap(), set));
        let submission = Submission::new(&name(host), NOW, None, NOW).with_records(records);
        take(&mut *store, &mut summarizer, &[submission]);
        if host % 1_000 == 999 {
            commit_all(&mut *store, &mut summarizer);
        }
    }
    commit_all(&mut *store, &mut summarizer);
}

fn measure(folder: &Path, hosts: u64) {
    let series = hosts * LABELS;
    let (resident, began, cpu) = (memory("VmRSS"), Instant::now(), cpu_time());
    let mut store = store(folder);
    let mut summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    println!("{hosts} hosts of {LABELS} series");
    println!("  start: {took:.2?}, of CPU {cpu:.2?}");
    let bytes = |what| (memory(what) - resident) * 1_024 / series;
    let (now, most) = (bytes("VmRSS"), bytes("VmHWM"));
    println!("  memory: {now} bytes a series, at most {most}");
    measure_answers(&summarizer, hosts);
    measure_samples(&mut *store, &mut summarizer, hosts);
    let resident = memory("VmRSS") / 1_024;
    println!("  memory at the end: {resident} MiB");
}

/// What it takes to make an answer of all that a host has.
fn measure_answers(summarizer: &Summarizer, hosts: u64) {
    let table = summarizer.table();
    let reader = identity();
    let claims = Arc::new(claims_of(&reader));
    let caller = Caller::new(&reader, &claims).unwrap();
    let (mut bytes, cpu) = (0, cpu_time());
    for at in 0..ANSWERS {
        let host = name(at * 7_919 % hosts);
        let permit = caller.read_host(Some(&host), |host| table.tags(host));
        let found = query::summaries(&permit.unwrap(), &table, "", NOW).unwrap();
        bytes += found.unwrap().len() as u64;
    }
    let each = (cpu_time() - cpu) / ANSWERS as u32;
    println!("  answer: {each:.1?} of CPU, {} bytes", bytes / ANSWERS);
}

/// What a sample set of each host takes in the journal and in memory, and then the commits.
fn measure_samples(store: &mut dyn Store, summarizer: &mut Summarizer, hosts: u64) {
    let rounds = 20_000_u64.div_ceil(hosts).max(2);
    let (mut appending, mut applying) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        for first in (0..hosts).step_by(HOSTS_A_GROUP as usize) {
            let of_group = first..(first + HOSTS_A_GROUP).min(hosts);
            let submissions: Vec<_> = of_group
                .map(|host| {
                    let set = samples(host, NOW + round % 60);
                    let record = (None::<Seq>, Epoch::new(NOW + round % 60).unwrap(), &set);
                    let submission = Submission::new(&name(host), NOW, None, NOW);
                    submission.with_records([record].into_iter())
                })
                .collect();
            let (append, apply) = take(store, summarizer, &submissions);
            appending += append;
            applying += apply;
        }
    }
    let records = (rounds * hosts) as u32;
    let (append, apply) = (appending / records, applying / records);
    println!("  sample set: {append:.2?} of CPU in the journal, {apply:.2?} in the summaries");
    let mut pauses = commit_all(store, summarizer);
    pauses.sort();
    let (longest, median) = (pauses.last().unwrap(), pauses[pauses.len() / 2]);
    println!("  commit of a shard: median {median:.2?}, longest {longest:.2?}");
}

/// How long each commit of a shard took.
fn commit_all(store: &mut dyn Store, summarizer: &mut Summarizer) -> Vec<Duration> {
    let mut pauses = Vec::new();
    loop {
        let began = Instant::now();
        if !summarizer.commit_oldest(store, u64::MAX, None).unwrap() {
            return pauses;
        }
        pauses.push(began.elapsed());
    }
}

/// Appends a group and counts it; the CPU time of either.
fn take(
    store: &mut dyn Store,
    summarizer: &mut Summarizer,
    submissions: &[Submission],
) -> (Duration, Duration) {
    let count = store.shard_count();
    let views: Vec<_> = submissions.iter().map(|of| of.view().unwrap()).collect();
    let mut groups: Vec<_> = count.all().map(|_| Group::default()).collect();
    for (submission, view) in submissions.iter().zip(&views) {
        groups[count.shard_of(view.host).index()].push(submission);
    }
    let sealed = count.all().zip(&mut groups);
    let sealed = sealed.filter(|(_, group)| !group.is_empty());
    let sealed: Vec<_> = sealed.map(|(shard, group)| (shard, group.seal())).collect();
    let began = cpu_time();
    let position = store.append(&sealed).remove(0).unwrap();
    let appended = cpu_time();
    summarizer.begin_group();
    for view in &views {
        summarizer.apply(position, view);
    }
    (appended - began, cpu_time() - appended)
}

fn store(folder: &Path) -> Box<dyn Store> {
    open(LockedFolder::lock(folder).unwrap(), NOW).unwrap()
}

fn name(host: u64) -> NodeName {
    format!("host-{host}").parse().unwrap()
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

fn identity() -> Identity {
    Identity {
        spiffe_id: "spiffe://lizmon.test/operator/bench".parse().unwrap(),
        attributes: Default::default(),
        serial: [1].into(),
        thumbprint: [0; 32],
        not_before: 0,
        not_after: NOW + HOUR,
    }
}

fn claims_of(holder: &Identity) -> Claims {
    Claims {
        iss: "https://lizmon.test".to_owned(),
        aud: "https://lizmon.test".to_owned(),
        sub: "bench".parse().unwrap(),
        client_id: holder.spiffe_id.clone(),
        scope: [Scope::MetricsRead].into_iter().collect(),
        iat: NOW,
        nbf: NOW,
        exp: NOW + HOUR,
        jti: "1".to_owned(),
        cnf: Confirmation {
            x5t_s256: "A".repeat(43),
        },
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A line of `/proc/self/status`, in KiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|of| of.strip_prefix(line));
    let number = found
        .unwrap()
        .trim_start_matches(':')
        .trim_end_matches("kB");
    number.trim().parse().unwrap()
}
