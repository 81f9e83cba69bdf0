//! The state of the clock, for health, metrics and every answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use lizmon_pki::date::rfc3339;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::steps::{AHEAD_REMOVED_SECS, ClockVerdict};

/// The state of the clock at the last reading.
#[derive(Debug, Default)]
pub struct ClockStatus {
    judged: Mutex<Option<ClockVerdict>>,
    /// Whether anything was refused because it is not steady.
    has_refused: AtomicBool,
    steady: Gauge,
    steps: Counter,
}

impl ClockStatus {
    pub(crate) fn set(&self, judged: ClockVerdict) {
        let mut known = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = judged.regime - known.map_or(0, |known| known.regime);
        self.steps.inc_by(steps);
        let is_steady = judged.is_steady();
        self.steady.set(is_steady.into());
        let was_unsteady = known.is_some_and(|known| !known.is_steady());
        if was_unsteady && is_steady {
            let steady_secs = judged.steady_secs;
            tracing::info!(
                steady_secs,
                "the clock is steady: windows follow it from now on"
            );
        }
        if is_steady {
            self.has_refused.store(false, Ordering::Relaxed);
        }
        *known = Some(judged);
    }

    pub(crate) fn has_refused(&self) {
        self.has_refused.store(true, Ordering::Relaxed);
    }

    /// Whether windows move by it.
    pub fn is_steady(&self) -> bool {
        self.steady.get() != 0
    }

    /// How long until it is steady, if it was set or the machine has just started. At the very first
    /// start no other time is known, and nothing says that it is wrong.
    pub fn secs_until_trusted(&self) -> Option<u64> {
        let known = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let judged = known.filter(|known| known.other.is_some())?;
        Some(judged.secs_until_steady()).filter(|secs| *secs > 0)
    }

    /// A warning for the operator.
    pub fn warning(&self) -> Option<String> {
        let known = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let has_refused = self.has_refused.load(Ordering::Relaxed);
        known
            .as_ref()
            .and_then(|known| in_words(known, has_refused))
    }

    /// Registers these metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "clock_steady",
            "1 if the clock is steady, 0 until it has run for a minute without a step",
            self.steady.clone(),
        );
        registry.register("clock_steps", "Steps of the clock", self.steps.clone());
    }
}

/// None if the clock is right as far as is known, or if no other time is known and nothing was
/// refused.
fn in_words(judged: &ClockVerdict, has_refused: bool) -> Option<String> {
    let now = rfc3339(judged.now);
    let secs = judged.secs_until_steady();
    if secs > 0 {
        let other = match judged.other {
            Some(other) => format!("by the last known time it is at least {}", rfc3339(other)),
            None if has_refused => "and the previous time is unknown".to_owned(),
            None => return None,
        };
        return Some(format!(
            "the clock was set, or the machine has just started: it says {now}, {other}; for {secs} s more it is not trusted: samples that would evict earlier ones or could not be found afterwards are answered 503 clock_unsteady, and nothing expires by it"
        ));
    }
    let other = rfc3339(judged.other?);
    let secs = judged.secs_until_ahead_is_removed(AHEAD_REMOVED_SECS);
    (secs > 0).then(|| {
        format!(
            "the clock is behind an earlier steady clock: it says {now}, by the earlier one it is {other}; for {secs} s more samples stamped by the earlier one are kept, and samples that could not be found beside them are answered 503 clock_unsteady: set the clock if it is wrong"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    fn judged(steady_secs: u64, other: Option<u64>, regime: u64) -> ClockVerdict {
        ClockVerdict {
            now: NOW,
            steady_secs,
            floor: other.unwrap_or(0),
            other,
            regime,
        }
    }

    #[test]
    fn health_reports_the_clock() {
        let day = 86_400;
        // For how long it has been steady, the other time there is, and what is said.
        let cases = [
            (0, None, ""),
            (1, Some(NOW - 10), "for 59 s more it is not trusted"),
            (
                5,
                Some(NOW - day),
                "it says 2016-06-04T00:56:54Z, by the last known time it is at least 2016-06-03T00:56:54Z; for 55 s more",
            ),
            (
                59,
                Some(NOW + 2 * day),
                "it is at least 2016-06-06T00:56:54Z; for 1 s more it is not trusted",
            ),
            (60, Some(NOW - day), ""),
            (60, Some(NOW + 100), ""),
            (
                60,
                Some(NOW + day),
                "by the earlier one it is 2016-06-05T00:56:54Z; for 240 s more",
            ),
            (299, Some(NOW + day), "for 1 s more samples stamped"),
            (300, Some(NOW + day), ""),
        ];
        for (steady_secs, other, expected) in cases {
            let status = ClockStatus::default();
            assert_eq!(status.warning(), None);
            status.set(judged(steady_secs, other, 0));
            let said = status.warning().unwrap_or_default();
            let fits = said.contains(expected) && said.is_empty() == expected.is_empty();
            assert!(fits, "{steady_secs} {other:?}: {said}");
            assert_eq!(status.is_steady(), steady_secs >= 60);
            let wait = other.and(60_u64.checked_sub(steady_secs));
            assert_eq!(status.secs_until_trusted(), wait.filter(|secs| *secs > 0));
        }
    }

    #[test]
    fn a_refusal_is_reported_though_no_other_time_is_known() {
        let status = ClockStatus::default();
        status.set(judged(7, None, 0));
        assert_eq!(status.warning(), None);
        status.has_refused();
        let said = status.warning().unwrap();
        assert!(
            said.contains("the previous time is unknown; for 53 s more"),
            "{said}"
        );
        status.set(judged(60, None, 0));
        assert_eq!(status.warning(), None);
        status.set(judged(0, None, 1));
        assert_eq!(status.warning(), None, "not that any more");
    }

    #[test]
    fn steps_are_counted_once() {
        let status = ClockStatus::default();
        for (regime, steps) in [(0, 0), (1, 1), (1, 1), (4, 4)] {
            status.set(judged(0, None, regime));
            assert_eq!(status.steps.get(), steps);
        }
    }
}
