//! Tables: one line per interval.

use comfy_table::{CellAlignment, Table, presets};
use lizmon_protocol::alarm::AlarmEntry;
use lizmon_protocol::summary::Summaries;

use super::format::{DatePart, ago, number, utc_minute, window_and_label};
use super::safe;

const LABEL: &str = "LABEL";
const WINDOW: &str = "WINDOW";
const NUMBERS: [&str; 5] = ["UNTIL (UTC)", "SAMPLES", "AVG", "MIN", "MAX"];

/// One line per interval, oldest first; of each series only the `newest` so many, if given.
pub(crate) fn summaries(summaries: &Summaries, newest: Option<usize>) -> Vec<String> {
    table(summaries, newest, &[LABEL, WINDOW], |window, label| {
        vec![safe::text(label), safe::text(window)]
    })
}

/// The same without the window column, for summaries of one window.
pub(crate) fn one_window(summaries: &Summaries, newest: Option<usize>) -> Vec<String> {
    table(summaries, newest, &[LABEL], |_, label| {
        vec![safe::text(label)]
    })
}

fn table(
    summaries: &Summaries,
    newest: Option<usize>,
    head: &[&str],
    name_cells: impl Fn(&str, &str) -> Vec<String>,
) -> Vec<String> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(head.iter().chain(&NUMBERS));
    for (name, summary) in summaries {
        let (window, label) = window_and_label(name);
        let shown = newest.unwrap_or(usize::MAX);
        let skipped = summary.averages.len().saturating_sub(shown);
        for average in &summary.averages[skipped..] {
            let mut cells = name_cells(window, label);
            cells.extend([
                utc_minute(average.end_sec, DatePart::Shown),
                average.num_samples.to_string(),
                number(average.avg),
                number(average.min),
                number(average.max),
            ]);
            table.add_row(cells);
        }
    }
    for column in table.column_iter_mut().skip(head.len() + 1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    trimmed(table)
}

/// How many lines each series gets so that all fit on the terminal, with the header and the cursor.
pub(crate) fn lines_per_series(summaries: &Summaries, rows: usize) -> usize {
    (rows.saturating_sub(3) / summaries.len().max(1)).max(1)
}

/// One line per alarm.
pub(crate) fn alarms(alarms: &[AlarmEntry], now: u64) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "HOST", "RULE", "LABEL", "STATE", "VALUE", "SINCE", "SEVERITY",
    ]);
    for alarm in alarms {
        let mut state = alarm.state.as_str().to_owned();
        for (holds, word) in [
            (alarm.silenced_until.is_some(), ", silenced"),
            (alarm.flapping, ", flapping"),
        ] {
            state.push_str(if holds { word } else { "" });
        }
        let label = alarm.label.as_deref().unwrap_or("-");
        table.add_row([
            alarm.host.escape_debug().to_string(),
            alarm.rule.escape_debug().to_string(),
            label.escape_debug().to_string(),
            state,
            number(alarm.value),
            ago(alarm.since, now),
            alarm.severity.escape_debug().to_string(),
        ]);
    }
    trimmed(table)
}

pub(super) fn trimmed(mut table: Table) -> Vec<String> {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines();
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::summary::{Average, Summary};

    use super::*;

    fn average(end_sec: u64, avg: f64) -> Average {
        Average {
            start_sec: end_sec - 60,
            end_sec,
            interval_size_sec: 60,
            num_samples: 5,
            avg,
            min: avg - 1.0,
            max: avg + 1.0,
        }
    }

    fn by_minute(ends: &[u64]) -> Summary {
        Summary {
            as_of: None,
            start: 1_464_998_160,
            end: 1_465_001_814,
            timeslice_size_sec: 60,
            average_count: ends.len(),
            averages: ends.iter().map(|end| average(*end, 4.98)).collect(),
        }
    }

    #[test]
    fn one_line_per_interval() {
        let all = Summaries::from([
            (
                "summary:by-minute:cpu".to_owned(),
                by_minute(&[1_465_001_760, 1_465_001_820]),
            ),
            (
                "summary:by-minute:disk:/".to_owned(),
                by_minute(&[1_465_001_820]),
            ),
        ]);
        let expected = [
            "LABEL   WINDOW     UNTIL (UTC)  SAMPLES   AVG   MIN   MAX",
            "cpu     by-minute  06-04 00:56        5  4.98  3.98  5.98",
            "cpu     by-minute  06-04 00:57        5  4.98  3.98  5.98",
            "disk:/  by-minute  06-04 00:57        5  4.98  3.98  5.98",
        ];
        assert_eq!(summaries(&all, None), expected);
        let newest = [expected[0], expected[2], expected[3]];
        assert_eq!(summaries(&all, Some(1)), newest);
        let without_window = newest.map(|line| format!("{}{}", &line[..8], &line[19..]));
        assert_eq!(one_window(&all, Some(1)), without_window);
    }
}
