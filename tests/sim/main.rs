//! Nothing lost, nothing twice: monitors, a bad network and receivers in one process, one thread, under one seeded clock.
//!
//! ```text
//! scenario ── seed ──> world: one queue of events
//!                        │
//!   monitor (spool, pace) ──> wire: lost, late, twice, cut ──> receiver (ingest, journal, summarize) ──> memory store
//!        │                                                        │                                  fails, tears, dies
//!        └──────────────> model: what was recorded <──────────────┘ what was taken
//! ```
//!
//! After every start of a receiver, and at the end, what it has must be what the model has. A seed says everything: the
//! same one does the same again. See `docs/testing.md`.
//!
//! - `LIZMON_SIM_SEED=17` runs one seed and tells all that happens.
//! - `LIZMON_SIM_SEEDS=10000` runs so many, from `LIZMON_SIM_FIRST` on; `LIZMON_SIM_KIND=day-outage` only those of one
//!   kind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod monitor;
mod receiver;
mod scenario;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use scenario::Kind;
use world::{Figures, World};

/// How many seeds run where nothing says otherwise.
const SEEDS: u64 = 2_000;
/// How many failing seeds are told: more would tell the same.
const FAILURES_MAX: usize = 10;

/// What does not hold.
#[derive(Debug)]
pub(crate) struct Wrong(pub String);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

fn run(seed: u64, is_told: bool) -> Result<Figures, Wrong> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, is_told).run()))
        .unwrap_or_else(|_| Err(Wrong("it panicked".to_owned())))
}

/// Runs seeds on all processors, each run on one thread. Their figures in sum, or what is wrong with which.
fn run_all(seeds: &[u64]) -> Result<Figures, Vec<(u64, Wrong)>> {
    let next = AtomicU64::new(0);
    let sum = Mutex::new((Figures::default(), Vec::new()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let result = run(*seed, false);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(figures) => sum.0.add(&figures),
                Err(wrong) => sum.1.push((*seed, wrong)),
            }
            if sum.1.len() >= FAILURES_MAX {
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (figures, wrong) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    if wrong.is_empty() {
        Ok(figures)
    } else {
        Err(wrong)
    }
}

fn check(seeds: &[u64]) {
    match run_all(seeds) {
        Ok(figures) => eprintln!("{} seeds: {figures:#?}", seeds.len()),
        Err(wrong) => {
            for (seed, Wrong(what)) in &wrong {
                eprintln!("seed {seed}: {what}");
                eprintln!(
                    "    again: LIZMON_SIM_SEED={seed} cargo test -p lizmon-tests --test sim seeds -- --nocapture"
                );
            }
            panic!("{} seeds failed", wrong.len());
        }
    }
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.simulated_secs += other.simulated_secs;
        self.records += other.records;
        self.taken += other.taken;
        self.dropped += other.dropped;
        self.excused += other.excused;
        self.requests += other.requests;
        self.monitor_crashes += other.monitor_crashes;
        self.receiver_crashes += other.receiver_crashes;
        self.found_after_crash += other.found_after_crash;
        self.checks += other.checks;
        // In any order the same.
        self.digest ^= other.digest;
    }
}

#[test]
fn seeds() {
    if let Some(seed) = number("LIZMON_SIM_SEED") {
        let result = run(seed, true);
        eprintln!("seed {seed}: {result:#?}");
        assert!(result.is_ok(), "seed {seed}");
        return;
    }
    let first = number("LIZMON_SIM_FIRST").unwrap_or(0);
    let count = number("LIZMON_SIM_SEEDS").unwrap_or(SEEDS);
    let kind = std::env::var("LIZMON_SIM_KIND").ok().map(|name| {
        Kind::named(&name).unwrap_or_else(|| panic!("LIZMON_SIM_KIND={name} is no kind"))
    });
    let seeds = (first..).filter(|seed| kind.is_none_or(|kind| Kind::of(*seed) == kind));
    check(&seeds.take(count as usize).collect::<Vec<_>>());
}

/// For each bug that was found here, a seed that finds it again in this code if it is put back in, and its story. Each has
/// a small test of its own as well.
const REGRESSIONS: &[(u64, &str)] = &[
    (
        55,
        "a spool came back after more than a day; the receiver had forgotten its producer and missed all that had arrived",
    ),
    (
        154,
        "a batch that only gave numbers up, from a host nobody had heard of, was answered 200 and kept nowhere",
    ),
    (
        11,
        "the spool pushed onto a tape that had been removed while it was saved, and panicked",
    ),
    (
        759,
        "a tape that had ended was thrown away after a day with what nobody had been told of it",
    ),
];

#[test]
fn what_found_a_bug_finds_none() {
    for (seed, story) in REGRESSIONS {
        assert!(run(*seed, false).is_ok(), "seed {seed}: {story}");
    }
}

/// So many seeds are enough to see that something is not done any more about clocks that are wrong.
const CLOCK_SEEDS: u64 = 110;

/// `tests/guards` takes out what is done about them, one thing at a time.
#[test]
fn wrong_clocks_cost_nothing() {
    check(&(0..CLOCK_SEEDS).collect::<Vec<_>>());
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in 0..16 {
        let (once, again) = (run(seed, false), run(seed, false));
        assert_eq!(once.unwrap(), again.unwrap(), "seed {seed}");
    }
}
