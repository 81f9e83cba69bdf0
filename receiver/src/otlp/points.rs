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
use super::series::{ResourceOrigin, ScopeOrigin, SeriesLabels, metric_name};
use crate::body::UNPACKED_BYTES_MAX;
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

/// A value beside the name of its series: when it was, and what.
const VALUE_BYTES: usize = 16;
/// Bytes of a request's values, each with the name of its series. A message names a metric once for
/// all of its points, and so 8 MiB of it became hundreds. The 8,192 points that a Collector sends at
/// once have half of this with names of 500 bytes.
pub const POINTS_BYTES_MAX: usize = UNPACKED_BYTES_MAX;

/// What a request brings.
#[derive(Debug, Default)]
pub struct OtlpPoints {
    /// Points, by host. A host is there also if all of its points were left out.
    pub hosts: BTreeMap<SeriesHost, HostPoints>,
    /// What is not in them.
    pub left_out: LeftOut,
    /// The request brings more than [`POINTS_BYTES_MAX`]. Then it is refused: the rest is empty.
    pub is_too_much: bool,
}

/// What a request brings at this time, in seconds since 1970.
pub fn points(request: &ExportMetricsServiceRequest, now: u64) -> OtlpPoints {
    points_within(request, now).unwrap_or_else(|TooManyPoints| OtlpPoints {
        is_too_much: true,
        ..OtlpPoints::default()
    })
}

/// The points of a request have too many bytes.
#[derive(Debug)]
struct TooManyPoints;

fn points_within(
    request: &ExportMetricsServiceRequest,
    now: u64,
) -> Result<OtlpPoints, TooManyPoints> {
    let mut hosts: BTreeMap<SeriesHost, PointsOfHost> = BTreeMap::new();
    let mut left_out = LeftOut::default();
    let mut room = Room(POINTS_BYTES_MAX);
    for of_resource in &request.resource_metrics {
        if !of_resource.instrumentation_library_metrics.is_empty() {
            let field = "instrumentationLibraryMetrics";
            left_out.add(field, "", LeftOutReason::OldForm, 0);
        }
        let resource = ResourceOrigin::of(of_resource.resource.as_ref());
        let Some(host) = resource.host() else {
            for metric in of_resource.scope_metrics.iter().flat_map(|of| &of.metrics) {
                left_out.add(&metric.name, "", LeftOutReason::NoHost, len(metric));
            }
            continue;
        };
        let points = hosts.entry(host.clone()).or_default();
        for of_scope in &of_resource.scope_metrics {
            let mut taker = Taker {
                now,
                origin: &resource.scope(of_scope.scope.as_ref()),
                points,
                room: &mut room,
                left_out: &mut left_out,
            };
            for metric in &of_scope.metrics {
                taker.take(metric)?;
            }
        }
    }
    let hosts = hosts.into_iter();
    let hosts = hosts.map(|(host, points)| (host, points.into_points()));
    Ok(OtlpPoints {
        hosts: hosts.collect(),
        left_out,
        is_too_much: false,
    })
}

/// How many data points a metric has.
fn len(metric: &Metric) -> u64 {
    MetricData::of(metric).map(MetricData::len).sum()
}

/// How many bytes of points there may still be.
#[derive(Debug)]
struct Room(usize);

impl Room {
    /// For a value of this series.
    fn take(&mut self, label: &Label<'_>) -> Result<(), TooManyPoints> {
        let left = self.0.checked_sub(label.as_str().len() + VALUE_BYTES);
        self.0 = left.ok_or(TooManyPoints)?;
        Ok(())
    }
}

/// Takes the points of metrics of a scope.
struct Taker<'a> {
    now: u64,
    origin: &'a ScopeOrigin<'a>,
    points: &'a mut PointsOfHost,
    room: &'a mut Room,
    left_out: &'a mut LeftOut,
}

impl Taker<'_> {
    fn take(&mut self, metric: &Metric) -> Result<(), TooManyPoints> {
        let kinds: Vec<_> = MetricData::of(metric).collect();
        let name = metric_name(&metric.name);
        let data = match kinds[..] {
            _ if metric.name.is_empty() => Err(LeftOutReason::NoName),
            [] => Err(LeftOutReason::NoKind),
            [data] => match self.origin.check(&name) {
                Ok(()) => Ok(data),
                Err(error) => Err(LeftOutReason::Label(error)),
            },
            _ => Err(LeftOutReason::ManyKinds),
        };
        let data = match data {
            Ok(data) => data,
            Err(reason) => {
                self.left_out.add(&metric.name, "", reason, len(metric));
                return Ok(());
            }
        };
        for (head, measures) in data.points() {
            let good = Times::of(&head, self.now).and_then(|times| {
                let measures = measures?;
                let own = data.own_labels();
                let labels = self.origin.labels(&name, head.attributes, own);
                Ok((times, measures, labels.map_err(LeftOutReason::Label)?))
            });
            let (times, measures, labels) = match good {
                Ok(good) => good,
                Err(reason) => {
                    self.left_out.add(&metric.name, "", reason, 1);
                    continue;
                }
            };
            let series = (&*name, &labels);
            let faults = self.points.take(&times, series, &measures, self.room)?;
            self.note(metric, faults, measures.len());
        }
        Ok(())
    }

    /// The faults of a point of so many values. It is left out if nothing of it was taken.
    fn note(&mut self, metric: &Metric, mut faults: Faults, values: usize) {
        let is_left_out = faults.len() == values;
        if is_left_out {
            // What all values have in common is said once.
            faults.dedup_by(|one, other| one.1 == other.1);
            self.left_out.values += (values - faults.len()) as u64;
        }
        let mut points = u64::from(is_left_out);
        for (end, reason) in faults {
            self.left_out.add(&metric.name, end, reason, points);
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

/// Why a value is not taken.
enum Refused {
    /// It alone is left out.
    Value(LeftOutReason),
    /// All of the request is refused.
    All,
}

impl From<LeftOutReason> for Refused {
    fn from(reason: LeftOutReason) -> Self {
        Self::Value(reason)
    }
}

impl From<TooManyPoints> for Refused {
    fn from(TooManyPoints: TooManyPoints) -> Self {
        Self::All
    }
}

impl PointsOfHost {
    /// Takes the values of a point, but for those with faults.
    fn take(
        &mut self,
        times: &Times,
        series: (&str, &SeriesLabels<'_>),
        measures: &[Measure],
        room: &mut Room,
    ) -> Result<Faults, TooManyPoints> {
        let mut faults = Faults::new();
        for measure in measures {
            match self.take_measure(times, series, measure, room) {
                Ok(()) => {}
                Err(Refused::Value(reason)) => faults.push((measure.end, reason)),
                Err(Refused::All) => return Err(TooManyPoints),
            }
        }
        Ok(faults)
    }

    fn take_measure(
        &mut self,
        times: &Times,
        (metric, labels): (&str, &SeriesLabels<'_>),
        measure: &Measure,
        room: &mut Room,
    ) -> Result<(), Refused> {
        let (kind, value) = match measure.since {
            _ if times.is_end => (PointKind::End, 0.0),
            Since::Never => (PointKind::Gauge, measure.value),
            Since::Start if measure.value < 0.0 => return Err(LeftOutReason::Negative.into()),
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
            if let Entry::Vacant(free) = self.0.entry((label.clone(), millis)) {
                room.take(&free.key().0)?;
                free.insert(zero);
            }
        }
        let taken = Taken { kind, value };
        match self.0.entry((label, times.millis)) {
            // That it was at zero then is not so.
            Entry::Occupied(mut other) if other.get().kind == PointKind::Start => {
                other.insert(taken);
            }
            Entry::Occupied(_) => return Err(LeftOutReason::SameTime.into()),
            Entry::Vacant(free) => {
                room.take(&free.key().0)?;
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
