//! The endpoint of the receiver of `lizctl up`: its listener, URL and SANs.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Context as _;
use lizmon_ca::pki::San;

use crate::output;

/// How many ports are tried after the requested one.
const PORTS_TRIED: u16 = 100;

/// A bound listener and its addresses.
pub(crate) struct LocalEndpoint {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    /// The URL by which this machine reaches it.
    pub(crate) url: String,
    /// The SANs that its certificate needs.
    pub(crate) sans: Vec<San>,
}

impl LocalEndpoint {
    /// Binds the requested port, or else the next free one, with a note.
    pub(crate) fn bind(wanted: SocketAddr) -> anyhow::Result<Self> {
        let listener = bind_next(wanted, lizmon_daemon::bind)
            .with_context(|| format!("cannot listen on {wanted}: choose another with --listen"))?;
        let taken = listener
            .local_addr()
            .context("cannot get the address of the listener")?;
        if wanted.port() != 0 && taken.port() != wanted.port() {
            output::note(format!("{wanted} is in use: listening on {taken}"));
        }
        Ok(Self {
            listener,
            address: taken,
            url: format!(
                "https://{}",
                SocketAddr::new(reached_by(taken.ip()), taken.port())
            ),
            sans: sans(taken.ip()),
        })
    }
}

/// The address goes into the certificate, so a name is not resolved here.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "it must be an address and a port, like 127.0.0.1:8443 or [::1]:8443")
}

fn bind_next<T>(
    wanted: SocketAddr,
    bind: impl Fn(SocketAddr) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let last = wanted.port().saturating_add(PORTS_TRIED);
    let mut port = wanted.port();
    loop {
        match bind(SocketAddr::new(wanted.ip(), port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && port < last => port += 1,
            result => return result,
        }
    }
}

/// An unspecified address is reached by loopback.
fn reached_by(listening: IpAddr) -> IpAddr {
    match listening {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// The names of loopback, and the address of the listener.
fn sans(listening: IpAddr) -> Vec<San> {
    let mut sans = vec![
        San::Dns("localhost".to_owned()),
        San::Ip(Ipv4Addr::LOCALHOST.into()),
        San::Ip(Ipv6Addr::LOCALHOST.into()),
    ];
    let reached = San::Ip(reached_by(listening));
    if !sans.contains(&reached) {
        sans.push(reached);
    }
    sans
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_next_free_port_is_taken() {
        let check = |wanted: u16, free: fn(u16) -> bool, expected: Result<u16, ErrorKind>| {
            let bind = |address: SocketAddr| match address.port() {
                1 => Err(io::Error::from(ErrorKind::PermissionDenied)),
                port if free(port) => Ok(port),
                _ => Err(io::Error::from(ErrorKind::AddrInUse)),
            };
            let got = bind_next(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), wanted), bind);
            assert_eq!(got.map_err(|error| error.kind()), expected);
        };
        check(8443, |_| true, Ok(8443));
        check(8443, |port| port >= 8446, Ok(8446));
        check(8443, |port| port == 8543, Ok(8543));
        check(8443, |port| port == 8544, Err(ErrorKind::AddrInUse));
        check(65_535, |_| false, Err(ErrorKind::AddrInUse));
        check(1, |_| true, Err(ErrorKind::PermissionDenied));
    }

    #[test]
    fn listen_addresses_are_parsed() {
        for (text, good) in [
            ("127.0.0.1:8443", true),
            ("[::1]:0", true),
            ("::1:8443", false),
            ("localhost:8443", false),
            ("127.0.0.1", false),
            ("127.0.0.1:80000", false),
            (":8443", false),
            ("", false),
        ] {
            assert_eq!(parse_listen(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn unspecified_addresses_are_reached_by_loopback() {
        for (listening, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            let reached = reached_by(listening.parse().unwrap());
            assert_eq!(reached.to_string(), expected);
        }
    }

    #[test]
    fn the_sans_hold_every_name_it_is_reached_by() {
        for (listening, count) in [("127.0.0.1", 3), ("0.0.0.0", 3), ("192.0.2.1", 4)] {
            let listening = listening.parse().unwrap();
            let sans = sans(listening);
            assert_eq!(sans.len(), count);
            assert!(sans.contains(&San::Ip(reached_by(listening))));
        }
    }
}
