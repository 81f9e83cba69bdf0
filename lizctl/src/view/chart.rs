//! Summaries as text charts: a dot at each interval's average, a line from its minimum to its
//! maximum.

use std::ops::RangeInclusive;

use lizmon_protocol::summary::{Average, Summaries, Summary};

use super::format::{DatePart, number, utc_minute, window_and_label};

/// Rows of one chart.
const HEIGHT: usize = 9;
/// Columns of the axis labels, the widest of which is `-123456789.50`.
const SCALE_WIDTH: usize = 13;
/// Intervals that are shown even on a narrower terminal.
const INTERVALS_MIN: usize = 10;

/// A chart per series: as many of the newest intervals as fit into `columns`.
pub(crate) fn charts(summaries: &Summaries, columns: usize) -> Vec<String> {
    let slots_max = columns.saturating_sub(SCALE_WIDTH + 2).max(INTERVALS_MIN);
    let mut lines = Vec::new();
    for (name, summary) in summaries {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(chart(name, summary, slots_max));
    }
    lines
}

fn chart(name: &str, summary: &Summary, slots_max: usize) -> Vec<String> {
    let (window, label) = window_and_label(name);
    let title = format!("{label} {window}: ● average, │ range");
    let (Some(first), Some(last)) = (summary.averages.first(), summary.averages.last()) else {
        return vec![title];
    };
    let width_secs = summary.timeslice_size_sec.max(1);
    let slots_back = |average: &Average| {
        usize::try_from((last.end_sec - average.end_sec) / width_secs).unwrap_or(usize::MAX)
    };
    let slots = slots_max.min(slots_back(first).saturating_add(1));
    let shown: Vec<(usize, &Average)> = summary
        .averages
        .iter()
        .filter(|average| slots_back(average) < slots)
        .map(|average| (slots - 1 - slots_back(average), average))
        .collect();
    let scale = Scale::of(shown.iter().map(|(_, average)| *average));
    let mut rows = vec![vec![' '; slots]; HEIGHT];
    for (column, average) in shown {
        for row in scale.rows(average) {
            rows[row][column] = '│';
        }
        rows[scale.row(average.avg)][column] = '●';
    }
    let mut lines = vec![title];
    for (row, cells) in rows.iter().enumerate().rev() {
        let mark = if row % 2 == 0 {
            number(scale.value(row))
        } else {
            String::new()
        };
        let cells: String = cells.iter().collect();
        lines.push(format!("{mark:>SCALE_WIDTH$} ┤{}", cells.trim_end()));
    }
    let indent = " ".repeat(SCALE_WIDTH + 1);
    lines.push(format!("{indent}└{}", "─".repeat(slots)));
    let from = last.end_sec - width_secs * (slots as u64 - 1);
    lines.push(format!("{indent} {}", time_axis(from, last.end_sec, slots)));
    lines
}

/// The ends of the first and the last interval; the last alone if both do not fit.
fn time_axis(from: u64, until: u64, slots: usize) -> String {
    let from = utc_minute(from, DatePart::None);
    let until = format!("{} UTC", utc_minute(until, DatePart::None));
    if slots < from.len() + until.len() + 1 {
        return until;
    }
    format!("{from}{until:>width$}", width = slots - from.len())
}

/// The vertical axis: from 0, or a round number below it, to a round number.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of<'a>(averages: impl Iterator<Item = &'a Average> + Clone) -> Self {
        let min = averages
            .clone()
            .map(|average| average.min)
            .fold(0.0, f64::min);
        let max = averages.map(|average| average.max).fold(0.0, f64::max);
        let (low, high) = (-round_up(-min), round_up(max));
        if low < high {
            Self { low, high }
        } else {
            Self {
                low: 0.0,
                high: 1.0,
            }
        }
    }

    fn row(&self, value: f64) -> usize {
        let share = (value - self.low) / (self.high - self.low);
        // A share is in 0..=1; `as` saturates at 0 if rounding makes it negative.
        ((share * (HEIGHT - 1) as f64).round() as usize).min(HEIGHT - 1)
    }

    fn rows(&self, average: &Average) -> RangeInclusive<usize> {
        self.row(average.min)..=self.row(average.max)
    }

    fn value(&self, row: usize) -> f64 {
        self.low + (self.high - self.low) * row as f64 / (HEIGHT - 1) as f64
    }
}

/// The smallest of 1, 2, 4, 8 and 10 times a power of ten that is not below `value`: each can be
/// halved three times and has few digits.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 0.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0];
    let fits = steps
        .into_iter()
        .map(|step| step * power)
        .find(|bound| *bound >= value);
    fits.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(averages: &[(u64, f64, f64, f64)]) -> Summaries {
        let averages: Vec<Average> = averages
            .iter()
            .map(|(end_sec, avg, min, max)| Average {
                start_sec: end_sec - 60,
                end_sec: *end_sec,
                interval_size_sec: 60,
                num_samples: 5,
                avg: *avg,
                min: *min,
                max: *max,
            })
            .collect();
        let summary = Summary {
            as_of: None,
            start: 0,
            end: 3600,
            timeslice_size_sec: 60,
            average_count: averages.len(),
            averages,
        };
        Summaries::from([("summary:by-minute:cpu".to_owned(), summary)])
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let series = summary(&[
            (600, 10.0, 0.0, 40.0),
            (660, 50.0, 50.0, 50.0),
            (900, 100.0, 60.0, 100.0),
        ]);
        let expected = "\
cpu by-minute: ● average, │ range
       100.00 ┤     ●
              ┤     │
        75.00 ┤     │
              ┤     │
        50.00 ┤ ●
              ┤│
        25.00 ┤│
              ┤●
         0.00 ┤│
              └──────
               00:15 UTC";
        assert_eq!(charts(&series, 80).join("\n"), expected);
    }

    #[test]
    fn a_narrow_terminal_shows_the_newest() {
        let ends: Vec<_> = (1..=60)
            .map(|at| (at * 60, at as f64, at as f64, at as f64))
            .collect();
        let series = summary(&ends);
        for (columns, slots) in [(80, 60), (75, 60), (40, 25), (20, 10), (0, 10)] {
            let lines = charts(&series, columns);
            let axis = &lines[HEIGHT + 1];
            assert_eq!(
                axis.chars().filter(|c| *c == '─').count(),
                slots,
                "{columns}"
            );
            let dots = lines[1..].iter().flat_map(|line| line.chars());
            assert_eq!(dots.filter(|c| *c == '●').count(), slots, "{columns}");
            let last = lines.last().unwrap();
            assert!(last.ends_with("01:00 UTC"), "{last}");
            let widest = lines[1..]
                .iter()
                .map(|line| line.chars().count())
                .max()
                .unwrap();
            assert!(
                widest <= columns.max(SCALE_WIDTH + 2 + INTERVALS_MIN),
                "{columns}"
            );
        }
    }

    #[test]
    fn the_scale_holds_every_value() {
        let cases: &[(f64, f64, &str, &str)] = &[
            (0.0, 0.0, "1.00", "0.00"),
            (0.0, 1e290, "1.00e290", "0.00"),
            (-1e290, 1e290, "1.00e290", "-1.00e290"),
            (-3.0, -1.0, "0.00", "-4.00"),
            (0.0, 5e-324, "e-", "0.00"),
            (0.0, 61.2, "80.00", "0.00"),
            (0.0, 99.0, "100.00", "0.00"),
        ];
        for (min, max, top, bottom) in cases {
            let lines = charts(&summary(&[(600, *min, *min, *max)]), 80);
            assert!(lines[1].contains(top), "{min} to {max}: {}", lines[1]);
            assert!(
                lines[HEIGHT].contains(bottom),
                "{min} to {max}: {}",
                lines[HEIGHT]
            );
            assert_eq!(lines.concat().matches('●').count(), 2, "{min} to {max}");
        }
    }

    #[test]
    fn a_series_without_intervals_has_no_chart() {
        assert_eq!(charts(&summary(&[]), 80).len(), 1);
        assert!(charts(&Summaries::new(), 80).is_empty());
    }
}
