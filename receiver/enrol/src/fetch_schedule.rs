//! When CRLs are fetched. Pure: time and randomness are arguments.

/// The first wait, in seconds, after a failure and before a missing CRL is requested again. Both
/// waits double, up to the normal interval.
const FIRST_WAIT_SECS: u64 = 10;
/// The fraction of the interval over which clients are spread: one tenth.
const SPREAD: u64 = 10;

/// When the next fetch is due. Pure: time and randomness are arguments.
///
/// ```text
/// success     ── every, minus up to a tenth ──> due
/// failure     ── 10 s, 20 s, 40 s … every ────> due
/// missing CRL ── 10 s, 20 s … ────────────────> due
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSchedule {
    every: u64,
    /// The next regular fetch: epoch seconds.
    next: u64,
    /// The next fetch if a CRL is missing: epoch seconds.
    next_missed: u64,
    /// The number of consecutive fetches that failed or did not bring the missing CRL.
    in_vain: u32,
}

/// The result of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The CRLs have changed.
    New,
    /// The CRLs have not changed.
    Same,
    /// The fetch failed.
    Failed,
}

impl FetchSchedule {
    /// Due immediately, and then at this interval in seconds.
    pub fn new(every: u64) -> Self {
        Self {
            every,
            next: 0,
            next_missed: 0,
            in_vain: 0,
        }
    }

    /// Whether a fetch is due at `now` (epoch seconds). `missed`: clients are rejected because a
    /// CRL is missing.
    pub fn is_due(&self, now: u64, missed: bool) -> bool {
        // If the clock was set back, the wait is still at most one interval.
        let due = |at: u64| now >= at || at - now > self.every;
        due(self.next) || (missed && due(self.next_missed))
    }

    /// Records a fetch at `now`. `missed` is the value that was passed to [`is_due`](Self::is_due).
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
        // (missed, result, chance), and the wait until the next fetch: regular, and with a missing
        // CRL.
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
                "a CRL is missing that the CA does not have either",
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
