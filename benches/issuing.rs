//! What a certificate costs when many are issued: in memory, and with its files.
//!
//! `cargo bench -p lizmon-benches --profile release --bench issuing -- [CERTIFICATES] [ROUNDS] [FOLDER]`
//!
//! Both record every certificate in the ledger of a CA below FOLDER. CPU time is that of the
//! process: all is done on one thread.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement: it measures time, prints, and fails by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lizmon_benches::cpu;
use lizmon_ca::authority::{Authority, GROUP_NAMES_MAX, InitOptions, LeafTerms};
use lizmon_ca::pki::KeyAlg;
use lizmon_protocol::name::{Attributes, NodeName, Role};

const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut number = |default| args.next().map_or(default, |arg| arg.parse().unwrap());
    let (count, rounds) = (number(10_000), number(3));
    let folder = args.next().unwrap_or_else(|| ".".to_owned());
    println!("{count} certificates of nodes, P-256");
    for _ in 0..rounds {
        measure("in memory", Path::new(&folder), |authority, now| {
            let names = names(count);
            let issued = authority.issue_in_memory(Role::Node, &names, LIFETIME, now);
            issued.unwrap().len()
        });
        measure("to disk", Path::new(&folder), |authority, now| {
            let terms = LeafTerms {
                role: Role::Node,
                attributes: Attributes::default(),
                lifetime: LIFETIME,
                key_alg: KeyAlg::default(),
            };
            let names = names(count);
            for group in names.chunks(GROUP_NAMES_MAX) {
                authority.issue_group(&terms, group, now).unwrap();
            }
            names.len()
        });
    }
}

fn names(count: usize) -> Vec<NodeName> {
    (0..count)
        .map(|at| format!("web{at:06}.dc1.example").parse().unwrap())
        .collect()
}

/// With a CA of its own in a temporary folder.
fn measure(what: &str, folder: &Path, issue: impl FnOnce(&Authority, u64) -> usize) {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let certs = folder.path().join("certs");
    let authority = Authority::init(&certs, &InitOptions::default(), now).unwrap();
    let me = std::process::id();
    let (cpu, started) = (cpu::secs(me).unwrap(), Instant::now());
    let count = issue(&authority, now) as f64;
    let (cpu, elapsed) = (
        cpu::secs(me).unwrap() - cpu,
        started.elapsed().as_secs_f64(),
    );
    println!(
        "{what}: {:.0} per CPU second ({:.0} us each), {:.0} per second",
        count / cpu,
        cpu / count * 1e6,
        count / elapsed
    );
}
