//! What one address and one holder may take up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use lizmon_protocol::name::SpiffeId;
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
    /// How many requests one holder may send in a second, over all its connections.
    pub requests_per_second_max: NonZeroU32,
    /// How many records one holder may send in a second; [`RECORDS_AT_ONCE_MAX`] or two seconds' worth at once.
    pub records_per_second_max: NonZeroU32,
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
/// Five hundred times what a monitor sends that delivers a day's backlog, and half of what one core counts.
pub const RECORDS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(500_000).unwrap();
/// More than the largest request there is, so that each passes some time, however slow the pace; and more than two days'
/// records, a second each, of twenty values.
pub const RECORDS_AT_ONCE_MAX: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            first_request_timeout: FIRST_REQUEST_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            requests_per_second_max: REQUESTS_PER_SECOND_MAX,
            records_per_second_max: RECORDS_PER_SECOND_MAX,
        }
    }
}

/// What is limited by address: an IPv4 address, or an IPv6 network of 64 bits, for who has one such address has them all
/// (RFC 6177 section 2, RFC 7421). An IPv4 address mapped into IPv6 is that IPv4 address.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts the open connections of each network. Holds an entry for as long as the network holds a connection.
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
    /// A place for one more connection of this address, if its network has fewer than `max`.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Place> {
        let address = network_of(address);
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

/// What small bodies of one holder may take up in memory together: an eighth of what all may.
pub const SMALL_KIB_PER_HOLDER_MAX: usize = 4 << 10;
/// The same for large ones.
pub const LARGE_KIB_PER_HOLDER_MAX: usize = 32 << 10;

/// How many long answers that are sent while they are written one holder may be given at a time.
pub const SCRAPES_PER_HOLDER_MAX: usize = 2;

/// Room for bodies in memory, in KiB. Small ones have room of their own, where nobody ever waits behind a large one.
#[derive(Debug)]
pub struct BodyRooms {
    /// For small bodies.
    pub small: Arc<Semaphore>,
    /// For large ones.
    pub large: Arc<Semaphore>,
}

impl BodyRooms {
    /// Rooms of so many KiB.
    pub fn new(small_kib: usize, large_kib: usize) -> Self {
        Self {
            small: Arc::new(Semaphore::new(small_kib)),
            large: Arc::new(Semaphore::new(large_kib)),
        }
    }

    /// What one holder may take up.
    pub fn of_holder() -> Self {
        Self::new(SMALL_KIB_PER_HOLDER_MAX, LARGE_KIB_PER_HOLDER_MAX)
    }
}

/// What one holder may take up, shared by all connections with any of its certificates: by SPIFFE ID, for one holder may
/// have many certificates.
#[derive(Debug)]
pub struct Pace {
    requests: Limiter,
    records: Limiter,
    opened: std::time::Instant,
    /// When it was last asked, in milliseconds after `opened`.
    last_asked: AtomicU64,
    /// Until when its records need not be looked at, in milliseconds after `opened`.
    records_wait_until: AtomicU64,
    /// After so long without a question the limiters have forgotten everything.
    rested_millis: u64,
    rooms: BodyRooms,
    scrapes: Arc<Semaphore>,
}

impl Pace {
    /// A pace of a holder who has taken nothing yet.
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
            rested_millis: millis(replenished).saturating_add(RESTED_MILLIS_MORE),
            rooms: BodyRooms::of_holder(),
            scrapes: Arc::new(Semaphore::new(SCRAPES_PER_HOLDER_MAX)),
        }
    }

    /// Counts one request, or says how long to wait before the next.
    pub fn take(&self) -> Result<(), Duration> {
        self.last_asked.store(self.age_millis(), Ordering::Relaxed);
        self.requests
            .check()
            .map_err(|early| early.wait_time_from(MonotonicClock.now()))
    }

    /// Whether records may be sent now, or how long to wait. Whoever was told to wait and does not is refused here,
    /// before there is work with what it sends.
    pub fn may_send_records(&self) -> Result<(), Duration> {
        let until = self.records_wait_until.load(Ordering::Relaxed);
        match until.saturating_sub(self.age_millis()) {
            0 => Ok(()),
            left => Err(Duration::from_millis(left)),
        }
    }

    /// Counts the records of one request, or none of them and says how long to wait with them.
    pub fn take_records(&self, records: u32) -> Result<(), Duration> {
        // No request has more than that.
        let records = records.min(RECORDS_AT_ONCE_MAX.get());
        let Some(Ok(Err(early))) = NonZeroU32::new(records).map(|n| self.records.check_n(n)) else {
            return Ok(());
        };
        let wait = early.wait_time_from(MonotonicClock.now());
        let until = self.age_millis().saturating_add(millis(wait));
        self.records_wait_until.store(until, Ordering::Relaxed);
        Err(wait)
    }

    fn age_millis(&self) -> u64 {
        millis(MonotonicClock.now().saturating_duration_since(self.opened))
    }

    /// Whether it would be the same if it were made anew: all that was taken has been given back.
    fn is_rested(&self) -> bool {
        let last_asked = self.last_asked.load(Ordering::Relaxed);
        self.age_millis() > last_asked.saturating_add(self.rested_millis)
    }

    /// Counts work that came to nothing as the records that it cost as much as: whoever sends what is refused is paced like
    /// whoever sends what is taken.
    pub fn charge_refused(&self, bytes: usize) {
        let records = u32::try_from(bytes / REFUSED_BYTES_PER_RECORD).unwrap_or(u32::MAX);
        // How long to wait is what the next request is told.
        let _ = self.take_records(records.saturating_add(1));
    }

    /// Its turns at what takes long to send.
    pub fn scrapes(&self) -> &Arc<Semaphore> {
        &self.scrapes
    }

    /// The room for its bodies.
    pub fn rooms(&self) -> &BodyRooms {
        &self.rooms
    }
}

/// So many bytes unpacked or looked at cost about what a record does.
const REFUSED_BYTES_PER_RECORD: usize = 32;

const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How much longer than its limiters need a pace is kept: milliseconds.
const RESTED_MILLIS_MORE: u64 = 100;
/// How many paces there must be before it is worth to look for rested ones.
const PACES_MIN: usize = 64;

/// The paces of all holders that are connected, or were a moment ago: whoever connects anew does not begin anew.
#[derive(Debug)]
pub(crate) struct Paces {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    by_holder: HashMap<SpiffeId, Arc<Pace>>,
    /// How many there may be before those nobody needs are thrown away: twice as many as were needed the last time.
    sweep_at: usize,
}

impl Paces {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::new(Kept {
                by_holder: HashMap::new(),
                sweep_at: PACES_MIN,
            }),
        }
    }

    pub(crate) fn of(&self, holder: &SpiffeId, limits: &Limits) -> Arc<Pace> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = kept.by_holder.get(holder) {
            return pace.clone();
        }
        if kept.by_holder.len() >= kept.sweep_at {
            kept.by_holder
                .retain(|_, pace| Arc::strong_count(pace) > 1 || !pace.is_rested());
            kept.sweep_at = PACES_MIN.max(2 * kept.by_holder.len());
        }
        let pace = Arc::new(Pace::new(limits));
        kept.by_holder.insert(holder.clone(), pace.clone());
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
    fn addresses_of_one_network_share_its_places() {
        let cases = [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::1", "::"),
        ];
        let addresses = Arc::new(Addresses::default());
        for (address, network) in cases {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(network_of(address).to_string(), network);
            let _place = addresses.take(address, 1).unwrap();
            assert!(addresses.take(network.parse().unwrap(), 1).is_none());
        }
    }

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
        let paces = Paces::new();
        let five = &per_second(5, 1);
        let (one, same) = (paces.of(&node(1), five), paces.of(&node(1), five));
        let taken = (0..5).filter(|at| if at % 2 == 0 { one.take() } else { same.take() }.is_ok());
        assert_eq!(taken.count(), 5);
        let wait = one.take().unwrap_err();
        assert!(wait <= Duration::from_millis(200), "{wait:?}");
        drop((one, same));
        assert!(
            paces.of(&node(1), five).take().is_err(),
            "connecting anew gives nothing back"
        );
        paces.of(&node(2), five).take().unwrap();
    }

    #[test]
    fn refused_work_is_paced() {
        for (bytes, times, is_refused) in
            [(0, 1_000, false), (8 << 20, 3, false), (8 << 20, 4, true)]
        {
            let pace = Pace::new(&per_second(1, 1));
            (0..times).for_each(|_| pace.charge_refused(bytes));
            assert_eq!(
                pace.may_send_records().is_err(),
                is_refused,
                "{bytes} {times}"
            );
        }
    }

    /// One record a second, so that nothing comes back while the test runs.
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
            let pace = Pace::new(&per_second(1, 1));
            pace.may_send_records().unwrap();
            let waits: Vec<_> = sent
                .iter()
                .filter_map(|records| pace.take_records(*records).err())
                .collect();
            let near = |wait: &Duration, secs: u64| {
                wait.abs_diff(Duration::from_secs(secs)) < Duration::from_millis(900)
            };
            match (&waits[..], wait_secs) {
                ([], None) => pace.may_send_records().unwrap(),
                ([wait], Some(secs)) => {
                    assert!(near(wait, *secs), "{story}: {wait:?}");
                    let still = pace.may_send_records().unwrap_err();
                    assert!(near(&still, *secs), "{story}: {still:?}");
                }
                (waits, _) => panic!("{story}: {waits:?}"),
            }
        }
    }

    #[test]
    fn records_come_back_with_time_and_more_of_them_where_the_pace_is_faster() {
        let mut pace = Pace::new(&per_second(1, 600_000));
        pace.take_records(600_000).unwrap();
        pace.take_records(600_000).unwrap();
        let wait = pace.take_records(600_000).unwrap_err();
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1));
        pace.may_send_records().unwrap_err();
        pace.opened -= Duration::from_secs(1);
        pace.may_send_records().unwrap();
    }

    /// Makes every pace that nobody holds look as if it had last been asked so long ago.
    fn make_all_older(paces: &Paces, secs: u64) {
        let mut kept = paces.kept.lock().unwrap();
        for pace in kept.by_holder.values_mut().filter_map(Arc::get_mut) {
            pace.opened -= Duration::from_secs(secs);
        }
    }

    #[test]
    fn paces_nobody_needs_are_thrown_away() {
        // Two seconds give back every record of the one, and of the other hardly any.
        for (records, are_kept) in [(100_000, false), (1, true)] {
            let paces = Paces::new();
            let limits = &per_second(5, records);
            let connected = paces.of(&node(65_535), limits);
            for at in 0..1000_u16 {
                paces.of(&node(at), limits);
                make_all_older(&paces, 3);
            }
            let kept = paces.kept.lock().unwrap().by_holder.len();
            assert_eq!(kept > 2 * PACES_MIN, are_kept, "{kept}");
            assert!(Arc::ptr_eq(&connected, &paces.of(&node(65_535), limits)));
        }
    }
}
