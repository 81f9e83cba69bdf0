//! A notice in words. Templates are the operator's; what is put into them is hostile text.

use lizmon_pki::date::rfc3339;
use minijinja::{Error, Value, context};
use serde::Serialize;

use crate::rules::{AlarmSeverity, RuleSet};
use crate::state::{AlarmNotice, AlarmState};
use crate::template::{DEFAULT_SUMMARY, number, one_line, render, visible};

/// The name of a rule that a test message is of.
pub const TEST_RULE: &str = "test";

/// A notice of a host, to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The host.
    pub host: String,
    /// What is told.
    pub notice: AlarmNotice,
    /// In one line.
    pub summary: String,
    /// In more lines; it may be empty.
    pub description: String,
    /// How long an alarm that flaps must be quiet.
    pub quiet_secs: u64,
}

impl Message {
    /// In the words of its rule.
    pub fn new(host: &str, notice: &AlarmNotice, rules: &RuleSet) -> Self {
        let mut message = Self {
            host: host.to_owned(),
            notice: notice.clone(),
            summary: String::new(),
            description: String::new(),
            quiet_secs: rules.flapping.quiet_secs,
        };
        let rule = rules.rule(&notice.rule);
        let summary = rule.map_or(DEFAULT_SUMMARY, |rule| &rule.summary);
        message.summary = one_line(&message.render_or(summary, DEFAULT_SUMMARY));
        let description = rule.map_or("", |rule| &rule.description);
        message.description = message.render_or(description, "");
        message
    }

    /// What a template makes of it.
    pub fn render(&self, template: &str) -> Result<String, Error> {
        render(template, self.context())
    }

    /// The same, or what `built_in` makes of it: a template may fail for one label alone, and the
    /// alarm is to be told all the same.
    pub fn render_or(&self, template: &str, built_in: &str) -> String {
        self.render(template).unwrap_or_else(|error| {
            self.say_failed(&error);
            self.render(built_in).unwrap_or_default()
        })
    }

    /// Logs that a template failed.
    pub fn say_failed(&self, error: &Error) {
        let (rule, host) = (visible(&self.notice.rule), visible(&self.host));
        tracing::warn!(rule, host, %error, "a template fails: the built-in message is sent");
    }

    fn context(&self) -> Value {
        let notice = &self.notice;
        context! {
            host => visible(&self.host),
            rule => visible(&notice.rule),
            label => visible(&notice.label),
            severity => notice.severity.as_str(),
            state => notice.state.as_str(),
            value => number(notice.value),
            since => rfc3339(notice.since),
            at => rfc3339(notice.at),
            reason => visible(&notice.reason),
            id => notice.id.clone(),
            alarm => notice.alarm.clone(),
            summary => self.summary.clone(),
            description => self.description.clone(),
            flapping => notice.flapping.unwrap_or(0),
            quiet => humantime::format_duration(std::time::Duration::from_secs(self.quiet_secs)).to_string(),
        }
    }

    /// As JSON: for programs, so names and labels are exactly as they are.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let notice = &self.notice;
        serde_json::to_vec(&JsonMessage {
            id: &notice.id,
            alarm: &notice.alarm,
            state: notice.state,
            rule: &notice.rule,
            host: &self.host,
            label: &notice.label,
            severity: notice.severity,
            value: notice.value,
            since: notice.since,
            at: notice.at,
            summary: &self.summary,
            description: &self.description,
            reason: &notice.reason,
            flapping: notice.flapping,
        })
    }

    /// A message that shows whether a channel works.
    pub fn test(id: &str, host: &str, now: u64) -> Self {
        let notice = AlarmNotice {
            id: format!("{id}-{}", AlarmState::Firing.as_str()),
            alarm: id.to_owned(),
            state: AlarmState::Firing,
            rule: TEST_RULE.to_owned(),
            label: String::new(),
            severity: AlarmSeverity::Info,
            since: now,
            at: now,
            value: 0.0,
            flapping: None,
            reason: "a test: nothing is wrong".to_owned(),
            held: false,
            to: Vec::new(),
        };
        Self {
            host: host.to_owned(),
            notice,
            summary: format!("a test message of lizmon at {}", visible(host)),
            description: String::new(),
            quiet_secs: 0,
        }
    }
}

/// A message as programs get it.
#[derive(Serialize)]
struct JsonMessage<'a> {
    id: &'a str,
    alarm: &'a str,
    state: AlarmState,
    rule: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    label: &'a str,
    severity: AlarmSeverity,
    value: f64,
    since: u64,
    at: u64,
    summary: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    flapping: Option<usize>,
}

#[cfg(test)]
mod tests;
