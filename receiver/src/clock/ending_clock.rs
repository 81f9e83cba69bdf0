//! By which time hosts, series, producers and history end.
//!
//! What is removed does not come back: records of a producer that was removed would count twice,
//! and an hour of a host that was removed begins again. So they end by what is sure: the newest
//! sample, and the time that has passed since then. A clock that is far ahead is as steady as
//! another after a while, but nobody sends samples of that time, unless the clock is wrong
//! everywhere; and even then no more ends than time has passed, about.

/// They end so many times as fast as time passes, at most: a receiver that was off for a week has
/// removed what has ended meanwhile after another week.
const SPEED: u64 = 2;

/// Follows the newest sample, but not faster than time passes by the monotonic clock. Where nothing
/// comes it goes on with that clock.
#[derive(Debug, Default)]
pub struct EndingClock(Option<Look>);

#[derive(Debug, Clone, Copy)]
struct Look {
    ended: u64,
    /// By the monotonic clock.
    at: u64,
}

impl EndingClock {
    /// The time by which things end, never after `now`, the wall clock; none before the first
    /// sample. `newest` finds the newest that is stored, among all hosts: it is asked once a second.
    pub fn look(
        &mut self,
        newest: impl FnOnce() -> Option<u64>,
        now: u64,
        monotonic: u64,
    ) -> Option<u64> {
        let ended = match self.0 {
            None => newest()?.min(now),
            Some(last) if last.at == monotonic => return Some(last.ended.min(now)),
            Some(last) => {
                let passed = monotonic.saturating_sub(last.at);
                let at_least = last.ended.saturating_add(passed);
                let at_most = last.ended.saturating_add(passed.saturating_mul(SPEED));
                newest().unwrap_or(0).clamp(at_least, at_most)
            }
        };
        self.0 = Some(Look {
            ended,
            at: monotonic,
        });
        Some(ended.min(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;
    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;

    /// By second: the newest sample, the wall clock, and by which time things end.
    #[track_caller]
    fn check(looks: &[(u64, Option<u64>, u64, Option<u64>)]) {
        let mut clock = EndingClock::default();
        for (at, newest, now, expected) in looks {
            assert_eq!(clock.look(|| *newest, *now, *at), *expected, "at {at}");
        }
    }

    #[test]
    fn things_end_as_time_passes() {
        let at = |second: u64| {
            (
                second,
                Some(NOW + second - 1),
                NOW + second,
                Some(NOW + second - 1),
            )
        };
        check(&[(5, None, NOW, None), at(10), at(12), at(14), at(DAY)]);
        // Nothing comes any more.
        check(&[
            (10, Some(NOW), NOW, Some(NOW)),
            (10 + DAY, Some(NOW), NOW + DAY, Some(NOW + DAY)),
            (10 + 2 * DAY, None, NOW + 2 * DAY, Some(NOW + 2 * DAY)),
        ]);
        // Off for a week, then as fast as is allowed until it has caught up.
        let week = NOW + 7 * DAY;
        check(&[
            (10, Some(NOW), week, Some(NOW)),
            (10 + DAY, Some(week + DAY), week + DAY, Some(NOW + 2 * DAY)),
            (
                10 + 9 * DAY,
                Some(week + 9 * DAY),
                week + 9 * DAY,
                Some(week + 9 * DAY),
            ),
        ]);
    }

    /// It is asked after every group of requests, and has to look at every host.
    #[test]
    fn the_newest_sample_is_looked_for_once_a_second() {
        let mut clock = EndingClock::default();
        let asked = std::cell::Cell::new(0);
        let newest = || {
            asked.set(asked.get() + 1);
            Some(NOW)
        };
        for at in [10, 10, 10, 11, 11, 12] {
            clock.look(newest, NOW + at, at).unwrap();
        }
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn a_clock_that_is_wrong_ends_nothing() {
        let wrong = NOW + YEAR;
        check(&[
            (10, Some(NOW), NOW, Some(NOW)),
            (20, Some(NOW + 10), wrong, Some(NOW + 10)),
            (10 + DAY, Some(NOW + 10), wrong + DAY, Some(NOW + DAY)),
            (
                20 + DAY,
                Some(NOW + 10 + DAY),
                NOW + 10 + DAY,
                Some(NOW + 10 + DAY),
            ),
        ]);
        // Also that of the monitors: a day costs another day, not a year.
        check(&[
            (0, Some(NOW), NOW, Some(NOW)),
            (DAY, Some(wrong), wrong, Some(NOW + 2 * DAY)),
            (
                DAY + 10,
                Some(NOW + DAY),
                NOW + DAY + 10,
                Some(NOW + DAY + 10),
            ),
        ]);
        // One that was behind for a while puts off nothing afterwards.
        check(&[
            (0, Some(NOW), NOW, Some(NOW)),
            (DAY, Some(NOW), NOW - YEAR, Some(NOW - YEAR)),
            (
                2 * DAY,
                Some(NOW + 2 * DAY),
                NOW + 2 * DAY,
                Some(NOW + 2 * DAY),
            ),
        ]);
    }
}
