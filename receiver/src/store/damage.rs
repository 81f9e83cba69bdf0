//! Descriptions of what a store could not read, for operators.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// How long it is reported: as long as queries could have asked for what is lost.
pub const REPORTED_SECS: u64 = 25 * 3_600;
/// The last second that can be written as a date: the end of the year 9999.
const DATED_SECS_MAX: u64 = 253_402_300_799;

/// One thing that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// When that was found: epoch seconds.
    pub found_at: u64,
    /// Its host, if that is known.
    pub host: Option<String>,
    /// Its series, if it belonged to one.
    pub label: Option<String>,
    /// Its time, if that is known: epoch seconds, start and end.
    pub span: Option<(u64, u64)>,
    /// What it was, and what that means.
    pub what: String,
}

impl Damage {
    /// Of the store as a whole.
    pub fn of_store(found_at: u64, what: impl Into<String>) -> Self {
        Self {
            found_at,
            host: None,
            label: None,
            span: None,
            what: what.into(),
        }
    }

    /// Of a host.
    pub fn of_host(found_at: u64, host: &str, what: impl Into<String>) -> Self {
        Self {
            host: Some(host.to_owned()),
            ..Self::of_store(found_at, what)
        }
    }

    /// Whether it is still reported.
    pub fn is_reported(&self, now: u64) -> bool {
        now < self.found_at.saturating_add(REPORTED_SECS)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}")?;
            if let Some(label) = &self.label {
                write!(f, " {label}")?;
            }
            if let Some((start, end)) = self.span {
                write!(f, " {} to {}", date(start), date(end))?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// A second in RFC 3339; a damaged number may be past all dates.
fn date(secs: u64) -> String {
    if secs > DATED_SECS_MAX {
        return secs.to_string();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(secs)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_displayed() {
        let store = Damage::of_store(7, "the file was empty");
        let host = Damage::of_host(7, "web1", "its name");
        let interval = Damage {
            label: Some("cpu".to_owned()),
            span: Some((1_465_001_760, 1_465_001_820)),
            ..Damage::of_host(7, "web1", "an interval is lost")
        };
        let impossible = Damage {
            span: Some((0, u64::MAX)),
            ..interval.clone()
        };
        for (damage, words) in [
            (store, "the file was empty"),
            (host, "web1: its name"),
            (
                interval,
                "web1 cpu 2016-06-04T00:56:00Z to 2016-06-04T00:57:00Z: an interval is lost",
            ),
            (
                impossible,
                "web1 cpu 1970-01-01T00:00:00Z to 18446744073709551615: an interval is lost",
            ),
        ] {
            assert_eq!(damage.to_string(), words);
            assert!(damage.is_reported(7) && !damage.is_reported(7 + REPORTED_SECS));
        }
    }
}
