//! Requests whose body is read, and what becomes of the rest of it.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{Request, request};
use lizmon_protocol::problem::Code;

use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::state::ReceiverState;
use crate::body::ReceivedBody;

/// A request whose body may be read.
pub(super) struct BodyRequest<'a> {
    pub(super) app: &'a Arc<ReceiverState>,
    pub(super) head: &'a request::Parts,
    body: &'a mut Body,
}

impl BodyRequest<'_> {
    /// The whole body, if the sender may send it.
    pub(super) async fn read(
        &mut self,
        bytes_max: usize,
        sender: &Authenticated<'_>,
    ) -> Result<ReceivedBody, Rejection> {
        let (headers, quota) = (&self.head.headers, sender.quota()?);
        let bodies = &self.app.bodies;
        Ok(bodies.read(headers, self.body, bytes_max, quota).await?)
    }
}

/// Answers a request, and discards what was not read of its body, so that the response arrives. A
/// client that was too slow is not waited for again.
pub(super) async fn answer_with_body(
    app: &Arc<ReceiverState>,
    request: Request<Body>,
    answer: impl AsyncFnOnce(BodyRequest<'_>) -> Result<Response, Rejection>,
) -> Result<Response, Rejection> {
    let (head, mut body) = request.into_parts();
    let answer = answer(BodyRequest {
        app,
        head: &head,
        body: &mut body,
    })
    .await;
    let took_too_long = answer
        .as_ref()
        .is_err_and(|rejection| rejection.code() == Code::RequestTimeout);
    if !took_too_long {
        app.bodies.discard(&head.headers, body).await;
    }
    answer
}
