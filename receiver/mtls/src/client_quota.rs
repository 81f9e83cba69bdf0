//! Limits for one holder: request rate, record rate, memory for bodies, connections.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use lizmon_protocol::name::SpiffeId;
use tokio::sync::Semaphore;

use crate::limits::{Limits, RECORDS_AT_ONCE_MAX};

type Limiter =
    RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// Memory limit for all small bodies of one holder: an eighth of the total limit.
pub const SMALL_KIB_PER_HOLDER_MAX: usize = 4 << 10;
/// Memory limit for all large bodies of one holder.
pub const LARGE_KIB_PER_HOLDER_MAX: usize = 32 << 10;

/// The maximum number of concurrent streamed responses for one holder.
pub const SCRAPES_PER_HOLDER_MAX: usize = 2;

/// The maximum number of event streams for one holder: some windows of a browser, on some machines.
pub const EVENT_STREAMS_PER_HOLDER_MAX: usize = 32;

/// Memory for bodies, in KiB. Small bodies have a separate budget, so they never wait for large
/// ones.
#[derive(Debug)]
pub struct BodyMemoryBudgets {
    /// Budget for small bodies.
    pub small: Arc<Semaphore>,
    /// Budget for large bodies.
    pub large: Arc<Semaphore>,
}

impl BodyMemoryBudgets {
    /// Creates budgets of the given sizes in KiB.
    pub fn new(small_kib: usize, large_kib: usize) -> Self {
        Self {
            small: Arc::new(Semaphore::new(small_kib)),
            large: Arc::new(Semaphore::new(large_kib)),
        }
    }

    /// The limits for one holder.
    pub fn of_holder() -> Self {
        Self::new(SMALL_KIB_PER_HOLDER_MAX, LARGE_KIB_PER_HOLDER_MAX)
    }
}

/// What was granted since it was asked for last.
#[derive(Debug, Default)]
pub(crate) struct CountedUse {
    pub(crate) requests: AtomicU32,
    pub(crate) records: AtomicU32,
}

/// The quota of one holder, shared by all connections with any of its certificates. The key is the
/// SPIFFE ID, because one holder may have many certificates.
#[derive(Debug)]
pub struct ClientQuota {
    requests: Limiter,
    records: Limiter,
    opened: std::time::Instant,
    /// When the quota was last used, in milliseconds after `opened`.
    last_asked: AtomicU64,
    /// Until when records are rejected without a check, in milliseconds after `opened`.
    records_wait_until: AtomicU64,
    /// After this time without use, the limiters are back in their initial state.
    replenished_millis: u64,
    budgets: BodyMemoryBudgets,
    scrapes: Arc<Semaphore>,
    event_streams: Arc<Semaphore>,
    connections: AtomicUsize,
    in_work: AtomicU32,
    pub(crate) counted: CountedUse,
}

impl ClientQuota {
    /// Creates an unused quota.
    pub fn new(limits: &Limits) -> Self {
        let per_second = limits.records_per_second_max;
        let records = Quota::per_second(per_second)
            .allow_burst(RECORDS_AT_ONCE_MAX.max(per_second.saturating_mul(TWO)));
        let requests = Quota::per_second(limits.requests_per_second_max);
        let replenished = requests
            .burst_size_replenished_in()
            .max(records.burst_size_replenished_in());
        Self {
            requests: RateLimiter::direct_with_clock(requests, MonotonicClock),
            records: RateLimiter::direct_with_clock(records, MonotonicClock),
            opened: MonotonicClock.now(),
            last_asked: AtomicU64::new(0),
            records_wait_until: AtomicU64::new(0),
            replenished_millis: millis(replenished).saturating_add(REPLENISHED_MILLIS_EXTRA),
            budgets: BodyMemoryBudgets::of_holder(),
            scrapes: Arc::new(Semaphore::new(SCRAPES_PER_HOLDER_MAX)),
            event_streams: Arc::new(Semaphore::new(EVENT_STREAMS_PER_HOLDER_MAX)),
            connections: AtomicUsize::new(0),
            in_work: AtomicU32::new(0),
            counted: CountedUse::default(),
        }
    }

    /// Counts one request, or returns how long to wait before the next one.
    pub fn take(&self) -> Result<(), Duration> {
        self.last_asked.store(self.age_millis(), Ordering::Relaxed);
        self.requests
            .check()
            .map_err(|early| early.wait_time_from(MonotonicClock.now()))?;
        self.counted.requests.fetch_add(1, Ordering::Relaxed);
        tracing::trace!("pace checked");
        Ok(())
    }

    /// Checks whether records may be sent now, or returns how long to wait. A client that does not
    /// wait is rejected here, before its body is processed.
    pub fn may_send_records(&self) -> Result<(), Duration> {
        let until = self.records_wait_until.load(Ordering::Relaxed);
        match until.saturating_sub(self.age_millis()) {
            0 => Ok(()),
            left => Err(Duration::from_millis(left)),
        }
    }

    /// Counts the records of one request. If they exceed the limit, counts none and returns how
    /// long to wait.
    pub fn take_records(&self, records: u32) -> Result<(), Duration> {
        // No request contains more records than that.
        let records = records.min(RECORDS_AT_ONCE_MAX.get());
        let Some(Ok(Err(early))) = NonZeroU32::new(records).map(|n| self.records.check_n(n)) else {
            self.counted.records.fetch_add(records, Ordering::Relaxed);
            tracing::trace!(records, "records counted");
            return Ok(());
        };
        let wait = early.wait_time_from(MonotonicClock.now());
        let until = self.age_millis().saturating_add(millis(wait));
        self.records_wait_until.store(until, Ordering::Relaxed);
        Err(wait)
    }

    /// Counts what the holder was granted elsewhere, as far as there is something left.
    pub(crate) fn charge_elsewhere(&self, requests: u32, records: u32) {
        charge(&self.requests, requests);
        charge(&self.records, records);
    }

    fn age_millis(&self) -> u64 {
        millis(MonotonicClock.now().saturating_duration_since(self.opened))
    }

    /// Whether the quota equals a new one: everything that was taken has been returned.
    fn is_replenished(&self) -> bool {
        let last_asked = self.last_asked.load(Ordering::Relaxed);
        self.age_millis() > last_asked.saturating_add(self.replenished_millis)
    }

    /// Counts rejected work as the number of records with the same cost. Clients that send invalid
    /// data are limited like those that send valid data.
    pub fn charge_refused(&self, bytes: usize) {
        let records = u32::try_from(bytes / REFUSED_BYTES_PER_RECORD).unwrap_or(u32::MAX);
        // The next request returns how long to wait.
        let _ = self.take_records(records.saturating_add(1));
    }

    /// The number of its connections.
    pub(crate) fn connections(&self) -> &AtomicUsize {
        &self.connections
    }

    /// The number of its requests in progress, including this one.
    pub(crate) fn in_work(&self) -> u32 {
        self.in_work.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_work(&self) {
        self.in_work.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_work(&self) {
        self.in_work.fetch_sub(1, Ordering::Relaxed);
    }

    /// Its permits for streamed responses.
    pub fn scrapes(&self) -> &Arc<Semaphore> {
        &self.scrapes
    }

    /// Its permits for event streams.
    pub fn event_streams(&self) -> &Arc<Semaphore> {
        &self.event_streams
    }

    /// Its memory budget for bodies.
    pub fn body_memory(&self) -> &BodyMemoryBudgets {
        &self.budgets
    }
}

/// Takes as many as there are, up to `wanted`.
fn charge(limiter: &Limiter, wanted: u32) {
    let (mut left, mut step) = (wanted, wanted);
    while let Some(some) = NonZeroU32::new(step) {
        match limiter.check_n(some) {
            Ok(Ok(())) => {
                left -= step;
                step = step.min(left);
            }
            _ => step /= 2,
        }
    }
}

/// Decompressing or reading this many bytes costs about as much as one record.
const REFUSED_BYTES_PER_RECORD: usize = 32;

const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How much longer a quota is kept than its limiters need: milliseconds.
const REPLENISHED_MILLIS_EXTRA: u64 = 100;
/// The minimum number of quotas before a cleanup is worthwhile.
const QUOTAS_MIN: usize = 64;

/// The quotas of all holders that are connected or were connected recently. A reconnect does not
/// reset a quota.
#[derive(Debug)]
pub(crate) struct ClientQuotas {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    by_holder: HashMap<SpiffeId, Arc<ClientQuota>>,
    /// The number of quotas that triggers a cleanup: twice the number that remained after the last
    /// one.
    sweep_at: usize,
}

impl ClientQuotas {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::new(Kept {
                by_holder: HashMap::new(),
                sweep_at: QUOTAS_MIN,
            }),
        }
    }

    pub(crate) fn of(&self, holder: &SpiffeId, limits: &Limits) -> Arc<ClientQuota> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = kept.by_holder.get(holder) {
            return quota.clone();
        }
        if kept.by_holder.len() >= kept.sweep_at {
            kept.by_holder
                .retain(|_, quota| Arc::strong_count(quota) > 1 || !quota.is_replenished());
            kept.sweep_at = QUOTAS_MIN.max(2 * kept.by_holder.len());
        }
        let quota = Arc::new(ClientQuota::new(limits));
        kept.by_holder.insert(holder.clone(), quota.clone());
        quota
    }
}

impl ClientQuotas {
    /// Calls `each` with every holder's quota.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&SpiffeId, &ClientQuota)) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_holder
            .iter()
            .for_each(|(holder, quota)| each(holder, quota));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u16) -> SpiffeId {
        format!("spiffe://lizmon/node/n{number}")
            .try_into()
            .unwrap()
    }

    fn per_second(requests: u32, records: u32) -> Limits {
        Limits {
            requests_per_second_max: NonZeroU32::new(requests).unwrap(),
            records_per_second_max: NonZeroU32::new(records).unwrap(),
            ..Limits::default()
        }
    }

    #[test]
    fn a_pace_is_shared_and_outlives_its_connections_for_a_moment() {
        let quotas = ClientQuotas::new();
        let five = &per_second(5, 1);
        let (one, same) = (quotas.of(&node(1), five), quotas.of(&node(1), five));
        let taken = (0..5).filter(|at| if at % 2 == 0 { one.take() } else { same.take() }.is_ok());
        assert_eq!(taken.count(), 5);
        let wait = one.take().unwrap_err();
        assert!(wait <= Duration::from_millis(200), "{wait:?}");
        drop((one, same));
        assert!(
            quotas.of(&node(1), five).take().is_err(),
            "a new connection does not reset the quota"
        );
        quotas.of(&node(2), five).take().unwrap();
    }

    #[test]
    fn refused_work_is_paced() {
        for (bytes, times, is_refused) in
            [(0, 1_000, false), (8 << 20, 3, false), (8 << 20, 4, true)]
        {
            let quota = ClientQuota::new(&per_second(1, 1));
            (0..times).for_each(|_| quota.charge_refused(bytes));
            assert_eq!(
                quota.may_send_records().is_err(),
                is_refused,
                "{bytes} {times}"
            );
        }
    }

    /// One record per second, so that nothing is refilled while the test runs.
    #[test]
    fn records_at_and_over_the_limit() {
        let at_once = RECORDS_AT_ONCE_MAX.get();
        let cases: &[(&str, &[u32], Option<u64>)] = &[
            ("none", &[0, 0], None),
            ("at the limit, one by one", &[at_once - 2, 1, 1], None),
            ("at the limit", &[at_once], None),
            ("more than any request has", &[u32::MAX], None),
            ("none, beyond the limit", &[at_once, 0], None),
            ("one over", &[at_once, 1], Some(1)),
            ("ten over", &[at_once - 10, 20], Some(10)),
            (
                "what is refused is not counted",
                &[at_once - 1, 5, 1],
                Some(4),
            ),
        ];
        for (story, sent, wait_secs) in cases {
            let quota = ClientQuota::new(&per_second(1, 1));
            quota.may_send_records().unwrap();
            let waits: Vec<_> = sent
                .iter()
                .filter_map(|records| quota.take_records(*records).err())
                .collect();
            let near = |wait: &Duration, secs: u64| {
                wait.abs_diff(Duration::from_secs(secs)) < Duration::from_millis(900)
            };
            match (&waits[..], wait_secs) {
                ([], None) => quota.may_send_records().unwrap(),
                ([wait], Some(secs)) => {
                    assert!(near(wait, *secs), "{story}: {wait:?}");
                    let still = quota.may_send_records().unwrap_err();
                    assert!(near(&still, *secs), "{story}: {still:?}");
                }
                (waits, _) => panic!("{story}: {waits:?}"),
            }
        }
    }

    #[test]
    fn records_come_back_with_time_and_more_of_them_where_the_pace_is_faster() {
        let mut quota = ClientQuota::new(&per_second(1, 600_000));
        quota.take_records(600_000).unwrap();
        quota.take_records(600_000).unwrap();
        let wait = quota.take_records(600_000).unwrap_err();
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1));
        quota.may_send_records().unwrap_err();
        quota.opened -= Duration::from_secs(1);
        quota.may_send_records().unwrap();
    }

    /// Makes every unused quota look as if it was last used this long ago.
    fn make_all_older(quotas: &ClientQuotas, secs: u64) {
        let mut kept = quotas.kept.lock().unwrap();
        for quota in kept.by_holder.values_mut().filter_map(Arc::get_mut) {
            quota.opened -= Duration::from_secs(secs);
        }
    }

    #[test]
    fn unused_quotas_are_dropped() {
        // Two seconds refill all records of the first quota, and almost none of the second.
        for (records, are_kept) in [(100_000, false), (1, true)] {
            let quotas = ClientQuotas::new();
            let limits = &per_second(5, records);
            let connected = quotas.of(&node(65_535), limits);
            for at in 0..1000_u16 {
                quotas.of(&node(at), limits);
                make_all_older(&quotas, 3);
            }
            let kept = quotas.kept.lock().unwrap().by_holder.len();
            assert_eq!(kept > 2 * QUOTAS_MIN, are_kept, "{kept}");
            assert!(Arc::ptr_eq(&connected, &quotas.of(&node(65_535), limits)));
        }
    }
}
