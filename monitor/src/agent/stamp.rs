//! The time that samples are stamped with: that of our own clock, or the receivers' time where ours
//! is too far from it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::environment::{Environment, TimeSource};

/// Read by the sample loop, and set by the publishers, who learn the receivers' time.
pub(super) struct SampleClock {
    wall: TimeSource,
    monotonic: TimeSource,
    /// The receivers' time, and the monotonic clock's at that moment; none while our own clock is
    /// used.
    theirs: Mutex<Option<(Duration, Duration)>>,
}

impl SampleClock {
    pub(super) fn new(environment: &Environment) -> Self {
        Self {
            wall: environment.clock.clone(),
            monotonic: environment.monotonic.clone(),
            theirs: Mutex::new(None),
        }
    }

    /// The wall clock is so far ahead of the receivers' time now. From here on the monotonic clock
    /// continues the receivers' time, so that a step of the wall clock does not change it.
    pub(super) fn correct(&self, ahead_secs: Option<f64>) {
        let theirs = ahead_secs.map(|ahead| {
            let wall = (self.wall)();
            let by = Duration::try_from_secs_f64(ahead.abs()).unwrap_or_default();
            let theirs = match ahead > 0.0 {
                true => wall.saturating_sub(by),
                false => wall.saturating_add(by),
            };
            (theirs, (self.monotonic)())
        });
        *self.theirs.lock().unwrap_or_else(PoisonError::into_inner) = theirs;
    }

    pub(super) fn now(&self) -> Duration {
        let theirs = *self.theirs.lock().unwrap_or_else(PoisonError::into_inner);
        match theirs {
            Some((theirs, then)) => theirs + (self.monotonic)().saturating_sub(then),
            None => (self.wall)(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use lizmon_protocol::sample::ProducerId;

    use super::*;

    #[test]
    fn a_step_of_our_clock_does_not_touch_the_receivers_time() {
        let (wall, monotonic) = (
            Arc::new(AtomicU64::new(10_000)),
            Arc::new(AtomicU64::new(5)),
        );
        let clock = |secs: &Arc<AtomicU64>| -> TimeSource {
            let secs = secs.clone();
            Arc::new(move || Duration::from_secs(secs.load(Ordering::Relaxed)))
        };
        let stamp = SampleClock::new(&Environment {
            clock: clock(&wall),
            monotonic: clock(&monotonic),
            chance: Arc::new(|| 0.5),
            new_producer: Arc::new(|| ProducerId::from_bytes([1; 16])),
        });
        let check = |expected: u64| assert_eq!(stamp.now().as_secs(), expected);
        check(10_000);
        stamp.correct(Some(3_600.0));
        check(6_400);
        monotonic.store(15, Ordering::Relaxed);
        check(6_410);
        wall.store(99_000, Ordering::Relaxed);
        check(6_410);
        stamp.correct(Some(-1_000.0));
        check(100_000);
        stamp.correct(None);
        check(99_000);
    }
}
