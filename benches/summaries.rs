//! What summaries cost by the number of hosts: memory, the start, answers, samples and commits.
//!
//! `cargo bench -p lizmon-benches --profile release --bench summaries -- 100 1000 10000`

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement: it measures time, prints, and fails by panicking"
)]

mod caller;
mod full_store;
mod sample_cost;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use lizmon_receiver::authorize::Caller;
use lizmon_receiver::query;
use lizmon_receiver::summarize::Summarizer;

use self::caller::{claims_of, identity};
use self::full_store::{LABELS, commit_all, cpu_time, fill, name, store};
use self::sample_cost::sample_cost;

const NOW: u64 = 17_000 * 86_400;
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
        fill(folder.path(), hosts, NOW);
        // In a process of its own, whose memory is of this store alone.
        let measured = Command::new(std::env::current_exe().unwrap())
            .arg(MEASURES)
            .arg(folder.path())
            .arg(hosts.to_string())
            .status();
        assert!(measured.unwrap().success());
    }
}

fn measure(folder: &Path, hosts: u64) {
    let series = hosts * LABELS;
    let (resident, began, cpu) = (memory("VmRSS"), Instant::now(), cpu_time());
    let mut store = store(folder, NOW);
    let mut summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    println!("{hosts} hosts of {LABELS} series");
    println!("  start: {took:.2?}, of CPU {cpu:.2?}");
    let bytes = |what| (memory(what) - resident) * 1_024 / series;
    let (now, most) = (bytes("VmRSS"), bytes("VmHWM"));
    println!("  memory: {now} bytes a series, at most {most}");
    measure_answers(&summarizer, hosts);
    let (append, apply) = sample_cost(&mut *store, &mut summarizer, (hosts, NOW));
    println!("  sample set: {append:.2?} of CPU in the journal, {apply:.2?} in the summaries");
    let mut pauses = commit_all(&mut *store, &mut summarizer);
    pauses.sort();
    let (longest, median) = (pauses.last().unwrap(), pauses[pauses.len() / 2]);
    println!("  commit of a shard: median {median:.2?}, longest {longest:.2?}");
    let resident = memory("VmRSS") / 1_024;
    println!("  memory at the end: {resident} MiB");
}

/// What it takes to make an answer of all that a host has.
fn measure_answers(summarizer: &Summarizer, hosts: u64) {
    let table = summarizer.table();
    let reader = identity(NOW);
    let claims = Arc::new(claims_of(&reader, NOW));
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
