//! Summaries as plots that are printed: as wide as the terminal.

use lizmon_protocol::summary::{Summaries, Summary};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::Widget;

use super::format::window_and_label;
use super::plot::{COLUMNS_MIN, Plot, lines_of};
use super::safe;

/// Rows of one plot, with the time below it.
const HEIGHT: u16 = 10;
/// The widest plot: wider ones are harder to read.
const COLUMNS_MAX: usize = 240;
/// More of them are not told apart.
const INTERVALS_MAX: u64 = 10_000;

/// Why there is no chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChartError {
    #[error("the terminal has {0} columns, and a chart takes {COLUMNS_MIN}")]
    TooNarrow(usize),
    #[error(
        "charts take UTF-8, and LC_ALL, LC_CTYPE or LANG says that this terminal has another encoding"
    )]
    NotUtf8,
}

/// Whether charts can be shown here.
pub(crate) fn check(columns: usize, is_utf8: bool) -> Result<(), ChartError> {
    if !is_utf8 {
        return Err(ChartError::NotUtf8);
    }
    match columns < usize::from(COLUMNS_MIN) {
        true => Err(ChartError::TooNarrow(columns)),
        false => Ok(()),
    }
}

/// Whether the locale's encoding is UTF-8: the first of these variables that is set says so (POSIX,
/// Base Definitions, section 8.2).
pub(crate) fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"];
    let mut set = set.iter().filter_map(|name| variable(name));
    let Some(locale) = set.find(|locale| !locale.is_empty()) else {
        // Nothing says otherwise; on macOS and in containers nothing is set.
        return true;
    };
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// How many intervals there are from the start of a summary to its end.
pub(crate) fn intervals(summary: &Summary) -> u64 {
    let width = summary.timeslice_size_sec.max(1);
    let span = summary.end.saturating_sub(summary.start);
    span.div_ceil(width).clamp(1, INTERVALS_MAX)
}

/// A plot per series, below its title.
pub(crate) fn charts(summaries: &Summaries, columns: usize) -> Vec<String> {
    let width = columns.min(COLUMNS_MAX) as u16;
    let mut lines = Vec::new();
    for (name, summary) in summaries {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let (window, label) = window_and_label(name);
        lines.push(format!("{} {window}: average, ░ range", safe::text(label)));
        if summary.averages.is_empty() {
            continue;
        }
        let plot = Plot {
            summary,
            intervals: intervals(summary),
            line: Style::default(),
            range: Style::default(),
        };
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, HEIGHT));
        plot.render(buffer.area, &mut buffer);
        lines.extend(lines_of(&buffer));
    }
    lines
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::summary::Average;

    use super::*;

    #[test]
    fn a_chart_is_as_wide_as_the_terminal() {
        let averages: Vec<Average> = (1..=60)
            .map(|at| Average {
                start_sec: at * 60 - 60,
                end_sec: at * 60,
                interval_size_sec: 60,
                num_samples: 5,
                avg: at as f64,
                min: 0.0,
                max: 60.0,
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
        let series = [("summary:by-minute:c\u{202e}pu".to_owned(), summary)];
        let series = Summaries::from(series);
        for columns in [24, 40, 80, 132, 1000] {
            let lines = charts(&series, columns);
            assert_eq!(lines[0], "c\\u{202e}pu by-minute: average, ░ range");
            assert_eq!(lines.len(), 1 + usize::from(HEIGHT));
            let widths = lines[1..].iter().map(|line| line.chars().count());
            assert_eq!(widths.max(), Some(columns.min(COLUMNS_MAX)), "{columns}");
            assert!(lines[10].ends_with("01:00 UTC"), "{}", lines[10]);
        }
        assert!(charts(&Summaries::new(), 80).is_empty());
    }

    #[test]
    fn where_a_chart_cannot_be_shown() {
        assert_eq!(check(80, true), Ok(()));
        assert_eq!(check(23, true), Err(ChartError::TooNarrow(23)));
        assert_eq!(check(80, false), Err(ChartError::NotUtf8));
        for (variables, expected) in [
            ("", true),
            ("LANG=C.UTF-8", true),
            ("LANG=de_DE.utf8", true),
            ("LANG=de_DE.ISO-8859-1", false),
            ("LANG=C", false),
            ("LANG=C.UTF-8 LC_ALL=C", false),
            ("LANG=C LC_CTYPE=C.UTF-8", true),
            ("LC_ALL= LANG=C.UTF-8", true),
        ] {
            let value = |name: &str| {
                let mut pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
                let (_, value) = pairs.find(|(found, _)| *found == name)?;
                Some(value.to_owned())
            };
            assert_eq!(is_utf8(value), expected, "{variables}");
        }
    }
}
