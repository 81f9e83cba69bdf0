//! What becomes of a request's body.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{Request, request};
use lizmon_protocol::problem::Code;

use super::problem::Rejection;
use super::state::ReceiverState;

/// Answers a request whose body may be read, and discards what was not read of it, so that the
/// response arrives. A client that was too slow is not waited for again.
pub(super) async fn answer_with_body(
    app: &Arc<ReceiverState>,
    request: Request<Body>,
    answer: impl AsyncFnOnce(
        &Arc<ReceiverState>,
        &request::Parts,
        &mut Body,
    ) -> Result<Response, Rejection>,
) -> Result<Response, Rejection> {
    let (head, mut body) = request.into_parts();
    let answer = answer(app, &head, &mut body).await;
    let took_too_long = answer
        .as_ref()
        .is_err_and(|rejection| rejection.code() == Code::RequestTimeout);
    if !took_too_long {
        app.bodies.discard(&head.headers, body).await;
    }
    answer
}
