//! Nothing is lost or counted twice: monitors, a bad network and receivers in one process and one
//! thread, with one virtual clock.
//!
//! ```text
//! scenario ── seed ──> world: one queue of events
//!                        │
//!  monitor (spool, retry) ──> wire: lost, late, twice, cut ──> receiver (ingest, journal, summarize)
//!     │                                                            │  └─> memory store: fails, crashes
//!     └───────────> model: what was recorded <─────────────────────┘ what was taken
//! ```
//!
//! After each start of a receiver, and at the end, a receiver must have what the model has. A run
//! depends on its seed only, and can be repeated. See `docs/testing.md`.
//!
//! In runs of their own several receivers and summarizers share an engine in memory, which fails
//! over and forgets: `a_shared_store_loses_and_repeats_nothing`.
//!
//! - `LIZMON_SIM_SEED=17` runs one seed and logs all events.
//! - `LIZMON_SIM_SEEDS=10000` runs so many, from `LIZMON_SIM_FIRST` on;
//!   `LIZMON_SIM_KIND=day-outage` only those of one kind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod monitor;
mod receiver;
mod scenario;
mod summarizer;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use scenario::{FORGETFUL_FROM, SHARED_FROM, ScenarioKind};
use world::{RunStats, World};

/// How many seeds run by default.
const SEEDS: u64 = 900;
/// How many failing seeds are logged.
const FAILURES_MAX: usize = 10;

/// Something that does not hold.
#[derive(Debug)]
pub(crate) struct Violation(pub String);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    )
}

fn run(seed: u64, is_verbose: bool) -> Result<RunStats, Violation> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, is_verbose).run()))
        .unwrap_or_else(|_| Err(Violation("it panicked".to_owned())))
}

/// Runs seeds on all processors, each run on one thread. Returns the sum of their statistics, or
/// the seeds that failed.
fn run_all(seeds: &[u64]) -> Result<RunStats, Vec<(u64, Violation)>> {
    let next = AtomicU64::new(0);
    let sum = Mutex::new((RunStats::default(), Vec::new()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let result = run(*seed, false);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(stats) => sum.0.add(&stats),
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
    let (stats, wrong) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    if wrong.is_empty() {
        Ok(stats)
    } else {
        Err(wrong)
    }
}

fn check(seeds: &[u64]) -> RunStats {
    match run_all(seeds) {
        Ok(stats) => {
            eprintln!("{} seeds: {stats:#?}", seeds.len());
            stats
        }
        Err(wrong) => {
            for (seed, Violation(what)) in &wrong {
                eprintln!("seed {seed}: {what}");
                eprintln!(
                    "    to repeat: LIZMON_SIM_SEED={seed} cargo test -p lizmon-tests --test sim seeds -- --nocapture"
                );
            }
            panic!("{} seeds failed", wrong.len());
        }
    }
}

impl RunStats {
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
        self.forgotten += other.forgotten;
        self.repaired += other.repaired;
        self.commits += other.commits;
        self.takeovers += other.takeovers;
        self.checks += other.checks;
        // The same in any order.
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
        ScenarioKind::parse(&name).unwrap_or_else(|| panic!("LIZMON_SIM_KIND={name} is not a kind"))
    });
    let seeds = (first..).filter(|seed| kind.is_none_or(|kind| ScenarioKind::of(*seed) == kind));
    check(&seeds.take(count as usize).collect::<Vec<_>>());
}

/// For each bug that the simulation found: a seed that finds it again if it is put back, and what
/// it was. Each has a unit test as well.
const REGRESSIONS: &[(u64, &str)] = &[
    (
        55,
        "a spool was used again after more than a day; the receiver had forgotten its producer and missed all that had arrived",
    ),
    (
        154,
        "a batch with reports only, from an unknown host, was answered 200 and not stored",
    ),
    (
        11,
        "the spool appended to a log that had been removed by a save, and panicked",
    ),
    (
        759,
        "a finished log was removed after a day with its unreported drops",
    ),
    (
        44_751,
        "the run ended with a report unsent: a check of the delivery was due before it",
    ),
];

#[test]
fn regressions_stay_fixed() {
    for (seed, story) in REGRESSIONS {
        assert!(run(*seed, false).is_ok(), "seed {seed}: {story}");
    }
}

/// So many seeds are enough to notice that a measure against wrong clocks is missing.
const CLOCK_SEEDS: u64 = 110;

/// `tests/guards` removes these measures one at a time.
#[test]
fn wrong_clocks_cost_nothing() {
    check(&(0..CLOCK_SEEDS).collect::<Vec<_>>());
}

/// How many seeds run in which receivers forget.
const FORGETFUL_SEEDS: u64 = 200;

/// A receiver is killed and comes back with an older copy of its disk, again and again: what it had
/// acknowledged since is sent again, and counts once.
#[test]
fn forgotten_records_are_repaired() {
    let first = FORGETFUL_FROM + number("LIZMON_SIM_FIRST").unwrap_or(0);
    let count = number("LIZMON_SIM_SEEDS").unwrap_or(FORGETFUL_SEEDS);
    let stats = check(&(first..first + count).collect::<Vec<_>>());
    assert!(stats.repaired > 0 && stats.forgotten > 0, "{stats:?}");
}

/// How many seeds run in which receivers share a store.
const SHARED_SEEDS: u64 = 200;

/// Receivers and summarizers come, go, pause and crash on an engine that fails over, forgets and
/// leaves things unknown: nothing is lost after repair, or counted twice, and only owners commit.
#[test]
fn a_shared_store_loses_and_repeats_nothing() {
    let first = SHARED_FROM + number("LIZMON_SIM_FIRST").unwrap_or(0);
    let count = number("LIZMON_SIM_SEEDS").unwrap_or(SHARED_SEEDS);
    let stats = check(&(first..first + count).collect::<Vec<_>>());
    assert!(stats.repaired > 0 && stats.takeovers > 0, "{stats:?}");
}

#[test]
fn a_seed_is_reproducible() {
    let kinds = [0, FORGETFUL_FROM, SHARED_FROM];
    for seed in kinds.into_iter().flat_map(|first| first..first + 16) {
        let (once, again) = (run(seed, false), run(seed, false));
        assert_eq!(once.unwrap(), again.unwrap(), "seed {seed}");
    }
}
