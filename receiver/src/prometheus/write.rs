//! What remote write 1.0 sends, as points of hosts. Pure.
//!
//! | of a series | here |
//! | --- | --- |
//! | the label `host`, else `instance` without its port | the host |
//! | its name and all other labels, sorted | the label: `up{job="node"}` |
//! | a sample of a counter | its rate a second, since the one before |
//! | the stale marker | the end of the series, quietly |
//! | any other NaN, and infinity | refused |
//!
//! A request is taken whole or not at all.
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>

use std::collections::{BTreeMap, HashMap};

use lizmon_protocol::name::Label;
use lizmon_protocol::problem::ValueError;
use lizmon_protocol::sample::{ERRORS_SHOWN_MAX, Value};
use lizmon_summary::PointKind;

use super::message::{LabelPair, STALE_NAN_BITS, SamplePair, TimeSeries, WriteRequest};
use super::naming::{HOST, METRIC, is_label_name, is_metric, written};
use crate::ingest::{HostPoints, SeriesHost};
use crate::store::record::PointNumber;
use crate::summarize::MetricKinds;

/// The label that names the host where there is no [`HOST`]: with a port.
const INSTANCE: &str = "instance";

/// Which series of a request are of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesOfHost {
    /// The host.
    pub host: SeriesHost,
    /// Places in the request, each with the label that says the host.
    series: Vec<(usize, &'static str)>,
}

/// The hosts that a request is about, each once; or which series name none.
pub fn hosts(request: &WriteRequest) -> Result<Vec<SeriesOfHost>, Vec<ValueError>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut hosts: Vec<SeriesOfHost> = Vec::new();
    let mut errors = Vec::new();
    for (at, series) in request.timeseries.iter().enumerate() {
        match host_of(&series.labels) {
            Some((text, identity)) => {
                let place = *places.entry(text).or_insert_with(|| {
                    let host = SeriesHost::of(text);
                    let series = Vec::new();
                    hosts.push(SeriesOfHost { host, series });
                    hosts.len() - 1
                });
                hosts[place].series.push((at, identity));
            }
            None if errors.len() < ERRORS_SHOWN_MAX => errors.push(fault(
                series,
                "it names no host: it needs the label `host`, or `instance`",
            )),
            None => break,
        }
    }
    match errors.is_empty() {
        true => Ok(hosts),
        false => Err(errors),
    }
}

/// So many bytes of labels and values would be made of the request, about: each value comes with its
/// label, and a series has it once.
pub fn points_bytes(request: &WriteRequest) -> usize {
    let of_label = |label: &LabelPair| label.name.len() + label.value.len();
    let of_series = |series: &TimeSeries| {
        let label: usize = series.labels.iter().map(of_label).sum();
        series
            .samples
            .len()
            .saturating_mul(label + size_of::<f64>())
    };
    let all = request.timeseries.iter().map(of_series);
    all.fold(0, usize::saturating_add)
}

/// How many examples of values the request has: they are passed over.
pub fn exemplars(request: &WriteRequest) -> u64 {
    let series = request.timeseries.iter();
    series.map(|series| series.exemplars.len() as u64).sum()
}

/// The points of a host that the request has, or what is wrong with them. `kinds` are those of its
/// metrics.
pub fn points(
    request: &WriteRequest,
    of_host: &SeriesOfHost,
    kinds: &MetricKinds,
) -> Result<HostPoints, Vec<ValueError>> {
    let mut points = HostPoints::new();
    let mut errors = Vec::new();
    let series = of_host.series.iter();
    let series =
        series.filter_map(|(at, identity)| Some((request.timeseries.get(*at)?, *identity)));
    for (series, identity) in series {
        if let Err(reason) = add(series, identity, kinds, &mut points) {
            errors.push(fault(series, &reason));
        }
        if errors.len() == ERRORS_SHOWN_MAX {
            break;
        }
    }
    match errors.is_empty() {
        true => Ok(points),
        false => Err(errors),
    }
}

/// The host, and which label says it.
fn host_of(labels: &[LabelPair]) -> Option<(&str, &'static str)> {
    let value = |name: &str| {
        let found = labels.iter().find(|label| label.name == name);
        found
            .map(|label| &*label.value)
            .filter(|value| !value.is_empty())
    };
    let host = value(HOST).map(|host| (host, HOST));
    host.or_else(|| value(INSTANCE).map(|instance| (without_port(instance), INSTANCE)))
}

fn without_port(instance: &str) -> &str {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match instance.rsplit_once(':') {
        // An IPv6 address alone has more colons.
        Some((host, port)) if is_port(port) && (!host.contains(':') || host.ends_with(']')) => host,
        _ => instance,
    }
}

fn add(
    series: &TimeSeries,
    identity: &str,
    kinds: &MetricKinds,
    points: &mut HostPoints,
) -> Result<(), String> {
    let (metric, label) = label_of(&series.labels, identity)?;
    if !series.histograms.is_empty() {
        return Err("native histograms are not taken: send classic ones".to_owned());
    }
    let kind = kinds.of(metric);
    let Some((last, before)) = series.samples.split_last() else {
        return Ok(());
    };
    for sample in before {
        let (number, value) = point_of(sample, kind)?;
        points
            .entry(number)
            .or_default()
            .push((label.clone(), value));
    }
    // Most series have one sample, and the label goes with it.
    let (number, value) = point_of(last, kind)?;
    points.entry(number).or_default().push((label, value));
    Ok(())
}

/// When a sample is and what, with its value.
fn point_of(sample: &SamplePair, kind: PointKind) -> Result<(PointNumber, Value), String> {
    let SamplePair { value, timestamp } = *sample;
    let (kind, checked) = match value.to_bits() {
        STALE_NAN_BITS => (PointKind::End, Value::new(0.0)),
        _ => (kind, Value::new(value)),
    };
    let checked = checked.ok_or_else(|| format!("{value} is not a value that is taken"))?;
    let millis = u64::try_from(timestamp).ok();
    let number = millis.map(|millis| PointNumber { millis, kind });
    let number = number.filter(|number| number.stored().is_some());
    let number = number.ok_or_else(|| format!("the time {timestamp} ms cannot be"))?;
    Ok((number, checked))
}

/// The metric, and the label of all of it but what says the host.
fn label_of<'a>(
    labels: &'a [LabelPair],
    identity: &str,
) -> Result<(&'a str, Label<'static>), String> {
    let mut sorted: BTreeMap<&str, &str> = BTreeMap::new();
    for LabelPair { name, value } in labels {
        if sorted.insert(name, value).is_some() {
            return Err(format!("the label `{name}` is there twice"));
        }
    }
    let metric = sorted.remove(METRIC).unwrap_or_default();
    if !is_metric(metric) {
        return Err(format!("`{metric}` is not the name of a metric"));
    }
    if let Some(name) = sorted.keys().find(|name| !is_label_name(name)) {
        return Err(format!("`{name}` is not the name of a label"));
    }
    sorted.remove(identity);
    let label = Label::of_series(written(metric, sorted)).map_err(|error| error.to_string())?;
    Ok((metric, label))
}

fn fault(series: &TimeSeries, reason: &str) -> ValueError {
    /// Of a series with long labels that is enough to know it.
    const SHOWN_CHARS_MAX: usize = 200;
    let pairs = series.labels.iter();
    let pairs = pairs.map(|label| (&*label.name, &*label.value));
    let metric = series.labels.iter().find(|label| label.name == METRIC);
    let metric = metric.map_or("", |label| &*label.value);
    let others = pairs.filter(|(name, _)| *name != METRIC);
    let shown: String = written(metric, others)
        .chars()
        .take(SHOWN_CHARS_MAX)
        .collect();
    ValueError {
        record: None,
        label: Some(shown),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
