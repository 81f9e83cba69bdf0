//! Finds the client of every request, and tracks each request until its response is sent.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, Version, request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use crate::activity::{ConnectionActivity, InFlightRequest};
use crate::connection::Connection;
use crate::forwarding::Forwarding;
use crate::head_refusal::HeadRefusal;

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

/// Answers every request of every connection.
pub trait Routes: Clone + Send + Sync + 'static {
    /// The future of a response.
    type Future: Future<Output = Response<axum::body::Body>> + Send;

    /// Answers a request.
    fn answer(&self, request: ClientRequest<RequestBody>) -> Self::Future;
}

impl<R, F> Routes for R
where
    R: Fn(ClientRequest<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<axum::body::Body>> + Send,
{
    type Future = F;

    fn answer(&self, request: ClientRequest<RequestBody>) -> F {
        self(request)
    }
}

/// A request, and what its connection says of the client.
#[derive(Debug)]
pub struct ClientRequest<B> {
    /// The request's head as the client sent it.
    pub head: request::Parts,
    /// Its body.
    pub body: B,
    /// The connection of the client: this one, or the part of a proxy's that is this client's.
    pub client: Arc<Connection>,
    /// Why the request is refused, whatever it asks for.
    pub(crate) refusal: Option<HeadRefusal>,
    end: ConnectionEnd,
}

impl<B> ClientRequest<B> {
    /// Takes the request out, with [`Connection`] and [`ConnectionEnd`] in its extensions.
    pub fn take_request(&mut self) -> Request<axum::body::Body>
    where
        B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Default + Send + 'static,
    {
        let (empty, ()) = Request::new(()).into_parts();
        let mut head = std::mem::replace(&mut self.head, empty);
        head.extensions.insert(self.client.clone());
        head.extensions.insert(self.end.clone());
        let body = std::mem::take(&mut self.body);
        Request::from_parts(head, axum::body::Body::new(body))
    }
}

/// The body of a request as it arrives; empty once it was dropped.
#[derive(Debug, Default)]
pub struct RequestBody(Option<Incoming>);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// Finds the client of every request on a connection, and marks the connection as busy.
#[derive(Debug)]
pub(crate) struct ConnectionService<R> {
    routes: R,
    connection: Arc<Connection>,
    forwarding: Arc<Forwarding>,
    activity: Arc<ConnectionActivity>,
}

impl<R> ConnectionService<R> {
    pub(crate) fn new(
        routes: R,
        connection: Arc<Connection>,
        forwarding: Arc<Forwarding>,
        activity: Arc<ConnectionActivity>,
    ) -> Self {
        Self {
            routes,
            connection,
            forwarding,
            activity,
        }
    }
}

impl<R: Routes> Service<Request<Incoming>> for ConnectionService<R> {
    type Response = Response<InFlightBody<axum::body::Body>>;
    type Error = Infallible;
    type Future = InFlightResponse<R::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let found = self
            .forwarding
            .client_of(&self.connection, request.headers());
        let (client, refusal) = match found {
            Ok(client) => (client, None),
            Err(error) => (
                self.connection.clone(),
                Some(HeadRefusal::Forwarding(error)),
            ),
        };
        let in_flight = match client.forwarded_quota() {
            Some(quota) => self.activity.begin_of(Some(quota), request.version()),
            None => self.activity.begin(request.version()),
        };
        let refusal = match in_flight.is_over_limit() {
            true => Some(HeadRefusal::TooManyInFlight),
            false => refusal,
        };
        let (head, body) = request.into_parts();
        let request = ClientRequest {
            head,
            body: RequestBody(Some(body)),
            client,
            refusal,
            end: ConnectionEnd(self.activity.clone()),
        };
        InFlightResponse {
            inner: self.routes.answer(request),
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

impl<F, A> Future for InFlightResponse<F>
where
    F: Future<Output = Response<A>>,
{
    type Output = Result<Response<InFlightBody<A>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx));
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
