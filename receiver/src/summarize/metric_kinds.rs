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
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

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
    pub fn with<'m>(
        &self,
        said: impl Iterator<Item = (&'m str, PointKind)> + Clone,
    ) -> Option<Self> {
        let is_new = |(metric, kind): (&str, PointKind)| self.of(metric) != kind;
        // Usually nothing is.
        if !said.clone().any(is_new) {
            return None;
        }
        let mut next = self.clone();
        let mut bytes: usize = next.0.keys().map(|metric| line_bytes(metric)).sum();
        for (metric, kind) in said {
            if kind == by_name(metric) {
                bytes -= next.0.remove(metric).map_or(0, |_| line_bytes(metric));
                continue;
            }
            if let Some(known) = next.0.get_mut(metric) {
                *known = kind;
                continue;
            }
            if bytes + line_bytes(metric) <= DOCUMENT_BYTES_MAX {
                bytes += line_bytes(metric);
                next.0.insert(metric.to_owned(), kind);
            }
        }
        (next != *self).then_some(next)
    }
}

/// Most metrics of a gateway that are remembered.
const SAID_MAX: usize = 10_000;

/// What a gateway's metadata has said of metrics. It names no hosts, and holds for all of them: also
/// what names say, as a host may have been told otherwise before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaidKinds {
    kinds: BTreeMap<String, PointKind>,
    digest: u64,
}

impl SaidKinds {
    /// With more; `None` if that is nothing new. Past the limit the rest is left out.
    #[must_use]
    pub fn with(&self, said: &[(String, PointKind)]) -> Option<Self> {
        let is_new = |(metric, kind): &(String, PointKind)| self.kinds.get(metric) != Some(kind);
        if !said.iter().any(is_new) {
            return None;
        }
        let mut next = self.clone();
        for (metric, kind) in said {
            if next.kinds.len() < SAID_MAX || next.kinds.contains_key(metric) {
                next.kinds.insert(metric.clone(), *kind);
            }
        }
        let mut hasher = DefaultHasher::new();
        next.kinds.hash(&mut hasher);
        next.digest = hasher.finish();
        (next != *self).then_some(next)
    }

    /// What it is remembered by where it was kept: a copy for each host would be large.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Each metric, and what it is.
    pub fn iter(&self) -> impl Iterator<Item = (&str, PointKind)> + Clone {
        self.kinds
            .iter()
            .map(|(metric, kind)| (metric.as_str(), *kind))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
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
        let said = |metric: &'static str, kind| std::iter::once((metric, kind));
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
        let metrics: Vec<_> = (0..1_000)
            .map(|at| format!("{}{at}", "m".repeat(200)))
            .collect();
        let metric = |at: usize| (metrics[at].as_str(), PointKind::Counter);
        let kinds = MetricKinds::default().with((0..1_000).map(metric)).unwrap();
        assert!(kinds.write().len() <= DOCUMENT_BYTES_MAX);
        assert!(kinds.write().len() > DOCUMENT_BYTES_MAX - 300);
        // What is known may change, and what goes makes room.
        let only = std::iter::once;
        let less = kinds.with(only((metric(0).0, PointKind::Gauge))).unwrap();
        assert!(less.write().len() < kinds.write().len());
        assert!(less.with(only(metric(999))).is_some());
        assert_eq!(kinds.with(only(metric(999))), None);
    }

    /// Regression: a gateway's correction of what it had said never came to its hosts.
    #[test]
    fn a_gateway_remembers_also_what_names_say() {
        use PointKind::{Counter, Gauge};
        let say = |of: &SaidKinds, metric: &str, kind| of.with(&[(metric.to_owned(), kind)]);
        let first = say(&SaidKinds::default(), "forks", Counter).unwrap();
        assert_eq!(say(&first, "forks", Counter), None);
        let of_host = MetricKinds::default().with(first.iter()).unwrap();
        assert_eq!(of_host.of("forks"), Counter);
        let second = say(&first, "forks", Gauge).unwrap();
        let of_host = of_host.with(second.iter()).unwrap();
        assert_eq!((of_host.of("forks"), of_host.write().len()), (Gauge, 0));
        assert_ne!(first.digest(), second.digest());
        let back = say(&second, "forks", Counter).unwrap();
        assert_eq!(back.digest(), first.digest());
        let many: Vec<_> = (0..SAID_MAX + 5)
            .map(|at| (format!("m{at}"), Gauge))
            .collect();
        let full = second.with(&many).unwrap();
        assert_eq!(full.len(), SAID_MAX);
        assert!(say(&full, "forks", Counter).is_some());
        assert_eq!(say(&full, "other", Counter), None);
    }
}
