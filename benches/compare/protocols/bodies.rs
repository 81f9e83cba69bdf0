//! Requests with samples of 1,000 series like those of node_exporter, ten seconds apart.

use std::fmt;

use anyhow::{Context as _, Result};
use hyper::body::Bytes;
use lizmon_receiver::otlp::attribute::{self, AnyValue, KeyValue};
use lizmon_receiver::otlp::message::{
    AggregationTemporality, ExportMetricsServiceRequest, Gauge, Metric, NumberDataPoint, Resource,
    ResourceMetrics, ScopeMetrics, Sum,
};
use lizmon_receiver::prometheus::message::{LabelPair, SamplePair, TimeSeries, WriteRequest};
use prost::Message as _;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Protocol;
use crate::scene::now;

/// Of a host.
pub(crate) const SERIES: usize = METRICS.len() * DEVICES;
const STEP_SECS: u64 = 10;
/// A record of a batch has so many values at most.
const RECORD_VALUES: usize = 250;
/// Each metric has a series for so many devices.
const DEVICES: usize = 50;
const METRICS: [&str; 20] = [
    "node_cpu_seconds_total",
    "node_cpu_guest_seconds_total",
    "node_disk_io_time_seconds_total",
    "node_disk_read_bytes_total",
    "node_disk_reads_completed_total",
    "node_disk_written_bytes_total",
    "node_network_receive_bytes_total",
    "node_network_receive_packets_total",
    "node_network_transmit_bytes_total",
    "node_network_transmit_packets_total",
    "node_cpu_scaling_frequency_hertz",
    "node_disk_io_now",
    "node_filesystem_avail_bytes",
    "node_filesystem_files_free",
    "node_filesystem_free_bytes",
    "node_hwmon_temp_celsius",
    "node_network_carrier",
    "node_network_mtu_bytes",
    "node_network_speed_bytes",
    "node_network_up",
];

/// How samples are divided among requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Division {
    /// All series at one time.
    Scrapes,
    /// The series of a metric at ten times.
    Steps,
}

impl Division {
    /// How many series a request has, and how many times.
    const fn shape(self) -> (usize, u64) {
        match self {
            Self::Scrapes => (SERIES, 1),
            Self::Steps => (DEVICES, 10),
        }
    }
}

impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (series, times) = self.shape();
        write!(f, "requests of {series} series x {times}")
    }
}

/// How many series are counters.
pub(crate) fn counters() -> usize {
    METRICS.iter().filter(|metric| is_counter(metric)).count() * DEVICES
}

fn is_counter(metric: &str) -> bool {
    metric.ends_with("_total")
}

/// A series of a host.
struct Series {
    metric: &'static str,
    device: String,
    number: u64,
}

impl Series {
    fn all() -> Vec<Self> {
        let series = (0..SERIES).map(|at| Self {
            metric: METRICS[at / DEVICES],
            device: format!("device{}", at % DEVICES),
            number: at as u64,
        });
        series.collect()
    }

    /// As a receiver calls it.
    fn label(&self) -> String {
        format!(r#"{}{{device="{}",job="node"}}"#, self.metric, self.device)
    }

    fn value(&self, step: u64) -> f64 {
        match is_counter(self.metric) {
            true => (self.number * 1_000 + step * (self.number % 89)) as f64 / 4.0,
            false => ((self.number * 7_919 + step * 104_729) % 10_000) as f64 / 100.0,
        }
    }
}

/// The requests of a host, in their order.
pub(crate) struct Bodies(pub(crate) Vec<Bytes>);

impl Bodies {
    /// So many times, the last of them now.
    pub(crate) fn of(
        host: &str,
        protocol: Protocol,
        division: Division,
        steps: u64,
    ) -> Result<Self> {
        let (at_once, times) = division.shape();
        let began = now() - steps * STEP_SECS;
        let series = Series::all();
        let producer = Uuid::new_v4();
        let (mut bodies, mut seq) = (Vec::new(), 0);
        for first in (0..steps).step_by(times as usize) {
            let points: Vec<_> = (first..first + times)
                .map(|step| (step, began + (step + 1) * STEP_SECS))
                .collect();
            for some in series.chunks(at_once) {
                bodies.push(Bytes::from(match protocol {
                    Protocol::Batches => batch(producer, &mut seq, some, &points)?,
                    Protocol::RemoteWrite => remote_write(host, some, &points)?,
                    Protocol::Otlp => otlp(host, began, some, &points),
                    Protocol::OtlpJson => otlp_json(host, began, some, &points)?,
                }));
            }
        }
        Ok(Self(bodies))
    }
}

/// Steps, and when they are.
type Points<'a> = &'a [(u64, u64)];

fn batch(producer: Uuid, seq: &mut u64, series: &[Series], points: Points<'_>) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    for (step, epoch) in points {
        for of_record in series.chunks(RECORD_VALUES) {
            let values = of_record.iter();
            let values = values.map(|series| (series.label(), series.value(*step).into()));
            let values: Map<String, Value> = values.collect();
            *seq += 1;
            records.push(json!({"seq": *seq, "epoch": epoch, "values": values}));
        }
    }
    serde_json::to_vec(&json!({"producer": producer, "records": records})).context("a batch")
}

fn remote_write(host: &str, series: &[Series], points: Points<'_>) -> Result<Vec<u8>> {
    let instance = format!("{host}:9100");
    let pair = |name: &str, value: &str| LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let timeseries = series.iter().map(|series| TimeSeries {
        labels: vec![
            pair("__name__", series.metric),
            pair("device", &series.device),
            pair("instance", &instance),
            pair("job", "node"),
        ],
        samples: points
            .iter()
            .map(|(step, epoch)| SamplePair {
                value: series.value(*step),
                timestamp: *epoch as i64 * 1_000,
            })
            .collect(),
        ..TimeSeries::default()
    });
    let request = WriteRequest {
        timeseries: timeseries.collect(),
        ..WriteRequest::default()
    };
    snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .context("snappy")
}

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// With when counters were zero, as SDKs say it.
fn otlp(host: &str, began: u64, series: &[Series], points: Points<'_>) -> Vec<u8> {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(attribute::TypedValue::Text(value.to_owned())),
        }),
    };
    let metric = |of_metric: &[Series]| {
        let name = of_metric[0].metric;
        let data_points = of_metric.iter().flat_map(|series| {
            let data_point = |(step, epoch): &(u64, u64)| NumberDataPoint {
                attributes: vec![attribute("device", &series.device)],
                start_time_unix_nano: began * NANOS_PER_SEC,
                time_unix_nano: epoch * NANOS_PER_SEC,
                as_double: Some(series.value(*step)),
                ..NumberDataPoint::default()
            };
            points.iter().map(data_point)
        });
        let data_points = data_points.collect();
        let mut metric = Metric {
            name: name.to_owned(),
            ..Metric::default()
        };
        match is_counter(name) {
            true => {
                metric.sum = Some(Box::new(Sum {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                }));
            }
            false => metric.gauge = Some(Box::new(Gauge { data_points })),
        }
        metric
    };
    let resource = Resource {
        attributes: vec![
            attribute("host.name", host),
            attribute("service.name", "node"),
        ],
    };
    let scope_metrics = ScopeMetrics {
        metrics: series.chunks(DEVICES).map(metric).collect(),
        ..ScopeMetrics::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        }],
    };
    request.encode_to_vec()
}

fn otlp_json(host: &str, began: u64, series: &[Series], points: Points<'_>) -> Result<Vec<u8>> {
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let nanos = |secs: u64| (secs * NANOS_PER_SEC).to_string();
    let metric = |of_metric: &[Series]| {
        let name = of_metric[0].metric;
        let data_points = of_metric.iter().flat_map(|series| {
            points.iter().map(|(step, epoch)| {
                json!({
                    "attributes": [attribute("device", &series.device)],
                    "startTimeUnixNano": nanos(began),
                    "timeUnixNano": nanos(*epoch),
                    "asDouble": series.value(*step),
                })
            })
        });
        let data_points: Vec<Value> = data_points.collect();
        match is_counter(name) {
            true => {
                let (temporality, is_monotonic) = (AggregationTemporality::Cumulative as i32, true);
                json!({"name": name, "sum": {
                    "dataPoints": data_points,
                    "aggregationTemporality": temporality,
                    "isMonotonic": is_monotonic,
                }})
            }
            false => json!({"name": name, "gauge": {"dataPoints": data_points}}),
        }
    };
    let metrics: Vec<Value> = series.chunks(DEVICES).map(metric).collect();
    let attributes = [
        attribute("host.name", host),
        attribute("service.name", "node"),
    ];
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": attributes},
        "scopeMetrics": [{"metrics": metrics}],
    }]});
    serde_json::to_vec(&request).context("OTLP")
}
