//! What a seed means where several processes share a store.

use fastrand::Rng;
use lizmon_monitor::spool::{DISK_BYTES_MAX, KEEP_SECS, SpoolLimits};

use super::{HOUR, MINUTE, Scenario, ScenarioKind, Span};

/// From this seed on, receivers and summarizers share an engine that forgets.
pub(crate) const SHARED_FROM: u64 = 1 << 33;
/// How much of the past a failover forgets at most: milliseconds. Monitors keep more.
const FORGOTTEN_MILLIS_MAX: u64 = 60_000;
/// The longest time that requests are late: longer than a lease.
pub(crate) const LATE_MILLIS_MAX: u64 = 7_000;
/// How much the clocks of two processes differ.
const SKEW_MILLIS_MAX: i64 = 2_000;

/// Processes and an engine that they share. Probabilities are per request to a primary.
#[derive(Debug, Clone)]
pub(crate) struct SharedScenario {
    pub(crate) shards: u16,
    pub(crate) primaries: u16,
    /// A monitor's request reaches one of these.
    pub(crate) receivers: usize,
    /// Whether they own shards as well.
    pub(crate) receivers_summarize: bool,
    /// Those that do nothing else.
    pub(crate) summarizers: usize,
    /// How wrong the processes' clocks are, receivers first.
    pub(crate) skew_ms: Vec<i64>,
    pub(crate) read_every_ms: u64,
    pub(crate) unknown: f64,
    pub(crate) refused: f64,
    pub(crate) unconfirmed: f64,
    pub(crate) delayed: f64,
    /// Only of a state that is read.
    pub(crate) load_refused: f64,
    pub(crate) late: f64,
    /// A failover while a process asks for one thing after another.
    pub(crate) fails_over: f64,
    /// Mean seconds between others; 0 for none.
    pub(crate) fails_over_every: u64,
    pub(crate) forgotten_ms_max: u64,
    /// When a primary cannot be reached.
    pub(crate) away: Vec<(u16, Span)>,
    /// Mean seconds between the ends of a summarizer, and between pauses of any process; 0 for
    /// none.
    pub(crate) summarizer_ends_every: u64,
    pub(crate) pauses_every: u64,
    pub(crate) pause_secs_max: u64,
}

impl Scenario {
    /// Several processes share a store. There are no faults that lose what monitors keep, or have
    /// it refused later.
    pub(super) fn share(&mut self, rng: &mut Rng) {
        self.receivers = 1;
        self.spool = SpoolLimits::new(DISK_BYTES_MAX).keeping(KEEP_SECS);
        self.disk_damaged = 0.0;
        self.monitor_disk.clear();
        self.receiver_clock.clear();
        self.full.clear();
        self.busy.clear();
        for cut in &mut self.cuts {
            cut.receiver = None;
        }
        let is_storm = self.kind == ScenarioKind::CrashStorm;
        let primaries = rng.u16(1..=3);
        let receivers = rng.usize(1..=3);
        let receivers_summarize = rng.u8(0..3) == 0;
        let summarizers = rng.usize(usize::from(!receivers_summarize)..=3);
        let mut up_to = |most: f64| match rng.u8(0..3) {
            0 => 0.0,
            _ => rng.f64() * most,
        };
        let (unknown, refused, unconfirmed) = (up_to(0.05), up_to(0.05), up_to(0.05));
        let (late, fails_over) = (up_to(0.01), up_to(0.002));
        let (delayed, load_refused) = (up_to(0.02), up_to(0.3));
        let sometimes = |rng: &mut Rng, range: std::ops::Range<u64>| match rng.u8(0..4) {
            0 => 0,
            _ => rng.u64(range),
        };
        let every = if is_storm { 10..60 } else { 30..300 };
        self.shared = Some(SharedScenario {
            shards: rng.u16(1..=6),
            primaries,
            receivers,
            receivers_summarize,
            summarizers,
            skew_ms: (0..receivers + summarizers)
                .map(|_| rng.i64(-SKEW_MILLIS_MAX..=SKEW_MILLIS_MAX))
                .collect(),
            read_every_ms: rng.u64(100..=2_000),
            unknown,
            refused,
            unconfirmed,
            delayed,
            load_refused,
            late,
            fails_over,
            fails_over_every: sometimes(rng, every.clone()),
            forgotten_ms_max: match rng.u8(0..3) {
                0 => 1_500,
                1 => 12_000,
                _ => FORGOTTEN_MILLIS_MAX,
            },
            away: (0..rng.u8(0..4))
                .map(|_| (rng.u16(0..primaries), self.span(rng, MINUTE)))
                .collect(),
            summarizer_ends_every: sometimes(rng, every.clone()),
            pauses_every: sometimes(rng, every),
            pause_secs_max: rng.u64(2..20),
        });
    }
}

/// Runs of minutes only: leases last seconds, so every process does something each second.
pub(super) fn kind_of(seed: u64) -> ScenarioKind {
    match seed % 8 {
        0..=3 => ScenarioKind::Busy,
        4..=6 => ScenarioKind::CrashStorm,
        _ => ScenarioKind::FullDisks,
    }
}

const _: () = assert!(FORGOTTEN_MILLIS_MAX / 1_000 < KEEP_SECS && KEEP_SECS < HOUR);
