//! Connection limits per address, per holder, and in total.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client_quota::ClientQuota;
use crate::limits::{Limits, network_of};

/// Why there is no slot for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoConnectionSlot {
    #[error("the address has {0} connections already")]
    OfAddress(usize),
    #[error(
        "it made room for another: too many connections are in the TLS handshake, or have no certificate"
    )]
    Evicted,
    #[error("its holder has {0} connections already")]
    OfHolder(usize),
    #[error(
        "{0} connections with a certificate are open: as many as the files that may be open allow \
         (`ulimit -n`; systemd: LimitNOFILE=), raise that"
    )]
    OfAll(usize),
}

impl From<NoConnectionSlot> for io::Error {
    fn from(why: NoConnectionSlot) -> Self {
        Self::new(io::ErrorKind::QuotaExceeded, why)
    }
}

/// Counts the open connections of each network. Keeps an entry only while the network has open
/// connections.
#[derive(Debug, Default)]
pub(crate) struct AddressSlots {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The slot of one connection. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct AddressSlot {
    addresses: Arc<AddressSlots>,
    address: IpAddr,
}

impl AddressSlots {
    /// Takes a slot for a connection from this address, if its network has fewer than `max`.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<AddressSlot> {
        let address = network_of(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressSlot {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for AddressSlot {
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

/// The slot of one connection of a holder. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct ClientSlot {
    holder: Arc<ClientQuota>,
    all: Arc<AtomicUsize>,
}

impl ClientSlot {
    /// Takes a slot for a connection of this holder.
    pub(crate) fn take(
        holder: &Arc<ClientQuota>,
        all: &Arc<AtomicUsize>,
        limits: &Limits,
    ) -> Result<Self, NoConnectionSlot> {
        let (own_max, all_max) = (limits.connections_per_holder_max, limits.connections_max);
        if !count_below(holder.connections(), own_max) {
            return Err(NoConnectionSlot::OfHolder(own_max));
        }
        if !count_below(all, all_max) {
            holder.connections().fetch_sub(1, Ordering::Relaxed);
            return Err(NoConnectionSlot::OfAll(all_max));
        }
        Ok(Self {
            holder: holder.clone(),
            all: all.clone(),
        })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.holder.connections().fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Increments the counter if it is below `max`.
fn count_below(count: &AtomicUsize, max: usize) -> bool {
    let more = |count: usize| (count < max).then_some(count + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places() {
        let addresses = Arc::new(AddressSlots::default());
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
        let addresses = Arc::new(AddressSlots::default());
        for (address, network) in cases {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(network_of(address).to_string(), network);
            let _place = addresses.take(address, 1).unwrap();
            assert!(addresses.take(network.parse().unwrap(), 1).is_none());
        }
    }

    #[test]
    fn a_holder_has_so_many_places_and_all_have() {
        let limits = Limits {
            connections_per_holder_max: 2,
            connections_max: 3,
            ..Limits::default()
        };
        let all = Arc::default();
        let [a, b] = [(); 2].map(|()| Arc::new(ClientQuota::new(&limits)));
        let held = [(); 2].map(|()| ClientSlot::take(&a, &all, &limits).unwrap());
        let refused = ClientSlot::take(&a, &all, &limits).unwrap_err();
        assert_eq!(refused, NoConnectionSlot::OfHolder(2));
        let _of_b = ClientSlot::take(&b, &all, &limits).unwrap();
        let refused = ClientSlot::take(&b, &all, &limits).unwrap_err();
        assert_eq!(refused, NoConnectionSlot::OfAll(3));
        drop(held);
        let _more = ClientSlot::take(&b, &all, &limits).unwrap();
        let refused = ClientSlot::take(&b, &all, &limits).unwrap_err();
        assert_eq!(
            refused,
            NoConnectionSlot::OfHolder(2),
            "and nothing was lost of it"
        );
    }
}
