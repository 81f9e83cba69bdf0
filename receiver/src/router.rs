//! Routes and middleware. Handlers that access a host hold a `Permit`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use http::{HeaderName, HeaderValue, Request};
use lizmon_mtls::admission::{self, HeadRefusal};
use lizmon_mtls::connection::Connection;
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use tower_http::catch_panic::CatchPanicLayer;

use self::state::SharedState;
use crate::metrics::RefusedRequest;

mod alarms;
mod answer;
mod authenticated;
mod certificates;
mod crl;
mod delivery;
mod facts;
mod history;
mod oauth;
mod page;
mod perf;
mod probes;
mod problem;
mod request_body;
mod state;

pub(crate) use self::probes::health_warnings;
pub use self::problem::Rejection;
pub use self::state::ReceiverState;

/// A path that is served, with its methods.
pub struct ApiRoute {
    /// As the router matches it: `{name}` is one segment, `{*name}` all that is left.
    pub path: String,
    /// As the `Allow` header names them.
    pub allow: &'static str,
    reads_body: bool,
    handlers: MethodRouter<Arc<ReceiverState>>,
}

impl ApiRoute {
    /// A route that ignores the body.
    fn without_request_body(
        path: impl Into<String>,
        handlers: MethodRouter<Arc<ReceiverState>>,
    ) -> Self {
        Self {
            path: path.into(),
            allow: "GET, HEAD",
            reads_body: false,
            handlers,
        }
    }

    /// A route that reads the body itself.
    fn with_request_body(
        path: impl Into<String>,
        allow: &'static str,
        handlers: MethodRouter<Arc<ReceiverState>>,
    ) -> Self {
        Self {
            path: path.into(),
            allow,
            reads_body: true,
            handlers,
        }
    }
}

/// Every route: [`router`] serves no others, and tests iterate over these.
pub fn routes() -> Vec<ApiRoute> {
    vec![
        ApiRoute::without_request_body(route::METADATA, get(oauth::metadata)),
        ApiRoute::without_request_body(route::JWKS, get(oauth::key_set)),
        ApiRoute::without_request_body(route::PERF, get(perf::list_hosts)),
        ApiRoute::without_request_body(format!("{}/{{host}}", route::DELIVERY), get(delivery::get)),
        ApiRoute::without_request_body(route::ALARMS, get(alarms::list)),
        ApiRoute::without_request_body(format!("{}/{{*rest}}", route::HISTORY), get(history::get)),
        ApiRoute::without_request_body(route::CERTIFICATES, get(certificates::list_certificates)),
        ApiRoute::without_request_body(route::HEALTHZ, get(probes::health)),
        ApiRoute::without_request_body(route::READYZ, get(probes::ready)),
        ApiRoute::without_request_body(route::METRICS, get(probes::read_metrics)),
        ApiRoute::without_request_body(route::PAGE, get(page::hosts)),
        ApiRoute::without_request_body(format!("{}/{{host}}", route::PAGE_HOSTS), get(page::host)),
        ApiRoute::without_request_body(route::PAGE_TRUST, get(page::trust)),
        ApiRoute::without_request_body(route::PAGE_DELIVERY, get(page::delivery)),
        ApiRoute::without_request_body(route::PAGE_LIVE, get(page::live)),
        ApiRoute::without_request_body(route::LIVE, get(page::api_live)),
        ApiRoute::without_request_body(route::PAGE_ALARMS, get(page::alarms)),
        ApiRoute::without_request_body(
            format!("{}/{{name}}", route::PAGE_ASSETS),
            get(page::asset),
        ),
        ApiRoute::with_request_body(route::TOKEN, "POST", post(oauth::token)),
        ApiRoute::with_request_body(
            format!("{}/{{*rest}}", route::PERF),
            "GET, HEAD, POST",
            get(perf::host).post(perf::host),
        ),
        ApiRoute::with_request_body(
            format!("{}/{{host}}", route::SILENCES),
            "POST",
            post(alarms::silence),
        ),
        ApiRoute::with_request_body(
            format!("{}/test/{{channel}}", route::ALARMS),
            "POST",
            post(alarms::test_channel),
        ),
        ApiRoute::with_request_body(route::CRL, "PUT", put(crl::put)),
        ApiRoute::with_request_body(format!("{}/{{host}}", route::FACTS), "PUT", put(facts::put)),
        ApiRoute::with_request_body(
            format!("{}/{{host}}{}", route::DELIVERY, delivery::PATH_END),
            "POST",
            post(delivery::acknowledge),
        ),
    ]
}

/// All routes.
pub fn router(app: Arc<ReceiverState>) -> Router {
    let add = |router: Router<Arc<ReceiverState>>, route: ApiRoute| {
        router.route(&route.path, only(route.allow, route.handlers))
    };
    let (sent_to, others): (Vec<_>, Vec<_>) =
        routes().into_iter().partition(|route| route.reads_body);
    let others = others
        .into_iter()
        .fold(Router::new(), add)
        .fallback(|| async { Rejection::from(Code::NotFound) })
        .layer(from_fn_with_state(app.clone(), discard_body));
    sent_to
        .into_iter()
        .fold(others, add)
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request panicked; other requests continue");
            Rejection::from(Code::InternalError).into_response()
        }))
        .layer(from_fn_with_state(app.clone(), note_refusals))
        .layer(from_fn_with_state(app.clone(), add_time))
        .with_state(app)
}

/// The route's methods, and an answer for all others that names them.
fn only(
    allow: &'static str,
    methods: MethodRouter<Arc<ReceiverState>>,
) -> MethodRouter<Arc<ReceiverState>> {
    methods.fallback(
        move |State(app): SharedState, mut request: Request<Body>| async move {
            discard(&app, &mut request).await;
            Rejection::method_not_allowed(allow)
        },
    )
}

/// Counts and logs refusals.
async fn note_refusals(State(app): SharedState, request: Request<Body>, next: Next) -> Response {
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let response = admit(request, next).await;
    if let Some(refused) = response.extensions().get::<RefusedRequest>() {
        let is_denial = matches!(response.status().as_u16(), 401 | 403 | 429);
        let address = connection.as_ref().map(|connection| connection.address());
        let who = connection
            .as_ref()
            .and_then(|connection| connection.shown_identity());
        app.metrics.refused(refused, is_denial, address, who);
    }
    response
}

/// Refuses requests that are invalid from any client. No route reads the body of a client without a
/// certificate.
async fn admit(request: Request<Body>, next: Next) -> Response {
    let is_token = request.uri().path() == route::TOKEN;
    admission::admit(request, next, false, |refusal| match refusal {
        HeadRefusal::TooManyInFlight => Rejection::from(Code::Overloaded).into_response(),
        HeadRefusal::Forwarding(error) if is_token => oauth::refuse_forwarding(&error),
        HeadRefusal::Forwarding(error) => Rejection::from(error).into_response(),
        HeadRefusal::Host(error) => Rejection::from(Code::InvalidHost)
            .with_detail(error.to_string())
            .into_response(),
    })
    .await
}

/// Adds the receiver's time to every response: `Date` has whole seconds only, which is too coarse
/// for a client that sends on each whole second.
async fn add_time(State(app): SharedState, request: Request<Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    let now = (app.fine_clock)();
    let steady = if app.journal.clock_status().is_steady() {
        ""
    } else {
        "=?0"
    };
    let (secs, millis, run) = (now.as_secs(), now.subsec_millis(), app.run);
    let text = format!("{secs}.{millis:03};steady{steady};run={run}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        let name = HeaderName::from_static(route::TIME_HEADER);
        response.headers_mut().insert(name, value);
    }
    response
}

async fn discard_body(State(app): SharedState, mut request: Request<Body>, next: Next) -> Response {
    discard(&app, &mut request).await;
    next.run(request).await
}

async fn discard(app: &ReceiverState, request: &mut Request<Body>) {
    let body = std::mem::take(request.body_mut());
    app.bodies.discard(request.headers(), body).await;
}
