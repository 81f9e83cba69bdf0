//! The messages of remote write 1.0 and of remote read: `prompb/remote.proto` and
//! `prompb/types.proto` of Prometheus.

use prost::Message;

use crate::protobuf::Skipped;
use crate::protobuf::wire::{MessageShape, Nested};

/// As a `Content-Type` names the message of remote write 1.0.
pub const WRITE_REQUEST: &str = "prometheus.WriteRequest";
/// As a `Content-Type` would name the message of remote read.
pub const READ_REQUEST: &str = "prometheus.ReadRequest";

/// The bits of the NaN that ends a series: `value.StaleNaN` of Prometheus. Every other NaN is a
/// value.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The body of a remote write.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// Samples, by series.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// What metrics mean. It is sent apart from samples.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

/// What a metric means.
#[derive(Clone, PartialEq, Message)]
pub struct MetricMetadata {
    /// What kind of metric it is.
    #[prost(enumeration = "MetricType", tag = "1")]
    pub r#type: i32,
    /// Its name, without `_sum`, `_count` or `_bucket`.
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
    /// What it tells.
    #[prost(string, tag = "4")]
    pub help: String,
    /// The unit of its values.
    #[prost(string, tag = "5")]
    pub unit: String,
}

/// What kind of metric one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum MetricType {
    /// Nothing is said of it.
    Unknown = 0,
    /// It rises, until it begins again.
    Counter = 1,
    /// It rises and falls.
    Gauge = 2,
    /// Buckets with a sum and a count.
    Histogram = 3,
    /// The same, where counts may fall.
    GaugeHistogram = 4,
    /// Quantiles with a sum and a count.
    Summary = 5,
    /// Labels that tell something; the value is 1.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

/// A series and its samples.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// What identifies it, by name; the metric is `__name__`.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<LabelPair>,
    /// Its samples, the oldest first.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<SamplePair>,
    /// How many examples of a value there are.
    #[prost(message, repeated, tag = "3")]
    pub exemplars: Vec<Skipped>,
    /// How many native histograms there are.
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Skipped>,
}

/// One of what identifies a series.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct LabelPair {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it says.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A value at a time.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SamplePair {
    /// The value: a NaN with [`STALE_NAN_BITS`] says that there are no more.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// The body of a remote read.
#[derive(Clone, PartialEq, Message)]
pub struct ReadRequest {
    /// What is asked for; each is answered by itself.
    #[prost(message, repeated, tag = "1")]
    pub queries: Vec<Query>,
    /// In which forms the answer may come, the best first. Samples may always come.
    #[prost(enumeration = "ResponseType", repeated, tag = "2")]
    pub accepted_response_types: Vec<i32>,
}

/// How a remote read is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ResponseType {
    /// One block of snappy with a [`ReadResponse`].
    Samples = 0,
    /// Many messages, each with a chunk as Prometheus stores it.
    StreamedXorChunks = 1,
}

/// Which samples of which series.
#[derive(Clone, PartialEq, Message)]
pub struct Query {
    /// Milliseconds since 1970, included.
    #[prost(int64, tag = "1")]
    pub start_timestamp_ms: i64,
    /// Milliseconds since 1970, included.
    #[prost(int64, tag = "2")]
    pub end_timestamp_ms: i64,
    /// All of them must match.
    #[prost(message, repeated, tag = "3")]
    pub matchers: Vec<LabelMatcher>,
    /// What the samples are for.
    #[prost(message, optional, tag = "4")]
    pub hints: Option<ReadHints>,
}

/// What a label's value must be. A label that is not there is one that is empty.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LabelMatcher {
    /// How the value is compared.
    #[prost(enumeration = "MatcherType", tag = "1")]
    pub r#type: i32,
    /// The label.
    #[prost(string, tag = "2")]
    pub name: String,
    /// A text, or a regular expression.
    #[prost(string, tag = "3")]
    pub value: String,
}

/// How a label's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum MatcherType {
    /// It is the text.
    Equal = 0,
    /// It is not.
    NotEqual = 1,
    /// The whole of it matches the expression.
    Matches = 2,
    /// It does not.
    MatchesNot = 3,
}

/// What the samples of a query are for. Whoever answers may leave it aside.
#[derive(Clone, PartialEq, Message)]
pub struct ReadHints {
    /// Milliseconds between two steps of the query; 0 if it has one.
    #[prost(int64, tag = "1")]
    pub step_ms: i64,
    /// The function or aggregation around the series.
    #[prost(string, tag = "2")]
    pub func: String,
    /// The first time of interest, in milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub start_ms: i64,
    /// The last.
    #[prost(int64, tag = "4")]
    pub end_ms: i64,
    /// The labels of an aggregation.
    #[prost(string, repeated, tag = "5")]
    pub grouping: Vec<String>,
    /// Whether it keeps those labels, or leaves them out.
    #[prost(bool, tag = "6")]
    pub by: bool,
    /// Milliseconds of a range of samples, as in `cpu[5m]`; 0 without one.
    #[prost(int64, tag = "7")]
    pub range_ms: i64,
}

/// The answer to a remote read.
#[derive(Clone, PartialEq, Message)]
pub struct ReadResponse {
    /// One for each query, in their order.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<QueryResult>,
}

/// The answer to one query.
#[derive(Clone, PartialEq, Message)]
pub struct QueryResult {
    /// The series, by their labels.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

const PLAIN: MessageShape = MessageShape(&[]);
const TIME_SERIES: MessageShape = MessageShape(&[(1, &PLAIN), (2, &PLAIN)]);
const QUERY: MessageShape = MessageShape(&[(3, &PLAIN), (4, &PLAIN)]);

impl Nested for WriteRequest {
    const SHAPE: MessageShape = MessageShape(&[(1, &TIME_SERIES), (3, &PLAIN)]);
}

impl Nested for TimeSeries {
    const SHAPE: MessageShape = TIME_SERIES;
}

impl Nested for ReadRequest {
    const SHAPE: MessageShape = MessageShape(&[(1, &QUERY)]);
}
