//! Rate limits. Every attempt counts, whether it succeeds or not.
//!
//! A token cannot be guessed at any rate. The limits bound the work: a token attempt is a
//! transaction, a renewal a row that stays. One address alone cannot use up the attempts of a name.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use lizmon_mtls::limits::network_of;
use lizmon_protocol::name::{NodeName, SpiffeId};

/// A burst of attempts, and one more after each `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once.
    pub burst: NonZeroU32,
    /// Then one in each period.
    pub every: Duration,
}

/// The rate limits, each with its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimits {
    /// Joins from one address. A whole site may be behind one NAT.
    pub joins_per_address: Rate,
    /// Joins as one name.
    pub joins_per_name: Rate,
    /// Renewals of one holder. A renewal is due every few days.
    pub renewals_per_holder: Rate,
}

impl Default for RateLimits {
    fn default() -> Self {
        let rate = |burst: u32, every: Duration| Rate {
            burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
            every,
        };
        Self {
            joins_per_address: rate(100, Duration::from_millis(100)),
            joins_per_name: rate(200, Duration::from_millis(50)),
            renewals_per_holder: rate(30, Duration::from_secs(10)),
        }
    }
}

/// Keys of one kind that are tracked at once. Keys with their full burst are removed first.
const KEYS_MAX: usize = 100_000;

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, MonotonicClock>;

struct KeyedLimiter<K: Hash + Eq + Clone>(Limiter<K>);

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    fn new(rate: Rate) -> Self {
        let every = rate.every.max(Duration::from_nanos(1));
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let store = HashMapStateStore::default();
        Self(RateLimiter::new(
            quota.allow_burst(rate.burst),
            store,
            MonotonicClock,
        ))
    }

    fn take(&self, key: &K) -> Result<(), Duration> {
        if self.0.len() >= KEYS_MAX {
            self.0.retain_recent();
            if self.0.len() >= KEYS_MAX {
                return Err(Duration::from_secs(60));
            }
        }
        self.0
            .check_key(key)
            .map_err(|early| early.wait_time_from(MonotonicClock.now()))
    }

    fn remove_idle(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}

/// Counts the attempts.
pub(super) struct RateLimiters {
    addresses: KeyedLimiter<IpAddr>,
    names: KeyedLimiter<NodeName>,
    holders: KeyedLimiter<SpiffeId>,
}

impl RateLimiters {
    pub(super) fn new(limits: &RateLimits) -> Self {
        Self {
            addresses: KeyedLimiter::new(limits.joins_per_address),
            names: KeyedLimiter::new(limits.joins_per_name),
            holders: KeyedLimiter::new(limits.renewals_per_holder),
        }
    }

    /// Counts an attempt of an address. The error says how long to wait.
    pub(super) fn join_from(&self, address: IpAddr) -> Result<(), Duration> {
        self.addresses.take(&network_of(address))
    }

    /// Counts an attempt as a name.
    pub(super) fn join_as(&self, name: &NodeName) -> Result<(), Duration> {
        self.names.take(name)
    }

    /// Counts a renewal.
    pub(super) fn renew_as(&self, holder: &SpiffeId) -> Result<(), Duration> {
        self.holders.take(holder)
    }

    pub(super) fn remove_idle(&self) {
        self.addresses.remove_idle();
        self.names.remove_idle();
        self.holders.remove_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_burst() {
        let limits = RateLimits {
            joins_per_name: Rate {
                burst: NonZeroU32::new(3).unwrap(),
                every: Duration::from_secs(3600),
            },
            ..RateLimits::default()
        };
        let rates = RateLimiters::new(&limits);
        for name in ["web1", "db1"] {
            let name = name.parse().unwrap();
            for _ in 0..3 {
                assert!(rates.join_as(&name).is_ok());
            }
            let wait = rates.join_as(&name).unwrap_err();
            assert!(wait.as_secs() >= 3500, "{wait:?}");
        }
        rates.remove_idle();
        assert!(rates.join_as(&"web1".parse().unwrap()).is_err());
        assert!(rates.join_as(&"Web1".parse().unwrap()).is_ok());
    }

    /// A flood from one address does not lock out a name for the others.
    #[test]
    fn a_name_refills_faster_than_an_address_can_use_it_up() {
        let limits = RateLimits::default();
        assert!(limits.joins_per_name.every < limits.joins_per_address.every);
        assert!(limits.joins_per_name.burst > limits.joins_per_address.burst);
    }
}
