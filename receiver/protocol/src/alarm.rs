//! Alarms: `GET /api/alarms`, and what silences a host or tests a channel.

use serde::{Deserialize, Serialize};

/// Alarms of a host may be silenced for so long: seconds.
pub const SILENCE_SECS_MAX: u64 = 31 * 86_400;
/// The longest reason of a silence.
pub const WHY_BYTES_MAX: usize = 512;

/// The response: all alarms that are pending or firing, or ended a while ago.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmList {
    /// Those that fire first.
    pub alarms: Vec<AlarmEntry>,
}

/// One alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AlarmEntry {
    /// The same for as long as it lasts.
    pub id: String,
    /// The rule's name.
    pub rule: String,
    /// The host.
    pub host: String,
    /// Which label; none where the rule judges the host.
    pub label: Option<String>,
    /// What it has come to.
    pub state: AlarmPhase,
    /// Since when the rule holds: epoch seconds.
    pub since: u64,
    /// What was observed last.
    pub value: f64,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Until when the host is silenced; none if it is not.
    pub silenced_until: Option<u64>,
    /// When the state last changed.
    #[serde(default)]
    pub at: u64,
    /// Whether it comes and goes so often that it is not told each time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
}

/// What an alarm has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmPhase {
    /// The rule holds, not yet for long enough.
    Pending,
    /// It is told.
    Firing,
    /// It has ended.
    Resolved,
}

impl AlarmPhase {
    /// As in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// The body of `POST /api/silences/{host}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SilenceRequest {
    /// For how long from now on: seconds; 0 ends a silence.
    pub for_secs: u64,
    /// Why.
    pub why: String,
}

/// The response to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Silenced {
    /// Until when: epoch seconds; none if a silence was ended.
    pub silenced_until: Option<u64>,
}

/// The response to a test of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChannelTested {
    /// Which channel.
    pub channel: String,
    /// Why it did not accept the message; none if it did.
    pub failure: Option<String>,
}
