//! What metadata says of metrics: which are counters.

use lizmon_summary::PointKind;

use super::message::{MetricMetadata, MetricType};
use super::naming::is_metric;

/// Most families of one request: Prometheus sends as many as samples, 500 or 2,000.
const FAMILIES_MAX: usize = 20_000;

/// There are too many.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it has metadata of more than {FAMILIES_MAX} metrics")]
pub struct TooMuchMetadata;

/// The metrics that this is about, and what each is. Names that no metric can have are passed over.
pub fn kinds(metadata: &[MetricMetadata]) -> Result<Vec<(String, PointKind)>, TooMuchMetadata> {
    if metadata.len() > FAMILIES_MAX {
        return Err(TooMuchMetadata);
    }
    let of_family = metadata.iter().flat_map(|said| {
        let family = &said.metric_family_name;
        let kinds = kinds_of(said.r#type()).iter();
        kinds.map(move |(end, kind)| (format!("{family}{end}"), *kind))
    });
    Ok(of_family.filter(|(metric, _)| is_metric(metric)).collect())
}

/// What the metrics of a family are, by the ends of their names.
fn kinds_of(family: MetricType) -> &'static [(&'static str, PointKind)] {
    use PointKind::{Counter, Gauge};
    match family {
        MetricType::Counter => &[("", Counter)],
        MetricType::Gauge | MetricType::Info | MetricType::StateSet => &[("", Gauge)],
        MetricType::Histogram => &[("_bucket", Counter), ("_sum", Counter), ("_count", Counter)],
        MetricType::GaugeHistogram => &[("_bucket", Gauge), ("_gsum", Gauge), ("_gcount", Gauge)],
        MetricType::Summary => &[("", Gauge), ("_sum", Counter), ("_count", Counter)],
        MetricType::Unknown => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_families() {
        use PointKind::{Counter, Gauge};
        let check = |family: &str, kind: MetricType, expected: &[(&str, PointKind)]| {
            let said = MetricMetadata {
                r#type: kind.into(),
                metric_family_name: family.to_owned(),
                ..MetricMetadata::default()
            };
            let found = kinds(&[said]).unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|(metric, kind)| (&**metric, *kind))
                .collect();
            assert_eq!(found, expected, "{family} {kind:?}");
        };
        check(
            "node_forks",
            MetricType::Counter,
            &[("node_forks", Counter)],
        );
        check("up", MetricType::Gauge, &[("up", Gauge)]);
        check("build", MetricType::Info, &[("build", Gauge)]);
        check("state", MetricType::StateSet, &[("state", Gauge)]);
        let classic = [
            ("h_bucket", Counter),
            ("h_sum", Counter),
            ("h_count", Counter),
        ];
        check("h", MetricType::Histogram, &classic);
        let of_gauges = [("h_bucket", Gauge), ("h_gsum", Gauge), ("h_gcount", Gauge)];
        check("h", MetricType::GaugeHistogram, &of_gauges);
        let quantiles = [("gc", Gauge), ("gc_sum", Counter), ("gc_count", Counter)];
        check("gc", MetricType::Summary, &quantiles);
        check("what_total", MetricType::Unknown, &[]);
        check("no name", MetricType::Counter, &[]);
        check(
            "",
            MetricType::Histogram,
            &[("_bucket", Counter), ("_sum", Counter), ("_count", Counter)],
        );
    }
}
