//! Adds the connection to every request, and tracks each request until its response is sent.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, Version, request};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

use crate::activity::{ConnectionActivity, InFlightRequest};
use crate::connection::Connection;
use crate::forwarding::Forwarding;

/// Request extension: the client has reached its limit of requests in progress. Respond at once and
/// without a body, because a client that reads no responses would keep their bodies in memory.
#[derive(Debug, Clone, Copy)]
pub struct TooManyInFlight;

/// Request extension: tells a response that has no end of its own when it must end.
#[derive(Debug, Clone)]
pub struct ConnectionEnd(Arc<ConnectionActivity>);

impl ConnectionEnd {
    /// Whether the connection is to end now: it is too old, or the server stops.
    pub fn is_due(&self) -> bool {
        self.0.is_at_its_end()
    }
}

/// How often to poll for the end of the body. Each poll lets hyper return one more piece.
const POLLS_MAX: usize = 4;

/// Drops a body that is not needed. Returns whether the response must be the last on its
/// connection. In HTTP/1, the rest of the body comes before the next request, and the client must
/// know that sending it is useless.
pub async fn drop_body<B: Body + Unpin>(head: &request::Parts, mut body: B) -> bool {
    if head.version >= Version::HTTP_2 || body.is_end_stream() {
        return false;
    }
    // A client that sent `Expect: 100-continue` has sent no body yet, and a poll would request it:
    // RFC 9110 section 10.1.1.
    if head.headers.contains_key(EXPECT) {
        return true;
    }
    for _ in 0..POLLS_MAX {
        let look = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
        match look {
            Poll::Ready(None) => return false,
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => return false,
            Poll::Ready(Some(Ok(_))) => (),
            Poll::Ready(Some(Err(_))) => return true,
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    true
}

/// Marks a response as the last on its connection.
pub fn close_after<A>(response: &mut Response<A>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

/// Adds the [`Connection`] of its client to every request, and marks the connection as busy. A
/// request whose client cannot be told has a
/// [`ForwardingError`](crate::forwarding::ForwardingError).
#[derive(Debug, Clone)]
pub struct ConnectionService<S> {
    inner: S,
    connection: Arc<Connection>,
    forwarding: Arc<Forwarding>,
    activity: Arc<ConnectionActivity>,
}

impl<S> ConnectionService<S> {
    pub(crate) fn new(
        inner: S,
        connection: Arc<Connection>,
        forwarding: Arc<Forwarding>,
        activity: Arc<ConnectionActivity>,
    ) -> Self {
        Self {
            inner,
            connection,
            forwarding,
            activity,
        }
    }
}

impl<S, B, A> Service<Request<B>> for ConnectionService<S>
where
    S: Service<Request<B>, Response = Response<A>>,
{
    type Response = Response<InFlightBody<A>>;
    type Error = S::Error;
    type Future = InFlightResponse<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let client = self
            .forwarding
            .client_of(&self.connection, request.headers());
        let client = client.unwrap_or_else(|error| {
            request.extensions_mut().insert(error);
            self.connection.clone()
        });
        let in_flight = match client.forwarded_quota() {
            Some(quota) => self.activity.begin_of(Some(quota), request.version()),
            None => self.activity.begin(request.version()),
        };
        request.extensions_mut().insert(client);
        let end = ConnectionEnd(self.activity.clone());
        request.extensions_mut().insert(end);
        if in_flight.is_over_limit() {
            request.extensions_mut().insert(TooManyInFlight);
        }
        InFlightResponse {
            inner: self.inner.call(request),
            in_flight: Some(in_flight),
        }
    }
}

pin_project! {
    /// The future of a response.
    #[derive(Debug)]
    pub struct InFlightResponse<F> {
        #[pin]
        inner: F,
        in_flight: Option<InFlightRequest>,
    }
}

impl<F, A, E> Future for InFlightResponse<F>
where
    F: Future<Output = Result<Response<A>, E>>,
{
    type Output = Result<Response<InFlightBody<A>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if this
            .in_flight
            .as_ref()
            .is_some_and(InFlightRequest::is_last)
        {
            close_after(&mut response);
        }
        let sending = this.in_flight.take().map(InFlightRequest::into_sending);
        Poll::Ready(Ok(response.map(|inner| InFlightBody {
            inner,
            _sending: sending,
        })))
    }
}

pin_project! {
    /// A response body. The request is in progress until the end of the body is handed over.
    #[derive(Debug)]
    pub struct InFlightBody<A> {
        #[pin]
        inner: A,
        _sending: Option<InFlightRequest>,
    }
}

impl<A: Body> Body for InFlightBody<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
