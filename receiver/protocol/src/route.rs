//! Paths, built and taken apart. A path only says what a request is about; who it is from, the certificate says.

use std::str::FromStr;

use crate::name::NodeName;
use crate::sample::Epoch;

/// RFC 6749 section 3.2.
pub const TOKEN: &str = "/oauth2/token";
/// RFC 8414 section 3.
pub const METADATA: &str = "/.well-known/oauth-authorization-server";
/// RFC 7517 section 5.
pub const JWKS: &str = "/.well-known/jwks.json";
/// The header of every answer that says what time it is there: seconds since 1970 with three decimals, and whether that clock is
/// known to be steady, and which start of the receiver this is, as an RFC 8941 item: `1465001814.123;steady;run=1465001800456`.
pub const TIME_HEADER: &str = "lizmon-time";
/// The header of a POST by which a monitor says that it stamps samples by the receivers' time, and how many seconds its own clock
/// is ahead of that.
pub const AHEAD_HEADER: &str = "lizmon-clock-ahead";
/// The list of hosts; below it, everything about one host.
pub const PERF: &str = "/api/perf";
/// Below it, what has arrived from one host.
pub const DELIVERY: &str = "/api/delivery";
/// Where an operator hands in revocation lists.
pub const CRL: &str = "/api/crl";
/// Which certificates were seen here.
pub const CERTIFICATES: &str = "/api/certificates";
/// What a server says of itself, as OpenMetrics.
pub const METRICS: &str = "/metrics";
/// Whether the process lives.
pub const HEALTHZ: &str = "/healthz";
/// Whether the process can do its work.
pub const READYZ: &str = "/readyz";

/// `/api/perf/{host}`
pub fn host(host: &NodeName) -> String {
    format!("{PERF}/{host}")
}

/// `/api/delivery/{host}/acknowledged`
pub fn acknowledged(host: &NodeName) -> String {
    format!("{DELIVERY}/{host}/acknowledged")
}

/// `/api/perf/{host}/{epoch}`
pub fn sample(host: &NodeName, epoch: Epoch) -> String {
    format!("{PERF}/{host}/{epoch}")
}

/// `/api/delivery/{host}`
pub fn delivery(host: &NodeName) -> String {
    format!("{DELIVERY}/{host}")
}

/// Takes the epoch of a single sample from its path segment: decimal digits, nothing else.
pub fn parse_epoch(segment: &str) -> Result<Epoch, MalformedEpoch> {
    let malformed = || {
        MalformedEpoch(
            segment
                .chars()
                .take(40)
                .flat_map(char::escape_debug)
                .collect(),
        )
    };
    if segment.is_empty() || !segment.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    u64::from_str(segment)
        .ok()
        .and_then(Epoch::new)
        .ok_or_else(malformed)
}

/// A path segment that should have been an epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an epoch: whole seconds since 1970 UTC in decimal digits")]
pub struct MalformedEpoch(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs() {
        let cases = [
            ("1465001814", Some(1_465_001_814)),
            ("0", Some(0)),
            ("9007199254740991", Some(9_007_199_254_740_991)),
            ("9007199254740992", None),
            ("18446744073709551616", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1e9", None),
            (" 1", None),
            ("0x10", None),
            ("١", None),
        ];
        for (segment, expected) in cases {
            assert_eq!(
                parse_epoch(segment).ok().map(Epoch::secs),
                expected,
                "{segment:?}"
            );
        }
    }
}
