//! Detects steps of the wall clock.

use lizmon_pki::date::rfc3339;
use lizmon_summary::AHEAD_SECS_MAX;

/// How long the clock must run without a step before windows move by it.
pub const STEADY_SECS: u64 = 60;
/// The same if it is behind an earlier steady clock.
pub const BEHIND_SECS: u64 = 300;
/// The same before anything that has ended is deleted.
pub const EXPIRY_SECS: u64 = 600;
/// A larger difference between wall clock and monotonic clock is a step; smaller corrections are
/// usual.
pub const STEP_SECS: u64 = 30;

/// A sample further ahead of a steady clock than this was stamped by a wrong clock. It is more than
/// is accepted: requests of one group are judged at different moments, and a steady clock is
/// corrected a little.
pub const AHEAD_REMOVED_SECS: u64 = AHEAD_SECS_MAX + 60;

/// A reading of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Epoch seconds.
    pub wall: u64,
    /// Seconds since the machine's start.
    pub monotonic: u64,
    /// Identifier of this boot of the machine.
    pub boot: Option<[u8; 16]>,
}

impl ClockReading {
    /// A reading of one clock that never steps.
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

/// What is known of the clock, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredClock {
    /// The boot of the machine that this was measured in.
    pub boot: [u8; 16],
    /// Wall clock minus monotonic clock.
    pub offset: i64,
    /// Since when it has that value, by the monotonic clock.
    pub since: u64,
    /// The wall clock when it was last steady; 0 if it never was.
    pub floor: u64,
    /// The monotonic clock at that moment.
    pub floor_at: u64,
}

/// What is known of the clock at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockVerdict {
    /// The wall clock: epoch seconds.
    pub now: u64,
    /// How long it has run without a step.
    pub steady_secs: u64,
    /// The time by the last steady clock; 0 if none was steady.
    pub floor: u64,
    /// The same, or if no clock was steady the time without the last step; none if there was no
    /// step.
    pub other: Option<u64>,
    /// Counts steps.
    pub regime: u64,
}

impl ClockVerdict {
    /// Whether windows may move by it.
    pub fn is_steady(&self) -> bool {
        self.steady_secs >= STEADY_SECS
    }

    /// How long until samples more than `slack_secs` ahead of it may be removed; 0 if they may now.
    pub fn secs_until_ahead_is_removed(&self, slack_secs: u64) -> u64 {
        let is_behind = self.now.saturating_add(slack_secs) < self.floor;
        let needed = if is_behind { BEHIND_SECS } else { STEADY_SECS };
        needed.saturating_sub(self.steady_secs)
    }

    /// How long until it is steady.
    pub fn secs_until_steady(&self) -> u64 {
        STEADY_SECS.saturating_sub(self.steady_secs)
    }

    /// The time by which things have ended; none while nothing may end.
    pub fn expiry(&self) -> Option<u64> {
        (self.steady_secs >= EXPIRY_SECS).then_some(self.now)
    }
}

/// Compares the wall clock with the monotonic clock.
#[derive(Debug)]
pub struct StepDetector {
    /// Wall clock minus monotonic clock, as of the last step.
    offset: i64,
    /// Since when it has been that, by the monotonic clock.
    since: u64,
    floor: u64,
    floor_at: u64,
    regime: u64,
    /// The offset before the last step.
    offset_before: Option<i64>,
    boot: [u8; 16],
}

impl StepDetector {
    /// Continues from what was stored, if that is of this boot of the machine.
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

    /// Takes a new reading.
    pub fn look(&mut self, at: ClockReading) -> ClockVerdict {
        let offset = at.offset();
        if offset.abs_diff(self.offset) > STEP_SECS {
            let without = without_step(self.offset, at);
            tracing::warn!(
                by_secs = offset - self.offset,
                now = rfc3339(at.wall),
                without = rfc3339(without),
                "the clock has stepped: nothing is deleted or evicted by it until it is steady again"
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
        ClockVerdict {
            now: at.wall,
            steady_secs,
            floor: floor.unwrap_or(0),
            other: floor.or(before),
            regime: self.regime,
        }
    }

    /// What is to be stored.
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

/// The time if the wall clock had not stepped.
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
        let mut judge = StepDetector::new(None, at(looks[0].0, looks[0].1));
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
        let mut judge = StepDetector::new(None, at(10, 0));
        judge.look(at(500, 0));
        let kept = Some(judge.to_stored());
        let steady_after = |at: ClockReading| StepDetector::new(kept, at).look(at).steady_secs;
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
        let mut judge = StepDetector::new(None, at(0, 0));
        judge.look(at(100, 0));
        let behind = judge.look(at(110, -HOUR));
        assert_eq!(behind.floor, NOW + 110);
        assert_eq!(behind.secs_until_ahead_is_removed(180), 300);
        assert_eq!(
            judge.look(at(170, -HOUR)).secs_until_ahead_is_removed(180),
            240
        );
        assert_eq!(
            judge.look(at(410, -HOUR)).secs_until_ahead_is_removed(180),
            0
        );
        let ahead = judge.look(at(420, 0));
        assert_eq!(ahead.secs_until_ahead_is_removed(180), 60);
        assert_eq!(judge.look(at(480, 0)).secs_until_ahead_is_removed(180), 0);
    }
}
