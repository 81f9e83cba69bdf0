//! `GET /api/certificates`

use axum::extract::State;
use axum::response::Response;
use http::request;
use lizmon_protocol::problem::Code;

use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::state::SharedState;

/// Size of the list of a large site: 400 bytes for each certificate.
const LIST_BYTES_ABOUT: usize = 4 << 20;

/// For the operator of a CA that lost track of what it issued.
pub(super) async fn list_certificates(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender.caller()?.list_certificates()?;
    let work = app.clone();
    let make = move || {
        let list = work.seen.list(&permit, now);
        serde_json::to_vec(&list).map_err(|_| Code::InternalError)
    };
    sender.large_answer(LIST_BYTES_ABOUT, make).await
}
