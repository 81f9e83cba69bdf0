//! One rule.

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// An alarm that has fired so often within a while ends only after it has been quiet for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping {
    /// How often it must have fired.
    pub firings: usize,
    /// Within how many seconds.
    pub within_secs: u64,
    /// How many seconds it must be quiet then before the all-clear.
    pub quiet_secs: u64,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name: no other rule has it.
    pub name: String,
    /// What is judged.
    pub kind: RuleKind,
    /// For which hosts.
    pub hosts: Wildcards,
    /// How long it must hold before it is an alarm: seconds.
    pub for_secs: u64,
    /// How long it must not hold before the all-clear: seconds.
    pub keep_firing_secs: u64,
    /// How bad it is.
    pub severity: AlarmSeverity,
    /// The names of the channels; none for all.
    pub channels: Option<Vec<String>>,
    /// A template: one line.
    pub summary: String,
    /// A template: more lines.
    pub description: String,
}

/// What a rule judges.
#[derive(Debug, Clone, PartialEq)]
pub enum RuleKind {
    /// The values of labels.
    Label(LabelRule),
    /// Nothing comes from the host.
    Silent,
    /// The host's certificate ends within so many seconds.
    CertificateEnds {
        /// How many.
        within_secs: u64,
    },
    /// More records than this are missing.
    RecordsLost {
        /// How many are not an alarm.
        above: u64,
    },
    /// The host's clock differs, either way.
    ClockSkew {
        /// By more seconds than this.
        above: f64,
        /// It has ended when it is less than this.
        clear_below: f64,
    },
    /// The receiver did not see its hosts.
    ReceiverBlind,
}

/// Closed intervals of labels against numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelRule {
    /// Which labels.
    pub labels: Wildcards,
    /// Minutes or hours.
    pub tier: RuleTier,
    /// Which number of an interval.
    pub statistic: Statistic,
    /// What it is compared with.
    pub threshold: Threshold,
}

/// What a rule compares with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// The mean.
    Avg,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
}

/// Which intervals a rule judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleTier {
    /// Closed minutes.
    Minute,
    /// Closed hours.
    Hour,
}

impl RuleTier {
    /// The index of the tier in the summaries.
    pub const fn index(self) -> usize {
        match self {
            Self::Minute => 0,
            Self::Hour => 1,
        }
    }

    /// How long an interval is.
    pub const fn width_secs(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }
}

/// How bad an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmSeverity {
    /// Good to know.
    Info,
    /// To be looked at soon.
    Warning,
    /// To be looked at now.
    Critical,
}

impl AlarmSeverity {
    /// As in files and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What is too high, too low, and what is neither any more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// More than this is an alarm.
    pub above: Option<f64>,
    /// Less than this is an alarm.
    pub below: Option<f64>,
    /// An alarm for `above` ends at less than this, or at `above` itself.
    pub clear_below: Option<f64>,
    /// An alarm for `below` ends at more than this, or at `below` itself.
    pub clear_above: Option<f64>,
}

impl Threshold {
    /// Whether this is an alarm.
    pub fn is_breached(&self, value: f64) -> bool {
        self.above.is_some_and(|above| value > above)
            || self.below.is_some_and(|below| value < below)
    }

    /// Whether an alarm that fires ends with this: between the numbers it does neither begin nor
    /// end.
    pub fn is_clear(&self, value: f64) -> bool {
        let is_low = self.clear_below.is_none_or(|limit| value < limit);
        let is_high = self.clear_above.is_none_or(|limit| value > limit);
        !self.is_breached(value) && is_low && is_high
    }
}

/// Wildcard patterns, any of which may match: `*` is any text, `?` one character.
#[derive(Debug, Clone, PartialEq)]
pub struct Wildcards(Vec<WildMatch>);

impl Wildcards {
    /// These.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        Self(patterns.into_iter().map(WildMatch::new).collect())
    }

    /// Whether one of them matches all of the text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(text))
    }
}
