//! The limits of the front door, and their defaults.

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

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
    /// How many connections may be in the TLS handshake.
    pub handshakes_max: usize,
    /// How many connections there may be without a certificate.
    pub anonymous_max: usize,
    /// How many connections one holder may have, over all its certificates.
    pub connections_per_holder_max: usize,
    /// How many connections all holders may have.
    pub connections_max: usize,
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
pub const CONNECTIONS_PER_ADDRESS_MAX: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
/// A site's whole fleet may come at once after an outage; each of these holds some 20 KiB for at most its time limit.
pub const HANDSHAKES_MAX: usize = 16_384;
/// Probes of balancers, and whoever wants public keys or a first certificate. Each may hold a head and some streams.
pub const ANONYMOUS_MAX: usize = 1_024;
/// A monitor has one connection.
pub const CONNECTIONS_PER_HOLDER_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// How many requests of one holder may be in work at a time, until their answers are sent.
pub const REQUESTS_AT_ONCE_PER_HOLDER_MAX: u32 = 4_096;
/// How many requests of one connection without a certificate may be.
pub const REQUESTS_AT_ONCE_ANONYMOUS_MAX: u32 = 8;
/// How long a connection without a certificate may be without a request.
pub const ANONYMOUS_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// After so long an answer without a certificate is the connection's last.
pub const ANONYMOUS_LAST_ANSWER_AFTER: Duration = Duration::from_secs(60);
/// How long a connection without a certificate may be open at all.
pub const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(120);
/// Of the files that may be open the store, the listener and the log need some.
const OWN_FILES: usize = 128;
/// Connections that no one holder can take from others are the rest of this part.
const PART_OF_CONNECTIONS: usize = 8;
/// However few files may be open.
const CONNECTIONS_OF_PART_MIN: usize = 16;
/// Far beyond any monitor, far below what would starve the others.
pub const REQUESTS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
/// Five hundred times what a monitor sends that delivers a day's backlog, and half of what one core counts.
pub const RECORDS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(500_000).unwrap();
/// More than the largest request there is, so that each passes some time, however slow the quota; and more than two days'
/// records, a second each, of twenty values.
pub const RECORDS_AT_ONCE_MAX: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            first_request_timeout: FIRST_REQUEST_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX.get(),
            handshakes_max: HANDSHAKES_MAX,
            anonymous_max: ANONYMOUS_MAX,
            connections_per_holder_max: CONNECTIONS_PER_HOLDER_MAX.get(),
            connections_max: usize::MAX,
            requests_per_second_max: REQUESTS_PER_SECOND_MAX,
            records_per_second_max: RECORDS_PER_SECOND_MAX,
        }
    }
}

impl Limits {
    /// The same, where no more than so many files may be open: each connection is one. Strangers and each holder have a
    /// part of them, so that neither keeps others out.
    pub fn within_open_files(self, files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let connections = files - OWN_FILES.min(files / 2);
        let part = (connections / PART_OF_CONNECTIONS).max(CONNECTIONS_OF_PART_MIN);
        let (handshakes_max, anonymous_max) =
            (self.handshakes_max.min(part), self.anonymous_max.min(part));
        let of_holders = connections.saturating_sub(handshakes_max + anonymous_max);
        Self {
            handshakes_max,
            anonymous_max,
            connections_per_holder_max: self.connections_per_holder_max.min(part),
            connections_max: self.connections_max.min(of_holders.max(part)),
            ..self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_shared_out() {
        for (files, handshakes, anonymous, of_holder, of_holders) in [
            (0, 16, 16, 16, 16),
            (64, 16, 16, 16, 16),
            (256, 16, 16, 16, 96),
            (1_024, 112, 112, 112, 672),
            (4_096, 496, 496, 496, 2_976),
            (1_048_576, 16_384, 1_024, 4_096, 1_031_040),
            (u64::MAX, 16_384, 1_024, 4_096, usize::MAX - 128 - 17_408),
        ] {
            let limits = Limits::default().within_open_files(files);
            let got = (
                limits.handshakes_max,
                limits.anonymous_max,
                limits.connections_per_holder_max,
                limits.connections_max,
            );
            assert_eq!(
                got,
                (handshakes, anonymous, of_holder, of_holders),
                "{files}"
            );
        }
    }
}
