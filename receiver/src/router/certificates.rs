//! `GET /api/certificates`

use axum::extract::State;
use axum::response::Response;
use http::request;

use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::state::SharedState;

/// For the operator of a CA that lost track of what it issued.
pub(super) async fn list_certificates(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender.caller()?.list_certificates()?;
    sender.answer(&app.seen.list(&permit, now))
}
