//! Chaos test: the shipped programs under kills, stops, full disks, network failures and damaged
//! files.
//!
//! ```text
//! this test ── unshare ──> itself again, in namespaces of its own (network, mounts, processes), which end with it
//!                            │
//!  field  10.77.0.2          │ veth, cut and mended        rx  10.77.0.1
//!  liz-monitor m0 … each ────┼──────────────────────────── liz-receiver, --data on a small tmpfs
//!    --spool on a small tmpfs│
//!  clients with batches, a reader, lizctl audit
//! ```
//!
//! [`netns`] sets up namespaces, [`programs`] runs the shipped programs, [`faults`] injects faults
//! at seeded moments, [`load`] keeps posting and reading, [`reference`] compares what the senders
//! recorded with what the receiver reports, and so does [`audit`] by `lizctl`. [`slow`] tests slow
//! clients.
//!
//! `LIZMON_CHAOS_SECS` is how long faults are injected (default 40); `LIZMON_CHAOS_SEED` selects
//! which and when.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and this one runs in real time"
)]

mod audit;
mod faults;
mod group;
mod load;
mod netns;
mod programs;
mod reference;
mod slow;

use std::time::Duration;

const SECS: u64 = 40;

/// Whatever happens to programs, disks and the network: each spooled record counts once, or is
/// reported as dropped.
#[test]
fn nothing_is_lost_and_nothing_is_twice() {
    netns::inside("nothing_is_lost_and_nothing_is_twice", || {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let secs = number("LIZMON_CHAOS_SECS").unwrap_or(SECS);
        let seed = number("LIZMON_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
        eprintln!("LIZMON_CHAOS_SEED={seed} LIZMON_CHAOS_SECS={secs}");
        faults::run(Duration::from_secs(secs), seed);
    });
}

/// Three receivers, three summarizers and a cluster of six servers: each numbered record counts
/// once, whatever is killed, stopped or cut off. Each fault comes once; `LIZMON_CHAOS_GROUP_SECS`
/// is for how long there are more, `LIZMON_CHAOS_MONITORS` how many monitors send. With
/// `LIZMON_CHAOS_MIN_REPLICAS=0` failovers forget, and monitors send again.
#[test]
fn a_group_loses_nothing_and_counts_nothing_twice() {
    netns::inside("a_group_loses_nothing_and_counts_nothing_twice", || {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let plan = group::Plan {
            secs: number("LIZMON_CHAOS_GROUP_SECS").unwrap_or(0),
            monitors: number("LIZMON_CHAOS_MONITORS").map_or(6, |count| count as usize),
            clients: 2,
            seed: number("LIZMON_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..)),
            min_replicas: number("LIZMON_CHAOS_MIN_REPLICAS").unwrap_or(1),
        };
        eprintln!("LIZMON_CHAOS_SEED={} {plan:?}", plan.seed);
        group::run(plan);
    });
}

/// 200 slow heads and 200 slow bodies: all are closed, and no other request fails.
/// `LIZMON_SLOW_DEFAULTS=1` uses the receiver's longer default timeouts.
#[test]
fn slow_clients_are_cut_and_others_do_not_notice() {
    netns::inside("slow_clients_are_cut_and_others_do_not_notice", || {
        slow::run(slow::Timeouts::new(
            std::env::var_os("LIZMON_SLOW_DEFAULTS").is_some(),
        ));
    });
}
