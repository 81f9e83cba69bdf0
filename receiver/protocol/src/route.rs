//! Building and parsing of paths. A path names the host that a request is about. The certificate
//! identifies the client.

use std::str::FromStr;

use crate::name::NodeName;
use crate::sample::Epoch;

/// RFC 6749 section 3.2.
pub const TOKEN: &str = "/oauth2/token";
/// RFC 8414 section 3.
pub const METADATA: &str = "/.well-known/oauth-authorization-server";
/// RFC 7517 section 5.
pub const JWKS: &str = "/.well-known/jwks.json";
/// The header of every response with the server's time: seconds since 1970 with three decimals,
/// whether the clock is known to be steady, and an identifier of the server's current run. It is an
/// RFC 9651 item: `1465001814.123;steady;run=1465001800456`.
pub const TIME_HEADER: &str = "lizmon-time";
/// The header of a POST from a monitor that stamps its samples by the receivers' time. The value is
/// the number of seconds that the monitor's own clock is ahead of that time.
pub const AHEAD_HEADER: &str = "lizmon-clock-ahead";
/// The list of hosts. The paths below it are about one host.
pub const PERF: &str = "/api/perf";
/// The prefix of the paths that show which records of one host have arrived.
pub const DELIVERY: &str = "/api/delivery";
/// The prefix of the paths of the intervals of one series, further back than its summaries go.
pub const HISTORY: &str = "/api/history";
/// The prefix of the paths to which monitors send what their machines are.
pub const FACTS: &str = "/api/facts";
/// What Prometheus and its agents send: remote write.
pub const REMOTE_WRITE: &str = "/api/v1/write";
/// What OpenTelemetry's SDKs and Collectors send: metrics by OTLP/HTTP.
pub const OTLP_METRICS: &str = "/v1/metrics";
/// Prometheus' remote read.
pub const REMOTE_READ: &str = "/api/v1/read";
/// The labels of series, as Prometheus lists them.
pub const SERIES: &str = "/api/v1/series";
/// The names of their labels.
pub const LABELS: &str = "/api/v1/labels";
/// The prefix of the paths of the values of one label.
pub const LABEL_VALUES: &str = "/api/v1/label";
/// The header of an answer in another's format that is made of summaries which lag behind what was
/// acknowledged: until when they were read, in epoch seconds.
pub const AS_OF_HEADER: &str = "lizmon-as-of";
/// Changes as they come: `text/event-stream`.
pub const LIVE: &str = "/api/live";
/// Upload of CRLs by an operator.
pub const CRL: &str = "/api/crl";
/// The certificates that this receiver has seen.
pub const CERTIFICATES: &str = "/api/certificates";
/// The alarms there are. Below it a channel is tested.
pub const ALARMS: &str = "/api/alarms";
/// The prefix of the paths by which the alarms of one host are silenced.
pub const SILENCES: &str = "/api/silences";
/// The server's metrics, as OpenMetrics.
pub const METRICS: &str = "/metrics";
/// The web page: all hosts.
pub const PAGE: &str = "/";
/// The prefix of the web pages of one host each.
pub const PAGE_HOSTS: &str = "/hosts";
/// The web page about certificates and CRLs.
pub const PAGE_TRUST: &str = "/trust";
/// The web page about what arrived.
pub const PAGE_DELIVERY: &str = "/delivery";
/// The web page about alarms.
pub const PAGE_ALARMS: &str = "/alarms";
/// The web page that says how a machine is added.
pub const PAGE_ADD: &str = "/add";
/// The prefix of the web pages that say how a machine is revoked.
pub const PAGE_REVOKE: &str = "/revoke";
/// The prefix of the files that pages link to.
pub const PAGE_ASSETS: &str = "/assets";
/// What changes on a page: `text/event-stream`.
pub const PAGE_LIVE: &str = "/live";
/// Liveness of the process.
pub const HEALTHZ: &str = "/healthz";
/// The description of all routes: OpenAPI.
pub const OPENAPI: &str = "/openapi.json";
/// Readiness of the process.
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

/// `/api/facts/{host}`
pub fn facts(host: &NodeName) -> String {
    format!("{FACTS}/{host}")
}

/// `/api/silences/{host}`
pub fn silence(host: &NodeName) -> String {
    format!("{SILENCES}/{host}")
}

/// `/api/alarms/test/{channel}`
pub fn test_channel(channel: &str) -> String {
    format!("{ALARMS}/test/{channel}")
}

/// Parses the path segment of a single sample's epoch. Only decimal digits are valid.
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

/// The path segment is not a valid epoch.
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
