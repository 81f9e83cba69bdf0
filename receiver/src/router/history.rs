//! `GET /api/history/{host}/{label}`: a series further back than its summaries go.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use http::request;
use lizmon_protocol::history::{HistoryRange, INTERVALS_MAX};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::Code;
use lizmon_protocol::route::{self, parse_epoch};

use super::answer::{decode, parse_host};
use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::state::SharedState;

/// Size of an answer, at most: 2,000 intervals of some 140 bytes.
const ANSWER_BYTES: usize = INTERVALS_MAX * 140;

/// `GET /api/history/{host}/{label}`
pub(super) async fn get(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let (host, label) = host_and_label(&head);
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender
        .caller()?
        .read_host(host.as_ref(), |host| app.table.tags(host))?;
    let asked = Asked::parse(head.uri.query().unwrap_or_default())
        .map_err(|detail| Rejection::from(Code::MalformedQuery).with_detail(detail))?;
    let label = label.or(asked.label).ok_or(Code::NotFound)?;
    let turn = app.history.turn().await.ok_or(Code::Overloaded)?;
    let host = permit.host().as_str();
    app.table.read_now(host, (app.sample_clock)()).await;
    let now = (app.sample_clock)();
    let (table, histories) = (app.table.clone(), app.history.clone());
    let make = move || {
        let _until_read = turn;
        let read = histories.read(&permit, &table, &label, &asked.range, now);
        let found = read.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the history cannot be read");
            Code::StoreUnavailable
        })?;
        let found = found.ok_or(Code::UnknownHost)?;
        serde_json::to_vec(&found).map_err(|_| Code::InternalError)
    };
    sender.large_answer(ANSWER_BYTES, make).await
}

/// The path's host, and all that follows it: a label may have a slash.
fn host_and_label(head: &request::Parts) -> (Option<NodeName>, Option<String>) {
    let rest = head
        .uri
        .path()
        .strip_prefix(route::HISTORY)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or_default();
    match rest.split_once('/') {
        Some((host, label)) if !label.is_empty() => {
            (parse_host(host), Some(decode(label).into_owned()))
        }
        Some((host, _)) => (parse_host(host), None),
        None => (parse_host(rest), None),
    }
}

/// What the query says.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    range: HistoryRange,
    /// Where the path cannot have it: `.` and `..`.
    label: Option<String>,
}

impl Asked {
    /// An unknown name is an error: what it was to say would be ignored.
    fn parse(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        let mut seen = BTreeSet::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !seen.insert(name.clone()) {
                return Err(format!("there is more than one {name:?}"));
            }
            let epoch = || match &*value {
                "" => Ok(None),
                text => parse_epoch(text)
                    .map(Some)
                    .map_err(|error| error.to_string()),
            };
            match &*name {
                "tier" => asked.range.tier = value.parse().map_err(|error| format!("{error}"))?,
                "from" => asked.range.from = epoch()?,
                "to" => asked.range.to = epoch()?,
                "label" => asked.label = Some(value.into_owned()).filter(|label| !label.is_empty()),
                _ => return Err(format!("{name:?} is not asked for: tier, from, to")),
            }
        }
        match (asked.range.from, asked.range.to) {
            (Some(from), Some(to)) if from > to => Err("from is after to".to_owned()),
            _ => Ok(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::history::HistoryTier;
    use lizmon_protocol::sample::Epoch;

    use super::*;

    #[test]
    fn queries() {
        let range = |tier, from, to| HistoryRange {
            tier,
            from: Epoch::new(from),
            to: Epoch::new(to),
        };
        let (hours, days) = (HistoryTier::ByHour, HistoryTier::ByDay);
        for (query, expected) in [
            ("", Some(HistoryRange::default())),
            ("tier=by-hour&from=&to=", Some(HistoryRange::default())),
            ("tier=by-day&from=7&to=9", Some(range(days, 7, 9))),
            ("to=9&from=9", Some(range(hours, 9, 9))),
            (
                "from=0&to=9007199254740991",
                Some(range(hours, 0, (1 << 53) - 1)),
            ),
            ("from=10&to=9", None),
            ("from=-1", None),
            ("from=+1", None),
            ("from=1e9", None),
            ("from=9007199254740992", None),
            ("from=18446744073709551616", None),
            ("from=1&from=2", None),
            ("tier=by-minute", None),
            ("tier=", None),
            ("tier=BY-HOUR", None),
            ("since=7d", None),
            ("%00=1", None),
        ] {
            let asked = Asked::parse(query).ok().map(|asked| asked.range);
            assert_eq!(asked, expected, "{query:?}");
        }
        for (query, expected) in [("tier=by-day&label=..", Some("..")), ("label=", None)] {
            let asked = Asked::parse(query).unwrap();
            assert_eq!(asked.label.as_deref(), expected, "{query}");
        }
    }
}
