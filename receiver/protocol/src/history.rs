//! The intervals of one series further back than the summaries go.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::sample::Epoch;
use crate::summary::Average;

/// The maximum number of intervals in one answer. It bounds the work of one request; 31 days of
/// hours and 400 days are fewer.
pub const INTERVALS_MAX: usize = 2_000;

/// The width of the intervals of a history.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum HistoryTier {
    /// Hours.
    #[default]
    #[serde(rename = "by-hour")]
    ByHour,
    /// Days, which begin at 00:00 UTC.
    #[serde(rename = "by-day")]
    ByDay,
}

impl HistoryTier {
    /// All tiers, the finest first.
    pub const ALL: [Self; 2] = [Self::ByHour, Self::ByDay];

    /// Its name in a query, and the part of a summary's name that says the tier.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByHour => "by-hour",
            Self::ByDay => "by-day",
        }
    }

    /// The width of an interval in seconds.
    pub fn width_secs(self) -> u64 {
        match self {
            Self::ByHour => 3_600,
            Self::ByDay => 86_400,
        }
    }
}

impl FromStr for HistoryTier {
    type Err = UnknownTier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|tier| tier.as_str() == text);
        found.ok_or(UnknownTier)
    }
}

/// The text names no tier of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tier is by-hour or by-day")]
pub struct UnknownTier;

/// Which intervals of a series are asked for: those that hold an epoch with `from < epoch <= to`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryRange {
    /// The width of the intervals.
    pub tier: HistoryTier,
    /// The exclusive start; without one, from the first interval that is kept.
    pub from: Option<Epoch>,
    /// The inclusive end; without one, to the newest sample.
    pub to: Option<Epoch>,
}

impl HistoryRange {
    /// The same as the query of a URL: `tier=by-hour&from=1465001814`.
    ///
    /// ```
    /// use lizmon_protocol::history::{HistoryRange, HistoryTier};
    /// let range = HistoryRange { tier: HistoryTier::ByDay, ..HistoryRange::default() };
    /// assert_eq!(range.to_query(), "tier=by-day");
    /// ```
    pub fn to_query(&self) -> String {
        let mut query = format!("tier={}", self.tier.as_str());
        for (name, epoch) in [("from", self.from), ("to", self.to)] {
            if let Some(epoch) = epoch {
                query.push_str(&format!("&{name}={epoch}"));
            }
        }
        query
    }
}

/// The response of `GET /api/history/{host}/{label}`: one page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The intervals that hold samples, oldest first; at most [`INTERVALS_MAX`].
    pub intervals: Vec<Average>,
    /// Where there are more intervals: the `from` of the query for the next ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Times of which intervals are damaged in the store and are missing here: epoch seconds, start
    /// and end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<(u64, u64)>,
    /// When the samples were last read from a store that several processes share, if that is more
    /// than a moment ago: epoch seconds. What was acknowledged after that may be missing.
    #[serde(rename = "as-of", default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let golden = concat!(
            r#"{"intervals":[{"start-sec":1464998400,"end-sec":1465002000,"interval-size-sec":3600,"#,
            r#""num-samples":5,"avg":4.98,"min":4.8,"max":5.1}],"next":1465002000}"#
        );
        let history: History = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&history).unwrap(), golden);
        let last = golden.replace(r#","next":1465002000"#, "");
        let history: History = serde_json::from_str(&last).unwrap();
        assert_eq!((history.next, history.as_of), (None, None));
        assert_eq!(serde_json::to_string(&history).unwrap(), last);
    }

    #[test]
    fn tiers_have_their_names() {
        for tier in HistoryTier::ALL {
            assert_eq!(tier.as_str().parse(), Ok(tier));
            let quoted = format!("\"{}\"", tier.as_str());
            assert_eq!(serde_json::to_string(&tier).unwrap(), quoted);
        }
        for text in ["", "by-minute", "BY-HOUR", "by-hour "] {
            assert_eq!(text.parse::<HistoryTier>(), Err(UnknownTier), "{text:?}");
        }
    }

    #[test]
    fn a_range_is_a_query() {
        let range = HistoryRange {
            tier: HistoryTier::ByHour,
            from: Epoch::new(7),
            to: Epoch::new(9),
        };
        assert_eq!(range.to_query(), "tier=by-hour&from=7&to=9");
    }
}
