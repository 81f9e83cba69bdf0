//! The alarms of one host, and what is not told yet: a document of the host.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::rules::AlarmSeverity;

/// How many alarms of one host are kept at most.
pub const ALARMS_MAX: usize = 32;
/// How many notices of one host may wait to be told.
pub const NOTICES_MAX: usize = 24;
/// A document of a host is not larger.
pub const BYTES_MAX: usize = 16 << 10;
/// How many bytes of an identifier are kept.
const ID_BYTES: usize = 16;

/// What is known of one host's alarms.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAlarms {
    /// Pending, firing, and those that ended a while ago.
    pub alarms: Vec<Alarm>,
    /// What some channel has not accepted yet, oldest first.
    pub notices: Vec<AlarmNotice>,
}

/// One rule that holds, or did, for one label of one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The same for as long as it lasts.
    pub id: String,
    /// The rule's name.
    pub rule: String,
    /// Which label; empty where the rule judges the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// What it has come to.
    pub state: AlarmState,
    /// How bad it is.
    pub severity: AlarmSeverity,
    /// Since when the rule holds: epoch seconds.
    pub since: u64,
    /// When the state last changed.
    pub at: u64,
    /// When it was last judged by what was observed, and not for want of anything.
    pub judged: u64,
    /// What was observed then.
    pub value: f64,
    /// Since when the rule does not hold any more, though the alarm fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_since: Option<u64>,
    /// When it fired, in the last while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firings: Vec<u64>,
    /// Whether it comes and goes so often that it is not told each time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
}

/// What an alarm has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmState {
    /// The rule holds, not yet for long enough.
    Pending,
    /// It is told.
    Firing,
    /// It has ended.
    Resolved,
}

impl AlarmState {
    /// As in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// Something to be told: an alarm that fires, or has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmNotice {
    /// The same however often it is sent, and different for each other notice.
    pub id: String,
    /// The alarm.
    pub alarm: String,
    /// What it has come to: firing or resolved.
    pub state: AlarmState,
    /// The rule's name.
    pub rule: String,
    /// Which label; empty where the rule judges the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// How bad it is.
    pub severity: AlarmSeverity,
    /// Since when the rule held: epoch seconds.
    pub since: u64,
    /// When the alarm fired or ended.
    pub at: u64,
    /// What was observed then.
    pub value: f64,
    /// How often it fired within a while, if so often that it is not told each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flapping: Option<usize>,
    /// Why, if not for a value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether it came while the host was silenced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The channels that have not accepted it.
    pub to: Vec<String>,
}

impl AlarmNotice {
    /// What there is to tell of an alarm now.
    pub fn of(alarm: &Alarm) -> Self {
        Self {
            id: format!("{}-{}", alarm.id, alarm.state.as_str()),
            alarm: alarm.id.clone(),
            state: alarm.state,
            rule: alarm.rule.clone(),
            label: alarm.label.clone(),
            severity: alarm.severity,
            since: alarm.since,
            at: alarm.at,
            value: alarm.value,
            flapping: alarm.flapping.then_some(alarm.firings.len()),
            reason: String::new(),
            held: false,
            to: Vec::new(),
        }
    }
}

/// The identifier of an alarm: of a host, a rule, a label and the time since when it holds.
pub fn alarm_id(host: &str, rule: &str, label: &str, since: u64) -> String {
    let mut text = Vec::new();
    for part in [host, rule, label] {
        // With its length, so that no two of them are the same text.
        text.extend((part.len() as u64).to_be_bytes());
        text.extend(part.as_bytes());
    }
    text.extend(since.to_be_bytes());
    hex::encode(&digest(&SHA256, &text).as_ref()[..ID_BYTES])
}

impl HostAlarms {
    /// Reads a stored document.
    pub fn from_bytes(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// The document. What does not fit is left out, the least important first, and counted.
    pub fn to_bytes(&mut self) -> (Vec<u8>, usize) {
        let mut left_out = 0;
        loop {
            let bytes = serde_json::to_vec(self).unwrap_or_default();
            if bytes.len() <= BYTES_MAX {
                return (bytes, left_out);
            }
            left_out += 1;
            let of = |state| move |alarm: &Alarm| alarm.state == state;
            let least = [AlarmState::Resolved, AlarmState::Pending]
                .into_iter()
                .find_map(|state| self.alarms.iter().rposition(of(state)));
            match least {
                Some(at) => drop(self.alarms.remove(at)),
                None if self.notices.len() > 1 => drop(self.notices.remove(0)),
                None => drop(self.alarms.pop()),
            }
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.alarms.is_empty() && self.notices.is_empty()
    }

    /// The alarm of this rule for this label.
    pub fn find(&self, rule: &str, label: &str) -> Option<usize> {
        let alarms = self.alarms.iter();
        alarms
            .zip(0..)
            .find(|(alarm, _)| alarm.rule == rule && alarm.label == label)
            .map(|(_, at)| at)
    }

    /// A channel has accepted a notice. Says whether that was not known.
    pub fn accepted(&mut self, notice: &str, channel: &str) -> bool {
        let Some(at) = self.notices.iter().position(|one| one.id == notice) else {
            return false;
        };
        let to = &mut self.notices[at].to;
        let before = to.len();
        to.retain(|name| name != channel);
        let is_news = to.len() < before;
        if to.is_empty() {
            self.notices.remove(at);
        }
        is_news
    }

    /// Channels that are no longer there need not accept anything. Says whether that changed
    /// anything.
    pub fn keep_channels(&mut self, is_there: impl Fn(&str) -> bool) -> bool {
        let mut has_changed = false;
        for notice in &mut self.notices {
            let before = notice.to.len();
            notice.to.retain(|name| is_there(name));
            has_changed |= notice.to.len() < before;
        }
        self.notices.retain(|notice| !notice.to.is_empty());
        has_changed
    }

    /// What came while the host was silenced, and has ended since, is not told: to those channels
    /// that have not been told that it fired.
    pub fn end_silence(&mut self) -> bool {
        let is_held = self.notices.iter().any(|notice| notice.held);
        if !is_held {
            return false;
        }
        let mut notices = std::mem::take(&mut self.notices);
        for at in (0..notices.len()).rev() {
            let end = &notices[at];
            let begins = |one: &AlarmNotice| one.held && one.state == AlarmState::Firing;
            let begin = (end.held && end.state == AlarmState::Resolved)
                .then(|| {
                    notices[..at]
                        .iter()
                        .position(|one| begins(one) && one.alarm == end.alarm)
                })
                .flatten();
            if let Some(begin) = begin {
                let untold = std::mem::take(&mut notices[begin].to);
                notices[at].to.retain(|channel| !untold.contains(channel));
            }
        }
        notices.retain(|notice| !notice.to.is_empty());
        for notice in &mut notices {
            notice.held = false;
        }
        self.notices = notices;
        true
    }
}

#[cfg(test)]
mod tests;
