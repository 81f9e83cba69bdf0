//! When CRLs are fetched: pure, time and chance are arguments.

/// The first wait after a failure, and before a list that is missed is asked for again. Both double, up to the usual wait.
const FIRST_WAIT_SECS: u64 = 10;
/// Part of the usual wait by which askers spread: a tenth.
const SPREAD: u64 = 10;

/// When to ask next: pure, time and chance are arguments.
///
/// ```text
/// asked --every, less up to a tenth--> due      failed --10 s, 20 s, 40 s … every--> due      a list is missed --10 s, 20 s …--> due
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSchedule {
    every: u64,
    /// Epoch seconds.
    next: u64,
    /// When somebody misses a list: epoch seconds.
    next_missed: u64,
    /// Failures, or times that a list was missed and not there, in a row.
    in_vain: u32,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOutcome {
    /// There was something new.
    New,
    /// There was nothing new.
    Same,
    /// There was no answer.
    Failed,
}

impl FetchSchedule {
    /// Due at once, and then every so many seconds.
    pub fn new(every: u64) -> Self {
        Self {
            every,
            next: 0,
            next_missed: 0,
            in_vain: 0,
        }
    }

    /// Whether to ask at `now` (epoch seconds). `missed`: somebody is turned away for want of a list.
    pub fn is_due(&self, now: u64, missed: bool) -> bool {
        // Of a clock that was set back nothing is further away than the usual wait.
        let due = |at: u64| now >= at || at - now > self.every;
        due(self.next) || (missed && due(self.next_missed))
    }

    /// It was asked at `now`, and `missed` was so.
    pub fn asked(&mut self, now: u64, missed: bool, came: FetchOutcome, chance: f64) {
        let in_vain = came == FetchOutcome::Failed || (missed && came == FetchOutcome::Same);
        let wait = FIRST_WAIT_SECS
            .checked_shl(self.in_vain.min(32))
            .map_or(self.every, |wait| wait.min(self.every));
        self.in_vain = if in_vain {
            self.in_vain.saturating_add(1)
        } else {
            0
        };
        let spread = (self.every as f64 / SPREAD as f64 * chance.clamp(0.0, 1.0)) as u64;
        let usual = now + self.every - spread;
        self.next_missed = now + if in_vain { wait } else { FIRST_WAIT_SECS };
        self.next = match came {
            FetchOutcome::Failed => usual.min(now + wait),
            FetchOutcome::New | FetchOutcome::Same => usual,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn it_is_asked_at_a_bounded_pace() {
        use FetchOutcome::{Failed, New, Same};
        // (missed, what came, chance), and how long after it is due: usually, and for who is missed.
        type Step = ((bool, FetchOutcome, f64), (u64, u64));
        let cases: &[(&str, &[Step])] = &[
            ("nothing happens", &[((false, Same, 0.0), (600, 10)); 3]),
            (
                "spread",
                &[
                    ((false, Same, 1.0), (540, 10)),
                    ((false, New, 0.5), (570, 10)),
                ],
            ),
            (
                "the CA is away, and comes back",
                &[
                    ((false, Failed, 0.0), (10, 10)),
                    ((false, Failed, 0.0), (20, 20)),
                    ((true, Failed, 0.0), (40, 40)),
                    ((false, Same, 0.0), (600, 10)),
                    ((false, Failed, 0.0), (10, 10)),
                ],
            ),
            (
                "a list is missed that the CA has not either",
                &[
                    ((true, Same, 0.0), (600, 10)),
                    ((true, Same, 0.0), (600, 20)),
                    ((true, Same, 0.0), (600, 40)),
                    ((true, New, 0.0), (600, 10)),
                ],
            ),
        ];
        for (story, steps) in cases {
            let mut pace = FetchSchedule::new(600);
            assert!(pace.is_due(NOW, false), "{story}: at the start");
            for (at, ((missed, came, chance), (usual, for_missed))) in steps.iter().enumerate() {
                pace.asked(NOW, *missed, *came, *chance);
                for (missed, wait) in [(false, *usual), (true, *for_missed.min(usual))] {
                    assert!(
                        !pace.is_due(NOW + wait - 1, missed),
                        "{story} {at} {missed}"
                    );
                    assert!(pace.is_due(NOW + wait, missed), "{story} {at} {missed}");
                }
            }
        }
    }

    #[test]
    fn waits_end_at_the_usual_one_and_a_clock_set_back_is_survived() {
        let mut pace = FetchSchedule::new(600);
        for _ in 0..40 {
            pace.asked(NOW, true, FetchOutcome::Failed, 0.0);
        }
        assert!(!pace.is_due(NOW + 599, true) && pace.is_due(NOW + 600, true));
        assert!(
            pace.is_due(NOW - 1, false),
            "further away than it ever waits"
        );
    }
}
