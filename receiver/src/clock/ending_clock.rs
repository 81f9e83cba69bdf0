//! By which time history ends.
//!
//! What is removed of the history does not come back, so it ends by what is sure. A clock that is
//! far ahead is as steady as another after a while. But nobody sends samples of that time, unless
//! the clock is wrong everywhere; and even then no more is removed than time has passed, about.

/// History ends so many times as fast as time passes, at most: a receiver that was off for a week
/// has removed what has ended meanwhile after another week.
const SPEED: u64 = 2;

/// Follows the newest sample, but not faster than time passes by the monotonic clock.
#[derive(Debug, Default)]
pub struct HistoryClock(Option<Look>);

#[derive(Debug, Clone, Copy)]
struct Look {
    ended: u64,
    /// By the monotonic clock.
    at: u64,
}

impl HistoryClock {
    /// The time by which history ends; none before the first sample. `newest` is the newest that
    /// is stored, `now` the wall clock.
    pub fn look(&mut self, newest: Option<u64>, now: u64, monotonic: u64) -> Option<u64> {
        let sure = newest?.min(now);
        let ended = self.0.map_or(sure, |last| {
            let passed = monotonic.saturating_sub(last.at);
            sure.min(last.ended.saturating_add(passed.saturating_mul(SPEED)))
        });
        self.0 = Some(Look {
            ended,
            at: monotonic,
        });
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;
    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;

    /// By second: the newest sample, the wall clock, and by which time history ends.
    #[track_caller]
    fn check(looks: &[(u64, Option<u64>, u64, Option<u64>)]) {
        let mut clock = HistoryClock::default();
        for (at, newest, now, expected) in looks {
            assert_eq!(clock.look(*newest, *now, *at), *expected, "at {at}");
        }
    }

    #[test]
    fn history_ends_as_time_passes() {
        let at = |second: u64| {
            (
                second,
                Some(NOW + second - 1),
                NOW + second,
                Some(NOW + second - 1),
            )
        };
        check(&[(5, None, NOW, None), at(10), at(12), at(14), at(DAY)]);
        // Off for a week, then as fast as is allowed until it has caught up.
        let week = NOW + 7 * DAY;
        check(&[
            (10, Some(NOW), NOW, Some(NOW)),
            (10 + DAY, Some(week + DAY), week + DAY, Some(NOW + 2 * DAY)),
            (
                10 + 9 * DAY,
                Some(week + 9 * DAY),
                week + 9 * DAY,
                Some(week + 9 * DAY),
            ),
        ]);
    }

    #[test]
    fn a_clock_that_is_ahead_ends_nothing() {
        let wrong = NOW + YEAR;
        check(&[
            (10, Some(NOW), NOW, Some(NOW)),
            (20, Some(NOW + 10), wrong, Some(NOW + 10)),
            (20 + DAY, Some(NOW + 10), wrong + DAY, Some(NOW + 10)),
            (
                30 + DAY,
                Some(NOW + 20 + DAY),
                NOW + 20 + DAY,
                Some(NOW + 30),
            ),
        ]);
        // Also that of the monitors: a day costs another day, not a year. Afterwards the samples of
        // that time are removed, and it is as before.
        check(&[
            (0, Some(NOW), NOW, Some(NOW)),
            (DAY, Some(wrong), wrong, Some(NOW + 2 * DAY)),
            (DAY + 10, Some(NOW + DAY), NOW + DAY + 10, Some(NOW + DAY)),
        ]);
    }
}
