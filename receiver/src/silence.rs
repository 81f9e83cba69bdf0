//! Which hosts are silent: those that are overdue by their recent spacing.
//!
//! What counts is when something came from a host by our own clock: a host whose clock is five
//! minutes behind is not silent. The spacing comes from the stored buckets, so it is the same after
//! a restart.

use lizmon_summary::{Series, TIERS};

use crate::summarize::HostSummaries;

/// No host is silent before this, however often it sends.
const PATIENCE_SECS: u64 = 120;
/// A host is silent after this many times its recent spacing.
const SPACINGS: u64 = 3;
/// How many of its newest intervals the spacing is taken from.
const RECENT_INTERVALS: usize = 4;
/// How many series are examined: a host's labels usually come together.
const SERIES_LOOKED_AT: usize = 8;
/// A time of arrival further ahead than this was taken while our clock was wrong.
const AHEAD_SECS: u64 = 120;

/// When something came from the host last.
pub fn last_received(host: &HostSummaries, now: u64) -> u64 {
    match host.last_received {
        at if at > now.saturating_add(AHEAD_SECS) => host.last_epoch,
        at => at,
    }
}

/// Whether something should have come from the host by now.
pub fn is_silent(host: &HostSummaries, now: u64) -> bool {
    let quiet_secs = now.saturating_sub(last_received(host, now));
    is_overdue(host, now, quiet_secs, PATIENCE_SECS)
}

/// Whether so many seconds are longer than the host is expected to be quiet: three times its recent
/// spacing, and this at least.
pub fn is_overdue(host: &HostSummaries, now: u64, quiet_secs: u64, least_secs: u64) -> bool {
    // Most hosts are not silent, and need no more work than this.
    quiet_secs > least_secs
        && quiet_secs
            > spacing_secs(host, now)
                .unwrap_or(0)
                .saturating_mul(SPACINGS)
}

/// Recent time from one sample to the next; none if there is only one.
pub fn spacing_secs(host: &HostSummaries, now: u64) -> Option<u64> {
    let series = host.series.values().take(SERIES_LOOKED_AT);
    series.filter_map(|series| spacing_of(series, now)).min()
}

/// The spacing in the finest tier that holds more than one sample.
fn spacing_of(series: &Series, now: u64) -> Option<u64> {
    (0..TIERS.len()).find_map(|tier| {
        let intervals = series.window(tier, now)?;
        let recent = intervals.averages.len().saturating_sub(RECENT_INTERVALS);
        let recent: Vec<(u64, u64)> = intervals.averages[recent..]
            .iter()
            .map(|average| (average.end, average.count))
            .collect();
        spacing_within(&recent, intervals.width_secs)
    })
}

/// The spacing of samples, from the ends of intervals and their counts, oldest first. The newest
/// interval may have only begun: with two before it, it does not count.
fn spacing_within(intervals: &[(u64, u64)], width_secs: u64) -> Option<u64> {
    let whole = match intervals {
        [whole @ .., _] if whole.len() > 1 => whole,
        all => all,
    };
    match whole {
        [] | [(_, 0 | 1)] => None,
        [(_, count)] => Some(width_secs.div_ceil(*count)),
        [(first, _), rest @ ..] => {
            let last = rest.last().map_or(*first, |(end, _)| *end);
            let samples: u64 = rest.iter().map(|(_, count)| count).sum();
            Some((last - first).div_ceil(samples.max(1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    /// Samples came every so many seconds for a day, the last one so long ago; the host's clock is
    /// so far behind.
    fn host(every_secs: u64, ago_secs: u64, behind_secs: u64) -> HostSummaries {
        let mut series = Series::default();
        let last = NOW - ago_secs - behind_secs;
        let samples = (86_400 / every_secs).min(10_000);
        for back in (0..samples).rev() {
            series.apply(last - back * every_secs, 1.0);
        }
        HostSummaries {
            series: [("cpu".into(), series)].into(),
            last_epoch: last,
            last_received: NOW - ago_secs,
            ..HostSummaries::default()
        }
    }

    /// A monitor with `--interval 600` was called silent half of the time.
    #[test]
    fn silent_is_overdue_by_the_host_s_own_spacing() {
        for every in [1, 10, 30, 60, 120, 300, 600, 900, 1800, 3600] {
            let patience = (3 * every).max(120);
            let cases = [
                (0, 0, false),
                (every, 0, false),
                (2 * every, 0, false),
                (patience - every.min(60), 0, false),
                (patience + every.max(60), 0, true),
                (every.min(60), 300, false),
            ];
            for (ago, behind, expected) in cases {
                assert_eq!(
                    is_silent(&host(every, ago, behind), NOW),
                    expected,
                    "every {every} s, {ago} s ago, {behind} s behind"
                );
            }
        }
    }

    #[test]
    fn one_sample_has_no_spacing() {
        for (ago, expected) in [(0, false), (120, false), (121, true), (80_000, true)] {
            let mut host = host(1, ago, 0);
            let mut series = Series::default();
            series.apply(NOW - ago, 1.0);
            host.series = [("cpu".into(), series)].into();
            assert_eq!(is_silent(&host, NOW), expected, "{ago} s ago");
        }
    }

    /// A host that was away for long, and sends each second again, is not waited for as long the
    /// next time.
    #[test]
    fn an_outage_is_no_spacing() {
        let mut host = host(1, 3000, 0);
        let series = host.series.values_mut().next().unwrap();
        for back in (200..260).rev() {
            series.apply(NOW - back, 1.0);
        }
        host.last_epoch = NOW - 200;
        host.last_received = NOW - 200;
        let spacing = spacing_secs(&host, NOW).unwrap();
        assert!(spacing < 60, "{spacing}");
        assert!(is_silent(&host, NOW));
    }

    /// Our clock was ahead for a moment: samples from then do not keep the host from being reported
    /// silent.
    #[test]
    fn what_came_in_the_future_came_at_its_epoch() {
        let mut host = host(1, 1000, 0);
        host.last_received = NOW + 86_400;
        assert!(is_silent(&host, NOW));
    }
}
