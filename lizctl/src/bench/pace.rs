//! When each request is due, and when the run is over.
//!
//! With a rate, each worker has a schedule that was fixed in advance. A request that is sent late
//! because the one before took long is measured from when it was due: what waited is not omitted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The times at which one of several workers sends, from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    rate: f64,
    at: u64,
    workers: u64,
}

impl Schedule {
    /// The part of worker `at` of `workers`, which together send `rate` requests a second, evenly.
    pub(crate) fn new(rate: f64, at: usize, workers: usize) -> Self {
        let (at, workers) = (at as u64, workers as u64);
        Self { rate, at, workers }
    }

    /// When the request with this number is due; the first is 0.
    pub(crate) fn due(&self, number: u64) -> Duration {
        due_of_all(self.at + number * self.workers, self.rate)
    }

    /// How many requests are due before `end`.
    pub(crate) fn due_before(&self, end: Duration) -> u64 {
        let Some(after_first) = end.checked_sub(self.due(0)).filter(|time| !time.is_zero()) else {
            return 0;
        };
        (after_first.as_secs_f64() * self.rate / self.workers as f64).ceil() as u64
    }
}

/// When a request of all workers' is due, counted from 0. One place for pacer and workers: a worker
/// that is woken before its time would sleep once more.
fn due_of_all(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// The clock of a run, which all workers share.
pub(crate) struct RunClock {
    start: Instant,
    /// When the last request may start, in nanoseconds from the start. Ctrl-C sets it to now.
    end_nanos: AtomicU64,
}

impl RunClock {
    pub(crate) fn new(start: Instant, lasting: Duration) -> Self {
        Self {
            start,
            end_nanos: AtomicU64::new(nanos(lasting)),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn end(&self) -> Duration {
        Duration::from_nanos(self.end_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.now() >= self.end()
    }

    /// Ends the run now.
    pub(crate) fn stop(&self) {
        self.end_nanos
            .fetch_min(nanos(self.now()), Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Longest sleep of the pacer: it sees within this time that the run is over.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Wakes each worker when its next request is due, until the run is over; then all of them, once
/// more. To be run on a thread of its own: the timers of tokio are a millisecond coarse.
#[expect(
    clippy::disallowed_methods,
    reason = "waits until the time that the schedule says"
)]
pub(crate) fn wake_workers(clock: &RunClock, rate: f64, workers: &[Notify]) {
    let mut next = 0_u64;
    while !clock.is_over() {
        let due = due_of_all(next, rate);
        match due.checked_sub(clock.now()) {
            Some(wait) if !wait.is_zero() => thread::sleep(wait.min(SLEEP_MAX)),
            _ => {
                workers[(next % workers.len() as u64) as usize].notify_one();
                next += 1;
            }
        }
    }
    workers.iter().for_each(Notify::notify_one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_rate_evenly() {
        let ms = Duration::from_millis;
        let parts: Vec<Schedule> = (0..4).map(|at| Schedule::new(1_000.0, at, 4)).collect();
        let due: Vec<_> = parts
            .iter()
            .map(|part| (part.due(0), part.due(2)))
            .collect();
        let expected = [(0, 8), (1, 9), (2, 10), (3, 11)];
        assert_eq!(due, expected.map(|(first, third)| (ms(first), ms(third))));
        for end in [0, 1, 3, 4, 5, 8, 1_000] {
            let total: u64 = parts.iter().map(|part| part.due_before(ms(end))).sum();
            assert_eq!(total, end, "before {end} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_early_if_it_is_stopped() {
        let clock = RunClock::new(Instant::now(), Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!clock.is_over());
        clock.stop();
        assert!(clock.is_over());
        assert_eq!(clock.end(), Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(3)).await;
        clock.stop();
        assert_eq!(clock.end(), Duration::from_secs(3));
    }
}
