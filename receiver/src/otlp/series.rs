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

use lizmon_protocol::name::{Label, NameError};

use super::attribute::{AnyValue, KeyValue};
use super::message::{InstrumentationScope, Resource};
use crate::ingest::SeriesHost;
use crate::prometheus::naming::{HOST, METRIC, written};

const JOB: &str = "job";
const INSTANCE: &str = "instance";
const SCOPE: &str = "otel_scope_name";
/// The label of a summary's quantile.
pub(super) const QUANTILE: &str = "quantile";

/// What all series of a scope of a resource have in common.
#[derive(Debug)]
pub(super) struct ScopeOrigin<'a> {
    labels: Vec<(&'static str, Cow<'a, str>)>,
}

/// The host of a resource.
pub(super) fn host_of(resource: Option<&Resource>) -> Option<SeriesHost> {
    let attributes = attributes_of(resource);
    let host = attribute(attributes, "host.name");
    let host = host.or_else(|| attribute(attributes, "service.instance.id"));
    host.map(|host| SeriesHost::of(&host))
}

fn attributes_of(resource: Option<&Resource>) -> &[KeyValue] {
    resource.map_or(&[], |resource| &resource.attributes)
}

/// The text of an attribute that says something.
fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<Cow<'a, str>> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == key);
    let text = found.next()?.value.as_ref()?.text();
    (!text.is_empty()).then_some(text)
}

impl<'a> ScopeOrigin<'a> {
    pub(super) fn of(
        resource: Option<&'a Resource>,
        scope: Option<&'a InstrumentationScope>,
    ) -> Self {
        let attributes = attributes_of(resource);
        let of = |key| attribute(attributes, key);
        let job = match (of("service.namespace"), of("service.name")) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}").into()),
            (_, name) => name,
        };
        // Without `host.name` it is the host itself.
        let host = of("host.name");
        let instance =
            of("service.instance.id").filter(|id| host.as_ref().is_some_and(|host| host != id));
        let scope = scope.map(|scope| Cow::Borrowed(&*scope.name));
        let labels = [(JOB, job), (INSTANCE, instance), (SCOPE, scope)];
        let labels = labels.into_iter();
        let labels = labels.filter_map(|(name, value)| Some((name, value?)));
        Self {
            labels: labels.collect(),
        }
    }

    /// The labels of a series with these attributes, by name. Those of a metric that has labels of
    /// its own are none of its attributes either.
    pub(super) fn labels<'s>(
        &'s self,
        attributes: &'s [KeyValue],
        own: &[&str],
    ) -> SeriesLabels<'s> {
        let of_scope = self.labels.iter();
        let of_scope =
            of_scope.map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(&**value)));
        // No label of the scope has the name of one of the point.
        let mut labels: Vec<_> = joined(attributes, own)
            .into_iter()
            .chain(of_scope)
            .collect();
        labels.sort_by(|one, other| one.0.cmp(&other.0));
        SeriesLabels(labels)
    }
}

/// The labels of a point. Those of keys that come to be the same are one, in the order of the keys.
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
