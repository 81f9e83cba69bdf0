//! Which intervals answer which time.
//!
//! A point is at the end of its interval, and there once the interval has ended. Each time is
//! answered by the narrowest intervals that are still kept of it, and by one width alone:
//!
//! ```text
//! ──── days ────┬──────── hours ────────┬·····┬── minutes ──┬·········> time
//!        end of the day            whole hour │    the last minute
//!     that hours begin in             an hour ago
//! ```
//!
//! Of the hour in which minutes begin there is no point (`·`): it would be among the minutes, and
//! about the same time as they. A query that needs more than minutes have, as the average of two
//! hours, gets none of them: an average of points takes each for one, however wide its interval.

use lizmon_protocol::history::HistoryTier;
use lizmon_summary::{BY_HOUR_TIER, TIERS};

use super::message::Query;
use crate::store::HistoryRetention;

/// The tier of minutes in [`TIERS`].
pub(super) const BY_MINUTE_TIER: usize = 0;
const DAY_SECS: u64 = 86_400;

/// Ends of intervals of one width, in epoch seconds: `after < end <= until`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// The exclusive start.
    pub after: u64,
    /// The inclusive end.
    pub until: u64,
}

impl Ends {
    /// Whether there can be none.
    pub fn is_empty(self) -> bool {
        self.after >= self.until
    }

    /// Whether an interval that ends then is one of them.
    pub fn has(self, end: u64) -> bool {
        self.after < end && end <= self.until
    }

    /// Those of them that are among others, too.
    fn and(self, after: u64, until: u64) -> Self {
        Self {
            after: self.after.max(after),
            until: self.until.min(until),
        }
    }

    fn count(self, width_secs: u64) -> u64 {
        (self.until / width_secs).saturating_sub(self.after / width_secs)
    }
}

/// Which intervals answer a query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Points {
    /// Minutes.
    pub minutes: Ends,
    /// Hours.
    pub hours: Ends,
    /// Days.
    pub days: Ends,
}

impl Points {
    /// Those of a query at `now`.
    pub fn of(query: &Query, retention: &HistoryRetention, now: u64) -> Self {
        let asked = asked(query, now);
        let [by_minute, by_hour] = &TIERS;
        let hours_kept = match retention.hours_secs {
            0 => by_hour.window_secs,
            secs => secs,
        };
        let has_days = retention.days_secs > 0;
        let reach = reach_ms(query);
        let uses_minutes = reach <= by_minute.window_secs * 1_000;
        let uses_hours = reach <= hours_kept.saturating_mul(1_000) || !has_days;
        let minutes_after = by_minute.window_start(now);
        let hours_until = match uses_minutes {
            true => minutes_after - minutes_after % by_hour.width_secs,
            false => now,
        };
        let days_until = match (has_days, uses_hours) {
            (false, _) => 0,
            // Where hours are kept for a day alone, the next one may have minutes already.
            (true, true) => now
                .saturating_sub(hours_kept)
                .next_multiple_of(DAY_SECS)
                .min(hours_until - hours_until % DAY_SECS),
            (true, false) => now,
        };
        let none = Ends::default();
        Self {
            minutes: if uses_minutes {
                asked.and(minutes_after, now)
            } else {
                none
            },
            hours: if uses_hours {
                asked.and(days_until, hours_until)
            } else {
                none
            },
            days: asked.and(0, days_until),
        }
    }

    /// How many there are of a series, at most.
    pub fn count(&self) -> u64 {
        let [by_minute, by_hour] = &TIERS;
        self.minutes.count(by_minute.width_secs)
            + self.hours.count(by_hour.width_secs)
            + self.days.count(DAY_SECS)
    }

    /// Whether the store has to be asked: memory has the hours of a day.
    pub fn needs_store(&self, now: u64) -> bool {
        let in_memory = TIERS[BY_HOUR_TIER].window_start(now);
        !self.days.is_empty() || (!self.hours.is_empty() && self.hours.after < in_memory)
    }

    /// The hours and the days.
    pub fn of_history(&self) -> [(HistoryTier, Ends); 2] {
        [
            (HistoryTier::ByDay, self.days),
            (HistoryTier::ByHour, self.hours),
        ]
    }
}

/// Which times a query asks for; nothing after `now`.
fn asked(query: &Query, now: u64) -> Ends {
    let first = u64::try_from(query.start_timestamp_ms)
        .unwrap_or(0)
        .div_ceil(1_000);
    let last = u64::try_from(query.end_timestamp_ms).map_or(0, |end| end / 1_000);
    Ends {
        after: first.saturating_sub(1),
        until: last.min(now),
    }
}

/// Over how much time one value of the query's result goes: its range, as in `cpu[5m]`, else what is
/// between two of its steps.
fn reach_ms(query: &Query) -> u64 {
    let hints = query.hints.as_ref();
    let (range, step) = hints.map_or((0, 0), |hints| (hints.range_ms, hints.step_ms));
    u64::try_from(if range > 0 { range } else { step }).unwrap_or(0)
}

#[cfg(test)]
mod tests;
