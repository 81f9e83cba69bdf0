//! Human-readable times for the logs, messages and health reports of all programs.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Formats epoch seconds as RFC 3339, UTC. A time beyond the range of the calendar is printed as a
/// number of seconds.
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

/// A number of seconds, shown in its largest unit: `25 hours`.
pub struct ApproxDuration(pub u64);

impl fmt::Display for ApproxDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.0 {
            0..120 => (self.0, "second"),
            120..7200 => (self.0 / 60, "minute"),
            7200..172_800 => (self.0 / 3600, "hour"),
            _ => (self.0 / 86_400, "day"),
        };
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let cases = [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7200, "2 hours"),
            (172_800, "2 days"),
        ];
        for (secs, expected) in cases {
            assert_eq!(ApproxDuration(secs).to_string(), expected);
        }
    }
}
