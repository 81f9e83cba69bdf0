//! What a collector is, and what it appends to.

use std::borrow::Cow;
use std::time::Duration;

use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{RECORD_LABELS_MAX, SampleSet, Value};

use super::failure::CollectError;

/// One source of values.
pub trait Collector: Send {
    /// Appends label and value pairs to the record of this second. It is called once before the
    /// first record too, and what it appends then is thrown away: a collector of differences takes
    /// its first reading there. What was appended before an error stays in the record.
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings,
    ) -> Result<(), CollectError>;
}

/// What a collector is told.
#[derive(Debug, Clone, Copy)]
pub struct CollectContext {
    /// The wall clock, since 1970 UTC.
    pub now: Duration,
    /// What the monitor knows about itself.
    pub stats: SelfStats,
    /// How often a collector failed, since the monitor was started.
    pub failures: u64,
}

/// What the monitor knows about itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SelfStats {
    /// Seconds that this machine's clock is ahead of its receivers', once a receiver has answered.
    pub clock_ahead_secs: Option<f64>,
    /// Records that wait for the receiver that is furthest behind.
    pub pending_records: u64,
    /// Records dropped since the monitor was started.
    pub dropped_records: u64,
    /// Records sent again since the monitor was started, over all receivers.
    pub repaired_records: u64,
    /// Days until the certificate ends.
    pub certificate_days: f64,
}

/// How a collector is chosen, described and made.
#[derive(Debug)]
pub struct CollectorSpec {
    /// What `--collect` calls it.
    pub name: &'static str,
    /// The labels it publishes.
    pub labels: &'static [LabelSpec],
    /// Makes one.
    pub start: fn() -> Result<Box<dyn Collector>, CollectorStartError>,
}

/// There is one of each name.
impl PartialEq for CollectorSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A label, as the documentation has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelSpec {
    /// The label. Where it has a part that is determined while the monitor runs, that is in braces
    /// at its end: `disk-used:{mount}`.
    pub label: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// What its values say.
    pub meaning: &'static str,
}

impl LabelSpec {
    /// Whether a label that was published is this one.
    pub fn matches(&self, label: &str) -> bool {
        match self.label.split_once('{') {
            Some((prefix, _)) => label
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty()),
            None => label == self.label,
        }
    }
}

/// Why a collector cannot be made on this machine.
#[derive(Debug, thiserror::Error)]
#[error("this machine's load cannot be read: {0}")]
pub struct CollectorStartError(#[from] sysinfo::Error);

/// The values of one record, while they are collected.
#[derive(Debug, Default)]
pub struct Readings(Vec<(Label<'static>, Value)>);

impl Readings {
    /// Appends a value, rounded to two decimals. What a receiver would refuse, and the whole record
    /// with it, is an error here.
    pub fn push(
        &mut self,
        label: impl Into<Cow<'static, str>>,
        value: f64,
    ) -> Result<(), CollectError> {
        let label = Label::new(label)?;
        let value = Value::new(two_decimals(value)).ok_or(CollectError::NoNumber)?;
        if self.0.len() >= RECORD_LABELS_MAX {
            return Err(CollectError::TooManyLabels);
        }
        if self.0.iter().any(|(known, _)| *known == label) {
            return Err(CollectError::DuplicateLabel(label.to_string()));
        }
        self.0.push((label, value));
        Ok(())
    }

    pub(super) fn into_set(self) -> SampleSet<'static> {
        SampleSet::new(self.0)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0
            .iter()
            .map(|(label, value)| (label.as_str(), value.get()))
    }
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_at_most_two_decimals() {
        for (value, expected) in [(4.983, 4.98), (4.987, 4.99), (0.0, 0.0), (99.999, 100.0)] {
            let mut readings = Readings::default();
            readings.push("cpu", value).unwrap();
            assert_eq!(readings.iter().collect::<Vec<_>>(), [("cpu", expected)]);
        }
    }

    /// A receiver would refuse the whole record.
    #[test]
    fn a_pair_that_a_receiver_refuses_is_not_appended() {
        let mut readings = Readings::default();
        readings.push("core:0", 1.0).unwrap();
        let refused = [
            readings.push("", 1.0),
            readings.push("disk:\n", 1.0),
            readings.push("summary:cpu", 1.0),
            readings.push("cpu", f64::NAN),
            readings.push("cpu", 1e291),
            readings.push(String::from("core:0"), 1.0),
        ];
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
        for core in 1..RECORD_LABELS_MAX {
            readings.push(format!("core:{core}"), 1.0).unwrap();
        }
        let one_more = readings.push("cpu", 1.0);
        assert_eq!(one_more, Err(CollectError::TooManyLabels));
        assert_eq!(readings.into_set().len(), RECORD_LABELS_MAX);
    }

    #[test]
    fn a_label_matches_its_description() {
        let spec = |label| LabelSpec {
            label,
            unit: "percent",
            meaning: "",
        };
        let cases = [
            ("cpu", "cpu", true),
            ("cpu", "cpu:1", false),
            ("disk-used:{mount}", "disk-used:/var", true),
            ("disk-used:{mount}", "disk-used:", false),
            ("disk-used:{mount}", "disk-free:/var", false),
        ];
        for (pattern, label, expected) in cases {
            assert_eq!(spec(pattern).matches(label), expected, "{pattern} {label}");
        }
    }
}
