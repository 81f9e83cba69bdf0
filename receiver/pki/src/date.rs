//! Times as people read them: in logs, messages and health, of every program alike.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Epoch seconds as RFC 3339, UTC. Past the calendar's end they stay what they are, and say so.
///
/// ```
/// use lizmon_pki::date::rfc3339;
/// assert_eq!(rfc3339(1_465_001_814), "2016-06-04T00:56:54Z");
/// assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
/// assert_eq!(rfc3339(u64::MAX), "18446744073709551615 s since 1970");
/// ```
pub fn rfc3339(epoch: u64) -> String {
    i64::try_from(epoch)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{epoch} s since 1970"))
}
