//! Routes, and what every request goes through before its handler.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::Request;
use lizmon_mtls::admission::{self, HeadRefusal};
use lizmon_mtls::service::{ClientRequest, RequestBody, Routes};
use lizmon_protocol::enrol;
use lizmon_protocol::route::{HEALTHZ, READYZ};
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;

use super::body::discard;
use super::handlers::{
    ServiceState, ca_certificates, crls, health, ready, simple_enroll, simple_reenroll,
};
use super::response::ErrorResponse;

/// A path and its methods.
pub struct CaRoute {
    /// The whole path.
    pub path: &'static str,
    /// The methods, as the `Allow` header lists them.
    pub allow: &'static str,
    reads_body: bool,
    handlers: MethodRouter<Arc<ServiceState>>,
}

impl CaRoute {
    /// A route that reads no body.
    fn without_request_body(path: &'static str, handlers: MethodRouter<Arc<ServiceState>>) -> Self {
        Self {
            path,
            allow: "GET, HEAD",
            reads_body: false,
            handlers,
        }
    }

    /// A route whose handler reads the body.
    fn to_post(path: &'static str, handlers: MethodRouter<Arc<ServiceState>>) -> Self {
        Self {
            path,
            allow: "POST",
            reads_body: true,
            handlers,
        }
    }
}

/// All routes. Tests compare this list with the documentation.
pub fn routes() -> Vec<CaRoute> {
    vec![
        CaRoute::without_request_body(enrol::CACERTS, get(ca_certificates)),
        CaRoute::without_request_body(enrol::CRL, get(crls)),
        CaRoute::without_request_body(HEALTHZ, get(health)),
        CaRoute::without_request_body(READYZ, get(ready)),
        CaRoute::to_post(enrol::SIMPLE_ENROLL, post(simple_enroll)),
        CaRoute::to_post(enrol::SIMPLE_REENROLL, post(simple_reenroll)),
    ]
}

/// Answers every request.
pub(super) fn answerer(state: Arc<ServiceState>) -> impl Routes {
    let router = router(state);
    move |request| admit(request, router.clone())
}

/// The router with all routes.
fn router(state: Arc<ServiceState>) -> Router {
    let add = |router: Router<Arc<ServiceState>>, route: CaRoute| {
        router.route(route.path, only(route.allow, route.handlers))
    };
    let (with_body, without_body): (Vec<_>, Vec<_>) =
        routes().into_iter().partition(|route| route.reads_body);
    let without_body = without_body
        .into_iter()
        .fold(Router::new(), add)
        .fallback(|| async { ErrorResponse::NotFound })
        .layer(from_fn(discard_body));
    with_body
        .into_iter()
        .fold(without_body, add)
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request handler panicked; other requests are not affected");
            ErrorResponse::Unavailable.into_response()
        }))
        .with_state(state)
}

/// Adds the response to other methods than the route's.
fn only(
    allow: &'static str,
    methods: MethodRouter<Arc<ServiceState>>,
) -> MethodRouter<Arc<ServiceState>> {
    methods.fallback(move |mut request: Request<Body>| async move {
        let headers = request.headers().clone();
        discard(&headers, request.body_mut()).await;
        ErrorResponse::Method(allow)
    })
}

/// Refuses requests that are invalid from any client. The body of a client without a certificate is
/// read only on the route for join tokens.
async fn admit(mut request: ClientRequest<RequestBody>, router: Router) -> Response {
    let is_enrolment = request.head.uri.path() == enrol::SIMPLE_ENROLL;
    admission::admit(
        &mut request,
        async |request| {
            let Ok(response) = router.oneshot(request.take_request()).await;
            response
        },
        is_enrolment,
        |refusal| match refusal {
            HeadRefusal::TooManyInFlight => ErrorResponse::Unavailable.into_response(),
            HeadRefusal::Forwarding(error) => {
                ErrorResponse::Forbidden(error.to_string()).into_response()
            }
            HeadRefusal::Host(error) => {
                ErrorResponse::BadRequest(error.to_string()).into_response()
            }
        },
    )
    .await
}

async fn discard_body(mut request: Request<Body>, next: Next) -> Response {
    let headers = request.headers().clone();
    discard(&headers, request.body_mut()).await;
    next.run(request).await
}
