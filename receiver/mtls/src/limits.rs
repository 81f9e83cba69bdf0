//! What one address and one certificate may take up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Semaphore;

/// The limits of the front door, each with its default.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the first request's head may take after the handshake.
    pub first_request_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How many connections one address may hold.
    pub connections_per_address_max: usize,
    /// How many requests one certificate may send in a second, over all its connections.
    pub requests_per_second_max: NonZeroU32,
}

/// Longer than any honest handshake over a bad link, short enough that slow ones cannot pile up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for the first request's head.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A monitor that sends once a minute keeps its connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A site's whole fleet may stand behind one address translation.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 20_000;
/// Far beyond any monitor, far below what would starve the others.
pub const REQUESTS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            first_request_timeout: FIRST_REQUEST_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            requests_per_second_max: REQUESTS_PER_SECOND_MAX,
        }
    }
}

/// Counts the open connections of each address. Holds an entry for as long as the address holds a connection.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One counted connection; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// A place for one more connection of this address, if it has fewer than `max`.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Place> {
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .addresses
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

type Limiter =
    RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// What bodies of one certificate may take up in memory together: an eighth of what all may.
pub const BODIES_KIB_PER_CERTIFICATE_MAX: usize = 32 << 10;

/// What one certificate may take up, shared by all its connections.
#[derive(Debug)]
pub struct Pace {
    limiter: Limiter,
    /// When it was last asked, in milliseconds after `opened`.
    last_asked: AtomicU64,
    opened: std::time::Instant,
    room: Arc<Semaphore>,
}

impl Pace {
    fn new(per_second_max: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second_max);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, MonotonicClock),
            last_asked: AtomicU64::new(0),
            opened: MonotonicClock.now(),
            room: Arc::new(Semaphore::new(BODIES_KIB_PER_CERTIFICATE_MAX)),
        }
    }

    /// Counts one request, or says how long to wait before the next.
    pub fn take(&self) -> Result<(), Duration> {
        self.last_asked.store(self.age_millis(), Ordering::Relaxed);
        self.limiter
            .check()
            .map_err(|early| early.wait_time_from(MonotonicClock.now()))
    }

    fn age_millis(&self) -> u64 {
        let age = MonotonicClock.now().saturating_duration_since(self.opened);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it would be the same if it were made anew: a second has given back all that was taken.
    fn is_rested(&self) -> bool {
        self.age_millis() > self.last_asked.load(Ordering::Relaxed) + RESTED_MILLIS
    }

    /// The room for its bodies, in KiB.
    pub fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }
}

/// After this a limiter that counts by the second has forgotten everything.
const RESTED_MILLIS: u64 = 1_100;
/// How many paces there must be before it is worth to look for rested ones.
const PACES_MIN: usize = 64;

/// The paces of all certificates that are connected, or were a moment ago: whoever connects anew does not begin anew.
#[derive(Debug)]
pub(crate) struct Paces {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    by_thumbprint: HashMap<[u8; 32], Arc<Pace>>,
    /// How many there may be before those nobody needs are thrown away: twice as many as were needed the last time.
    sweep_at: usize,
}

impl Paces {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::new(Kept {
                by_thumbprint: HashMap::new(),
                sweep_at: PACES_MIN,
            }),
        }
    }

    pub(crate) fn of(&self, thumbprint: [u8; 32], per_second_max: NonZeroU32) -> Arc<Pace> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = kept.by_thumbprint.get(&thumbprint) {
            return pace.clone();
        }
        if kept.by_thumbprint.len() >= kept.sweep_at {
            kept.by_thumbprint
                .retain(|_, pace| Arc::strong_count(pace) > 1 || !pace.is_rested());
            kept.sweep_at = PACES_MIN.max(2 * kept.by_thumbprint.len());
        }
        let pace = Arc::new(Pace::new(per_second_max));
        kept.by_thumbprint.insert(thumbprint, pace.clone());
        pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places() {
        let addresses = Arc::new(Addresses::default());
        let v4: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let first = addresses.take(v4, 2).unwrap();
        let _second = addresses.take(mapped, 2).unwrap();
        assert!(addresses.take(v4, 2).is_none());
        assert!(addresses.take("127.0.0.2".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(addresses.take(v4, 2).is_some());
        assert_eq!(addresses.open.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_pace_is_shared_and_outlives_its_connections_for_a_moment() {
        let paces = Paces::new();
        let five = NonZeroU32::new(5).unwrap();
        let (one, same) = (paces.of([1; 32], five), paces.of([1; 32], five));
        let taken = (0..5).filter(|at| if at % 2 == 0 { one.take() } else { same.take() }.is_ok());
        assert_eq!(taken.count(), 5);
        let wait = one.take().unwrap_err();
        assert!(wait <= Duration::from_millis(200), "{wait:?}");
        drop((one, same));
        assert!(
            paces.of([1; 32], five).take().is_err(),
            "connecting anew gives nothing back"
        );
        paces.of([2; 32], five).take().unwrap();
    }

    /// Makes every pace that nobody holds look as if it had last been asked two seconds ago.
    fn make_all_rested(paces: &Paces) {
        let mut kept = paces.kept.lock().unwrap();
        for pace in kept.by_thumbprint.values_mut().filter_map(Arc::get_mut) {
            pace.opened -= Duration::from_secs(2);
        }
    }

    #[test]
    fn paces_nobody_needs_are_thrown_away() {
        let paces = Paces::new();
        let five = NonZeroU32::new(5).unwrap();
        let connected = paces.of([255; 32], five);
        for at in 0..1000_u16 {
            let mut thumbprint = [0; 32];
            thumbprint[..2].copy_from_slice(&at.to_le_bytes());
            paces.of(thumbprint, five);
            make_all_rested(&paces);
        }
        assert!(paces.kept.lock().unwrap().by_thumbprint.len() <= 2 * PACES_MIN);
        assert!(Arc::ptr_eq(&connected, &paces.of([255; 32], five)));
    }
}
