//! Summaries as CSV (RFC 4180), one line per interval.

use lizmon_protocol::name::NodeName;
use lizmon_protocol::summary::Summaries;

use super::format::window_and_label;
use crate::output::date;

const HEAD: [&str; 10] = [
    "host",
    "label",
    "window",
    "start-sec",
    "end-sec",
    "until",
    "num-samples",
    "avg",
    "min",
    "max",
];

/// A header, and a line per interval, oldest first.
pub(crate) fn summaries(host: &NodeName, summaries: &Summaries) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEAD)?;
    for (name, summary) in summaries {
        let (window, label) = window_and_label(name);
        for average in &summary.averages {
            writer.write_record([
                &harmless(host.as_str()),
                &harmless(label),
                &harmless(window),
                &average.start_sec.to_string(),
                &average.end_sec.to_string(),
                &date(average.end_sec),
                &average.num_samples.to_string(),
                &average.avg.to_string(),
                &average.min.to_string(),
                &average.max.to_string(),
            ])?;
        }
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

/// A spreadsheet takes a text that begins so for a formula, which may fetch or run something. Numbers
/// of our own may begin with a minus.
fn harmless(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::summary::{Average, Summary};

    use super::*;

    #[test]
    fn no_label_becomes_a_formula() {
        let summary = Summary {
            as_of: None,
            start: 0,
            end: 60,
            timeslice_size_sec: 60,
            average_count: 1,
            averages: vec![Average {
                start_sec: 1_465_001_760,
                end_sec: 1_465_001_820,
                interval_size_sec: 60,
                num_samples: 5,
                avg: -4.98,
                min: -1e290,
                max: 5.0,
            }],
        };
        let huge = format!("-1{}", "0".repeat(290));
        for (label, cell) in [
            ("cpu", "cpu"),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-x", "'-x"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1", "'＝1"),
        ] {
            let series = [(format!("summary:by-minute:{label}"), summary.clone())];
            let host = "web1".parse().unwrap();
            let csv = summaries(&host, &Summaries::from(series)).unwrap();
            let csv = String::from_utf8(csv).unwrap();
            let (head, line) = csv.split_once('\n').unwrap();
            assert_eq!(head, HEAD.join(","));
            let expected = format!(
                "web1,{cell},by-minute,1465001760,1465001820,2016-06-04T00:57:00Z,5,-4.98,{huge},5\n"
            );
            assert_eq!(line, expected, "{label}");
        }
    }
}
