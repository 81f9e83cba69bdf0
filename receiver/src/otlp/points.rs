//! What a request brings, as points of hosts. Pure. Every data point is taken, or counted as left out
//! and named.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::Value;
use lizmon_summary::{EpochRefusal, PointKind, accepts};

use super::left_out::{LeftOut, LeftOutReason};
use super::measures::{Measure, MetricData, PointHead, Since};
use super::message::{ExportMetricsServiceRequest, Metric};
use super::series::{ScopeOrigin, SeriesLabels, host_of, metric_name};
use crate::ingest::{HostPoints, SeriesHost};
use crate::store::record::PointNumber;

/// What is about to be too old is left out, as what is too old once the journal has its turn would
/// have all of the request refused.
const TURN_SECS: u64 = 60;
const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SEC: f64 = 1e9;
/// Of a counter that began longer before its point, points are missing: a rate over all of the time
/// would be counted as if it were one of now.
const START_NANOS_MAX: u64 = 3_600 * 1_000_000_000;

/// What a request brings.
#[derive(Debug, Default)]
pub struct OtlpPoints {
    /// Points, by host. A host is there also if all of its points were left out.
    pub hosts: BTreeMap<SeriesHost, HostPoints>,
    /// What is not in them.
    pub left_out: LeftOut,
}

/// What a request brings at this time, in seconds since 1970.
pub fn points(request: &ExportMetricsServiceRequest, now: u64) -> OtlpPoints {
    let mut hosts: BTreeMap<SeriesHost, PointsOfHost> = BTreeMap::new();
    let mut left_out = LeftOut::default();
    for of_resource in &request.resource_metrics {
        let resource = of_resource.resource.as_ref();
        if !of_resource.instrumentation_library_metrics.is_empty() {
            left_out.add("instrumentationLibraryMetrics", LeftOutReason::OldForm, 0);
        }
        let Some(host) = host_of(resource) else {
            for metric in of_resource.scope_metrics.iter().flat_map(|of| &of.metrics) {
                left_out.add(&metric.name, LeftOutReason::NoHost, len(metric));
            }
            continue;
        };
        let points = hosts.entry(host).or_default();
        for of_scope in &of_resource.scope_metrics {
            let origin = ScopeOrigin::of(resource, of_scope.scope.as_ref());
            for metric in &of_scope.metrics {
                let mut taker = Taker {
                    now,
                    origin: &origin,
                    points,
                    left_out: &mut left_out,
                };
                taker.take(metric);
            }
        }
    }
    let hosts = hosts.into_iter();
    let hosts = hosts.map(|(host, points)| (host, points.into_points()));
    OtlpPoints {
        hosts: hosts.collect(),
        left_out,
    }
}

/// How many data points a metric has.
fn len(metric: &Metric) -> u64 {
    MetricData::of(metric).map(MetricData::len).sum()
}

/// Takes the points of metrics of a scope.
struct Taker<'a, 'b> {
    now: u64,
    origin: &'b ScopeOrigin<'a>,
    points: &'b mut PointsOfHost,
    left_out: &'b mut LeftOut,
}

impl<'a> Taker<'a, '_> {
    fn take(&mut self, metric: &'a Metric) {
        let kinds: Vec<_> = MetricData::of(metric).collect();
        let data = match kinds[..] {
            _ if metric.name.is_empty() => Err(LeftOutReason::NoName),
            [] => Err(LeftOutReason::NoKind),
            [data] => Ok(data),
            _ => Err(LeftOutReason::ManyKinds),
        };
        let data = match data {
            Ok(data) => data,
            Err(reason) => return self.left_out.add(&metric.name, reason, len(metric)),
        };
        let name = metric_name(&metric.name);
        for (head, measures) in data.points() {
            let labels = || self.origin.labels(head.attributes, data.own_labels());
            let good = Times::of(&head, self.now).and_then(|times| Ok((times, measures?)));
            let faults = match good {
                Ok((times, measures)) => self.points.take(&times, &name, &labels(), &measures),
                Err(reason) => Err(vec![("", reason)]),
            };
            self.note(metric, faults);
        }
    }

    /// The faults of a point. It is left out if nothing of it was taken.
    fn note(&mut self, metric: &Metric, faults: Result<Faults, Faults>) {
        let (faults, mut points) = match faults {
            Ok(faults) => (faults, 0),
            Err(faults) => (faults, 1),
        };
        for (end, reason) in faults {
            self.left_out
                .add(&format!("{}{end}", metric.name), reason, points);
            points = 0;
        }
    }
}

/// What is wrong with values of a point, and which they are.
type Faults = Vec<(&'static str, LeftOutReason)>;

/// When a point is.
#[derive(Debug, Clone, Copy)]
struct Times {
    millis: u64,
    /// Seconds since it has begun, if that is known.
    secs: Option<f64>,
    /// When its counters were at zero, if that counts.
    zero_millis: Option<u64>,
    is_end: bool,
}

impl Times {
    fn of(head: &PointHead<'_>, now: u64) -> Result<Self, LeftOutReason> {
        let millis = head.nanos / NANOS_PER_MILLI;
        check(millis, now)?;
        let nanos = head.nanos.checked_sub(head.start_nanos);
        let nanos = nanos.filter(|nanos| *nanos > 0 && head.start_nanos > 0);
        let zero_millis = head.start_nanos / NANOS_PER_MILLI;
        let is_near = nanos.is_some_and(|nanos| nanos <= START_NANOS_MAX);
        let counts = is_near && zero_millis < millis && check(zero_millis, now).is_ok();
        Ok(Self {
            millis,
            secs: nanos.map(|nanos| nanos as f64 / NANOS_PER_SEC),
            zero_millis: counts.then_some(zero_millis),
            is_end: head.is_end,
        })
    }
}

/// Whether points of this time are taken.
fn check(millis: u64, now: u64) -> Result<(), LeftOutReason> {
    let kind = PointKind::Gauge;
    let (_, epoch) = PointNumber { millis, kind }
        .stored()
        .ok_or(LeftOutReason::Time)?;
    let accepted = accepts(epoch.secs(), now).and_then(|()| accepts(epoch.secs(), now + TURN_SECS));
    accepted.map_err(|refusal| match refusal {
        EpochRefusal::TooOld => LeftOutReason::TooOld,
        EpochRefusal::InFuture => LeftOutReason::InFuture,
    })
}

/// The points of a host, by series and time.
#[derive(Debug, Default)]
struct PointsOfHost(BTreeMap<(Label<'static>, u64), Taken>);

#[derive(Debug, Clone, Copy)]
struct Taken {
    kind: PointKind,
    value: Value,
}

impl PointsOfHost {
    /// Takes the values of a point. With faults it is taken in part, or not at all.
    fn take(
        &mut self,
        times: &Times,
        metric: &str,
        labels: &SeriesLabels<'_>,
        measures: &[Measure],
    ) -> Result<Faults, Faults> {
        let mut faults = Faults::new();
        let mut is_taken = false;
        for measure in measures {
            match self.take_measure(times, metric, labels, measure) {
                Ok(()) => is_taken = true,
                Err(reason) => faults.push((measure.end, reason)),
            }
        }
        if is_taken {
            return Ok(faults);
        }
        // What all values have in common is said once.
        faults.dedup_by(|one, other| one.1 == other.1);
        Err(faults)
    }

    fn take_measure(
        &mut self,
        times: &Times,
        metric: &str,
        labels: &SeriesLabels<'_>,
        measure: &Measure,
    ) -> Result<(), LeftOutReason> {
        let (kind, value) = match measure.since {
            _ if times.is_end => (PointKind::End, 0.0),
            Since::Never => (PointKind::Gauge, measure.value),
            Since::Start if measure.value < 0.0 => return Err(LeftOutReason::Negative),
            Since::Start => (PointKind::Counter, measure.value),
            Since::Last => {
                let secs = times.secs.ok_or(LeftOutReason::NoStart)?;
                (PointKind::Gauge, measure.value / secs)
            }
        };
        let value = Value::new(value).ok_or(LeftOutReason::Value)?;
        let metric = match measure.end {
            "" => Cow::Borrowed(metric),
            end => Cow::Owned(format!("{metric}{end}")),
        };
        let label = match measure.quantile {
            Some(quantile) => labels.label_of_quantile(&metric, quantile),
            None => labels.label(&metric),
        };
        let label = label.map_err(LeftOutReason::Label)?;
        if kind == PointKind::Counter
            && let Some(millis) = times.zero_millis
            && let Some(value) = Value::new(0.0)
        {
            let zero = Taken {
                kind: PointKind::Start,
                value,
            };
            self.0.entry((label.clone(), millis)).or_insert(zero);
        }
        let taken = Taken { kind, value };
        match self.0.entry((label, times.millis)) {
            // That it was at zero then is not so.
            Entry::Occupied(mut other) if other.get().kind == PointKind::Start => {
                other.insert(taken);
            }
            Entry::Occupied(_) => return Err(LeftOutReason::SameTime),
            Entry::Vacant(free) => {
                free.insert(taken);
            }
        }
        Ok(())
    }

    fn into_points(self) -> HostPoints {
        let mut points = HostPoints::new();
        for ((label, millis), Taken { kind, value }) in self.0 {
            let number = PointNumber { millis, kind };
            points.entry(number).or_default().push((label, value));
        }
        points
    }
}
