//! The limits on connections and on what one client may use, and their defaults. Limits on what a
//! request contains are where it is read: in the receiver's `body`, `journal::admission` and
//! `serve`, and in `lizmon-protocol`'s `sample`; for `liz-ca` in its `service`.

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// The limits of the server, with defaults.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the client may take to send the head of its first request after the handshake.
    pub first_request_timeout: Duration,
    /// How long a connection may be idle without a request.
    pub idle_timeout: Duration,
    /// The age after which a client is asked to connect again.
    pub connection_age: Duration,
    /// The maximum number of connections per address.
    pub connections_per_address_max: usize,
    /// The maximum number of connections in the TLS handshake.
    pub handshakes_max: usize,
    /// The maximum number of connections without a client certificate.
    pub anonymous_max: usize,
    /// The maximum number of connections per holder, over all its certificates.
    pub connections_per_holder_max: usize,
    /// The maximum number of connections of all holders.
    pub connections_max: usize,
    /// The maximum number of requests per second and holder, over all its connections.
    pub requests_per_second_max: NonZeroU32,
    /// The maximum number of records per second and holder. The burst limit is
    /// [`RECORDS_AT_ONCE_MAX`] or two seconds' worth.
    pub records_per_second_max: NonZeroU32,
}

/// Longer than any legitimate handshake over a bad link, and short enough that slow handshakes
/// cannot accumulate.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same limit for the head of the first request.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A monitor that sends once a minute keeps its connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A client that never left by itself would never come to a receiver that was added later. One
/// handshake an hour costs nothing.
pub const CONNECTION_AGE: Duration = Duration::from_secs(3_600);
/// All monitors of a site may share one address behind NAT.
pub const CONNECTIONS_PER_ADDRESS_MAX: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
/// All monitors of a site may reconnect at once after an outage. Each handshake uses about 20 KiB
/// until its timeout at most.
pub const HANDSHAKES_MAX: usize = 16_384;
/// For load balancer probes, and clients that request public keys or a first certificate. Each may
/// hold a request head and some streams.
pub const ANONYMOUS_MAX: usize = 1_024;
/// A monitor uses one connection.
pub const CONNECTIONS_PER_HOLDER_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// The maximum number of requests in progress per holder. A request is in progress until its
/// response is sent.
pub const REQUESTS_AT_ONCE_PER_HOLDER_MAX: u32 = 4_096;
/// The maximum number of requests in progress per connection without a client certificate.
pub const REQUESTS_AT_ONCE_ANONYMOUS_MAX: u32 = 8;
/// How long a connection without a client certificate may be idle.
pub const ANONYMOUS_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// After this time, the next response on a connection without a client certificate is its last.
pub const ANONYMOUS_LAST_ANSWER_AFTER: Duration = Duration::from_secs(60);
/// The maximum lifetime of a connection without a client certificate.
pub const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(120);
/// Open files reserved for the store, the listener and the log.
const OWN_FILES: usize = 128;
/// Each holder, the handshakes, and the connections without a client certificate each get at most
/// one eighth of all connections.
const PART_OF_CONNECTIONS: usize = 8;
/// The minimum of such a share, however low the limit of open files is.
const CONNECTIONS_OF_PART_MIN: usize = 16;
/// Far more than any monitor needs, and far too few to starve other holders.
pub const REQUESTS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
/// 500 times what a monitor sends while it delivers a backlog of one day, and half of what one core
/// can process.
pub const RECORDS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(500_000).unwrap();
/// More than the largest request contains, so that every request passes eventually, however low the
/// rate limit is. Also more than the records of two days at one record per second with twenty
/// values.
pub const RECORDS_AT_ONCE_MAX: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            first_request_timeout: FIRST_REQUEST_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            connection_age: CONNECTION_AGE,
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
    /// Adapts the limits to a maximum number of open files, because each connection needs one.
    /// Clients without a certificate, and each holder, get only a share, so that they cannot lock
    /// out others.
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

/// The key of the address limit: an IPv4 address, or an IPv6 /64 network, because a client with one
/// such address usually has the whole network (RFC 6177 section 2, RFC 7421). An IPv4-mapped IPv6
/// address counts as the IPv4 address.
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
