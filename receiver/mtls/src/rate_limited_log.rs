//! Log lines that strangers can cause, at a bounded rate: nobody fills a disk with them.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// So many lines at once, where nothing else is said.
const LINES_AT_ONCE: NonZeroU32 = NonZeroU32::new(30).unwrap();
/// Then one more after each of these: some 20 MB a day at worst.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Says the first of many, and how many it has not said.
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
    /// So many lines at once, and one more after each `every`.
    pub fn new(at_once: NonZeroU32, every: Duration) -> Self {
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        Self {
            quota: RateLimiter::direct_with_clock(quota.allow_burst(at_once), MonotonicClock),
            unsaid: AtomicU64::new(0),
        }
    }

    /// Runs `say` with the number of lines that were not said since the last that was, if any; or counts this one.
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
