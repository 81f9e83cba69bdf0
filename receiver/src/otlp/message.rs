//! The messages of a metrics export, in both encodings of OTLP/HTTP: `metrics.proto`,
//! `common.proto` and `metrics_service.proto` of opentelemetry-proto. What nobody asks for is left
//! out: receivers skip fields that they do not know.
//!
//! A `oneof` is a field for each of its choices here: on the wire and in JSON it is nothing else.
//! What is in more than one of them can then be told.

use prost::Message;
use serde::{Deserialize, Deserializer};

use super::attribute::KeyValue;
use super::json::{self, Scalar};
use crate::protobuf::Skipped;
use crate::protobuf::wire::{MessageShape, Nested};

/// The bit of [`NumberDataPoint::flags`] and its like that says: there is no value, the series has
/// ended.
pub const NO_RECORDED_VALUE: u32 = 1;

/// The body of a request.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExportMetricsServiceRequest {
    /// Metrics, by what they are of.
    #[prost(message, repeated, tag = "1")]
    #[serde(alias = "resource_metrics", deserialize_with = "json::messages")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

/// The metrics of a resource.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceMetrics {
    /// What they are of.
    #[prost(message, optional, tag = "1")]
    #[serde(deserialize_with = "json::message")]
    pub resource: Option<Resource>,
    /// The metrics, by what measured them.
    #[prost(message, repeated, tag = "2")]
    #[serde(alias = "scope_metrics", deserialize_with = "json::messages")]
    pub scope_metrics: Vec<ScopeMetrics>,
    /// Where OTLP had `scope_metrics` before 0.15.
    #[prost(message, repeated, tag = "1000")]
    #[serde(
        alias = "instrumentation_library_metrics",
        deserialize_with = "json::skipped"
    )]
    pub instrumentation_library_metrics: Vec<Skipped>,
}

/// What metrics are of: a service, a machine.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resource {
    /// What identifies it.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::messages")]
    pub attributes: Vec<KeyValue>,
}

/// The metrics of a scope.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ScopeMetrics {
    /// What measured them.
    #[prost(message, optional, tag = "1")]
    #[serde(deserialize_with = "json::message")]
    pub scope: Option<InstrumentationScope>,
    /// The metrics.
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "json::messages")]
    pub metrics: Vec<Metric>,
}

/// What measured metrics: a library, or a part of a program.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InstrumentationScope {
    /// Its name.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::scalar")]
    pub name: String,
}

/// A metric: one of its kinds, on the heap, so that many empty metrics take little memory.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metric {
    /// Its name.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::scalar")]
    pub name: String,
    /// What is measured is counted as it is.
    #[prost(message, optional, boxed, tag = "5")]
    #[serde(deserialize_with = "json::message")]
    pub gauge: Option<Box<Gauge>>,
    /// What is measured has been added up.
    #[prost(message, optional, boxed, tag = "7")]
    #[serde(deserialize_with = "json::message")]
    pub sum: Option<Box<Sum>>,
    /// What is measured has been sorted into buckets.
    #[prost(message, optional, boxed, tag = "9")]
    #[serde(deserialize_with = "json::message")]
    pub histogram: Option<Box<Histogram>>,
    /// The same, with buckets that grow exponentially.
    #[prost(message, optional, boxed, tag = "10")]
    #[serde(alias = "exponential_histogram", deserialize_with = "json::message")]
    pub exponential_histogram: Option<Box<ExponentialHistogram>>,
    /// What is measured is given by its quantiles.
    #[prost(message, optional, boxed, tag = "11")]
    #[serde(deserialize_with = "json::message")]
    pub summary: Option<Box<QuantileSummary>>,
}

/// Values as they were measured.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gauge {
    /// By attributes and time.
    #[prost(message, repeated, tag = "1")]
    #[serde(alias = "data_points", deserialize_with = "json::messages")]
    pub data_points: Vec<NumberDataPoint>,
}

/// What values add up to.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sum {
    /// By attributes and time.
    #[prost(message, repeated, tag = "1")]
    #[serde(alias = "data_points", deserialize_with = "json::messages")]
    pub data_points: Vec<NumberDataPoint>,
    /// Since when they add up.
    #[prost(enumeration = "AggregationTemporality", tag = "2")]
    #[serde(alias = "aggregation_temporality", deserialize_with = "temporality")]
    pub aggregation_temporality: i32,
    /// Whether no value is below zero.
    #[prost(bool, tag = "3")]
    #[serde(alias = "is_monotonic", deserialize_with = "json::scalar")]
    pub is_monotonic: bool,
}

/// Values in buckets.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Histogram {
    /// By attributes and time.
    #[prost(message, repeated, tag = "1")]
    #[serde(alias = "data_points", deserialize_with = "json::messages")]
    pub data_points: Vec<HistogramDataPoint>,
    /// Since when they are counted.
    #[prost(enumeration = "AggregationTemporality", tag = "2")]
    #[serde(alias = "aggregation_temporality", deserialize_with = "temporality")]
    pub aggregation_temporality: i32,
}

/// Values in buckets that grow exponentially.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExponentialHistogram {
    /// By attributes and time.
    #[prost(message, repeated, tag = "1")]
    #[serde(alias = "data_points", deserialize_with = "json::messages")]
    pub data_points: Vec<ExponentialHistogramDataPoint>,
    /// Since when they are counted.
    #[prost(enumeration = "AggregationTemporality", tag = "2")]
    #[serde(alias = "aggregation_temporality", deserialize_with = "temporality")]
    pub aggregation_temporality: i32,
}

/// Values by their quantiles.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QuantileSummary {
    /// By attributes and time.
    #[prost(message, repeated, tag = "1")]
    #[serde(alias = "data_points", deserialize_with = "json::messages")]
    pub data_points: Vec<SummaryDataPoint>,
}

/// Since when values add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum AggregationTemporality {
    /// Nothing is said of it.
    Unspecified = 0,
    /// Since the point before.
    Delta = 1,
    /// Since the start of the process.
    Cumulative = 2,
}

/// The number of an [`AggregationTemporality`], which may be given by its name.
fn temporality<'de, D: Deserializer<'de>>(value: D) -> Result<i32, D::Error> {
    Ok(json::scalar::<D, EnumNumber>(value)?.0)
}

/// The number of a value of an enum. Names are not for OTLP to use, and some do. One that is not
/// known is like a number that is not.
#[derive(Default)]
struct EnumNumber(i32);

impl Scalar for EnumNumber {
    const EXPECTED: &'static str = "a number, or the name of an aggregation temporality";

    fn of_integer(integer: i128) -> Option<Self> {
        i32::of_integer(integer).map(Self)
    }

    fn of_double(double: f64) -> Option<Self> {
        i32::of_double(double).map(Self)
    }

    fn of_text(text: &str) -> Option<Self> {
        const UNKNOWN: i32 = -1;
        let name = text.strip_prefix("AGGREGATION_TEMPORALITY_");
        let number = match name {
            Some("UNSPECIFIED") => AggregationTemporality::Unspecified.into(),
            Some("DELTA") => AggregationTemporality::Delta.into(),
            Some("CUMULATIVE") => AggregationTemporality::Cumulative.into(),
            _ => UNKNOWN,
        };
        Some(Self(number))
    }
}

/// A number at a time.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NumberDataPoint {
    /// What identifies the series, beside its metric.
    #[prost(message, repeated, tag = "7")]
    #[serde(deserialize_with = "json::messages")]
    pub attributes: Vec<KeyValue>,
    /// Since when its number adds up, in nanoseconds since 1970; 0 if that is not known.
    #[prost(fixed64, tag = "2")]
    #[serde(alias = "start_time_unix_nano", deserialize_with = "json::scalar")]
    pub start_time_unix_nano: u64,
    /// When, in nanoseconds since 1970.
    #[prost(fixed64, tag = "3")]
    #[serde(alias = "time_unix_nano", deserialize_with = "json::scalar")]
    pub time_unix_nano: u64,
    /// The number, or
    #[prost(double, optional, tag = "4")]
    #[serde(alias = "as_double", deserialize_with = "json::optional")]
    pub as_double: Option<f64>,
    /// the number.
    #[prost(sfixed64, optional, tag = "6")]
    #[serde(alias = "as_int", deserialize_with = "json::optional")]
    pub as_int: Option<i64>,
    /// [`NO_RECORDED_VALUE`] may be in it.
    #[prost(uint32, tag = "8")]
    #[serde(deserialize_with = "json::scalar")]
    pub flags: u32,
}

/// Values in buckets, at a time. The buckets are not asked for.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HistogramDataPoint {
    /// What identifies the series, beside its metric.
    #[prost(message, repeated, tag = "9")]
    #[serde(deserialize_with = "json::messages")]
    pub attributes: Vec<KeyValue>,
    /// Since when values are counted, in nanoseconds since 1970; 0 if that is not known.
    #[prost(fixed64, tag = "2")]
    #[serde(alias = "start_time_unix_nano", deserialize_with = "json::scalar")]
    pub start_time_unix_nano: u64,
    /// When, in nanoseconds since 1970.
    #[prost(fixed64, tag = "3")]
    #[serde(alias = "time_unix_nano", deserialize_with = "json::scalar")]
    pub time_unix_nano: u64,
    /// How many values.
    #[prost(fixed64, tag = "4")]
    #[serde(deserialize_with = "json::scalar")]
    pub count: u64,
    /// What they add up to.
    #[prost(double, optional, tag = "5")]
    #[serde(deserialize_with = "json::optional")]
    pub sum: Option<f64>,
    /// [`NO_RECORDED_VALUE`] may be in it.
    #[prost(uint32, tag = "10")]
    #[serde(deserialize_with = "json::scalar")]
    pub flags: u32,
    /// The least.
    #[prost(double, optional, tag = "11")]
    #[serde(deserialize_with = "json::optional")]
    pub min: Option<f64>,
    /// The greatest.
    #[prost(double, optional, tag = "12")]
    #[serde(deserialize_with = "json::optional")]
    pub max: Option<f64>,
}

/// Values in buckets that grow exponentially, at a time. The buckets are not asked for.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExponentialHistogramDataPoint {
    /// What identifies the series, beside its metric.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::messages")]
    pub attributes: Vec<KeyValue>,
    /// Since when values are counted, in nanoseconds since 1970; 0 if that is not known.
    #[prost(fixed64, tag = "2")]
    #[serde(alias = "start_time_unix_nano", deserialize_with = "json::scalar")]
    pub start_time_unix_nano: u64,
    /// When, in nanoseconds since 1970.
    #[prost(fixed64, tag = "3")]
    #[serde(alias = "time_unix_nano", deserialize_with = "json::scalar")]
    pub time_unix_nano: u64,
    /// How many values.
    #[prost(fixed64, tag = "4")]
    #[serde(deserialize_with = "json::scalar")]
    pub count: u64,
    /// What they add up to.
    #[prost(double, optional, tag = "5")]
    #[serde(deserialize_with = "json::optional")]
    pub sum: Option<f64>,
    /// [`NO_RECORDED_VALUE`] may be in it.
    #[prost(uint32, tag = "10")]
    #[serde(deserialize_with = "json::scalar")]
    pub flags: u32,
    /// The least.
    #[prost(double, optional, tag = "12")]
    #[serde(deserialize_with = "json::optional")]
    pub min: Option<f64>,
    /// The greatest.
    #[prost(double, optional, tag = "13")]
    #[serde(deserialize_with = "json::optional")]
    pub max: Option<f64>,
}

/// Values by their quantiles, at a time.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SummaryDataPoint {
    /// What identifies the series, beside its metric.
    #[prost(message, repeated, tag = "7")]
    #[serde(deserialize_with = "json::messages")]
    pub attributes: Vec<KeyValue>,
    /// Since when values are counted, in nanoseconds since 1970; 0 if that is not known.
    #[prost(fixed64, tag = "2")]
    #[serde(alias = "start_time_unix_nano", deserialize_with = "json::scalar")]
    pub start_time_unix_nano: u64,
    /// When, in nanoseconds since 1970.
    #[prost(fixed64, tag = "3")]
    #[serde(alias = "time_unix_nano", deserialize_with = "json::scalar")]
    pub time_unix_nano: u64,
    /// How many values.
    #[prost(fixed64, tag = "4")]
    #[serde(deserialize_with = "json::scalar")]
    pub count: u64,
    /// What they add up to.
    #[prost(double, tag = "5")]
    #[serde(deserialize_with = "json::scalar")]
    pub sum: f64,
    /// Some of their quantiles.
    #[prost(message, repeated, tag = "6")]
    #[serde(alias = "quantile_values", deserialize_with = "json::messages")]
    pub quantile_values: Vec<ValueAtQuantile>,
    /// [`NO_RECORDED_VALUE`] may be in it.
    #[prost(uint32, tag = "8")]
    #[serde(deserialize_with = "json::scalar")]
    pub flags: u32,
}

/// A quantile.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ValueAtQuantile {
    /// Which: 0 is the least, 1 the greatest.
    #[prost(double, tag = "1")]
    #[serde(deserialize_with = "json::scalar")]
    pub quantile: f64,
    /// The value.
    #[prost(double, tag = "2")]
    #[serde(deserialize_with = "json::scalar")]
    pub value: f64,
}

const PLAIN: MessageShape = MessageShape(&[]);
/// A value may have others in it, and they more.
static ANY_VALUE: MessageShape = MessageShape(&[(5, &ARRAY), (6, &MAP)]);
static ARRAY: MessageShape = MessageShape(&[(1, &ANY_VALUE)]);
static MAP: MessageShape = MessageShape(&[(1, &KEY_VALUE)]);
static KEY_VALUE: MessageShape = MessageShape(&[(2, &ANY_VALUE)]);
static RESOURCE: MessageShape = MessageShape(&[(1, &KEY_VALUE)]);
static NUMBERS: MessageShape = MessageShape(&[(1, &MessageShape(&[(7, &KEY_VALUE)]))]);
static HISTOGRAM: MessageShape = MessageShape(&[(1, &MessageShape(&[(9, &KEY_VALUE)]))]);
static EXPONENTIAL: MessageShape = MessageShape(&[(1, &MessageShape(&[(1, &KEY_VALUE)]))]);
static SUMMARY: MessageShape = MessageShape(&[(1, &MessageShape(&[(6, &PLAIN), (7, &KEY_VALUE)]))]);
static METRIC: MessageShape = MessageShape(&[
    (5, &NUMBERS),
    (7, &NUMBERS),
    (9, &HISTOGRAM),
    (10, &EXPONENTIAL),
    (11, &SUMMARY),
]);
static SCOPE_METRICS: MessageShape = MessageShape(&[(1, &PLAIN), (2, &METRIC)]);
static RESOURCE_METRICS: MessageShape =
    MessageShape(&[(1, &RESOURCE), (2, &SCOPE_METRICS), (1000, &PLAIN)]);

impl Nested for ExportMetricsServiceRequest {
    const SHAPE: MessageShape = MessageShape(&[(1, &RESOURCE_METRICS)]);
}
