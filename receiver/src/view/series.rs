//! Series as pictures.

use lizmon_page::plot::{
    AlarmMark, DAY_BY_HOUR, HOUR_BY_MINUTE, PlotInterval, PlotTier, SeriesPlot,
};
use lizmon_page::spark::Spark;
use lizmon_page::unit::ValueUnit;
use lizmon_summary::{IntervalAverage, Series};

pub(super) const BY_MINUTE: usize = 0;
const BY_HOUR: usize = 1;
const MINUTES: u64 = 60;
const MINUTE_SECS: u64 = 60;

/// The last hour as a line. The minute that has only begun has its place.
pub(super) fn spark(label: &str, series: &Series, now: u64) -> Spark {
    let to = now.next_multiple_of(MINUTE_SECS);
    let from = to.saturating_sub(MINUTES * MINUTE_SECS);
    let mut values = vec![None; MINUTES as usize];
    if let Some(window) = series.window(BY_MINUTE, now) {
        for minute in &window.averages {
            let place = minute
                .start
                .checked_sub(from)
                .map(|secs| secs / MINUTE_SECS);
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(value) = place.and_then(|place| values.get_mut(place)) {
                *value = Some(minute.avg);
            }
        }
    }
    Spark {
        unit: ValueUnit::of(label),
        values,
    }
}

/// Hour and day of a series.
pub(super) fn plots(
    label: &str,
    series: &Series,
    now: u64,
    marks: &[AlarmMark],
) -> [SeriesPlot; 2] {
    let windows = [BY_MINUTE, BY_HOUR].map(|tier| {
        let window = series.window(tier, now);
        window.map_or_else(Vec::new, |window| window.averages)
    });
    let [minutes, hours] = windows;
    let known_from = first_start(&minutes, &hours).unwrap_or(now);
    let plot = |tier: PlotTier, intervals: Vec<IntervalAverage>| SeriesPlot {
        tier,
        unit: ValueUnit::of(label),
        now,
        known_from,
        intervals: intervals.iter().map(interval).collect(),
        marks: marks.to_vec(),
    };
    [plot(HOUR_BY_MINUTE, minutes), plot(DAY_BY_HOUR, hours)]
}

/// Since when a series is known; none without a sample.
pub(super) fn known_from(series: &Series, now: u64) -> Option<u64> {
    let averages = |tier| series.window(tier, now).map(|window| window.averages);
    let [minutes, hours] = [BY_MINUTE, BY_HOUR].map(|tier| averages(tier).unwrap_or_default());
    first_start(&minutes, &hours)
}

/// The start of the first interval with a sample: of the first minute, if the minutes have all that
/// the hours have. A series that began a minute ago has no gap from the full hour on.
fn first_start(minutes: &[IntervalAverage], hours: &[IntervalAverage]) -> Option<u64> {
    let samples = |of: &[IntervalAverage]| of.iter().map(|average| average.count).sum::<u64>();
    let start = |of: &[IntervalAverage]| of.first().map(|first| first.start);
    match (start(minutes), start(hours)) {
        (Some(minute), Some(_)) if samples(minutes) == samples(hours) => Some(minute),
        (Some(minute), Some(hour)) => Some(minute.min(hour)),
        (minute, hour) => minute.or(hour),
    }
}

fn interval(average: &IntervalAverage) -> PlotInterval {
    PlotInterval {
        end: average.end,
        count: average.count,
        avg: average.avg,
        min: average.min,
        max: average.max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const NOW: u64 = 1_465_001_814 / HOUR * HOUR + 50 * 60;

    /// The story: the page of a host that was a minute old showed the whole hour before as a gap.
    #[test]
    fn since_when_a_series_is_known() {
        for (ages, expected) in [
            (&[][..], None),
            // Seconds ago; then the age of the first interval's start, rounded up to its width.
            (&[5, 4, 3], Some(60)),
            (&[130, 70, 10], Some(180)),
            // It goes on from the hour before.
            (&[51 * 60 - 1, 10], Some(51 * 60)),
            // What is older than the last hour is in the hours alone.
            (&[5 * HOUR, 10], Some(5 * HOUR + 50 * 60)),
            (&[20 * HOUR], Some(20 * HOUR + 50 * 60)),
        ] {
            let mut series = Series::default();
            for age in ages {
                series.apply(NOW - age, 1.0);
            }
            let known = known_from(&series, NOW).map(|from| NOW - from);
            assert_eq!(known, expected, "{ages:?}");
        }
    }
}
