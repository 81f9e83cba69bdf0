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
    let firsts = windows.iter().filter_map(|window| window.first());
    let known_from = firsts.map(|first| first.start).min().unwrap_or(now);
    let [minutes, hours] = windows;
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

fn interval(average: &IntervalAverage) -> PlotInterval {
    PlotInterval {
        end: average.end,
        count: average.count,
        avg: average.avg,
        min: average.min,
        max: average.max,
    }
}
