//! `/api/facts`: what a machine is, as its monitor says. That is durable like a sample.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use lizmon_protocol::facts::{FACTS_BYTES_MAX, Facts, FactsError};
use lizmon_protocol::problem::{Code, ValueError};

use super::answer::parse_host;
use super::authenticated::Authenticated;
use super::perf::too_many_records;
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::SharedState;
use crate::ingest;

/// Facts take as much of the journal as so many records, about, and count as that many.
const BILLED_RECORDS: u32 = 50;

/// `PUT /api/facts/{host}`
pub(super) async fn put(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    answer_routed(&app, request, take_facts).await
}

async fn take_facts(mut request: BodyRequest<'_>) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let now = (app.clock)();
    let host = head.uri.path().rsplit('/').next().and_then(parse_host);
    let sender = Authenticated::check(app, head, now)?;
    let permit = sender.caller()?.report(host.as_ref())?;
    sender
        .quota()?
        .may_send_records()
        .map_err(too_many_records)?;
    let body = request.read(FACTS_BYTES_MAX, &sender).await?;
    let now = (app.sample_clock)();
    let facts = Facts::parse(body.bytes()).or_else(|error| {
        sender.quota()?.charge_refused(body.bytes().len());
        Err(refused(error, now))
    })?;
    let submission = ingest::facts(&permit, &facts, now).map_err(|_| Code::InternalError)?;
    sender
        .quota()?
        .take_records(BILLED_RECORDS)
        .map_err(too_many_records)?;
    app.journal.submit(submission, now).await?;
    sender.remember();
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn refused(error: FactsError, now: u64) -> Rejection {
    let reason = error.to_string();
    match error {
        FactsError::Malformed(_) => Rejection::from(Code::MalformedJson).with_detail(reason),
        FactsError::Fact { .. } | FactsError::TooMany => {
            let error = ValueError {
                record: None,
                label: None,
                reason,
            };
            Rejection::from(Code::InvalidValues).with_errors(vec![error], now)
        }
    }
}
