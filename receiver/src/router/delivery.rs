//! `/api/delivery`: which sequence numbers arrived, and which an operator acknowledges as missing.
//! That is durable like a sample.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, request};
use lizmon_protocol::delivery::{ACKNOWLEDGED, Acknowledge, Acknowledged};
use lizmon_protocol::name::Label;
use lizmon_protocol::problem::{Code, ValueError};
use lizmon_protocol::route;

use super::answer::{json, parse_host};
use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::SharedState;
use crate::query;

/// The path after the host.
pub(super) const PATH_END: &str = "/acknowledged";
/// A reason and the JSON around it.
pub(super) const BYTES_MAX: usize = 4 << 10;

/// `GET /api/delivery/{host}`
pub(super) async fn get(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let host = head.uri.path().rsplit('/').next().and_then(parse_host);
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender
        .caller()?
        .read_host(host.as_ref(), |host| app.table.tags(host))?;
    let host = permit.host().as_str();
    app.table.read_now(host, (app.sample_clock)()).await;
    let delivery = query::delivery(&permit, &app.table, (app.sample_clock)());
    sender.answer(&delivery.ok_or(Code::UnknownHost)?).await
}

/// `POST /api/delivery/{host}/acknowledged`
pub(super) async fn acknowledge(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    answer_routed(&app, request, take_acknowledgement).await
}

async fn take_acknowledgement(mut request: BodyRequest<'_>) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let now = (app.clock)();
    let path = head.uri.path().strip_prefix(route::DELIVERY);
    let host = path.and_then(|path| path.strip_prefix('/')?.strip_suffix(PATH_END));
    let host = host.and_then(parse_host);
    let sender = Authenticated::check(app, head, now)?;
    let permit = sender.caller()?.acknowledge()?;
    let body = request.read(BYTES_MAX, &sender).await?;
    let asked: Acknowledge = serde_json::from_slice(body.bytes()).or_else(|error| {
        sender.quota()?.charge_refused(body.bytes().len());
        Err(Rejection::from(Code::MalformedJson).with_detail(error.to_string()))
    })?;
    let why = reason(&asked.why, now)?;
    let host = host.ok_or(Code::UnknownHost)?;
    let now = (app.sample_clock)();
    let missing = query::missing(&permit, &app.table, &host, &why, now).ok_or(Code::UnknownHost)?;
    let mut acknowledged = 0;
    for (numbers, submission) in missing {
        app.journal.submit(submission, now).await?;
        acknowledged += numbers;
    }
    tracing::info!(%host, acknowledged, %why, "missing numbers acknowledged by an operator");
    Ok(json(&Acknowledged { acknowledged }))
}

fn reason(why: &str, now: u64) -> Result<Label<'static>, Rejection> {
    let refused = |fault: String| {
        let error = ValueError {
            record: None,
            label: None,
            reason: format!("why: {fault}"),
        };
        Rejection::from(Code::InvalidValues).with_errors(vec![error], now)
    };
    match why.trim() {
        "" => Err(refused("it must not be empty".to_owned())),
        why => {
            Label::new(format!("{ACKNOWLEDGED}: {why}")).map_err(|error| refused(error.to_string()))
        }
    }
}
