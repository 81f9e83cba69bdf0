//! Refuses requests by their head alone, before any route sees them.

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;

use crate::host::check_host;
use crate::service::{self, ClientRequest};

pub use crate::head_refusal::HeadRefusal;

/// Admits a request to its route, or refuses it with the response that `refuse` makes. A client
/// without a certificate is answered at once, without waiting for its body, unless the route
/// `reads_anonymous_body`.
pub async fn admit<B>(
    request: &mut ClientRequest<B>,
    route: impl AsyncFnOnce(&mut ClientRequest<B>) -> Response,
    reads_anonymous_body: bool,
    refuse: impl FnOnce(HeadRefusal) -> Response,
) -> Response
where
    B: http_body::Body + Default + Unpin,
{
    let refusal = request.refusal.take();
    let is_anonymous = request.client.shown_identity().is_none();
    let is_dropped = refusal.is_some() || is_anonymous && !reads_anonymous_body;
    let is_last = is_dropped && {
        let body = std::mem::take(&mut request.body);
        Box::pin(service::drop_body(&request.head, body)).await
    };
    let mut response = match (refusal, check_host(&request.head)) {
        (Some(HeadRefusal::TooManyInFlight), _) => {
            without_body(refuse(HeadRefusal::TooManyInFlight))
        }
        (None, Ok(())) => route(request).await,
        (Some(refusal), Ok(())) => refuse(refusal),
        (_, Err(error)) => {
            let mut response = refuse(HeadRefusal::Host(error));
            service::close_after(&mut response);
            response
        }
    };
    if is_last {
        service::close_after(&mut response);
    }
    response
}

fn without_body(mut response: Response) -> Response {
    *response.body_mut() = Body::empty();
    response.headers_mut().remove(CONTENT_TYPE);
    response
}
