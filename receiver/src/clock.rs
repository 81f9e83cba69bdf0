//! Whether this machine's clock may be believed. Pure: what the clocks say is an argument.
//!
//! The wall clock is steady when it has gone on with the monotonic clock, second by second, for a while. A step of it, and
//! a start of the machine, begin that while anew: a machine without a battery wakes up in another year, and a virtual
//! one where it was put to sleep. What is known of the clock is kept with the store, so that a new start of the process
//! alone changes nothing.
//!
//! | steady for | what may be done by it |
//! | --- | --- |
//! | less than [`STEADY_SECS`] | samples are counted that push nothing out and are found afterwards |
//! | [`STEADY_SECS`] | windows move on by it; what lies ahead of it goes |
//! | [`BEHIND_SECS`] | the same, though the clock is behind what it was when it was steady before |
//! | [`EXPIRY_SECS`] | hosts, series and producers end by it |

mod status;

use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::Clock;
use lizmon_pki::date::rfc3339;
use lizmon_summary::AHEAD_SECS_MAX;

pub use status::ClockStatus;

/// For so long the clock must have gone on without a step before anything is pushed out by it.
pub const STEADY_SECS: u64 = 60;
/// The same where it contradicts a clock that was steady before.
pub const BEHIND_SECS: u64 = 300;
/// The same before anything is deleted because it has ended.
pub const EXPIRY_SECS: u64 = 600;
/// So far the wall clock may come away from the monotonic one before that is a step: clocks are set by a little all the time.
pub const STEP_SECS: u64 = 30;

/// What lies so far ahead of a steady clock was written by a wrong one. That is more than is accepted ahead of it: requests of
/// one group were judged at different moments, and a steady clock is set by a little.
pub const AHEAD_GOES_SECS: u64 = AHEAD_SECS_MAX + 60;

/// The time since 1970.
pub type FineClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What tells the time.
#[derive(Clone)]
pub struct Clocks {
    /// Epoch seconds. It may step.
    pub wall: Clock,
    /// The same to the millisecond or better, for whoever compares clocks.
    pub fine: FineClock,
    /// Seconds since the machine's start, asleep or awake. It does not step.
    pub monotonic: Clock,
    /// Which start of the machine that is, where it is known.
    pub boot: Option<[u8; 16]>,
}

impl Clocks {
    /// One clock for both: it has no steps.
    pub fn of_one(clock: Clock) -> Self {
        let fine = clock.clone();
        Self {
            wall: clock.clone(),
            fine: Arc::new(move || Duration::from_secs(fine())),
            monotonic: clock,
            boot: None,
        }
    }

    /// What they say now.
    pub fn read(&self) -> ClockReading {
        ClockReading {
            wall: (self.wall)(),
            monotonic: (self.monotonic)(),
            boot: self.boot,
        }
    }
}

impl std::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clocks").finish_non_exhaustive()
    }
}

/// What the clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Epoch seconds.
    pub wall: u64,
    /// Seconds since the machine's start.
    pub monotonic: u64,
    /// Which start of the machine that is.
    pub boot: Option<[u8; 16]>,
}

impl ClockReading {
    /// What one clock without steps says.
    pub fn of_one(now: u64) -> Self {
        Self {
            wall: now,
            monotonic: now,
            boot: None,
        }
    }

    fn offset(&self) -> i64 {
        self.wall.cast_signed() - self.monotonic.cast_signed()
    }
}

/// What is known of the clock, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredClock {
    /// Which start of the machine this is about.
    pub boot: [u8; 16],
    /// The wall clock without the monotonic one.
    pub offset: i64,
    /// Since when it has been that, by the monotonic clock.
    pub since: u64,
    /// What the wall clock said when it was steady last, at most; 0 if it never was.
    pub floor: u64,
    /// The monotonic clock at that moment.
    pub floor_at: u64,
}

/// How the clock is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The wall clock: epoch seconds.
    pub now: u64,
    /// For how long it has gone on without a step.
    pub steady_secs: u64,
    /// What time it would be by the clock that was steady before; 0 if none was.
    pub floor: u64,
    /// The same, or where no clock was steady what time it would be without the last step; nothing where there was none.
    pub other: Option<u64>,
    /// Rises with every step.
    pub regime: u64,
}

impl Judged {
    /// Whether windows may move on by it.
    pub fn is_steady(&self) -> bool {
        self.steady_secs >= STEADY_SECS
    }

    /// Whether what lies more than `slack_secs` ahead of it may go, and how long until then.
    pub fn secs_until_ahead_goes(&self, slack_secs: u64) -> u64 {
        let is_behind = self.now.saturating_add(slack_secs) < self.floor;
        let needed = if is_behind { BEHIND_SECS } else { STEADY_SECS };
        needed.saturating_sub(self.steady_secs)
    }

    /// How long until it is steady.
    pub fn secs_until_steady(&self) -> u64 {
        STEADY_SECS.saturating_sub(self.steady_secs)
    }

    /// The moment by which things have ended.
    pub fn expiry(&self) -> Option<u64> {
        (self.steady_secs >= EXPIRY_SECS).then_some(self.now)
    }
}

/// Watches the clock.
#[derive(Debug)]
pub struct ClockJudge {
    /// The wall clock without the monotonic one, when it was last found to be another.
    offset: i64,
    /// Since when it has been that, by the monotonic clock.
    since: u64,
    floor: u64,
    floor_at: u64,
    regime: u64,
    /// What the offset was before the last step.
    offset_before: Option<i64>,
    boot: [u8; 16],
}

impl ClockJudge {
    /// Goes on with what was kept, if that was of this start of the machine.
    pub fn new(kept: Option<StoredClock>, at: ClockReading) -> Self {
        let mut judge = Self {
            offset: at.offset(),
            since: at.monotonic,
            floor: kept.map_or(0, |kept| kept.floor),
            floor_at: at.monotonic,
            regime: 0,
            offset_before: None,
            boot: at.boot.unwrap_or_default(),
        };
        if let Some(kept) = kept.filter(|kept| Some(kept.boot) == at.boot) {
            judge.floor_at = kept.floor_at.min(at.monotonic);
            if kept.offset.abs_diff(judge.offset) <= STEP_SECS {
                judge.offset = kept.offset;
                judge.since = kept.since.min(at.monotonic);
            }
        }
        judge
    }

    /// Looks at the clocks.
    pub fn look(&mut self, at: ClockReading) -> Judged {
        let offset = at.offset();
        if offset.abs_diff(self.offset) > STEP_SECS {
            let without = without_step(self.offset, at);
            tracing::warn!(
                by_secs = offset - self.offset,
                now = rfc3339(at.wall),
                without = rfc3339(without),
                "the clock has stepped: for a while nothing is deleted, or pushed out by it"
            );
            self.offset_before = Some(self.offset);
            self.offset = offset;
            self.since = at.monotonic;
            self.regime += 1;
        }
        let steady_secs = at.monotonic.saturating_sub(self.since);
        let is_ahead = at.wall >= self.floor;
        if steady_secs >= BEHIND_SECS || (steady_secs >= STEADY_SECS && is_ahead) {
            self.floor = at.wall;
            self.floor_at = at.monotonic;
        }
        let passed = at.monotonic.saturating_sub(self.floor_at);
        let floor = (self.floor > 0).then(|| self.floor.saturating_add(passed));
        let before = self.offset_before.map(|before| without_step(before, at));
        Judged {
            now: at.wall,
            steady_secs,
            floor: floor.unwrap_or(0),
            other: floor.or(before),
            regime: self.regime,
        }
    }

    /// What is to be kept; nothing where it could not be told whose it is.
    pub fn to_stored(&self) -> StoredClock {
        StoredClock {
            boot: self.boot,
            offset: self.offset,
            since: self.since,
            floor: self.floor,
            floor_at: self.floor_at,
        }
    }
}

/// What time it would be if the wall clock had gone on as before.
fn without_step(offset: i64, at: ClockReading) -> u64 {
    at.monotonic.saturating_add_signed(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;
    const HOUR: i64 = 3_600;
    const BOOT: [u8; 16] = [7; 16];

    fn at(monotonic: u64, wrong: i64) -> ClockReading {
        ClockReading {
            wall: (NOW + monotonic).saturating_add_signed(wrong),
            monotonic,
            boot: Some(BOOT),
        }
    }

    /// By monotonic second and how wrong the wall clock is then: for how long it has been steady.
    #[track_caller]
    fn check(looks: &[(u64, i64, u64)]) {
        let mut judge = ClockJudge::new(None, at(looks[0].0, looks[0].1));
        for (monotonic, wrong, steady_secs) in looks {
            let judged = judge.look(at(*monotonic, *wrong));
            assert_eq!(judged.steady_secs, *steady_secs, "at {monotonic}");
        }
    }

    #[test]
    fn what_is_steady() {
        check(&[(10, 0, 0), (69, 0, 59), (70, 0, 60), (4_000, 0, 3_990)]);
        // Asleep, or stopped, for a day, and nothing wrong with it.
        check(&[(10, 0, 0), (86_410, 0, 86_400)]);
        // Set right by a little.
        check(&[(10, 0, 0), (40, 30, 30), (70, -30, 60)]);
        check(&[(10, 0, 0), (100, 31, 0), (160, 31, 60), (161, 0, 0)]);
        check(&[(10, 48 * HOUR, 0), (15, 0, 0), (75, 0, 60)]);
        check(&[(10, -3 * HOUR, 0), (15, 0, 0), (16, -3 * HOUR, 0)]);
        // A little with each look comes to a step.
        check(&[(10, 0, 0), (20, 20, 10), (30, 40, 0), (40, 60, 10)]);
    }

    #[test]
    fn a_new_start_of_the_process_changes_nothing() {
        let mut judge = ClockJudge::new(None, at(10, 0));
        judge.look(at(500, 0));
        let kept = Some(judge.to_stored());
        let steady_after = |at: ClockReading| ClockJudge::new(kept, at).look(at).steady_secs;
        assert_eq!(steady_after(at(520, 0)), 510);
        assert_eq!(steady_after(at(520, 2 * HOUR)), 0, "another clock");
        let other_boot = ClockReading {
            boot: Some([8; 16]),
            ..at(520, 0)
        };
        assert_eq!(steady_after(other_boot), 0);
        let unknown = ClockReading {
            boot: None,
            ..at(520, 0)
        };
        assert_eq!(steady_after(unknown), 0);
    }

    #[test]
    fn a_clock_that_contradicts_an_earlier_one_has_to_wait_for_longer() {
        let mut judge = ClockJudge::new(None, at(0, 0));
        judge.look(at(100, 0));
        let behind = judge.look(at(110, -HOUR));
        assert_eq!(behind.floor, NOW + 110);
        assert_eq!(behind.secs_until_ahead_goes(180), 300);
        assert_eq!(judge.look(at(170, -HOUR)).secs_until_ahead_goes(180), 240);
        assert_eq!(judge.look(at(410, -HOUR)).secs_until_ahead_goes(180), 0);
        let ahead = judge.look(at(420, 0));
        assert_eq!(ahead.secs_until_ahead_goes(180), 60);
        assert_eq!(judge.look(at(480, 0)).secs_until_ahead_goes(180), 0);
    }
}
