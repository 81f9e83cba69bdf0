//! Requests whose body is read, and what becomes of the rest of it.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, request};
use lizmon_protocol::problem::Code;

use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::state::ReceiverState;
use crate::body::ReceivedBody;
use crate::{prometheus, protobuf};

/// A request whose body may be read.
pub(super) struct BodyRequest<'a, B = Body> {
    pub(super) app: &'a Arc<ReceiverState>,
    pub(super) head: &'a request::Parts,
    pub(super) body: &'a mut B,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> BodyRequest<'_, B> {
    /// The whole body, if the sender may send it, and is still trusted when it has come.
    pub(super) async fn read(
        &mut self,
        bytes_max: usize,
        sender: &Authenticated<'_>,
    ) -> Result<ReceivedBody, Rejection> {
        let (headers, quota) = (&self.head.headers, sender.quota()?);
        let bodies = &self.app.bodies;
        let body = bodies.read(headers, self.body, bytes_max, quota).await?;
        sender.check_trust()?;
        Ok(body)
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> BodyRequest<'_, B> {
    /// The same of a body that is a protobuf message in one block of snappy, as Prometheus sends it.
    pub(super) async fn read_message(
        &mut self,
        bytes_max: usize,
        message: &str,
        sender: &Authenticated<'_>,
    ) -> Result<ReceivedBody, Rejection> {
        let headers = &self.head.headers;
        let said = headers
            .get(CONTENT_TYPE)
            .and_then(|said| said.to_str().ok());
        if !said.is_some_and(|said| prometheus::is_media_type_of(said, message)) {
            let expected = format!(
                "it must be {}, and the message {message}",
                protobuf::MEDIA_TYPE
            );
            return Err(Rejection::from(Code::UnsupportedMediaType).with_detail(expected));
        }
        let quota = sender.quota()?;
        let bodies = &self.app.bodies;
        let body = bodies
            .read_snappy(headers, self.body, bytes_max, quota)
            .await
            .map_err(Rejection::of_message_body)?;
        sender.check_trust()?;
        Ok(body)
    }
}

/// Answers a request, and discards what was not read of its body, so that the response arrives. A
/// client that was too slow is not waited for again.
pub(super) async fn answer_with_body<B>(
    request: BodyRequest<'_, B>,
    answer: impl AsyncFnOnce(BodyRequest<'_, B>) -> Result<Response, Rejection>,
) -> Result<Response, Rejection>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let BodyRequest { app, head, body } = request;
    let answer = answer(BodyRequest { app, head, body }).await;
    let took_too_long = answer
        .as_ref()
        .is_err_and(|rejection| rejection.code() == Code::RequestTimeout);
    if !took_too_long && !body.is_end_stream() {
        Box::pin(app.bodies.discard(&head.headers, body)).await;
    }
    answer
}

/// The same for a request that came through the router.
pub(super) async fn answer_routed(
    app: &Arc<ReceiverState>,
    request: Request<Body>,
    answer: impl AsyncFnOnce(BodyRequest<'_>) -> Result<Response, Rejection>,
) -> Result<Response, Rejection> {
    let (head, mut body) = request.into_parts();
    let request = BodyRequest {
        app,
        head: &head,
        body: &mut body,
    };
    answer_with_body(request, answer).await
}
