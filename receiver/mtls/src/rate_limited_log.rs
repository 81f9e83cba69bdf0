//! Rate-limited logging for messages that unauthenticated clients can cause, so that no client can
//! fill the disk.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The default burst size.
const LINES_AT_ONCE: NonZeroU32 = NonZeroU32::new(30).unwrap();
/// The default interval after the burst: about 20 MB a day at most.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Logs the first messages and counts the suppressed ones.
#[derive(Debug)]
pub struct RateLimitedLog {
    quota: RateLimiter<NotKeyed, InMemoryState, MonotonicClock>,
    unsaid: AtomicU64,
}

impl Default for RateLimitedLog {
    fn default() -> Self {
        Self::new(LINES_AT_ONCE, LINE_EVERY)
    }
}

impl RateLimitedLog {
    /// Allows `at_once` lines as a burst, then one more line after each `every`.
    pub fn new(at_once: NonZeroU32, every: Duration) -> Self {
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        Self {
            quota: RateLimiter::direct_with_clock(quota.allow_burst(at_once), MonotonicClock),
            unsaid: AtomicU64::new(0),
        }
    }

    /// Runs `say` with the number of lines suppressed since the last logged one, if any. Over the
    /// limit, only counts the line.
    pub fn say(&self, say: impl FnOnce(Option<u64>)) {
        if self.quota.check().is_ok() {
            let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
            say((unsaid > 0).then_some(unsaid));
        } else {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_instead() {
        let log = RateLimitedLog::new(LINES_AT_ONCE, Duration::from_secs(3600));
        let mut said = Vec::new();
        for _ in 0..10_000 {
            log.say(|unsaid| said.push(unsaid));
        }
        assert_eq!(
            said, [None; 30],
            "the first ones, and nothing unsaid before them"
        );
        assert_eq!(log.unsaid.load(Ordering::Relaxed), 9_970);
    }

    #[test]
    fn the_next_line_tells_how_many_were_not_said() {
        let log = RateLimitedLog::new(NonZeroU32::MIN, Duration::from_nanos(1));
        log.unsaid.store(7, Ordering::Relaxed);
        let mut said = Vec::new();
        log.say(|unsaid| said.push(unsaid));
        assert_eq!(
            (said, log.unsaid.load(Ordering::Relaxed)),
            (vec![Some(7)], 0)
        );
    }
}
