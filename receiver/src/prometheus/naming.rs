//! What a label of lizmon is called in Prometheus, and the other way round.
//!
//! | label | series of host `web1` |
//! | --- | --- |
//! | `cpu` | `cpu{host="web1"}` |
//! | `http_requests{code="200"}` | `http_requests{code="200",host="web1"}` |
//! | `disk-used:/home` | `disk_used{host="web1",label="disk-used:/home"}` |
//!
//! Different labels are different series: a label that is not itself a metric with its labels, as
//! [`written`] writes them, is given whole in `label`, which no other series has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use lizmon_protocol::name::{is_printable, is_printable_ascii};

/// The label whose value is the metric.
pub const METRIC: &str = "__name__";
/// The label whose value is the host.
pub const HOST: &str = "host";
/// The label with the whole label of lizmon, where metric and labels do not say it.
pub const WHOLE: &str = "label";
/// The label that says what the values are of the samples; without it they are averages.
pub const STAT: &str = "stat";

/// These are ours: a series that brings its own is given with its whole label.
const RESERVED: [&str; 4] = [METRIC, HOST, WHOLE, STAT];

/// A label of lizmon as Prometheus names it, without its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    /// The metric.
    pub metric: Cow<'a, str>,
    /// The labels, by name.
    pub labels: BTreeMap<&'a str, Cow<'a, str>>,
}

impl<'a> Named<'a> {
    /// What a label is called.
    pub fn of(label: &'a str) -> Self {
        Self::as_written(label).unwrap_or_else(|| Self {
            metric: metric_of(label).into(),
            labels: BTreeMap::from([(WHOLE, label.into())]),
        })
    }

    /// The value of one of its labels; empty if it has none of this name.
    pub fn value(&self, name: &str) -> &str {
        match name {
            METRIC => &self.metric,
            name => self.labels.get(name).map_or("", |value| value),
        }
    }

    /// What [`written`] made, and nothing else.
    fn as_written(label: &'a str) -> Option<Self> {
        if is_metric(label) {
            return Some(Self {
                metric: label.into(),
                labels: BTreeMap::new(),
            });
        }
        let (metric, labels) = label.split_once('{')?;
        let labels = labels_of(labels.strip_suffix('}')?)?;
        let pairs = labels.iter().map(|(name, value)| (*name, &**value));
        let is_same = is_metric(metric)
            && !labels.keys().any(|name| RESERVED.contains(name))
            && written(metric, pairs) == label;
        is_same.then_some(Self {
            metric: metric.into(),
            labels,
        })
    }
}

/// The label of lizmon of a metric with these labels, which come by name: those that say nothing
/// are left out.
///
/// ```
/// use lizmon_receiver::prometheus::naming::written;
/// assert_eq!(written("up", [("job", "")]), "up");
/// assert_eq!(written("up", [("job", "a\"b")]), r#"up{job="a\"b"}"#);
/// assert_eq!(written("up", [("job", "a\tb")]), r#"up{job="a\u{9}b"}"#);
/// ```
pub fn written<'a>(metric: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = metric.to_owned();
    let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
    for (before, (name, value)) in std::iter::once('{')
        .chain(std::iter::repeat(','))
        .zip(labels)
    {
        // Nothing fails that is written to a text.
        let _ = write!(text, "{before}{name}=\"");
        if is_printable_ascii(value) && !value.contains(['\\', '"']) {
            text.push_str(value);
            text.push('"');
            continue;
        }
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                // As `\u{9}`: no label of lizmon has such a character itself.
                hidden if !is_printable(hidden) => text.extend(hidden.escape_unicode()),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if text.len() > metric.len() {
        text.push('}');
    }
    text
}

/// Whether Prometheus 2 takes this for a metric's name.
pub fn is_metric(name: &str) -> bool {
    is_name(name, |byte| byte == b':')
}

/// Whether it takes this for a label's name.
pub fn is_label_name(name: &str) -> bool {
    is_name(name, |_| false)
}

fn is_name(name: &str, is_more: impl Fn(u8) -> bool) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || is_more(byte);
    name.bytes().next().is_some_and(&is_first)
        && name
            .bytes()
            .all(|byte| is_first(byte) || byte.is_ascii_digit())
}

/// `a="b",c="d"`, by name; none if it is anything else.
fn labels_of(mut rest: &str) -> Option<BTreeMap<&str, Cow<'_, str>>> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, quoted) = rest.split_once("=\"")?;
        let end = end_of_value(quoted)?;
        let (value, after) = quoted.split_at(end);
        if !is_label_name(name) {
            return None;
        }
        labels.insert(name, unescape(value)?);
        rest = match after.strip_prefix("\",") {
            Some(more) => more,
            None => return (after == "\"").then_some(labels),
        };
    }
}

/// Where the quote is that ends a value.
fn end_of_value(quoted: &str) -> Option<usize> {
    let mut is_escaped = false;
    let is_end = |(_, byte): &(usize, u8)| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    };
    quoted.bytes().enumerate().find(is_end).map(|(at, _)| at)
}

/// The character of `{9}`.
fn hidden(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let (digits, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
    *rest = after.chars();
    char::from_u32(u32::from_str_radix(digits, 16).ok()?)
}

fn unescape(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('\\') {
        return Some(value.into());
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                'n' => '\n',
                'u' => hidden(&mut characters)?,
                other @ ('\\' | '"') => other,
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain.into())
}

/// The metric of a label that is none itself: what is before its labels, or before its first colon,
/// as the monitor's `disk-used:/home`; a colon is for what Prometheus records. Each character that
/// a metric may not have is `_`.
fn metric_of(label: &str) -> String {
    if let Some((metric, _)) = label.split_once('{')
        && is_metric(metric)
    {
        return metric.to_owned();
    }
    let kind = label.split(':').next().unwrap_or_default();
    let plain = kind.chars().map(|character| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' => character,
        _ => '_',
    });
    let is_bare = kind.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
    let before = if is_bare { "_" } else { "" };
    before.chars().chain(plain).collect()
}

#[cfg(test)]
mod tests;
