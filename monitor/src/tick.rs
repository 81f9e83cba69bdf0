//! When to sample: on whole seconds of the wall clock, each at most once.

use std::num::NonZeroU32;
use std::time::Duration;

/// If the clock was set back by no more than this, the ticker waits, so that no second is sampled
/// twice. Beyond it the new time counts: a machine must not be unmonitored for hours because its
/// clock had been wrong.
pub const STEP_BACK_WAITED_SECS: u64 = 5;

/// The state between two samples. The ticks are the multiples of the interval, so that all machines
/// sample at the same seconds.
#[derive(Debug, Clone)]
pub struct Ticker {
    interval_secs: u64,
    due: u64,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Nothing, for this long.
    Wait(Duration),
    /// Take a sample.
    Sample {
        /// The sample's epoch: the tick's second.
        epoch: u64,
        /// How many ticks passed without a sample, because the machine slept or the clock was set
        /// forward.
        skipped: u64,
    },
    /// The clock was set back by this many seconds: call again.
    SteppedBack(u64),
}

impl Ticker {
    /// The first tick is the first one after `start`.
    pub fn new(interval: NonZeroU32, start: Duration) -> Self {
        let mut ticker = Self {
            interval_secs: interval.get().into(),
            due: 0,
        };
        ticker.due = ticker.first_after(start);
        ticker
    }

    /// After a late wake-up only the newest tick is sampled: only the present can be measured.
    pub fn at(&mut self, now: Duration) -> Tick {
        let due = Duration::from_secs(self.due);
        if let Some(wait) = due.checked_sub(now).filter(|wait| !wait.is_zero()) {
            let waited_max = Duration::from_secs(self.interval_secs + STEP_BACK_WAITED_SECS);
            if wait <= waited_max {
                return Tick::Wait(wait);
            }
            let next = self.first_after(now);
            let back = self.due - next;
            self.due = next;
            return Tick::SteppedBack(back);
        }
        let epoch = self.newest_at(now);
        let skipped = (epoch - self.due) / self.interval_secs;
        self.due = epoch + self.interval_secs;
        Tick::Sample { epoch, skipped }
    }

    fn newest_at(&self, now: Duration) -> u64 {
        now.as_secs() / self.interval_secs * self.interval_secs
    }

    fn first_after(&self, time: Duration) -> u64 {
        self.newest_at(time) + self.interval_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(interval: u32, start_ms: u64, steps: &[(u64, Tick)]) {
        let ms = Duration::from_millis;
        let mut ticker = Ticker::new(NonZeroU32::new(interval).unwrap(), ms(start_ms));
        for (at_ms, expected) in steps {
            assert_eq!(ticker.at(ms(*at_ms)), *expected, "at {at_ms} ms");
        }
    }

    fn wait(ms: u64) -> Tick {
        Tick::Wait(Duration::from_millis(ms))
    }

    fn sample(epoch: u64, skipped: u64) -> Tick {
        Tick::Sample { epoch, skipped }
    }

    #[test]
    fn every_second_once() {
        check(
            1,
            100_300,
            &[
                (100_300, wait(700)),
                (100_999, wait(1)),
                (101_000, sample(101, 0)),
                (101_000, wait(1000)),
                (102_001, sample(102, 0)),
                (102_002, wait(998)),
                (103_999, sample(103, 0)),
                (104_000, sample(104, 0)),
            ],
        );
    }

    #[test]
    fn longer_intervals_tick_on_their_multiples() {
        check(
            10,
            101_000,
            &[
                (101_000, wait(9000)),
                (110_002, sample(110, 0)),
                (110_500, wait(9500)),
                (120_001, sample(120, 0)),
            ],
        );
    }

    #[test]
    fn missed_ticks_are_not_made_up() {
        check(
            1,
            100_000,
            &[
                (101_000, sample(101, 0)),
                (3_701_500, sample(3701, 3599)),
                (3_701_500, wait(500)),
                (3_702_000, sample(3702, 0)),
            ],
        );
    }

    #[test]
    fn a_small_step_back_is_waited_out() {
        check(
            1,
            100_000,
            &[
                (101_000, sample(101, 0)),
                (96_000, wait(6000)),
                (101_900, wait(100)),
                (102_000, sample(102, 0)),
            ],
        );
    }

    #[test]
    fn a_large_step_back_is_accepted() {
        check(
            1,
            100_000,
            &[
                (101_000, sample(101, 0)),
                (95_999, Tick::SteppedBack(6)),
                (95_999, wait(1)),
                (96_000, sample(96, 0)),
                (97_000, sample(97, 0)),
            ],
        );
    }
}
