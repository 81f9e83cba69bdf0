//! Prometheus' Alertmanager, API version 2.

use lizmon_pki::date::rfc3339;
use serde::Serialize;

use super::error::TellError;
use super::http;
use crate::board::AlarmBoard;
use crate::message::Message;
use crate::rules::{AlertmanagerConfig, RuleSet};
use crate::state::{AlarmNotice, AlarmState};

/// How many alerts go into one request.
pub(super) const ALERTS_AT_ONCE_MAX: usize = 500;
/// A firing alert ends by itself after so many refreshes that did not come.
const REFRESHES_MISSED_MAX: u64 = 4;
/// At least after so long.
const ENDS_AFTER_SECS: u64 = 300;

/// An Alertmanager.
#[derive(Debug)]
pub(super) struct Alertmanager {
    config: AlertmanagerConfig,
    client: Option<reqwest::Client>,
}

#[derive(Debug, Serialize)]
struct Alert<'a> {
    labels: AlertLabels<'a>,
    annotations: Annotations<'a>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
}

/// What identifies an alert there: the same when it fires and when it has ended.
#[derive(Debug, Serialize)]
struct AlertLabels<'a> {
    alertname: &'a str,
    instance: &'a str,
    severity: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    label: &'a str,
    job: &'static str,
}

#[derive(Debug, Serialize)]
struct Annotations<'a> {
    summary: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    value: String,
    id: &'a str,
}

impl Alertmanager {
    pub(super) fn new(config: AlertmanagerConfig) -> Self {
        Self {
            config,
            client: None,
        }
    }

    pub(super) async fn tell(&mut self, messages: &[Message], now: u64) -> Result<(), TellError> {
        let ends_after = (self.config.refresh_secs * REFRESHES_MISSED_MAX).max(ENDS_AFTER_SECS);
        let alerts: Vec<_> = messages
            .iter()
            .map(|message| alert(message, now + ends_after))
            .collect();
        let body = serde_json::to_vec(&alerts).map_err(TellError::passing)?;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => http::client(
                self.config.ca_file.as_deref(),
                self.config.identity.as_ref(),
            )?,
        };
        self.client = Some(client.clone());
        let mut url = self.config.url.clone();
        url.set_path(&format!(
            "{}/api/v2/alerts",
            url.path().trim_end_matches('/')
        ));
        let sent = client
            .post(url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        let judged = sent
            .map_err(http::of_request)
            .and_then(|response| http::judge(&response));
        if judged.is_err() {
            // Its files may have changed.
            self.client = None;
        }
        judged
    }
}

fn alert(message: &Message, ends_at: u64) -> Alert<'_> {
    let notice = &message.notice;
    Alert {
        labels: AlertLabels {
            alertname: &notice.rule,
            instance: &message.host,
            severity: notice.severity.as_str(),
            label: &notice.label,
            job: "lizmon",
        },
        annotations: Annotations {
            summary: &message.summary,
            description: &message.description,
            reason: &notice.reason,
            value: notice.value.to_string(),
            id: &notice.alarm,
        },
        starts_at: rfc3339(notice.since),
        ends_at: rfc3339(match notice.state {
            AlarmState::Resolved => notice.at,
            AlarmState::Pending | AlarmState::Firing => ends_at,
        }),
    }
}

/// What fires and is told by this channel.
pub(super) fn firing(channel: &str, board: &AlarmBoard, rules: &RuleSet) -> Vec<Message> {
    let entries = board.entries().into_iter();
    let firing = entries.filter(|entry| {
        let rule = rules.rule(&entry.alarm.rule);
        let channels = rule.map(|rule| rules.channels_of(rule, false));
        entry.alarm.state == AlarmState::Firing
            // One that was told before its host was silenced has not ended.
            && !entry.is_held
            && channels.is_some_and(|names| names.iter().any(|name| name == channel))
    });
    firing
        .map(|entry| Message::new(&entry.host, &AlarmNotice::of(&entry.alarm), rules))
        .collect()
}
