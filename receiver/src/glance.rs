//! What the list of hosts shows of each, so that nobody has to ask for every host's summaries.

use std::collections::BTreeMap;
use std::ops::Bound;

use lizmon_summary::{Series, TIERS};

use crate::summarize::HostSummaries;

const BY_MINUTE: usize = 0;
const BY_HOUR: usize = 1;
/// The labels whose newest value is shown.
const SHOWN: [&str; 4] = ["cpu", "load-1", "mem", "swap"];
/// Of these labels, with what is measured at its end, the one with the greatest value is shown.
const GREATEST_OF: [&str; 2] = ["disk-inodes:", "disk-used:"];
/// How many series are examined for hours without samples: a host's labels usually come together.
const SERIES_LOOKED_AT: usize = 8;

/// The averages of the newest minute that has samples, of a few labels.
pub(crate) fn newest(host: &HostSummaries, now: u64) -> BTreeMap<String, f64> {
    let newest = |series: &Series| series.newest(BY_MINUTE, now).map(|minute| minute.avg);
    let shown = SHOWN.iter().filter_map(|label| {
        let series = host.series.get(*label)?;
        Some(((*label).to_owned(), newest(series)?))
    });
    let greatest = GREATEST_OF.iter().filter_map(|prefix| {
        let of_prefix = host
            .series
            .range::<str, _>((Bound::Included(*prefix), Bound::Unbounded))
            .take_while(|(label, _)| label.starts_with(prefix));
        let values = of_prefix.filter_map(|(label, series)| Some((label, newest(series)?)));
        let (label, value) = values.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some((label.to_string(), value))
    });
    shown.chain(greatest).collect()
}

/// The whole hours of the last day, after the first one with samples, in which there are none:
/// ranges of their start, which is exclusive, and their end. The current hour is none of them.
pub(crate) fn silent_hours(host: &HostSummaries, now: u64) -> Vec<(u64, u64)> {
    let width = TIERS[BY_HOUR].width_secs;
    let windows = host.series.values().take(SERIES_LOOKED_AT);
    let windows = windows.filter_map(|series| series.window(BY_HOUR, now));
    let intervals = windows.flat_map(|window| window.averages);
    let mut starts: Vec<u64> = intervals.map(|hour| hour.start).collect();
    starts.push(now - now % width);
    starts.sort_unstable();
    let gaps = starts.windows(2).map(|pair| (pair[0] + width, pair[1]));
    gaps.filter(|(from, to)| from < to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;
    const HOUR: u64 = 3_600;

    fn host(samples: &[(&str, u64, f64)]) -> HostSummaries {
        let mut host = HostSummaries::default();
        for (label, epoch, value) in samples {
            let series = host.series.entry((*label).into()).or_default();
            series.apply(*epoch, *value);
        }
        host
    }

    #[test]
    fn the_newest_values_and_the_fullest_disk() {
        let host = host(&[
            ("cpu", NOW - 200, 90.0),
            ("cpu", NOW - 10, 4.0),
            ("cpu", NOW - 9, 5.0),
            ("mem", NOW - 2 * HOUR, 50.0),
            ("own:x", NOW, 1.0),
            ("disk-used:/", NOW, 20.0),
            ("disk-used:/home", NOW, 93.5),
            ("disk-used:/var", NOW, 40.0),
            ("disk-usedx", NOW, 99.0),
        ]);
        let expected = [("cpu", 4.5), ("disk-used:/home", 93.5)];
        let expected = expected.map(|(label, value)| (label.to_owned(), value));
        assert_eq!(newest(&host, NOW), BTreeMap::from(expected));
    }

    #[test]
    fn hours_without_samples() {
        let check = |ago: &[u64], expected: &[(u64, u64)]| {
            let this_hour = NOW - NOW % HOUR;
            let samples = ago
                .iter()
                .map(|hours| ("cpu", this_hour + 1 - hours * HOUR, 1.0));
            let got = silent_hours(&host(&samples.collect::<Vec<_>>()), NOW);
            let hours = |at: u64| (this_hour - at) / HOUR;
            let got: Vec<_> = got
                .iter()
                .map(|(from, to)| (hours(*from), hours(*to)))
                .collect();
            assert_eq!(got, expected, "{ago:?}");
        };
        // This hour is 0, the one before is 1: from 2 to 1 is the hour before that.
        check(&[0, 1, 2, 3], &[]);
        check(&[1, 2], &[]);
        check(&[0], &[]);
        check(&[0, 3], &[(2, 0)]);
        check(&[0, 9, 20], &[(19, 9), (8, 0)]);
        check(&[3], &[(2, 0)]);
        check(&[], &[]);
        let other_label = host(&[
            ("cpu", NOW - 3 * HOUR, 1.0),
            ("mem", NOW - 2 * HOUR, 1.0),
            ("x", NOW - HOUR, 1.0),
        ]);
        assert_eq!(silent_hours(&other_label, NOW), []);
    }
}
