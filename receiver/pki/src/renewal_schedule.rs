//! When a certificate is renewed. Pure: time and randomness are arguments.
//!
//! ```text
//! |------- two thirds -------|- jitter -|--- retries until it succeeds ---| expired: join again
//! ```

use std::time::Duration;

/// The first and the longest wait after a failure, in seconds. The wait doubles in between.
const RETRY_SECS: (u64, u64) = (30, 3600);
/// The same limits for failures that need manual action.
const RETRY_FOR_LONG_SECS: (u64, u64) = (600, 6 * 3600);
/// The maximum Retry-After that is accepted from a CA: one day.
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

/// The next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalAction {
    /// Wait this many seconds.
    Wait(u64),
    /// Renew now.
    Renew,
    /// The certificate has expired and cannot be renewed.
    Ended,
}

impl RenewalSchedule {
    /// Creates the schedule of a certificate that is valid between `from` and `not_after` (epoch
    /// seconds). Renewal is due after two thirds of that time. After a renewal, pass the current
    /// time as `from`, so that a backdated certificate is not due immediately. `chance` is between
    /// 0 and 1. It spreads clients that enrolled at the same time over one twelfth of the lifetime.
    pub fn new(from: u64, not_after: u64, chance: f64) -> Self {
        let life = not_after.saturating_sub(from);
        let spread = part(life / 12, chance);
        Self {
            next: from + life / 3 * 2 + spread,
            not_after,
            failures: 0,
        }
    }

    /// The action at `now`.
    pub fn action(&self, now: u64) -> RenewalAction {
        if now > self.not_after {
            RenewalAction::Ended
        } else if now >= self.next {
            RenewalAction::Renew
        } else {
            RenewalAction::Wait(self.next - now)
        }
    }

    /// Records a failed attempt at `now`. The next attempt is not before `retry_after`, if the CA
    /// sent it.
    pub fn failed(&mut self, now: u64, retry_after: Option<Duration>, chance: f64) {
        // Near the expiry, a wait is at most a tenth of the time left.
        let left = self.not_after.saturating_sub(now);
        let wait = self.wait(RETRY_SECS, left / 10, chance);
        let asked = retry_after.map_or(0, |asked| asked.as_secs().min(RETRY_AFTER_SECS_MAX));
        self.next = now + wait.max(asked).max(1);
        self.failures = self.failures.saturating_add(1);
    }

    /// Records a failed attempt at `now` that needs manual action. The waits are longer, up to a
    /// quarter of the time left.
    pub fn failed_for_long(&mut self, now: u64, chance: f64) {
        let left = self.not_after.saturating_sub(now);
        let wait = self.wait(RETRY_FOR_LONG_SECS, left / 4, chance);
        self.next = now + wait.max(1);
        self.failures = self.failures.saturating_add(1);
    }

    /// The wait doubles with each failure. Jitter takes off up to half of it, so that clients that
    /// failed together do not retry together.
    fn wait(&self, (first, longest): (u64, u64), most: u64, chance: f64) -> u64 {
        let longest = longest.min(most).max(1);
        let wait = first
            .checked_shl(self.failures.min(32))
            .map_or(longest, |wait| wait.min(longest));
        wait - part(wait / 2, chance)
    }

    /// The number of failed attempts since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// A fraction of a number of seconds.
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
        // A certificate with an empty validity period.
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

    /// Whatever fails, and however often, the attempts continue until the expiry and stop there.
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
