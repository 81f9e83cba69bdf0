//! Which series a point is of: its host, and the label `name{k="v",…}`.
//! <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>
//!
//! | label | what it says |
//! | --- | --- |
//! | each attribute of the point | its value |
//! | `job` | `service.namespace/service.name` of the resource, or the name alone |
//! | `instance` | `service.instance.id` of the resource, if that is not the host |
//! | `otel_scope_name` | the name of the scope |
//! | `quantile` | of a summary |
//!
//! Two services of a host, two instances, two scopes may have the same metric: only so are they
//! different series. An attribute that is called like one of these gets `exported_` before its name,
//! as Prometheus has it: no attribute makes a series another one.

use std::borrow::Cow;

use lizmon_protocol::name::{Label, NameError, SERIES_NAME_BYTES_MAX, is_printable_ascii};

use super::attribute::{AnyValue, KeyValue};
use super::message::{InstrumentationScope, Resource};
use crate::ingest::SeriesHost;
use crate::prometheus::naming::{HOST, METRIC, written};

const JOB: &str = "job";
const INSTANCE: &str = "instance";
const SCOPE: &str = "otel_scope_name";
/// The label of a summary's quantile.
pub(super) const QUANTILE: &str = "quantile";

/// What all series of a resource have in common. Its attributes are looked through once, however many
/// scopes it has.
#[derive(Debug)]
pub(super) struct ResourceOrigin<'a> {
    host: Option<SeriesHost>,
    labels: Vec<(&'static str, Cow<'a, str>)>,
    bytes: usize,
}

impl<'a> ResourceOrigin<'a> {
    pub(super) fn of(resource: Option<&'a Resource>) -> Self {
        let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
        let keys = [
            "host.name",
            "service.instance.id",
            "service.namespace",
            "service.name",
        ];
        let [host, id, namespace, service] = texts(attributes, keys);
        let job = match (namespace, service) {
            (Some(namespace), Some(service)) => Some(format!("{namespace}/{service}").into()),
            (_, service) => service,
        };
        let named = host.as_ref().or(id.as_ref());
        let named = named.map(|host| SeriesHost::of(host));
        // Without `host.name` it is the host itself.
        let instance = id.filter(|id| host.as_ref().is_some_and(|host| host != id));
        let labels = [(JOB, job), (INSTANCE, instance)].into_iter();
        let labels = labels.filter_map(|(name, value)| Some((name, value?)));
        let labels: Vec<_> = labels.collect();
        let bytes = labels
            .iter()
            .map(|(name, value)| written_bytes(name, value));
        Self {
            host: named,
            bytes: bytes.sum(),
            labels,
        }
    }

    /// Its host, if it names one.
    pub(super) fn host(&self) -> Option<&SeriesHost> {
        self.host.as_ref()
    }

    /// What all series of one of its scopes have in common.
    pub(super) fn scope<'s>(&'s self, scope: Option<&'s InstrumentationScope>) -> ScopeOrigin<'s> {
        let scope = scope.map(|scope| (SCOPE, &*scope.name));
        let scope = scope.filter(|(_, name)| !name.is_empty());
        let of_scope = scope.map_or(0, |(name, value)| written_bytes(name, value));
        let labels = self.labels.iter();
        let labels = labels.map(|(name, value)| (*name, &**value));
        ScopeOrigin {
            labels: labels.chain(scope).collect(),
            bytes: self.bytes + of_scope,
        }
    }
}

/// The texts of the first attributes with these keys, where they say something.
fn texts<'a, const N: usize>(
    attributes: &'a [KeyValue],
    keys: [&str; N],
) -> [Option<Cow<'a, str>>; N] {
    let mut found = [None; N];
    for attribute in attributes {
        for (key, first) in keys.iter().zip(&mut found) {
            if *key == attribute.key {
                first.get_or_insert(attribute);
            }
        }
    }
    found.map(|attribute: Option<&KeyValue>| {
        let text = attribute?.value.as_ref()?.text();
        (!text.is_empty()).then_some(text)
    })
}

/// What all series of a scope of a resource have in common.
#[derive(Debug)]
pub(super) struct ScopeOrigin<'a> {
    labels: Vec<(&'static str, &'a str)>,
    bytes: usize,
}

impl ScopeOrigin<'_> {
    /// Whether a metric of this name may have series at all. That is not for each point to find out.
    pub(super) fn check(&self, metric: &str) -> Result<(), NameError> {
        check_length(metric, self.bytes)
    }

    /// The labels of a series of a metric with these attributes, by name; none, if they are too long,
    /// before they are written for each value. Those of a metric that has labels of its own are none
    /// of its attributes either.
    pub(super) fn labels<'s>(
        &'s self,
        metric: &str,
        attributes: &'s [KeyValue],
        own: &[&str],
    ) -> Result<SeriesLabels<'s>, NameError> {
        let mut labels = joined(attributes, own);
        let bytes = labels
            .iter()
            .map(|(name, value)| written_bytes(name, value));
        check_length(metric, self.bytes + bytes.sum::<usize>())?;
        let of_scope = self.labels.iter();
        // No label of the scope has the name of one of the point.
        labels.extend(of_scope.map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value))));
        labels.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(SeriesLabels(labels))
    }
}

/// Whether a series may have a name of a metric and so many bytes of labels.
fn check_length(metric: &str, labels: usize) -> Result<(), NameError> {
    let brace = usize::from(labels > 0);
    let bytes = metric.len() + labels + brace;
    match bytes > SERIES_NAME_BYTES_MAX {
        true => Err(NameError::LabelTooLong {
            bytes,
            bytes_max: SERIES_NAME_BYTES_MAX,
        }),
        false => Ok(()),
    }
}

/// So many bytes a label has in the name of a series, as `,name="value"`. What is too long anyway
/// is not looked through.
fn written_bytes(name: &str, value: &str) -> usize {
    const AROUND: usize = ",=\"\"".len();
    const BRACE: usize = "}".len();
    let is_plain = || is_printable_ascii(value) && !value.contains(['\\', '"']);
    match value.len() > SERIES_NAME_BYTES_MAX || is_plain() {
        true => name.len() + value.len() + AROUND,
        false => written("", [(name, value)]).len() - BRACE,
    }
}

/// The labels of a point that say something. Those of keys that come to be the same are one, in the
/// order of the keys.
fn joined<'s>(attributes: &'s [KeyValue], own: &[&str]) -> Vec<(Cow<'s, str>, Cow<'s, str>)> {
    let attributes = attributes.iter().map(|KeyValue { key, value }| {
        let value = value.as_ref().map(AnyValue::text).unwrap_or_default();
        (label_name(key, own), &**key, value)
    });
    let mut attributes: Vec<_> = attributes.collect();
    attributes.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    let mut labels: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(attributes.len());
    for (name, _, value) in attributes {
        match labels.last_mut() {
            Some((last, joined)) if *last == name => {
                let joined = joined.to_mut();
                joined.push(';');
                joined.push_str(&value);
            }
            _ => labels.push((name, value)),
        }
    }
    // However many they were, no value has to look through them.
    labels.retain(|(_, value)| !value.is_empty());
    labels
}

/// The labels of a series, by name.
#[derive(Debug)]
pub(super) struct SeriesLabels<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl SeriesLabels<'_> {
    /// The label of the series of this metric.
    pub(super) fn label(&self, metric: &str) -> Result<Label<'static>, NameError> {
        Label::of_series(written(metric, self.pairs()))
    }

    /// The same, of a quantile of a summary.
    pub(super) fn label_of_quantile(
        &self,
        metric: &str,
        quantile: f64,
    ) -> Result<Label<'static>, NameError> {
        let quantile = quantile.to_string();
        let (before, after): (Vec<_>, Vec<_>) =
            self.pairs().partition(|(name, _)| *name < QUANTILE);
        let pairs = before.into_iter().chain([(QUANTILE, &*quantile)]);
        Label::of_series(written(metric, pairs.chain(after)))
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// The name of a metric as Prometheus has it: every character that it may not have is `_`.
pub(super) fn metric_name(name: &str) -> Cow<'_, str> {
    spelled(name, |character| character == ':')
}

/// The name of an attribute as the name of a label. Those of labels that are not of the point get
/// `exported_` before them.
fn label_name<'a>(key: &'a str, own: &[&str]) -> Cow<'a, str> {
    let name = spelled(key, |_| false);
    match [JOB, INSTANCE, SCOPE, HOST, METRIC].contains(&&*name) || own.contains(&&*name) {
        true => format!("exported_{name}").into(),
        false => name,
    }
}

fn spelled(name: &str, is_more: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_good = |character: char| {
        character.is_ascii_alphanumeric() || character == '_' || is_more(character)
    };
    let is_bare = name.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
    if !is_bare && name.chars().all(is_good) {
        return Cow::Borrowed(name);
    }
    let before = if is_bare { "_" } else { "" };
    let plain = name.chars().map(|character| match is_good(character) {
        true => character,
        false => '_',
    });
    before.chars().chain(plain).collect::<String>().into()
}
