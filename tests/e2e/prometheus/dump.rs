//! What `promtool tsdb dump` shows, and what a receiver must make of it.

use std::collections::BTreeMap;

const MILLIS: u64 = 1_000;
const MINUTE: u64 = 60;
/// The ends of the names of counters.
const COUNTER_ENDS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

/// A series by the names of its labels, with its metric as `__name__`.
pub(crate) type Labels = BTreeMap<String, String>;

/// A value at a time in milliseconds since 1970.
pub(crate) type Point = (u64, f64);

/// How many values there are, their sum, and the sum of their absolute values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Total {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) magnitude: f64,
}

impl Total {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.magnitude += value.abs();
    }
}

/// The series of a dump, whose lines are `{labels} value milliseconds`.
pub(crate) fn series_of(dump: &str) -> BTreeMap<Labels, Vec<Point>> {
    let mut series: BTreeMap<Labels, Vec<Point>> = BTreeMap::new();
    for line in dump.lines() {
        let (rest, time) = line.rsplit_once(' ').unwrap();
        let (labels, value) = rest.rsplit_once(' ').unwrap();
        let point = (time.parse().unwrap(), value.parse().unwrap());
        let points = series.entry(labels_of(labels)).or_default();
        assert!(points.last().is_none_or(|last| last.0 < point.0), "{line}");
        points.push(point);
    }
    series
}

/// `{a="b", c="d"}`, in which each value is quoted as in JSON.
fn labels_of(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text.strip_prefix('{').unwrap();
    while rest != "}" {
        let (name, quoted) = rest.split_once('=').unwrap();
        let mut values = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
        let value = values.next().unwrap().unwrap();
        rest = &quoted[values.byte_offset()..];
        rest = rest.strip_prefix(", ").unwrap_or(rest);
        labels.insert(name.to_owned(), value);
    }
    labels
}

/// The values that count: those of a gauge, and the rates of a counter between neighbours. At NaN a
/// series ends: Prometheus writes it for a series that it no longer sees.
pub(crate) fn counted(metric: &str, points: &[Point]) -> Vec<Point> {
    let is_counter = COUNTER_ENDS.iter().any(|end| metric.ends_with(end));
    let mut before: Option<Point> = None;
    let mut counted = Vec::new();
    for (millis, value) in points {
        let last = before.replace((*millis, *value));
        if value.is_nan() {
            before = None;
        } else if !is_counter {
            counted.push((*millis, *value));
        } else if let Some((since, from)) = last {
            let rise = if *value < from { *value } else { value - from };
            let secs = (millis - since) as f64 / MILLIS as f64;
            counted.push((*millis, rise / secs));
        }
    }
    counted
}

/// Totals by the ends of minutes, in seconds since 1970. A value counts in the second that its time
/// is rounded up to, and that in the minute of which it is not the start.
pub(crate) fn by_minute(counted: &[Point]) -> BTreeMap<u64, Total> {
    let mut minutes: BTreeMap<u64, Total> = BTreeMap::new();
    for (millis, value) in counted {
        let end = millis.div_ceil(MILLIS).div_ceil(MINUTE) * MINUTE;
        minutes.entry(end).or_default().add(*value);
    }
    minutes
}

/// The label that a series has in a receiver: without what says the host.
pub(crate) fn written(labels: &Labels, identity: &str) -> String {
    let pairs = labels.iter();
    let pairs =
        pairs.filter(|(name, value)| *name != "__name__" && *name != identity && !value.is_empty());
    let escaped = |value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        value.replace('\n', "\\n")
    };
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    let metric = &labels["__name__"];
    match pairs.is_empty() {
        true => metric.clone(),
        false => format!("{metric}{{{}}}", pairs.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read() {
        let dump = r#"{__name__="up", instance="a:1", job="x\"\\\n"} 1 1000
{__name__="up", instance="a:1", job="x\"\\\n"} NaN 2000
{__name__="go_info"} 1.5e-05 1000
"#;
        let series = series_of(dump);
        let labels = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Labels>()
        };
        let up = labels(&[("__name__", "up"), ("instance", "a:1"), ("job", "x\"\\\n")]);
        let info = labels(&[("__name__", "go_info")]);
        assert_eq!(series.len(), 2);
        assert_eq!(series[&info], [(1_000, 1.5e-5)]);
        assert!(series[&up][0] == (1_000, 1.0) && series[&up][1].1.is_nan());
        assert_eq!(written(&up, "instance"), r#"up{job="x\"\\\n"}"#);
        assert_eq!(written(&info, "instance"), "go_info");
    }

    #[test]
    fn counters_are_rates_between_neighbours() {
        let points = [
            (1_000, 5.0),
            (3_000, 9.0),
            (3_500, 2.0),
            (4_500, f64::NAN),
            (5_500, 3.0),
            (6_500, 4.0),
        ];
        let rates = [(3_000, 2.0), (3_500, 4.0), (6_500, 1.0)];
        assert_eq!(counted("a_total", &points), rates);
        let values = [
            (1_000, 5.0),
            (3_000, 9.0),
            (3_500, 2.0),
            (5_500, 3.0),
            (6_500, 4.0),
        ];
        assert_eq!(counted("a", &values), values);
    }

    #[test]
    fn a_minute_ends_with_its_last_second() {
        let minutes = by_minute(&[(59_001, 1.0), (60_000, -2.0), (60_001, 4.0)]);
        let total = |count, sum, magnitude| Total {
            count,
            sum,
            magnitude,
        };
        let expected = [(60, total(2, -1.0, 3.0)), (120, total(1, 4.0, 4.0))];
        assert_eq!(minutes, expected.into());
    }
}
