//! How far this machine's clock is off, by the clocks of those it publishes to, and whether samples are stamped by theirs.

use std::time::Duration;

use lizmon_client::ServerClock;

/// Beyond this a person is told. Receivers take nothing that is more than 120 s ahead of them.
pub const WARN_SECS: f64 = 5.0;
/// Below this the clock is called right again: not the same, so that it is not said to and fro.
pub const RIGHT_SECS: f64 = 3.0;
/// An answer that took longer says too little about when it was given.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(4);
/// A step is believed at once; less than this is mostly the way there and back, and is averaged out.
const STEP_SECS: f64 = 2.0;
/// The weight of the newest answer in the average.
const NEWEST_WEIGHT: f64 = 0.125;
/// From here on samples are stamped by the receivers' time: a little more, and they would be refused.
pub const CORRECT_SECS: f64 = 100.0;
/// Below this our own clock is good enough again.
const CORRECT_NO_MORE_SECS: f64 = 60.0;
/// For so long a receiver must have been as far off, in so many answers, before that is taken for its clock and not for a moment's.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
const SETTLED_ANSWERS: u32 = 3;
/// Receivers no further apart than this agree with one another.
const AGREE_SECS: f64 = 5.0;

/// Our clock against one receiver's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Skew {
    ahead_secs: Option<f64>,
    is_said: bool,
    /// Since when it has been about that, by our clock, and in how many answers.
    since: Duration,
    answers: u32,
    latest: Duration,
    /// Whether the receiver calls its own clock steady.
    is_steady: bool,
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
    /// A receiver said it was `theirs` in an answer to a request that was sent and answered at these times of our clock.
    pub fn heard(
        &mut self,
        theirs: ServerClock,
        sent: Duration,
        answered: Duration,
    ) -> Option<News> {
        let round_trip = answered.checked_sub(sent)?;
        if round_trip > ROUND_TRIP_MAX {
            return None;
        }
        let ours = (sent + round_trip / 2).as_secs_f64();
        let ahead = ours - theirs.at.as_secs_f64();
        let known = self
            .ahead_secs
            .filter(|known| (ahead - known).abs() < STEP_SECS);
        if known.is_none() || theirs.is_steady != self.is_steady || answered < self.since {
            self.since = answered;
            self.answers = 0;
        }
        self.answers = self.answers.saturating_add(1);
        self.latest = answered;
        self.is_steady = theirs.is_steady;
        let ahead = known.map_or(ahead, |known| known + (ahead - known) * NEWEST_WEIGHT);
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

    /// The same, if it has been so for a while, of a clock that the receiver itself knows to be steady.
    pub fn settled_secs(&self) -> Option<f64> {
        let lasted = self.latest.saturating_sub(self.since);
        let is_settled = self.answers >= SETTLED_ANSWERS && lasted >= SETTLED_AFTER;
        self.ahead_secs.filter(|_| is_settled && self.is_steady)
    }
}

/// Whether samples are stamped by the receivers' time, because ours is too far from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Correction {
    ahead_secs: Option<f64>,
    is_said_to_disagree: bool,
}

/// What to tell a person about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CorrectionNews {
    /// Samples are stamped by the receivers' time from now on; ours is so far ahead of it.
    Begins(f64),
    /// By our own again.
    Ends,
    /// Ours is far off, but the receivers do not agree on what time it is.
    Disagree,
}

impl Correction {
    /// Looks at what is settled of each receiver.
    pub fn look(&mut self, mut settled: Vec<f64>) -> Option<CorrectionNews> {
        settled.sort_by(f64::total_cmp);
        let median = settled.get(settled.len() / 2).copied()?;
        let agree = settled
            .iter()
            .filter(|ahead| (**ahead - median).abs() <= AGREE_SECS);
        if agree.count() * 2 <= settled.len() {
            let was_on = self.ahead_secs.take().is_some();
            let is_far = settled.iter().any(|ahead| ahead.abs() >= CORRECT_SECS);
            let is_news = is_far && !std::mem::replace(&mut self.is_said_to_disagree, true);
            return (is_news || was_on).then_some(CorrectionNews::Disagree);
        }
        self.is_said_to_disagree = false;
        let was_on = self.ahead_secs.is_some();
        let enough = if was_on {
            CORRECT_NO_MORE_SECS
        } else {
            CORRECT_SECS
        };
        self.ahead_secs = (median.abs() >= enough).then_some(median);
        match (was_on, self.ahead_secs) {
            (false, Some(ahead)) => Some(CorrectionNews::Begins(ahead)),
            (true, None) => Some(CorrectionNews::Ends),
            _ => None,
        }
    }

    /// How far our clock is ahead of the time that samples are stamped by; none where that is our own.
    pub fn ahead_secs(&self) -> Option<f64> {
        self.ahead_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a receiver says only which second it is, the client takes the middle of it.
    fn clock(secs: u64) -> ServerClock {
        ServerClock {
            at: Duration::from_millis(secs * 1_000 + 500),
            is_steady: true,
            run: 1,
        }
    }

    /// Our time in milliseconds at the answer, how long it took, and their seconds.
    struct Heard(u64, u64, u64);

    /// What is said of each answer, and what is known then, in tenths of a second.
    fn check(answers: &[(Heard, Option<News>, i64)]) {
        let mut skew = Skew::default();
        for (Heard(at_ms, trip_ms, theirs), news, tenths) in answers {
            let answered = Duration::from_millis(*at_ms);
            let sent = answered.saturating_sub(Duration::from_millis(*trip_ms));
            let said = skew.heard(clock(*theirs), sent, answered);
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
        assert_eq!(skew.heard(clock(100), secs(100), secs(99)), None);
        assert_eq!(skew.ahead_secs(), None);
    }

    /// Samples are taken on whole seconds, so every answer comes a few milliseconds after one.
    #[test]
    fn one_clock_has_no_skew() {
        let mut skew = Skew::default();
        for second in 1_465_001_814..1_465_001_900 {
            let sent = Duration::from_millis(second * 1_000 + 2);
            let theirs = ServerClock {
                at: sent + Duration::from_millis(4),
                is_steady: true,
                run: 1,
            };
            skew.heard(theirs, sent, sent + Duration::from_millis(8));
        }
        assert!(skew.ahead_secs().unwrap().abs() < 0.001);
    }

    #[test]
    fn what_lasts_is_settled() {
        let check = |answers: &[(u64, i64, bool)], expected: Option<f64>| {
            let mut skew = Skew::default();
            for (at, ahead, is_steady) in answers {
                let now = Duration::from_secs(100_000 + at);
                let theirs = ServerClock {
                    at: Duration::from_secs((100_000 + at).saturating_add_signed(-ahead)),
                    is_steady: *is_steady,
                    run: 1,
                };
                skew.heard(theirs, now, now);
            }
            assert_eq!(skew.settled_secs(), expected, "{answers:?}");
        };
        let hour = 3_600;
        check(&[], None);
        check(
            &[(0, hour, true), (5, hour, true), (10, hour, true)],
            Some(3_600.0),
        );
        check(
            &[(0, -hour, true), (5, -hour, true), (10, -hour, true)],
            Some(-3_600.0),
        );
        check(&[(0, hour, true), (5, hour, true), (9, hour, true)], None);
        check(&[(0, hour, true), (10, hour, true)], None);
        // A receiver that has just started, and whose clock may be the wrong one.
        check(
            &[(0, hour, false), (5, hour, false), (99, hour, false)],
            None,
        );
        check(
            &[
                (0, hour, false),
                (9, hour, true),
                (10, hour, true),
                (18, hour, true),
            ],
            None,
        );
        check(&[(0, hour, true), (5, hour, true), (10, 0, true)], None);
    }

    #[test]
    fn when_samples_are_stamped_by_the_receivers_time() {
        use CorrectionNews::{Begins, Disagree, Ends};
        type Look<'a> = (&'a [f64], Option<CorrectionNews>, Option<f64>);
        let check = |looks: &[Look<'_>]| {
            let mut correction = Correction::default();
            for (settled, news, ahead) in looks {
                assert_eq!(correction.look(settled.to_vec()), *news, "{settled:?}");
                assert_eq!(correction.ahead_secs(), *ahead, "{settled:?}");
            }
        };
        check(&[
            (&[], None, None),
            (&[99.0], None, None),
            (&[-99.0], None, None),
        ]);
        for far in [100.0, -3_600.0, 1e9] {
            check(&[
                (&[far], Some(Begins(far)), Some(far)),
                (&[], None, Some(far)),
                (&[0.5], Some(Ends), None),
            ]);
        }
        check(&[
            (&[101.0], Some(Begins(101.0)), Some(101.0)),
            (&[61.0], None, Some(61.0)),
            (&[59.0], Some(Ends), None),
            (&[61.0], None, None),
        ]);
        check(&[
            (&[3_600.0, 3_601.0], Some(Begins(3_601.0)), Some(3_601.0)),
            (&[0.0, 3_601.0], Some(Disagree), None),
            (&[0.0, 3_601.0], None, None),
            (
                &[3_601.0, 0.0, 3_600.0],
                Some(Begins(3_600.0)),
                Some(3_600.0),
            ),
            (&[3_601.0, 0.0, 0.1], Some(Ends), None),
            (&[3_601.0, 0.0, -900.0], Some(Disagree), None),
        ]);
    }
}
