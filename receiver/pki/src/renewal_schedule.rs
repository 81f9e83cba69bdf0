//! When a certificate is renewed: pure, time and chance are arguments.
//!
//! ```text
//! |------------ two thirds ------------|-jitter-|-- tried, again and again, until it works --|  ended: only a join token helps
//! ```

use std::time::Duration;

/// The first wait after a failure, and the longest, in seconds. It doubles in between.
const RETRY_SECS: (u64, u64) = (30, 3600);
/// The same where only a person can help.
const RETRY_FOR_LONG_SECS: (u64, u64) = (600, 6 * 3600);
/// A CA that names a time is believed up to a day.
const RETRY_AFTER_SECS_MAX: u64 = 86_400;

/// When the next attempt is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalSchedule {
    /// Epoch seconds.
    next: u64,
    /// The last second of the certificate.
    not_after: u64,
    failures: u32,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalAction {
    /// Nothing for so many seconds.
    Wait(u64),
    /// Renew now.
    Renew,
    /// Too late: an ended certificate does not renew.
    Ended,
}

impl RenewalSchedule {
    /// For a certificate that is good `from` then until `not_after` (epoch seconds): due past two thirds of that. Whoever has
    /// just renewed gives the present as `from`, so that a backdated certificate is not due at once. `chance` is from 0 to 1:
    /// it spreads a fleet that was enrolled in one minute over a twelfth of the life.
    pub fn new(from: u64, not_after: u64, chance: f64) -> Self {
        let life = not_after.saturating_sub(from);
        let spread = part(life / 12, chance);
        Self {
            next: from + life / 3 * 2 + spread,
            not_after,
            failures: 0,
        }
    }

    /// What is to be done at `now`.
    pub fn action(&self, now: u64) -> RenewalAction {
        if now > self.not_after {
            RenewalAction::Ended
        } else if now >= self.next {
            RenewalAction::Renew
        } else {
            RenewalAction::Wait(self.next - now)
        }
    }

    /// An attempt at `now` failed. The next one is not before `retry_after`, if the CA named a time.
    pub fn failed(&mut self, now: u64, retry_after: Option<Duration>, chance: f64) {
        // With little left, a wait takes no more than a tenth of it.
        let left = self.not_after.saturating_sub(now);
        let wait = self.wait(RETRY_SECS, left / 10, chance);
        let asked = retry_after.map_or(0, |asked| asked.as_secs().min(RETRY_AFTER_SECS_MAX));
        self.next = now + wait.max(asked).max(1);
        self.failures = self.failures.saturating_add(1);
    }

    /// An attempt at `now` failed by what only a person can mend: the waits are long, and up to a quarter of what is left.
    pub fn failed_for_long(&mut self, now: u64, chance: f64) {
        let left = self.not_after.saturating_sub(now);
        let wait = self.wait(RETRY_FOR_LONG_SECS, left / 4, chance);
        self.next = now + wait.max(1);
        self.failures = self.failures.saturating_add(1);
    }

    /// Doubles with each failure. Half of that at least, so that those who failed together do not come again together.
    fn wait(&self, (first, longest): (u64, u64), most: u64, chance: f64) -> u64 {
        let longest = longest.min(most).max(1);
        let wait = first
            .checked_shl(self.failures.min(32))
            .map_or(longest, |wait| wait.min(longest));
        wait - part(wait / 2, chance)
    }

    /// How many attempts failed since the last that worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// A part of a number of seconds.
fn part(whole: u64, chance: f64) -> u64 {
    (whole as f64 * chance.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const FROM: u64 = 1_800_000_000;

    #[test]
    fn renewal_is_due_past_two_thirds() {
        let end = FROM + 9 * DAY;
        let cases = [
            (0.0, FROM, RenewalAction::Wait(6 * DAY)),
            (0.0, FROM + 6 * DAY - 1, RenewalAction::Wait(1)),
            (0.0, FROM + 6 * DAY, RenewalAction::Renew),
            (1.0, FROM + 6 * DAY, RenewalAction::Wait(DAY * 3 / 4)),
            (0.5, FROM + 6 * DAY, RenewalAction::Wait(DAY * 3 / 8)),
            (1.0, FROM + 7 * DAY, RenewalAction::Renew),
            (7.0, FROM + 7 * DAY, RenewalAction::Renew),
            (f64::NAN, FROM + 6 * DAY, RenewalAction::Renew),
            (0.0, end, RenewalAction::Renew),
            (0.0, end + 1, RenewalAction::Ended),
            // The clock was set back.
            (0.0, FROM - DAY, RenewalAction::Wait(7 * DAY)),
        ];
        for (chance, now, expected) in cases {
            let got = RenewalSchedule::new(FROM, end, chance).action(now);
            assert_eq!(got, expected, "{chance} {now}");
        }
        // A certificate without a life.
        assert_eq!(
            RenewalSchedule::new(FROM, FROM - 1, 0.0).action(FROM),
            RenewalAction::Ended
        );
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let mut schedule = RenewalSchedule::new(FROM, FROM + 90 * DAY, 0.0);
        let mut now = FROM + 60 * DAY;
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert_eq!(schedule.action(now), RenewalAction::Renew);
            schedule.failed(now, None, 0.0);
            let RenewalAction::Wait(wait) = schedule.action(now) else {
                panic!("{schedule:?}");
            };
            waits.push(wait);
            now += wait;
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(schedule.failures(), 10);
    }

    #[test]
    fn what_only_a_person_can_mend_is_tried_rarely() {
        let mut schedule = RenewalSchedule::new(FROM, FROM + 90 * DAY, 0.0);
        let mut now = FROM + 60 * DAY;
        let waits = [600, 1200, 2400, 4800, 9600, 19_200, 21_600, 21_600];
        for expected in waits {
            schedule.failed_for_long(now, 0.0);
            assert_eq!(schedule.action(now), RenewalAction::Wait(expected));
            now += expected;
        }
        let mut short = RenewalSchedule::new(FROM, FROM + 3600, 0.0);
        short.failed_for_long(FROM + 2400, 0.0);
        assert_eq!(short.action(FROM + 2400), RenewalAction::Wait(300));
    }

    #[test]
    fn the_wait_after_a_failure() {
        let wait = |left: u64, retry_after: Option<u64>, chance: f64| {
            let mut schedule = RenewalSchedule::new(FROM, FROM + left, 0.0);
            schedule.failed(FROM, retry_after.map(Duration::from_secs), chance);
            schedule.next - FROM
        };
        let cases = [
            (DAY, None, 0.0, 30),
            (DAY, None, 1.0, 15),
            (DAY, Some(5), 0.0, 30),
            (DAY, Some(600), 0.0, 600),
            (DAY, Some(u64::MAX), 0.0, DAY),
            (100, None, 0.0, 10),
            (5, None, 0.0, 1),
            (0, None, 0.0, 1),
        ];
        for (left, retry_after, chance, expected) in cases {
            let got = wait(left, retry_after, chance);
            assert_eq!(got, expected, "{left} {retry_after:?} {chance}");
        }
    }

    /// Whatever fails and however often, the attempts go on to the end, and end there.
    #[test]
    fn attempts_go_on_to_the_end() {
        let end = FROM + 7 * DAY;
        let mut schedule = RenewalSchedule::new(FROM, end, 0.5);
        let (mut now, mut last) = (FROM, 0);
        loop {
            match schedule.action(now) {
                RenewalAction::Wait(secs) => now += secs,
                RenewalAction::Renew => {
                    last = now;
                    schedule.failed(now, None, 0.5);
                }
                RenewalAction::Ended => break,
            }
        }
        assert!(end - last < 10, "{}", end - last);
        assert!((30..500).contains(&schedule.failures()), "{schedule:?}");
    }
}
