//! `/api/alarms`: the alarms there are, and tests of channels; `/api/silences`: hosts whose alarms
//! an operator does not want to be told of. That is durable like a sample.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, request};
use lizmon_alarms::silence::{SILENCE_SECS_MAX, Silence, WHY_BYTES_MAX};
use lizmon_protocol::alarm::{ChannelTested, SilenceRequest, Silenced};
use lizmon_protocol::problem::{Code, ValueError};
use lizmon_protocol::route;

use super::answer::{decode, json, parse_host, wanted_tags};
use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::SharedState;
use crate::alarms;
use crate::authorize::{Permit, SilenceHost};
use crate::store::record::Submission;
use crate::store::{DocumentKind, StoredDocument};

/// A reason and the JSON around it.
pub(super) const BYTES_MAX: usize = 4 << 10;

/// `GET /api/alarms`
pub(super) async fn list(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let sender = Authenticated::check(&app, &head, (app.clock)())?;
    let permit = sender
        .caller()?
        .list_hosts()?
        .only(wanted_tags(&head, &[])?);
    let entries = app.alarms.board().entries();
    sender
        .answer(&alarms::list(&permit, &app.table, entries))
        .await
}

/// `POST /api/silences/{host}`
pub(super) async fn silence(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    answer_routed(&app, request, take_silence).await
}

async fn take_silence(mut request: BodyRequest<'_>) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let now = (app.clock)();
    let path = head.uri.path().strip_prefix(route::SILENCES);
    let host = path
        .and_then(|path| path.strip_prefix('/'))
        .and_then(parse_host);
    let sender = Authenticated::check(app, head, now)?;
    let permit = sender.caller()?.silence(host.as_ref())?;
    let body = request.read(BYTES_MAX, &sender).await?;
    let asked: SilenceRequest = serde_json::from_slice(body.bytes()).or_else(|error| {
        sender.quota()?.charge_refused(body.bytes().len());
        Err(Rejection::from(Code::MalformedJson).with_detail(error.to_string()))
    })?;
    let now = (app.sample_clock)();
    let silence = silence_of(&permit, asked, now)?;
    let host = permit.host().ok_or(Code::UnknownHost)?;
    let certificate_end = {
        let hosts = app.table.shard_with(host.as_str());
        hosts
            .get(host.as_str())
            .ok_or(Code::UnknownHost)?
            .certificate_end
    };
    let document = StoredDocument {
        kind: DocumentKind::Silence,
        body: serde_json::to_vec(&silence)
            .map_err(|_| Code::InternalError)?
            .into(),
    };
    let submission = Submission::of_document(host, certificate_end, now, &document);
    app.journal.submit(submission, now).await?;
    let Silence { until, why, by, .. } = silence;
    match until > now {
        true => tracing::info!(%host, until, why, by, "alarms silenced by an operator"),
        false => tracing::info!(%host, why, by, "a silence ended by an operator"),
    }
    Ok(json(&Silenced {
        silenced_until: (until > now).then_some(until),
    }))
}

fn silence_of(
    permit: &Permit<SilenceHost>,
    asked: SilenceRequest,
    now: u64,
) -> Result<Silence, Rejection> {
    let why = asked.why.trim();
    let fault = match () {
        () if asked.for_secs > SILENCE_SECS_MAX => {
            format!("for-secs: at most {SILENCE_SECS_MAX}")
        }
        () if why.is_empty() => "why: it must not be empty".to_owned(),
        () if why.len() > WHY_BYTES_MAX => format!("why: at most {WHY_BYTES_MAX} bytes"),
        () if why.chars().any(char::is_control) => "why: one line of text".to_owned(),
        () => {
            return Ok(Silence {
                until: now + asked.for_secs,
                since: now,
                why: why.to_owned(),
                by: permit.operator().to_string(),
            });
        }
    };
    let error = ValueError {
        record: None,
        label: None,
        reason: fault,
    };
    Err(Rejection::from(Code::InvalidValues).with_errors(vec![error], now))
}

/// `POST /api/alarms/test/{channel}`
pub(super) async fn test_channel(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    answer_routed(&app, request, async |request: BodyRequest<'_>| {
        let (app, head) = (request.app, request.head);
        let channel = head.uri.path().rsplit('/').next().map(decode);
        let sender = Authenticated::check(app, head, (app.clock)())?;
        let _permit = sender.caller()?.test_channel()?;
        let channel = channel.unwrap_or_default().into_owned();
        let failure = match app.alarms.test(&channel).await {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        Ok(json(&ChannelTested { channel, failure }))
    })
    .await
}
