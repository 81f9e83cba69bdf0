//! What a collector is, and what it appends to.

use std::sync::Arc;
use std::time::Duration;

use lizmon_protocol::sample::RECORD_LABELS_MAX;

use super::failure::CollectError;
use super::options::CollectOptions;
use super::readings::Readings;

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
    /// The time since some moment, asleep or awake: it does not step.
    pub monotonic: Duration,
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
    /// How many labels it publishes at once, unless a flag says otherwise. Those of all collectors
    /// together fit into a record.
    pub labels_max: usize,
    /// How many different ones it may publish in a day, beyond three times as many: of those whose
    /// things come and go. All collectors together stay below the 1,000 of a host.
    pub more_labels_a_day: usize,
    /// Makes one.
    pub start: fn(&CollectorStart<'_>) -> Result<Box<dyn Collector>, CollectorStartError>,
}

/// What a collector may use from its start on.
#[derive(Clone)]
pub struct CollectorStart<'o> {
    /// What was chosen.
    pub options: &'o CollectOptions,
    /// The time since some moment: it does not step.
    pub monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
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
    /// Where its values come from.
    pub source: &'static str,
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

/// Why a collector cannot be made on this machine, or not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CollectorStartError {
    /// The system does not tell its load.
    #[error("this machine's load cannot be read: {0}")]
    System(#[from] sysinfo::Error),
    /// A record has no room for all that they may publish.
    #[error(
        "the chosen collectors may publish {labels} labels at once, and a record has {RECORD_LABELS_MAX}: give a lower --labels-max"
    )]
    TooManyLabels {
        /// The sum.
        labels: usize,
    },
    /// The system starts no thread.
    #[error("cannot start a thread to measure on: {0}")]
    Thread(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_matches_its_description() {
        let spec = |label| LabelSpec {
            label,
            unit: "percent",
            source: "",
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
