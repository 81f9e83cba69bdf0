//! Which metrics of a host are counters: by their names, unless metadata says otherwise.
//!
//! ```text
//! counter node_forks
//! gauge kafka_topic_partition_count
//! ```
//!
//! Prometheus sends metadata apart from samples, once a minute, and not at first. So names decide,
//! as the conventions have them, and what is kept with a host are the exceptions alone.
//! <https://prometheus.io/docs/practices/naming/>

use std::collections::BTreeMap;

use lizmon_summary::PointKind;

use crate::store::DOCUMENT_BYTES_MAX;

/// The end of the name of every counter, by convention, and of what histograms and summaries count.
const COUNTER_ENDS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

/// What metadata says otherwise than names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricKinds(BTreeMap<String, PointKind>);

impl MetricKinds {
    /// The document's body. What cannot be read is left out.
    pub fn read(body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let read = text.lines().filter_map(|line| match line.split_once(' ')? {
            ("counter", metric) => Some((metric.to_owned(), PointKind::Counter)),
            ("gauge", metric) => Some((metric.to_owned(), PointKind::Gauge)),
            _ => None,
        });
        Self(read.collect())
    }

    /// The document's body.
    pub fn write(&self) -> Vec<u8> {
        let mut text = String::new();
        for (metric, kind) in &self.0 {
            let word = match kind {
                PointKind::Counter | PointKind::Start => "counter",
                PointKind::Gauge | PointKind::End => "gauge",
            };
            text.extend([word, " ", metric, "\n"]);
        }
        text.into_bytes()
    }

    /// What the values of this metric are.
    pub fn of(&self, metric: &str) -> PointKind {
        let said = self.0.get(metric).copied();
        said.unwrap_or_else(|| by_name(metric))
    }

    /// With what is said of these metrics, each of which is a name; `None` if that is nothing new.
    /// Past what a document holds the rest is left out: names decide then.
    #[must_use]
    pub fn with(&self, said: impl IntoIterator<Item = (String, PointKind)>) -> Option<Self> {
        let mut next = self.clone();
        let mut bytes: usize = next.0.keys().map(|metric| line_bytes(metric)).sum();
        for (metric, kind) in said {
            if kind == by_name(&metric) {
                bytes -= next.0.remove(&metric).map_or(0, |_| line_bytes(&metric));
                continue;
            }
            if let Some(known) = next.0.get_mut(&metric) {
                *known = kind;
                continue;
            }
            if bytes + line_bytes(&metric) <= DOCUMENT_BYTES_MAX {
                bytes += line_bytes(&metric);
                next.0.insert(metric, kind);
            }
        }
        (next != *self).then_some(next)
    }

    /// Each metric of which metadata says otherwise.
    pub fn exceptions(&self) -> impl Iterator<Item = (String, PointKind)> {
        self.0.iter().map(|(metric, kind)| (metric.clone(), *kind))
    }
}

fn line_bytes(metric: &str) -> usize {
    "counter ".len() + metric.len() + 1
}

fn by_name(metric: &str) -> PointKind {
    match COUNTER_ENDS.iter().any(|end| metric.ends_with(end)) {
        true => PointKind::Counter,
        false => PointKind::Gauge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_unless_metadata_says_otherwise() {
        use PointKind::{Counter, Gauge};
        let none = MetricKinds::default();
        for (metric, kind) in [
            ("http_requests_total", Counter),
            ("latency_seconds_bucket", Counter),
            ("latency_seconds_sum", Counter),
            ("latency_seconds_count", Counter),
            ("node_load1", Gauge),
            ("total", Gauge),
        ] {
            assert_eq!(none.of(metric), kind, "{metric}");
        }
        let said = |metric: &str, kind| [(metric.to_owned(), kind)];
        let kinds = none.with(said("node_forks", Counter)).unwrap();
        let kinds = kinds.with(said("partition_count", Gauge)).unwrap();
        assert_eq!(kinds.of("node_forks"), Counter);
        assert_eq!(kinds.of("partition_count"), Gauge);
        assert_eq!(
            kinds.write(),
            b"counter node_forks\ngauge partition_count\n"
        );
        assert_eq!(MetricKinds::read(&kinds.write()), kinds);
        // The same again is nothing new, and what names say needs no line.
        assert_eq!(kinds.with(said("node_forks", Counter)), None);
        assert_eq!(kinds.with(said("http_requests_total", Counter)), None);
        let back = kinds.with(said("node_forks", Gauge)).unwrap();
        assert_eq!(back.of("node_forks"), Gauge);
        assert_eq!(back.write(), b"gauge partition_count\n");
        assert_eq!(MetricKinds::read(b"\xff"), none);
        assert_eq!(MetricKinds::read(b"what is this\ncounter\n"), none);
    }

    #[test]
    fn a_document_has_a_maximum_size() {
        let metric = |at| (format!("{}{at}", "m".repeat(200)), PointKind::Counter);
        let kinds = MetricKinds::default().with((0..1_000).map(metric)).unwrap();
        assert!(kinds.write().len() <= DOCUMENT_BYTES_MAX);
        assert!(kinds.write().len() > DOCUMENT_BYTES_MAX - 300);
        // What is known may change, and what goes makes room.
        let first = || "m".repeat(200) + "0";
        let less = kinds.with([(first(), PointKind::Gauge)]).unwrap();
        assert!(less.write().len() < kinds.write().len());
        assert!(less.with([metric(999)]).is_some());
        assert_eq!(kinds.with([metric(999)]), None);
    }
}
