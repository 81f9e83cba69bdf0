//! How complete a host's last day is.

use lizmon_page::spark::{DayCover, HourCover};

use crate::summarize::HostSummaries;

const BY_HOUR: usize = 1;
const HOUR_SECS: u64 = 3_600;
const HOURS: usize = 24;
/// How many series are examined: a host's labels usually come together.
const SERIES_LOOKED_AT: usize = 4;
/// An hour with fewer than 19 of 20 of the usual samples is not complete: counts differ a little
/// with the moment at which the first and the last one are taken.
const COMPLETE: (u64, u64) = (19, 20);

/// The last 24 hours that have ended.
pub(super) fn last_day(host: &HostSummaries, now: u64) -> DayCover {
    let to = now - now % HOUR_SECS;
    let from = to.saturating_sub(HOURS as u64 * HOUR_SECS);
    let mut counts = [0_u64; HOURS];
    let mut known_from = u64::MAX;
    for series in host.series.values().take(SERIES_LOOKED_AT) {
        let Some(window) = series.window(BY_HOUR, now) else {
            continue;
        };
        for hour in &window.averages {
            known_from = known_from.min(hour.start);
            let place = hour.start.checked_sub(from).map(|secs| secs / HOUR_SECS);
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                *count = hour.count.max(*count);
            }
        }
    }
    let usual = usual(&counts);
    let cover = |(count, start): (u64, u64)| match count {
        _ if start < known_from => HourCover::Unknown,
        0 => HourCover::Empty,
        // It began in the middle of it.
        _ if start == known_from => HourCover::Full,
        _ if count.saturating_mul(COMPLETE.1) < usual.saturating_mul(COMPLETE.0) => HourCover::Part,
        _ => HourCover::Full,
    };
    let starts = (0..).map(|hour| from + hour * HOUR_SECS);
    let hours = counts.into_iter().zip(starts).map(cover).collect();
    DayCover { to, hours }
}

/// The median of the hours with samples.
fn usual(counts: &[u64]) -> u64 {
    let mut counts: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use lizmon_summary::Series;

    use super::*;

    const NOW: u64 = 1_465_001_814;

    #[test]
    fn hours_are_told_apart() {
        // One sample a minute, but for two hours; half of them in one hour.
        let mut series = Series::default();
        let hour_end = NOW - NOW % HOUR_SECS;
        for back in (0..10 * 60).rev() {
            let epoch = hour_end - back * 60;
            let hours_back = back / 60;
            let is_missing = matches!(hours_back, 3 | 4) || hours_back == 1 && back % 2 == 0;
            if !is_missing {
                series.apply(epoch, 1.0);
            }
        }
        let host = HostSummaries {
            series: [("cpu".into(), series)].into(),
            ..HostSummaries::default()
        };
        let day = last_day(&host, NOW);
        let drawn: String = day
            .hours
            .iter()
            .map(|hour| match hour {
                HourCover::Unknown => '.',
                HourCover::Empty => '_',
                HourCover::Part => '-',
                HourCover::Full => '=',
            })
            .collect();
        assert_eq!(drawn, "..............=====__=-=");
        assert_eq!(day.gaps(), [(hour_end - 5 * 3_600, hour_end - 3 * 3_600)]);
    }

    #[test]
    fn nothing_is_known_of_an_empty_host() {
        let day = last_day(&HostSummaries::default(), NOW);
        assert_eq!(day.hours, [HourCover::Unknown; HOURS]);
        assert_eq!(last_day(&HostSummaries::default(), 5).hours.len(), HOURS);
    }
}
