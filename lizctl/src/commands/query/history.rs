//! `query --since`: what a series was further back than its summaries go.

use std::time::Duration;

use lizmon_client::{Client, Error};
use lizmon_protocol::history::{History, HistoryRange, HistoryTier};
use lizmon_protocol::name::{Label, NodeName, SUMMARY_PREFIX};
use lizmon_protocol::sample::Epoch;
use lizmon_protocol::summary::{Summaries, Summary};

use crate::output;

/// As long as receivers keep hours, if nothing else is set there.
const BY_HOUR_MAX: Duration = Duration::from_secs(31 * 86_400);

/// Which intervals of which series.
pub(super) struct HistoryQuery<'a> {
    host: &'a NodeName,
    label: &'a str,
    from: u64,
    to: u64,
    tier: HistoryTier,
}

impl<'a> HistoryQuery<'a> {
    /// Those of the last `since`.
    pub(super) fn new(
        host: &'a NodeName,
        label: &'a str,
        since: Duration,
        tier: Option<HistoryTier>,
        now: u64,
    ) -> Self {
        let fits = match since <= BY_HOUR_MAX {
            true => HistoryTier::ByHour,
            false => HistoryTier::ByDay,
        };
        Self {
            host,
            label,
            from: now.saturating_sub(since.as_secs()),
            to: now,
            tier: tier.unwrap_or(fits),
        }
    }

    /// As if it were the summary of a longer window.
    pub(super) fn as_summaries(&self, history: History) -> Summaries {
        if history.intervals.is_empty() {
            return Summaries::new();
        }
        let name = format!("{SUMMARY_PREFIX}{}:{}", self.tier.as_str(), self.label);
        let summary = Summary {
            start: self.from,
            end: self.to,
            timeslice_size_sec: self.tier.width_secs(),
            average_count: history.intervals.len(),
            averages: history.intervals,
            as_of: history.as_of,
        };
        Summaries::from([(name, summary)])
    }
}

/// All pages as one. What is damaged in the store is told on stderr.
pub(super) async fn read(
    client: &Client,
    query: &HistoryQuery<'_>,
    now: u64,
) -> Result<History, Error> {
    let Ok(label) = Label::of_series(query.label) else {
        // No series can have it.
        return Ok(History::default());
    };
    let mut all = History::default();
    let mut from = query.from;
    loop {
        let range = HistoryRange {
            tier: query.tier,
            from: Epoch::new(from),
            to: None,
        };
        let page = client.history(query.host, &label, &range, now).await?;
        all.intervals.extend(page.intervals);
        all.damaged.extend(page.damaged);
        all.as_of = page.as_of;
        match page.next.filter(|next| *next > from) {
            Some(next) => from = next,
            None => break,
        }
    }
    for (start, end) in &all.damaged {
        output::note(format!(
            "what was stored from {start} to {end} is damaged, and missing"
        ));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_follows_the_time() {
        let host = "web1".parse().unwrap();
        let tier = |since: u64, tier| {
            let since = Duration::from_secs(since);
            HistoryQuery::new(&host, "cpu", since, tier, 1_465_001_814).tier
        };
        assert_eq!(tier(31 * 86_400, None), HistoryTier::ByHour);
        assert_eq!(tier(31 * 86_400 + 1, None), HistoryTier::ByDay);
        assert_eq!(tier(1, Some(HistoryTier::ByDay)), HistoryTier::ByDay);
        let all = HistoryQuery::new(&host, "cpu", Duration::MAX, None, 1_465_001_814);
        assert_eq!(all.from, 0);
    }
}
