//! Tables: one line per interval, or per host.

use comfy_table::{CellAlignment, Table, presets};
use lizmon_protocol::alarm::AlarmEntry;
use lizmon_protocol::summary::{HolderState, Host, Hosts, Summaries};

use super::format::{DatePart, ago, number, utc_minute, window_and_label};

const LABEL: &str = "LABEL";
const WINDOW: &str = "WINDOW";
const NUMBERS: [&str; 5] = ["UNTIL (UTC)", "SAMPLES", "AVG", "MIN", "MAX"];

/// One line per interval, oldest first; of each series only the `newest` so many, if given.
pub(crate) fn summaries(summaries: &Summaries, newest: Option<usize>) -> Vec<String> {
    table(summaries, newest, &[LABEL, WINDOW], |window, label| {
        vec![label.to_owned(), window.to_owned()]
    })
}

/// The same without the window column, for summaries of one window.
pub(crate) fn one_window(summaries: &Summaries, newest: Option<usize>) -> Vec<String> {
    table(summaries, newest, &[LABEL], |_, label| {
        vec![label.to_owned()]
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

/// One line per host.
pub(crate) fn hosts(hosts: &Hosts, now: u64) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "HOST",
        "LAST SAMPLE",
        "CERTIFICATE ENDS",
        "LABELS",
    ]);
    for host in &hosts.hosts {
        table.add_row([
            host.name.clone(),
            last_sample(host, now),
            certificate_end(host, now),
            host.labels.join(" "),
        ]);
    }
    trimmed(table)
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

fn trimmed(mut table: Table) -> Vec<String> {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines();
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// The age of the last sample; a silent host is marked.
fn last_sample(host: &Host, now: u64) -> String {
    let ago = ago(host.last_epoch, now);
    if host.silent {
        format!("{ago}, silent")
    } else {
        ago
    }
}

/// The end of the certificate, marked if it should have been renewed by now: `liz-ca` issues for 7
/// days, and a holder renews 42 hours before the end at the latest.
fn certificate_end(host: &Host, now: u64) -> String {
    const SOON_SECS: u64 = 36 * 3600;
    let end = utc_minute(host.certificate_end, DatePart::WithYear);
    match host.certificate_end.checked_sub(now) {
        _ if host.state == Some(HolderState::Revoked) => format!("{end}, revoked"),
        None => format!("{end}, ended"),
        Some(left) if left < SOON_SECS => format!("{end}, soon"),
        Some(_) => end,
    }
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

    #[test]
    fn one_line_per_host() {
        let host = |name: &str, last_epoch, silent| Host {
            name: name.into(),
            last_epoch,
            labels: vec!["cpu".into(), "mem".into()],
            certificate_end: 1_472_777_814,
            state: None,
            silent,
            last_received: None,
            facts: None,
            tags: Default::default(),
        };
        let all = Hosts {
            as_of: None,
            hosts: vec![
                host("web1", 1_465_001_814, false),
                host("web2", 1_465_001_217, true),
            ],
        };
        let expected = [
            "HOST  LAST SAMPLE         CERTIFICATE ENDS  LABELS",
            "web1  3 s ago             2016-09-02 00:56  cpu mem",
            "web2  10 min ago, silent  2016-09-02 00:56  cpu mem",
        ];
        assert_eq!(hosts(&all, 1_465_001_817), expected);
    }

    #[test]
    fn a_certificate_that_was_not_renewed_is_marked() {
        const END: u64 = 1_472_777_814;
        let host = Host {
            name: "web1".into(),
            last_epoch: END,
            labels: Vec::new(),
            certificate_end: END,
            state: None,
            silent: false,
            last_received: None,
            facts: None,
            tags: Default::default(),
        };
        for (now, expected) in [
            (END - 36 * 3600, "2016-09-02 00:56"),
            (END - 36 * 3600 + 1, "2016-09-02 00:56, soon"),
            (END, "2016-09-02 00:56, soon"),
            (END + 1, "2016-09-02 00:56, ended"),
        ] {
            assert_eq!(certificate_end(&host, now), expected, "{now}");
        }
    }
}
