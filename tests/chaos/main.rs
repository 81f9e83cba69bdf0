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
//! recorded with what the receiver reports. [`slow`] tests slow clients.
//!
//! `LIZMON_CHAOS_SECS` is how long faults are injected (default 40); `LIZMON_CHAOS_SEED` selects
//! which and when.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and this one runs in real time"
)]

mod faults;
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
        let number = |name: &str| std::env::var(name).ok()?.parse().ok();
        let secs = number("LIZMON_CHAOS_SECS").unwrap_or(SECS);
        let seed = number("LIZMON_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
        eprintln!("LIZMON_CHAOS_SEED={seed} LIZMON_CHAOS_SECS={secs}");
        faults::run(Duration::from_secs(secs), seed);
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
