//! What a seed means: how long a run is, how many monitors and receivers there are, and which
//! faults.

mod shared;

use fastrand::Rng;
use lizmon_monitor::spool::memory::Faults;
use lizmon_monitor::spool::{
    DISK_BYTES_MAX, KEEP_SECS, PRODUCER_LOGS_MAX, SpoolLimits, drop_reason,
};
use lizmon_protocol::problem::Code;

pub(crate) use self::shared::{LATE_MILLIS_MAX, SHARED_FROM, SharedScenario};

/// Seconds of virtual time at the end without samples, so that everything can be delivered. Records
/// ahead of the true time wait until that time has come.
pub(crate) const DRAIN_SECS_MAX: u64 = 4 * 3_600 + FAR_SECS as u64;
/// The largest error of a receiver's clock.
const FAR_SECS: i64 = 200_000;

/// A record that is younger at the end cannot have been too old: a day, less the time that a
/// monitor's clock may be ahead.
const OLD_SECS: u64 = 22 * HOUR;
/// A clock that is wrong for no longer than this is not trusted.
const WRONG_SECS_MAX: u64 = 55;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

/// The shape of a run; the seed decides the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScenarioKind {
    /// Minutes at one record a second, with a few faults of all kinds.
    Busy,
    /// Both ends crash every few seconds.
    CrashStorm,
    /// Disks are full and receivers overloaded for most of the time.
    FullDisks,
    /// Hours at a low rate, cut off for some of them.
    Hours,
    /// No connection for a day, and both ends crash meanwhile.
    DayOutage,
}

impl ScenarioKind {
    /// The kind of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "busy" => Some(Self::Busy),
            "crash-storm" => Some(Self::CrashStorm),
            "full-disks" => Some(Self::FullDisks),
            "hours" => Some(Self::Hours),
            "day-outage" => Some(Self::DayOutage),
            _ => None,
        }
    }

    /// Most runs are short; one in sixteen is a day without a network.
    pub(crate) fn of(seed: u64) -> Self {
        if seed >= SHARED_FROM {
            return shared::kind_of(seed);
        }
        match seed % 16 {
            // It may not be sent again after a day.
            7 if seed >= FORGETFUL_FROM => Self::Hours,
            0 | 3 | 8 | 10 | 13 => Self::Busy,
            1 | 5 | 9 | 11 => Self::CrashStorm,
            2 | 6 | 14 | 15 => Self::FullDisks,
            4 | 12 => Self::Hours,
            _ => Self::DayOutage,
        }
    }
}

/// A time span: seconds from the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A network partition between one monitor, or all, and one receiver, or all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) monitor: Option<usize>,
    pub(crate) receiver: Option<usize>,
    pub(crate) span: Span,
    /// Whether connections are refused at once, rather than time out.
    pub(crate) is_refused: bool,
}

/// Probabilities are per event, from 0 to 1.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) kind: ScenarioKind,
    pub(crate) monitors: usize,
    pub(crate) receivers: usize,
    pub(crate) sampling_secs: u64,
    pub(crate) interval_secs: u32,
    pub(crate) labels: usize,
    /// The usual longest delay of a message, and the probability of one up to a minute.
    pub(crate) latency_ms_max: u64,
    pub(crate) late: f64,
    pub(crate) lost: f64,
    pub(crate) duplicated: f64,
    /// The probability that a write fails, fails unsynced, or kills the process.
    pub(crate) write_fails: f64,
    pub(crate) write_unsynced: f64,
    pub(crate) write_crashes: f64,
    /// The probability that the receiver crashes between counting and answering.
    pub(crate) answer_crashes: f64,
    /// Mean seconds between other crashes; 0 for none.
    pub(crate) receiver_crash_every: u64,
    pub(crate) monitor_crash_every: u64,
    pub(crate) down_secs_max: u64,
    pub(crate) maintenance_interval: u64,
    pub(crate) cuts: Vec<Cut>,
    /// When a receiver's disk is full, and when it answers everything with 503.
    pub(crate) full: Vec<(usize, Span)>,
    pub(crate) busy: Vec<(usize, Span)>,
    /// When commits, checkpoints or reads fail on a monitor's disk.
    pub(crate) monitor_disk: Vec<(usize, Span, Faults)>,
    /// The limits of a monitor's spool.
    pub(crate) spool: SpoolLimits,
    /// The probability that a monitor's disk is damaged at the end of its process.
    pub(crate) disk_damaged: f64,
    /// How many milliseconds a monitor's clock is wrong, from which second on.
    pub(crate) clock: Vec<(usize, u64, i64)>,
    /// The same of a receiver's, from which millisecond on, and whether the monitors share its
    /// clock.
    pub(crate) receiver_clock: Vec<(usize, u64, i64, bool)>,
    /// Mean seconds between times at which a receiver is killed and forgets up to
    /// [`FORGOTTEN_SECS_MAX`] of what it has acknowledged; 0 for none.
    pub(crate) forgets_every: u64,
    /// Where the receivers share a store: then `receivers` is how many addresses the monitors have.
    pub(crate) shared: Option<SharedScenario>,
}

/// From this seed on, receivers forget.
pub(crate) const FORGETFUL_FROM: u64 = 1 << 32;
/// How much of the past a receiver forgets at a time. Monitors keep more, also where their clocks
/// step.
pub(crate) const FORGOTTEN_SECS_MAX: u64 = 100;

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn of(seed: u64, rng: &mut Rng) -> Self {
        let kind = ScenarioKind::of(seed);
        let mut scenario = Self::without_faults(kind, rng);
        scenario.add_faults(rng);
        scenario.add_cuts(rng);
        scenario.add_clocks(rng);
        scenario.add_receiver_clocks(rng);
        match seed {
            SHARED_FROM.. => scenario.share(rng),
            FORGETFUL_FROM.. => scenario.forget(rng),
            _ => (),
        }
        scenario
    }

    /// Receivers forget, and monitors keep what was acknowledged. There are no faults that lose
    /// what is kept, or refuse it later.
    fn forget(&mut self, rng: &mut Rng) {
        self.forgets_every = match self.kind {
            ScenarioKind::CrashStorm => rng.u64(20..100),
            ScenarioKind::Busy | ScenarioKind::FullDisks => rng.u64(60..400),
            ScenarioKind::Hours | ScenarioKind::DayOutage => rng.u64(HOUR / 2..2 * HOUR),
        };
        self.spool = SpoolLimits::new(DISK_BYTES_MAX).keeping(KEEP_SECS);
        self.disk_damaged = 0.0;
        self.monitor_disk.clear();
        self.receiver_clock.clear();
    }

    /// Whether a monitor that was restarted so often may have dropped a record, so old at the end,
    /// as `why`. A wrong clock is no reason.
    pub(crate) fn may_be_dropped(
        &self,
        (monitor, exits): (usize, usize),
        why: &str,
        age_secs: u64,
    ) -> bool {
        let has_disk_faults = self.monitor_disk.iter().any(|disk| disk.0 == monitor);
        let is_small = self.spool.bytes_max < DISK_BYTES_MAX;
        if why == Code::EpochTooOld.as_str() {
            return age_secs >= OLD_SECS;
        }
        match why {
            // One that was forgotten may be too old by then to be sent again.
            drop_reason::TOO_OLD | drop_reason::BEFORE_DATA => age_secs >= OLD_SECS,
            drop_reason::SPOOL_FULL => is_small || exits + 1 >= PRODUCER_LOGS_MAX,
            drop_reason::DISK_FAILED => has_disk_faults,
            drop_reason::DAMAGED => has_disk_faults || self.disk_damaged > 0.0,
            _ => false,
        }
    }

    fn without_faults(kind: ScenarioKind, rng: &mut Rng) -> Self {
        let (sampling_secs, interval_secs, maintenance_interval) = match kind {
            ScenarioKind::Busy => (rng.u64(2 * MINUTE..8 * MINUTE), rng.u32(1..=2), 5),
            ScenarioKind::CrashStorm => (rng.u64(MINUTE..5 * MINUTE), 1, 3),
            ScenarioKind::FullDisks => (rng.u64(5 * MINUTE..20 * MINUTE), rng.u32(2..=5), 5),
            ScenarioKind::Hours => (rng.u64(2 * HOUR..8 * HOUR), rng.u32(20..=90), 20),
            ScenarioKind::DayOutage => (rng.u64(25 * HOUR..30 * HOUR), rng.u32(300..=1_200), 60),
        };
        Self {
            kind,
            monitors: rng.usize(1..=3),
            receivers: if rng.u8(0..4) == 0 { 2 } else { 1 },
            sampling_secs,
            interval_secs,
            labels: rng.usize(1..=3),
            latency_ms_max: rng.u64(2..400),
            late: 0.0,
            lost: 0.0,
            duplicated: 0.0,
            write_fails: 0.0,
            write_unsynced: 0.0,
            write_crashes: 0.0,
            answer_crashes: 0.0,
            receiver_crash_every: 0,
            monitor_crash_every: 0,
            down_secs_max: 20,
            maintenance_interval,
            cuts: Vec::new(),
            full: Vec::new(),
            busy: Vec::new(),
            monitor_disk: Vec::new(),
            spool: SpoolLimits::new(DISK_BYTES_MAX),
            disk_damaged: 0.0,
            clock: Vec::new(),
            receiver_clock: Vec::new(),
            forgets_every: 0,
            shared: None,
        }
    }

    /// Whether what was acknowledged may be forgotten.
    pub(crate) fn forgets(&self) -> bool {
        self.forgets_every > 0 || self.shared.is_some()
    }

    fn add_faults(&mut self, rng: &mut Rng) {
        // Each fault is absent from a third of the runs, so that none hides another.
        let mut up_to = |most: f64| {
            if rng.u8(0..3) == 0 {
                0.0
            } else {
                rng.f64() * most
            }
        };
        self.late = up_to(0.05);
        self.lost = up_to(0.2);
        self.duplicated = up_to(0.2);
        self.write_fails = up_to(0.05);
        self.write_unsynced = up_to(0.05);
        self.write_crashes = up_to(0.03);
        self.answer_crashes = up_to(0.03);
        match self.kind {
            ScenarioKind::CrashStorm => {
                self.receiver_crash_every = rng.u64(5..40);
                self.monitor_crash_every = rng.u64(5..40);
                self.down_secs_max = 4;
            }
            ScenarioKind::DayOutage | ScenarioKind::Hours => {
                self.receiver_crash_every = rng.u64(HOUR..8 * HOUR);
                self.monitor_crash_every = rng.u64(HOUR..8 * HOUR);
                self.down_secs_max = rng.u64(10..HOUR);
            }
            ScenarioKind::Busy | ScenarioKind::FullDisks => {
                self.receiver_crash_every = rng.u64(60..900);
                self.monitor_crash_every = rng.u64(60..900);
            }
        }
        if self.kind == ScenarioKind::FullDisks {
            for receiver in 0..self.receivers {
                for _ in 0..rng.u8(1..4) {
                    self.full.push((receiver, self.span(rng, 10 * MINUTE)));
                    self.busy.push((receiver, self.span(rng, 5 * MINUTE)));
                }
            }
        }
        self.add_monitor_disks(rng);
    }

    fn add_monitor_disks(&mut self, rng: &mut Rng) {
        if rng.u8(0..4) == 0 {
            self.disk_damaged = rng.f64() / 2.0;
        }
        if rng.u8(0..4) == 0 {
            // A record has some 70 bytes there.
            self.spool.bytes_max = rng.u64(2_000..40_000);
            self.spool.unsaved_bytes_max = rng.u64(500..4_000);
        }
        for monitor in 0..self.monitors {
            if self.kind != ScenarioKind::FullDisks && rng.u8(0..4) != 0 {
                continue;
            }
            for _ in 0..rng.u8(1..4) {
                let faults = Faults {
                    commits: rng.u8(0..4) != 0,
                    checkpoints: rng.u8(0..3) == 0,
                    reads: rng.u8(0..4) == 0,
                };
                let span = self.span(rng, self.sampling_secs / 4);
                self.monitor_disk.push((monitor, span, faults));
            }
        }
    }

    fn add_cuts(&mut self, rng: &mut Rng) {
        let longest = match self.kind {
            ScenarioKind::Busy | ScenarioKind::FullDisks => 3 * MINUTE,
            ScenarioKind::CrashStorm => MINUTE,
            ScenarioKind::Hours | ScenarioKind::DayOutage => 2 * HOUR,
        };
        for _ in 0..rng.u8(0..4) {
            let cut = Cut {
                monitor: rng.bool().then(|| rng.usize(0..self.monitors)),
                receiver: rng.bool().then(|| rng.usize(0..self.receivers)),
                span: self.span(rng, longest),
                is_refused: rng.bool(),
            };
            self.cuts.push(cut);
        }
        if self.kind == ScenarioKind::DayOutage {
            let from = rng.u64(MINUTE..40 * MINUTE);
            // Mostly within what a receiver still accepts, sometimes well beyond it.
            let long = match rng.u8(0..4) {
                0 => rng.u64(25 * HOUR..36 * HOUR),
                _ => rng.u64(24 * HOUR..25 * HOUR),
            };
            self.sampling_secs = self.sampling_secs.max(from + long + 10 * MINUTE);
            self.cuts.push(Cut {
                monitor: None,
                receiver: rng.bool().then_some(0),
                span: Span {
                    from,
                    to: from + long,
                },
                is_refused: rng.u8(0..4) == 0,
            });
        }
    }

    fn add_clocks(&mut self, rng: &mut Rng) {
        for monitor in 0..self.monitors {
            // Two in three are right to a few seconds; one in ten is far off at the start.
            let skew = rng.i64(-3_000..=3_000);
            let first = match rng.u8(0..10) {
                0 => rng.i64(-100_000_000..=3_600_000),
                _ => skew,
            };
            self.clock.push((monitor, 0, first));
            self.clock.push((monitor, rng.u64(1..120), skew));
            if rng.u8(0..3) == 0 {
                for _ in 0..rng.u8(1..4) {
                    let at = rng.u64(1..self.sampling_secs);
                    let wrong = match rng.u8(0..3) {
                        0 => rng.i64(-10_000..=10_000),
                        1 => rng.i64(-200_000..=200_000),
                        _ => rng.i64(-7_200_000..=7_200_000),
                    };
                    self.clock.push((monitor, at, wrong));
                    let healed = at + rng.u64(1..600);
                    self.clock.push((monitor, healed, skew));
                }
            }
        }
    }

    /// In every other run one receiver's clock is wrong for moments: at the boot of its machine, or
    /// later.
    fn add_receiver_clocks(&mut self, rng: &mut Rng) {
        if rng.bool() {
            return;
        }
        let receiver = rng.usize(0..self.receivers);
        let is_shared = rng.bool();
        let mut at = if rng.bool() {
            0
        } else {
            rng.u64(1..self.sampling_secs)
        };
        for _ in 0..rng.u8(1..4) {
            let wrong_secs = match rng.u8(0..4) {
                0 => rng.i64(-600..=600),
                1 => rng.i64(-14_400..=14_400),
                _ if is_shared && rng.bool() => rng.i64(-FAR_SECS..=7_200),
                _ => rng.i64(-FAR_SECS..=FAR_SECS),
            };
            let back = at + rng.u64(1..=WRONG_SECS_MAX);
            self.receiver_clock
                .push((receiver, at * 1_000, wrong_secs * 1_000, is_shared));
            self.receiver_clock
                .push((receiver, back * 1_000, 0, is_shared));
            at = back + rng.u64(1..self.sampling_secs);
        }
    }

    fn span(&self, rng: &mut Rng, longest: u64) -> Span {
        let from = rng.u64(0..self.sampling_secs);
        Span {
            from,
            to: from + rng.u64(1..=longest),
        }
    }
}
