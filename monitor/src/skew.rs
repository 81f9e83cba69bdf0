//! How far this machine's clock is from the receivers' clocks, and whether samples are stamped with
//! the receivers' time.

use std::time::Duration;

use lizmon_client::ServerClock;

/// A greater skew is logged. Receivers accept nothing that is more than 120 s ahead of them.
pub const WARN_SECS: f64 = 5.0;
/// Below this the clocks count as in sync again. It is less, so that the log does not alternate.
pub const IN_SYNC_SECS: f64 = 3.0;
/// The time of an answer that took longer is too uncertain.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(4);
/// A greater change is a step, and counts at once; a smaller one is mostly latency, and is
/// averaged.
const STEP_SECS: f64 = 2.0;
/// The weight of the newest answer in the average.
const NEWEST_WEIGHT: f64 = 0.125;
/// From here on samples are stamped with the receivers' time: with a little more, they would be
/// refused.
pub const CORRECTION_START_SECS: f64 = 100.0;
/// Below this samples are stamped with our own clock again.
const CORRECTION_END_SECS: f64 = 60.0;
/// A skew is steady after it has lasted this long, in so many answers.
const STEADY_AFTER: Duration = Duration::from_secs(10);
const STEADY_ANSWERS: u32 = 3;
/// Receivers whose clocks differ by no more than this agree.
const AGREE_SECS: f64 = 5.0;

/// Our clock compared with one receiver's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClockSkew {
    ahead_secs: Option<f64>,
    is_logged: bool,
    /// Since when it has been about the same, by our clock, and in how many answers.
    since: Duration,
    answers: u32,
    latest: Duration,
    /// Whether the receiver says that its clock is steady.
    is_steady: bool,
}

/// What to log about the skew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SkewNotice {
    /// Our clock is so many seconds ahead of the receiver's; behind it if negative.
    Off(f64),
    /// The clocks agree again.
    InSync,
}

impl ClockSkew {
    /// Takes the time of a receiver's clock from an answer. The request was sent and answered at
    /// these times of our clock.
    pub fn observe(
        &mut self,
        theirs: ServerClock,
        sent: Duration,
        answered: Duration,
    ) -> Option<SkewNotice> {
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
        if ahead.abs() > WARN_SECS && !self.is_logged {
            self.is_logged = true;
            return Some(SkewNotice::Off(ahead));
        }
        if ahead.abs() < IN_SYNC_SECS && self.is_logged {
            self.is_logged = false;
            return Some(SkewNotice::InSync);
        }
        None
    }

    /// How many seconds our clock is ahead, negative if it is behind; none before the first answer.
    pub fn ahead_secs(&self) -> Option<f64> {
        self.ahead_secs
    }

    /// The same, if it has lasted for a while, and the receiver says that its clock is steady.
    pub fn steady_secs(&self) -> Option<f64> {
        let lasted = self.latest.saturating_sub(self.since);
        let has_lasted = self.answers >= STEADY_ANSWERS && lasted >= STEADY_AFTER;
        self.ahead_secs.filter(|_| has_lasted && self.is_steady)
    }
}

/// Whether samples are stamped with the receivers' time, because our clock is too far from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClockCorrection {
    ahead_secs: Option<f64>,
    is_disagreement_logged: bool,
}

/// What to log about the correction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CorrectionNotice {
    /// Samples are stamped with the receivers' time from now on; our clock is so far ahead of it.
    Started(f64),
    /// Samples are stamped with our own clock again.
    Ended,
    /// Our clock is far off, but the receivers do not agree on the time.
    Disagree,
}

impl ClockCorrection {
    /// Takes the steady skew of each receiver.
    pub fn update(&mut self, mut steady: Vec<f64>) -> Option<CorrectionNotice> {
        steady.sort_by(f64::total_cmp);
        let median = steady.get(steady.len() / 2).copied()?;
        let agree = steady
            .iter()
            .filter(|ahead| (**ahead - median).abs() <= AGREE_SECS);
        if agree.count() * 2 <= steady.len() {
            let was_on = self.ahead_secs.take().is_some();
            let is_far = steady
                .iter()
                .any(|ahead| ahead.abs() >= CORRECTION_START_SECS);
            let is_news = is_far && !std::mem::replace(&mut self.is_disagreement_logged, true);
            return (is_news || was_on).then_some(CorrectionNotice::Disagree);
        }
        self.is_disagreement_logged = false;
        let was_on = self.ahead_secs.is_some();
        let enough = if was_on {
            CORRECTION_END_SECS
        } else {
            CORRECTION_START_SECS
        };
        self.ahead_secs = (median.abs() >= enough).then_some(median);
        match (was_on, self.ahead_secs) {
            (false, Some(ahead)) => Some(CorrectionNotice::Started(ahead)),
            (true, None) => Some(CorrectionNotice::Ended),
            _ => None,
        }
    }

    /// How far our clock is ahead of the time that samples are stamped with; none while that is our
    /// own.
    pub fn ahead_secs(&self) -> Option<f64> {
        self.ahead_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If a receiver tells only the second, the client takes its middle.
    fn clock(secs: u64) -> ServerClock {
        ServerClock {
            at: Duration::from_millis(secs * 1_000 + 500),
            is_steady: true,
            run: 1,
        }
    }

    /// Our time in milliseconds at the answer, how long the request took, and the receiver's
    /// seconds.
    struct Answer(u64, u64, u64);

    /// The notice after each answer, and the skew then, in tenths of a second.
    fn check(answers: &[(Answer, Option<SkewNotice>, i64)]) {
        let mut skew = ClockSkew::default();
        for (Answer(at_ms, trip_ms, theirs), news, tenths) in answers {
            let answered = Duration::from_millis(*at_ms);
            let sent = answered.saturating_sub(Duration::from_millis(*trip_ms));
            let said = skew.observe(clock(*theirs), sent, answered);
            assert_eq!(said, *news, "at {at_ms}");
            let known = skew.ahead_secs().unwrap();
            assert_eq!((known * 10.0).round() as i64, *tenths, "at {at_ms}");
        }
    }

    #[test]
    fn clocks_that_agree() {
        check(&[
            (Answer(100_500, 0, 100), None, 0),
            (Answer(101_900, 0, 101), None, 1),
            (Answer(102_900, 10_000, 0), None, 1),
        ]);
    }

    #[test]
    fn a_wrong_clock_is_logged_once() {
        check(&[
            (Answer(110_500, 0, 100), Some(SkewNotice::Off(10.0)), 100),
            (Answer(111_500, 0, 101), None, 100),
            (Answer(102_500, 0, 102), Some(SkewNotice::InSync), 0),
            (Answer(102_500, 0, 109), Some(SkewNotice::Off(-7.0)), -70),
            (Answer(103_500, 0, 107), None, -40),
            (Answer(105_500, 2000, 104), Some(SkewNotice::InSync), 0),
        ]);
    }

    #[test]
    fn an_answer_dated_before_its_request_is_ignored() {
        let mut skew = ClockSkew::default();
        let secs = Duration::from_secs;
        assert_eq!(skew.observe(clock(100), secs(100), secs(99)), None);
        assert_eq!(skew.ahead_secs(), None);
    }

    /// Samples are taken on whole seconds, so every answer comes a few milliseconds after one.
    #[test]
    fn one_clock_has_no_skew() {
        let mut skew = ClockSkew::default();
        for second in 1_465_001_814..1_465_001_900 {
            let sent = Duration::from_millis(second * 1_000 + 2);
            let theirs = ServerClock {
                at: sent + Duration::from_millis(4),
                is_steady: true,
                run: 1,
            };
            skew.observe(theirs, sent, sent + Duration::from_millis(8));
        }
        assert!(skew.ahead_secs().unwrap().abs() < 0.001);
    }

    #[test]
    fn a_lasting_skew_is_steady() {
        let check = |answers: &[(u64, i64, bool)], expected: Option<f64>| {
            let mut skew = ClockSkew::default();
            for (at, ahead, is_steady) in answers {
                let now = Duration::from_secs(100_000 + at);
                let theirs = ServerClock {
                    at: Duration::from_secs((100_000 + at).saturating_add_signed(-ahead)),
                    is_steady: *is_steady,
                    run: 1,
                };
                skew.observe(theirs, now, now);
            }
            assert_eq!(skew.steady_secs(), expected, "{answers:?}");
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
        // A receiver that was just started: its clock may be the wrong one.
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
    fn when_samples_use_the_receivers_time() {
        use CorrectionNotice::{Disagree, Ended, Started};
        type Look<'a> = (&'a [f64], Option<CorrectionNotice>, Option<f64>);
        let check = |looks: &[Look<'_>]| {
            let mut correction = ClockCorrection::default();
            for (steady, news, ahead) in looks {
                assert_eq!(correction.update(steady.to_vec()), *news, "{steady:?}");
                assert_eq!(correction.ahead_secs(), *ahead, "{steady:?}");
            }
        };
        check(&[
            (&[], None, None),
            (&[99.0], None, None),
            (&[-99.0], None, None),
        ]);
        for far in [100.0, -3_600.0, 1e9] {
            check(&[
                (&[far], Some(Started(far)), Some(far)),
                (&[], None, Some(far)),
                (&[0.5], Some(Ended), None),
            ]);
        }
        check(&[
            (&[101.0], Some(Started(101.0)), Some(101.0)),
            (&[61.0], None, Some(61.0)),
            (&[59.0], Some(Ended), None),
            (&[61.0], None, None),
        ]);
        check(&[
            (&[3_600.0, 3_601.0], Some(Started(3_601.0)), Some(3_601.0)),
            (&[0.0, 3_601.0], Some(Disagree), None),
            (&[0.0, 3_601.0], None, None),
            (
                &[3_601.0, 0.0, 3_600.0],
                Some(Started(3_600.0)),
                Some(3_600.0),
            ),
            (&[3_601.0, 0.0, 0.1], Some(Ended), None),
            (&[3_601.0, 0.0, -900.0], Some(Disagree), None),
        ]);
    }
}
