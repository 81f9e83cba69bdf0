//! Free ports that nothing else is given meanwhile.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Below what Linux gives to outgoing connections, so that a server that is restarted finds its
/// port still free.
const PORTS: Range<u16> = 17_000..32_000;

/// Ports of all servers of this process: one that is down keeps its own.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// The ports of one server, until it is dropped.
#[derive(Debug)]
pub(crate) struct NodePorts {
    pub(crate) port: u16,
    /// That of the Cluster's bus.
    pub(crate) bus_port: u16,
}

impl NodePorts {
    /// Another process may take them before they are used.
    pub(crate) fn take(address: IpAddr) -> Self {
        Self {
            port: take_one(address),
            bus_port: take_one(address),
        }
    }
}

impl Drop for NodePorts {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.port);
        taken.remove(&self.bus_port);
    }
}

fn take_one(address: IpAddr) -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = fastrand::u16(PORTS);
        // The address may be another network namespace's: then only the server itself can tell.
        let is_used = TcpListener::bind((address, port))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
        if !is_used && taken.insert(port) {
            return port;
        }
    }
}
