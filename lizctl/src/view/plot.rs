//! A plot of one series: the mean as a line of braille dots, the range from minimum to maximum
//! shaded behind it, gaps left as gaps. For the terminal, live or printed.

use lizmon_protocol::summary::{Average, Summary};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Line};

use super::format::{DatePart, number, utc_minute};

/// The fewest columns and rows that show anything.
pub(crate) const COLUMNS_MIN: u16 = 24;
pub(crate) const ROWS_MIN: u16 = 5;
/// Rows below the plot: the time.
const AXIS_ROWS: u16 = 1;
const SHADE: &str = "░";

/// How much is shown, and in which styles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plot<'s> {
    pub(crate) summary: &'s Summary,
    /// Intervals from left to right; the last one is the newest.
    pub(crate) intervals: u64,
    pub(crate) line: Style,
    pub(crate) range: Style,
}

impl Plot<'_> {
    /// The end of the last interval that is shown: that of the window, or of a sample ahead of it.
    fn end(&self) -> u64 {
        let width = self.width_secs();
        let window = self.summary.end.div_ceil(width) * width;
        let newest = self.summary.averages.last().map_or(0, |last| last.end_sec);
        window.max(newest)
    }

    fn width_secs(&self) -> u64 {
        self.summary.timeslice_size_sec.max(1)
    }

    /// Each interval that is shown, with its place from the left.
    fn shown(&self) -> impl Iterator<Item = (u64, &Average)> {
        let (end, width) = (self.end(), self.width_secs());
        self.summary.averages.iter().filter_map(move |average| {
            let back = end.checked_sub(average.end_sec)? / width;
            Some((self.intervals.checked_sub(back + 1)?, average))
        })
    }
}

impl Widget for Plot<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
            return;
        }
        let scale = Scale::of(self.shown().map(|(_, average)| average));
        let rows = area.height - AXIS_ROWS;
        let marks = [(0, scale.high), (rows - 1, scale.low)].map(|(row, at)| (row, number(at)));
        let margin = marks.iter().map(|(_, text)| text.len()).max().unwrap_or(0) as u16;
        let plot = Rect {
            x: area.x + margin + 2,
            width: area.width.saturating_sub(margin + 2),
            height: rows,
            ..area
        };
        for row in 0..rows {
            buffer.set_string(plot.x - 1, plot.y + row, "┤", Style::default());
        }
        for (row, text) in marks {
            let x = area.x + margin - text.len() as u16;
            buffer.set_string(x, area.y + row, text, Style::default());
        }
        self.shade(&scale, plot, buffer);
        self.draw_line(&scale, plot, buffer);
        self.draw_time(plot, buffer);
    }
}

impl Plot<'_> {
    fn shade(&self, scale: &Scale, plot: Rect, buffer: &mut Buffer) {
        let columns_of = |slot: u64| {
            let column = |slot: u64| (slot * u64::from(plot.width) / self.intervals) as u16;
            column(slot)..column(slot + 1).max(column(slot) + 1).min(plot.width)
        };
        for (slot, average) in self.shown() {
            let rows = scale.row(average.max, plot.height)..=scale.row(average.min, plot.height);
            for column in columns_of(slot) {
                for row in rows.clone() {
                    let at = (plot.x + column, plot.y + row);
                    if let Some(cell) = buffer.cell_mut(at) {
                        cell.set_symbol(SHADE).set_style(self.range);
                    }
                }
            }
        }
    }

    /// Neighbours are joined, and one alone is as long as its interval.
    fn draw_line(&self, scale: &Scale, plot: Rect, buffer: &mut Buffer) {
        let color = self.line.fg.unwrap_or_default();
        let points: Vec<(u64, f64)> = self
            .shown()
            .map(|(slot, average)| (slot, scale.share(average.avg)))
            .collect();
        let canvas = Canvas::default()
            .marker(Marker::Braille)
            .x_bounds([0.0, self.intervals as f64])
            .y_bounds([0.0, 1.0])
            .paint(|context| {
                for (slot, share) in &points {
                    let left = *slot as f64;
                    context.draw(&Line::new(left + 0.25, *share, left + 0.75, *share, color));
                }
                for pair in points.windows(2) {
                    let [(from, a), (to, b)] = [pair[0], pair[1]];
                    if from + 1 == to {
                        let (x, y) = (from as f64 + 0.75, to as f64 + 0.25);
                        context.draw(&Line::new(x, a, y, b, color));
                    }
                }
            });
        canvas.render(plot, buffer);
    }

    fn draw_time(&self, plot: Rect, buffer: &mut Buffer) {
        let end = self.end();
        let from = end.saturating_sub(self.intervals * self.width_secs());
        let from = utc_minute(from, DatePart::None);
        let until = format!("{} UTC", utc_minute(end, DatePart::None));
        let (row, width) = (plot.y + plot.height, usize::from(plot.width));
        if width > from.len() + until.len() {
            buffer.set_string(plot.x, row, &from, Style::default());
        }
        let x = plot.x + plot.width.saturating_sub(until.len() as u16);
        buffer.set_string(x, row, until, Style::default());
    }
}

/// The vertical axis: from 0, or a round number below it, to a round number.
#[derive(Debug, Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of<'a>(averages: impl Iterator<Item = &'a Average>) -> Self {
        let (mut min, mut max) = (0.0_f64, 0.0_f64);
        for average in averages {
            min = min.min(average.min);
            max = max.max(average.max);
        }
        // Not -0, which would be printed so.
        let (low, high) = (0.0 - round_up(-min), round_up(max));
        if low < high {
            Self { low, high }
        } else {
            Self {
                low: 0.0,
                high: 1.0,
            }
        }
    }

    /// From 0 at the bottom to 1.
    fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// From 0 at the top.
    fn row(&self, value: f64, rows: u16) -> u16 {
        let last = f64::from(rows.saturating_sub(1));
        ((1.0 - self.share(value)) * last).round() as u16
    }
}

/// The smallest of 1, 2, 4, 8 and 10 times a power of ten that is not below `value`: each has few
/// digits.
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

/// The rows of a buffer as text.
pub(crate) fn lines_of(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let rows = area.top()..area.bottom();
    let line = |y| {
        let cells = (area.left()..area.right()).filter_map(|x| buffer.cell((x, y)));
        let line: String = cells.map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    };
    rows.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(averages: &[(u64, f64, f64, f64)]) -> Summary {
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
        Summary {
            as_of: None,
            start: 0,
            end: 3600,
            timeslice_size_sec: 60,
            average_count: averages.len(),
            averages,
        }
    }

    fn drawn(summary: &Summary, width: u16, height: u16) -> Vec<String> {
        let plot = Plot {
            summary,
            intervals: 60,
            line: Style::default(),
            range: Style::default(),
        };
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        plot.render(buffer.area, &mut buffer);
        lines_of(&buffer)
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let series = summary(&[
            (60, 50.0, 0.0, 100.0),
            (120, 50.0, 50.0, 50.0),
            (3600, 100.0, 60.0, 100.0),
        ]);
        let expected = [
            "100.00 ┤░                                                          ⠐",
            "       ┤░                                                          ░",
            "       ┤⠤⠤                                                         ░",
            "       ┤░",
            "  0.00 ┤░",
            "        00:00                                              01:00 UTC",
        ];
        let lines = drawn(&series, 68, 6);
        let spaces = |line: &String| line.trim_end().to_owned();
        let lines: Vec<String> = lines.iter().map(spaces).collect();
        assert_eq!(lines.len(), expected.len());
        assert_eq!(lines[5], expected[5]);
        assert!(lines[2].starts_with("       ┤"), "{lines:#?}");
        let middle: Vec<char> = lines[2].chars().skip(8).collect();
        assert!(middle[2..58].iter().all(|c| *c == ' '), "a gap: {lines:#?}");
        assert!(lines[0].ends_with(|c: char| c != ' '), "{lines:#?}");
    }

    #[test]
    fn every_size_and_value_is_drawn() {
        let everything: Vec<_> = (1..=60)
            .map(|at| (at * 60, at as f64, 0.0, at as f64 * 2.0))
            .collect();
        for values in [
            &everything[..],
            &[],
            &[(600, 0.0, 0.0, 0.0)],
            &[(600, 1e290, -1e290, 1e290)],
            &[(600, -2.0, -3.0, -1.0)],
            &[(600, 5e-324, 5e-324, 5e-324)],
            &[(7200, 1.0, 1.0, 1.0)],
        ] {
            for (width, height) in [(0, 0), (10, 3), (24, 5), (40, 10), (80, 24), (300, 60)] {
                let lines = drawn(&summary(values), width, height);
                let is_small = width < COLUMNS_MIN || height < ROWS_MIN;
                assert_eq!(
                    lines.concat().trim().is_empty(),
                    is_small,
                    "{width}x{height}"
                );
            }
        }
    }

    #[test]
    fn the_scale_holds_every_value() {
        for (min, max, low, high) in [
            (0.0, 0.0, 0.0, 1.0),
            (0.0, 1e290, 0.0, 1e290),
            (-1e290, 1e290, -1e290, 1e290),
            (-3.0, -1.0, -4.0, 0.0),
            (0.0, 61.2, 0.0, 80.0),
            (0.0, 99.0, 0.0, 100.0),
        ] {
            let series = summary(&[(600, min, min, max)]);
            let scale = Scale::of(series.averages.iter());
            assert_eq!((scale.low, scale.high), (low, high), "{min} to {max}");
        }
    }
}
