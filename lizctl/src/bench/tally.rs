//! Latencies and counts of the measured part of a run.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies above this count as this.
const LATENCY_MAX: Duration = Duration::from_secs(3_600);
/// Significant digits of a percentile.
const DIGITS: u8 = 3;
/// Tallies that share the workers: a histogram for each would take 160 kB a connection.
const SHARDS: usize = 16;

/// The times of one request, from the start of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// When it was due; flat out, when the worker was free.
    pub(crate) due: Duration,
    /// When its last attempt was sent.
    pub(crate) sent: Duration,
    pub(crate) done: Duration,
}

/// What became of requests.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// From when a request was due, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// From when its last attempt was sent, in microseconds: what a client that waits for each
    /// answer would measure.
    pub(crate) service: Histogram<u64>,
    pub(crate) requests: u64,
    pub(crate) records: u64,
    /// Requests that were due and were not sent before the end.
    pub(crate) not_sent: u64,
    /// Attempts that were refused or not answered, by the reason. Of the whole run.
    pub(crate) refused: BTreeMap<String, u64>,
}

impl Tally {
    fn new() -> Result<Self, hdrhistogram::CreationError> {
        let max = LATENCY_MAX.as_micros() as u64;
        let histogram = Histogram::new_with_bounds(1, max, DIGITS)?;
        Ok(Self {
            latency: histogram.clone(),
            service: histogram,
            requests: 0,
            records: 0,
            not_sent: 0,
            refused: BTreeMap::new(),
        })
    }

    /// A request that was answered well.
    pub(crate) fn done(&mut self, times: Times, records: u64) {
        self.latency
            .saturating_record(micros(times.done.saturating_sub(times.due)));
        self.service
            .saturating_record(micros(times.done.saturating_sub(times.sent)));
        self.requests += 1;
        self.records += records;
    }

    /// A request that was due and was never sent: it had waited this long at least.
    pub(crate) fn not_sent(&mut self, waited: Duration) {
        self.latency.saturating_record(micros(waited));
        self.not_sent += 1;
    }

    pub(crate) fn refused(&mut self, reason: String) {
        *self.refused.entry(reason).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds, so that nothing is left out.
        let _fits = self.latency.add(&other.latency);
        let _fits = self.service.add(&other.service);
        self.requests += other.requests;
        self.records += other.records;
        self.not_sent += other.not_sent;
        for (reason, count) in &other.refused {
            *self.refused.entry(reason.clone()).or_default() += count;
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// The tallies of all workers.
pub(crate) struct Tallies(Vec<Mutex<Tally>>);

impl Tallies {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let shards = (0..SHARDS).map(|_| Tally::new().map(Mutex::new));
        Ok(Self(shards.collect::<Result<_, _>>()?))
    }

    /// The tally of this worker.
    pub(crate) fn of(&self, worker: usize) -> MutexGuard<'_, Tally> {
        let shard = &self.0[worker % self.0.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests were answered well so far.
    pub(crate) fn requests(&self) -> u64 {
        (0..self.0.len()).map(|shard| self.of(shard).requests).sum()
    }

    /// All of them together.
    pub(crate) fn sum(&self) -> Tally {
        let mut sum = self.of(0).clone();
        (1..self.0.len()).for_each(|shard| sum.add(&self.of(shard)));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pace::Schedule;

    /// A server that answers in 1 ms stands still for a second. A client that measures each request
    /// from when it sends sees one slow request of a thousand; those that were due meanwhile waited
    /// as well.
    #[test]
    fn what_waits_is_not_omitted() {
        let ms = Duration::from_millis;
        let schedule = Schedule::new(100.0, 0, 1);
        let tallies = Tallies::new().unwrap();
        let mut free = Duration::ZERO;
        for number in 0..1_000 {
            let due = schedule.due(number);
            let sent = due.max(free);
            let takes = if number == 500 { ms(1_000) } else { ms(1) };
            free = sent + takes;
            let times = Times {
                due,
                sent,
                done: free,
            };
            tallies.of(number as usize).done(times, 1);
        }
        let sum = tallies.sum();
        let at = |histogram: &Histogram<u64>, percent| histogram.value_at_percentile(percent);
        assert_eq!((sum.requests, sum.latency.len()), (1_000, 1_000));
        assert_eq!(at(&sum.service, 99.0), 1_000);
        assert!(
            at(&sum.latency, 99.0) > 900_000,
            "{}",
            at(&sum.latency, 99.0)
        );
        assert_eq!(at(&sum.latency, 50.0), 1_000);
        let max = sum.latency.max();
        assert!((1_000_000..1_001_000).contains(&max), "{max}");
    }

    #[test]
    fn what_was_never_sent_counts_as_slow() {
        let tallies = Tallies::new().unwrap();
        tallies.of(3).not_sent(Duration::from_secs(2));
        tallies.of(4).not_sent(Duration::from_secs(9_999));
        let sum = tallies.sum();
        assert_eq!((sum.requests, sum.not_sent, sum.latency.len()), (0, 2, 2));
        assert!(sum.latency.min() >= 1_999_000);
        assert_eq!(sum.service.len(), 0);
    }
}
