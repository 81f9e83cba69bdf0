//! Refuses requests by their head alone, before any route sees them.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use http::header::CONTENT_TYPE;

use crate::connection::Connection;
use crate::forwarding::ForwardingError;
use crate::host::{HostError, check_host};
use crate::service::{self, TooManyInFlight};

/// Why a request is refused by its head, from any client.
#[derive(Debug, Clone)]
pub enum HeadRefusal {
    /// The client has reached its limit of requests in progress. The body of the response is not
    /// sent: a client that reads no responses would keep it in memory.
    TooManyInFlight,
    /// Without one unambiguous Host the requests behind this one cannot be trusted: the connection
    /// is closed.
    Host(HostError),
    /// The request came with headers of a proxy, or through a proxy, and is not accepted so.
    Forwarding(ForwardingError),
}

/// Admits a request to its route, or refuses it with the response that `refuse` makes. A client
/// without a certificate is answered at once, without waiting for its body, unless the route
/// `reads_anonymous_body`.
pub async fn admit(
    request: Request<Body>,
    route: impl AsyncFnOnce(Request<Body>) -> Response,
    reads_anonymous_body: bool,
    refuse: impl FnOnce(HeadRefusal) -> Response,
) -> Response {
    let is_crowded = request.extensions().get::<TooManyInFlight>().is_some();
    let connection = request.extensions().get::<Arc<Connection>>();
    let is_anonymous = connection.is_none_or(|connection| connection.shown_identity().is_none());
    let forwarding = request.extensions().get::<ForwardingError>().cloned();
    let is_refused = is_crowded || forwarding.is_some();
    let is_dropped = is_refused || is_anonymous && !reads_anonymous_body;
    let (head, mut body) = request.into_parts();
    let is_last = is_dropped && service::drop_body(&head, std::mem::take(&mut body)).await;
    let request = Request::from_parts(head, body);
    let mut response = match check_host(&request) {
        _ if is_crowded => without_body(refuse(HeadRefusal::TooManyInFlight)),
        Ok(()) => match forwarding {
            Some(error) => refuse(HeadRefusal::Forwarding(error)),
            None => route(request).await,
        },
        Err(error) => {
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
