//! How far this machine's clock is off, by the clocks of those it publishes to.

use std::time::Duration;

/// Beyond this a person is told. Receivers take nothing that is more than 120 s ahead of them.
pub const WARN_SECS: f64 = 5.0;
/// Below this the clock is called right again: not the same, so that it is not said to and fro.
pub const RIGHT_SECS: f64 = 3.0;
/// An answer that took longer says too little about when it was given.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(4);
/// A step is believed at once; less than this is mostly the clock's being told in whole seconds, and is averaged out.
const STEP_SECS: f64 = 2.0;
/// The weight of the newest answer in the average.
const NEWEST_WEIGHT: f64 = 0.125;

/// Our clock against one receiver's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Skew {
    ahead_secs: Option<f64>,
    is_said: bool,
}

/// What to tell a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum News {
    /// So many seconds ahead of the receiver's clock; behind it where negative.
    Off(f64),
    /// The clocks agree again.
    Right,
}

impl Skew {
    /// A receiver said it was `theirs`, in whole seconds, in an answer to a request that was sent and answered at these times
    /// of our clock.
    pub fn heard(&mut self, theirs: u64, sent: Duration, answered: Duration) -> Option<News> {
        let round_trip = answered.checked_sub(sent)?;
        if round_trip > ROUND_TRIP_MAX {
            return None;
        }
        // Whole seconds are half a second early, on average.
        let ours = (sent + round_trip / 2).as_secs_f64();
        let ahead = ours - (theirs as f64 + 0.5);
        let ahead = match self.ahead_secs {
            Some(known) if (ahead - known).abs() < STEP_SECS => {
                known + (ahead - known) * NEWEST_WEIGHT
            }
            _ => ahead,
        };
        self.ahead_secs = Some(ahead);
        if ahead.abs() > WARN_SECS && !self.is_said {
            self.is_said = true;
            return Some(News::Off(ahead));
        }
        if ahead.abs() < RIGHT_SECS && self.is_said {
            self.is_said = false;
            return Some(News::Right);
        }
        None
    }

    /// How many seconds our clock is ahead, once a receiver has answered; behind where negative.
    pub fn ahead_secs(&self) -> Option<f64> {
        self.ahead_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Our time in milliseconds at the answer, how long it took, and their seconds.
    struct Heard(u64, u64, u64);

    /// What is said of each answer, and what is known then, in tenths of a second.
    fn check(answers: &[(Heard, Option<News>, i64)]) {
        let mut skew = Skew::default();
        for (Heard(at_ms, trip_ms, theirs), news, tenths) in answers {
            let answered = Duration::from_millis(*at_ms);
            let sent = answered.saturating_sub(Duration::from_millis(*trip_ms));
            let said = skew.heard(*theirs, sent, answered);
            assert_eq!(said, *news, "at {at_ms}");
            let known = skew.ahead_secs().unwrap();
            assert_eq!((known * 10.0).round() as i64, *tenths, "at {at_ms}");
        }
    }

    #[test]
    fn right_clocks() {
        check(&[
            (Heard(100_500, 0, 100), None, 0),
            (Heard(101_900, 0, 101), None, 1),
            (Heard(102_900, 10_000, 0), None, 1),
        ]);
    }

    #[test]
    fn wrong_clocks_are_said_once() {
        check(&[
            (Heard(110_500, 0, 100), Some(News::Off(10.0)), 100),
            (Heard(111_500, 0, 101), None, 100),
            (Heard(102_500, 0, 102), Some(News::Right), 0),
            (Heard(102_500, 0, 109), Some(News::Off(-7.0)), -70),
            (Heard(103_500, 0, 107), None, -40),
            (Heard(105_500, 2000, 104), Some(News::Right), 0),
        ]);
    }

    #[test]
    fn an_answer_before_its_request_says_nothing() {
        let mut skew = Skew::default();
        let secs = Duration::from_secs;
        assert_eq!(skew.heard(100, secs(100), secs(99)), None);
        assert_eq!(skew.ahead_secs(), None);
    }
}
