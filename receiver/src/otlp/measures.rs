//! What is kept of a data point of each kind.
//!
//! | kind | series | what its values are |
//! | --- | --- | --- |
//! | gauge | `name` | as measured |
//! | sum | `name` | as measured, if it may fall; else a counter; a delta is a rate |
//! | histogram, exponential histogram | `name_count`, `name_sum` | a counter, or a rate |
//! | | `name_min`, `name_max` | as measured |
//! | summary | `name_count`, `name_sum` | a counter |
//! | | `name{quantile="0.5"}` | as measured |
//!
//! Buckets are not kept.

use super::attribute::KeyValue;
use super::left_out::LeftOutReason;
use super::message::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NO_RECORDED_VALUE, NumberDataPoint, QuantileSummary, Sum,
    SummaryDataPoint,
};

/// The data points of a metric.
#[derive(Debug, Clone, Copy)]
pub(super) enum MetricData<'a> {
    Gauge(&'a Gauge),
    Sum(&'a Sum),
    Histogram(&'a Histogram),
    ExponentialHistogram(&'a ExponentialHistogram),
    Summary(&'a QuantileSummary),
}

/// What all data points have.
#[derive(Debug, Clone, Copy)]
pub(super) struct PointHead<'a> {
    pub(super) attributes: &'a [KeyValue],
    pub(super) start_nanos: u64,
    pub(super) nanos: u64,
    /// There is no value: the series has ended.
    pub(super) is_end: bool,
}

/// One of the values of a data point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    /// What follows the metric's name.
    pub(super) end: &'static str,
    /// Of a summary.
    pub(super) quantile: Option<f64>,
    pub(super) since: Since,
    pub(super) value: f64,
}

/// Since when a value adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// It does not, or it may fall: it counts as it is.
    Never,
    /// The start of the process: a counter.
    Start,
    /// The point before.
    Last,
}

impl<'a> MetricData<'a> {
    /// Those of a metric: of one kind, if it is good.
    pub(super) fn of(metric: &'a Metric) -> impl Iterator<Item = Self> {
        let all = [
            metric.gauge.as_deref().map(Self::Gauge),
            metric.sum.as_deref().map(Self::Sum),
            metric.histogram.as_deref().map(Self::Histogram),
            metric
                .exponential_histogram
                .as_deref()
                .map(Self::ExponentialHistogram),
            metric.summary.as_deref().map(Self::Summary),
        ];
        all.into_iter().flatten()
    }

    /// How many they are.
    pub(super) fn len(self) -> u64 {
        let len = match self {
            Self::Gauge(gauge) => gauge.data_points.len(),
            Self::Sum(sum) => sum.data_points.len(),
            Self::Histogram(histogram) => histogram.data_points.len(),
            Self::ExponentialHistogram(histogram) => histogram.data_points.len(),
            Self::Summary(summary) => summary.data_points.len(),
        };
        len as u64
    }

    /// Labels that its series have of themselves.
    pub(super) fn own_labels(self) -> &'static [&'static str] {
        match self {
            Self::Summary(_) => &[super::series::QUANTILE],
            _ => &[],
        }
    }

    /// Each, with its values, or why it has none.
    pub(super) fn points(self) -> Box<dyn Iterator<Item = (PointHead<'a>, Measured)> + 'a> {
        match self {
            Self::Gauge(Gauge { data_points }) => of_numbers(data_points, Ok(Since::Never)),
            Self::Sum(sum) => {
                let since = match (since(sum.aggregation_temporality), sum.is_monotonic) {
                    (Ok(Since::Start), false) => Ok(Since::Never),
                    (since, _) => since,
                };
                of_numbers(&sum.data_points, since)
            }
            Self::Histogram(histogram) => {
                let since = since(histogram.aggregation_temporality);
                let points = histogram.data_points.iter().map(Distribution::of);
                Box::new(points.map(move |of| (of.head, of.measures(since.clone()))))
            }
            Self::ExponentialHistogram(histogram) => {
                let since = since(histogram.aggregation_temporality);
                let points = histogram.data_points.iter();
                let points = points.map(Distribution::of_exponential);
                Box::new(points.map(move |of| (of.head, of.measures(since.clone()))))
            }
            Self::Summary(summary) => Box::new(summary.data_points.iter().map(of_summary)),
        }
    }
}

/// The values of a data point, or why there are none.
pub(super) type Measured = Result<Vec<Measure>, LeftOutReason>;

fn since(temporality: i32) -> Result<Since, LeftOutReason> {
    match AggregationTemporality::try_from(temporality) {
        Ok(AggregationTemporality::Cumulative) => Ok(Since::Start),
        Ok(AggregationTemporality::Delta) => Ok(Since::Last),
        Ok(AggregationTemporality::Unspecified) | Err(_) => Err(LeftOutReason::NoTemporality),
    }
}

fn is_end(flags: u32) -> bool {
    flags & NO_RECORDED_VALUE != 0
}

fn measure(end: &'static str, since: Since, value: f64) -> Measure {
    Measure {
        end,
        quantile: None,
        since,
        value,
    }
}

fn of_numbers(
    points: &[NumberDataPoint],
    since: Result<Since, LeftOutReason>,
) -> Box<dyn Iterator<Item = (PointHead<'_>, Measured)> + '_> {
    Box::new(points.iter().map(move |point| {
        let head = PointHead {
            attributes: &point.attributes,
            start_nanos: point.start_time_unix_nano,
            nanos: point.time_unix_nano,
            is_end: is_end(point.flags),
        };
        let value = match (point.as_double, point.as_int) {
            _ if head.is_end => Ok(0.0),
            (Some(double), None) => Ok(double),
            (None, Some(integer)) => Ok(integer as f64),
            (None, None) => Err(LeftOutReason::NoValue),
            (Some(_), Some(_)) => Err(LeftOutReason::TwoValues),
        };
        let measured = since
            .clone()
            .and_then(|since| Ok(vec![measure("", since, value?)]));
        (head, measured)
    }))
}

/// A data point of a histogram of either kind.
#[derive(Debug, Clone, Copy)]
struct Distribution<'a> {
    head: PointHead<'a>,
    count: u64,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

impl<'a> Distribution<'a> {
    fn of(point: &'a HistogramDataPoint) -> Self {
        Self {
            head: PointHead {
                attributes: &point.attributes,
                start_nanos: point.start_time_unix_nano,
                nanos: point.time_unix_nano,
                is_end: is_end(point.flags),
            },
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
        }
    }

    fn of_exponential(point: &'a ExponentialHistogramDataPoint) -> Self {
        Self {
            head: PointHead {
                attributes: &point.attributes,
                start_nanos: point.start_time_unix_nano,
                nanos: point.time_unix_nano,
                is_end: is_end(point.flags),
            },
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
        }
    }

    fn measures(&self, since: Result<Since, LeftOutReason>) -> Measured {
        let since = since?;
        // A point without a value does not say whether there was a sum.
        let sum = self.sum.or(self.head.is_end.then_some(0.0));
        let optional = |end, since, value: Option<f64>| Some(measure(end, since, value?));
        let measures = [
            Some(measure("_count", since, self.count as f64)),
            optional("_sum", since, sum),
            optional("_min", Since::Never, self.min),
            optional("_max", Since::Never, self.max),
        ];
        Ok(measures.into_iter().flatten().collect())
    }
}

fn of_summary(point: &SummaryDataPoint) -> (PointHead<'_>, Measured) {
    let head = PointHead {
        attributes: &point.attributes,
        start_nanos: point.start_time_unix_nano,
        nanos: point.time_unix_nano,
        is_end: is_end(point.flags),
    };
    let counters = [("_count", point.count as f64), ("_sum", point.sum)];
    let counters = counters.map(|(end, value)| measure(end, Since::Start, value));
    let quantiles = point.quantile_values.iter().map(|at| Measure {
        quantile: Some(at.quantile),
        ..measure("", Since::Never, at.value)
    });
    (head, Ok(counters.into_iter().chain(quantiles).collect()))
}
