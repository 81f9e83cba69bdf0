//! What time samples are stamped by: our own clock's, or that of the receivers where ours is too far from it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Environment;

type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Read by whoever samples, set by whoever hears from receivers.
pub(super) struct SampleClock {
    wall: Clock,
    monotonic: Clock,
    /// The receivers' time, and what the monotonic clock said then; none where our own will do.
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

    /// The wall clock is so far ahead of the receivers' time at this moment. From here on the monotonic clock says how
    /// that goes on: a step of ours does not touch it.
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use lizmon_protocol::sample::ProducerId;

    use super::*;

    #[test]
    fn a_step_of_our_clock_does_not_touch_the_receivers_time() {
        let (wall, monotonic) = (
            Arc::new(AtomicU64::new(10_000)),
            Arc::new(AtomicU64::new(5)),
        );
        let clock = |secs: &Arc<AtomicU64>| -> Clock {
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
