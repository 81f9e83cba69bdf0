//! What one address and one certificate may take up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
    room: Arc<Semaphore>,
}

impl Pace {
    fn new(per_second_max: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second_max);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, MonotonicClock),
            room: Arc::new(Semaphore::new(BODIES_KIB_PER_CERTIFICATE_MAX)),
        }
    }

    /// Counts one request, or says how long to wait before the next.
    pub fn take(&self) -> Result<(), Duration> {
        self.limiter
            .check()
            .map_err(|early| early.wait_time_from(MonotonicClock.now()))
    }

    /// The room for its bodies, in KiB.
    pub fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }
}

/// The paces of all connected certificates. An entry lives as long as a connection holds it, so there are never more
/// than connections.
#[derive(Debug)]
pub(crate) struct Paces {
    by_thumbprint: Mutex<HashMap<[u8; 32], Weak<Pace>>>,
}

impl Paces {
    pub(crate) fn new() -> Self {
        Self {
            by_thumbprint: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, thumbprint: [u8; 32], per_second_max: NonZeroU32) -> Arc<Pace> {
        let mut paces = self
            .by_thumbprint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = paces.get(&thumbprint).and_then(Weak::upgrade) {
            return pace;
        }
        if paces.len() == paces.capacity() {
            paces.retain(|_, pace| pace.strong_count() > 0);
        }
        let pace = Arc::new(Pace::new(per_second_max));
        paces.insert(thumbprint, Arc::downgrade(&pace));
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
    fn a_pace_is_shared_and_forgotten() {
        let paces = Paces::new();
        let five = NonZeroU32::new(5).unwrap();
        let one = paces.of([1; 32], five);
        let same = paces.of([1; 32], five);
        let taken = (0..5)
            .filter(|at| if at % 2 == 0 { one.take() } else { same.take() }.is_ok())
            .count();
        assert_eq!(taken, 5);
        let wait = one.take().unwrap_err();
        assert!(wait <= Duration::from_millis(200), "{wait:?}");
        drop((one, same));
        for at in 0..100_u8 {
            paces.of([at; 32], five);
        }
        assert!(paces.by_thumbprint.lock().unwrap().len() < 50);
    }
}
