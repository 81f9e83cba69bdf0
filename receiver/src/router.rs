//! Routes and middleware. Handlers that access a host hold a `Permit`.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use lizmon_mtls::admission::{self, HeadRefusal};
use lizmon_mtls::connection::Connection;
use lizmon_mtls::service::{ClientRequest, RequestBody};
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;

use self::state::SharedState;
use crate::metrics::RefusedRequest;

mod alarms;
mod answer;
mod authenticated;
mod certificates;
mod crl;
mod delivery;
mod facts;
mod front;
mod history;
mod oauth;
mod openapi;
mod otlp;
mod page;
mod perf;
mod points;
mod probes;
mod problem;
mod prometheus;
mod remote_write;
mod request_body;
mod state;

pub use self::front::Front;
pub use self::openapi::Described;
pub(crate) use self::probes::health_warnings;
pub use self::problem::Rejection;
pub use self::state::ReceiverState;

const TIME: HeaderName = HeaderName::from_static(route::TIME_HEADER);
/// Size of a time with its parameters, at most.
const TIME_BYTES_MAX: usize = 64;

/// A path that is served, with its methods.
pub struct ApiRoute {
    /// As the router matches it: `{name}` is one segment, `{*name}` all that is left.
    pub path: String,
    /// As the `Allow` header names them.
    pub allow: &'static str,
    /// What each of its methods does.
    pub describe: fn() -> Vec<Described>,
    reads_body: bool,
    handlers: MethodRouter<Arc<ReceiverState>>,
}

impl ApiRoute {
    /// A route that ignores the body.
    fn without_request_body(
        path: impl Into<String>,
        handlers: MethodRouter<Arc<ReceiverState>>,
        describe: fn() -> Vec<Described>,
    ) -> Self {
        Self {
            path: path.into(),
            allow: "GET, HEAD",
            describe,
            reads_body: false,
            handlers,
        }
    }

    /// A route that reads the body itself.
    fn with_request_body(
        path: impl Into<String>,
        allow: &'static str,
        handlers: MethodRouter<Arc<ReceiverState>>,
        describe: fn() -> Vec<Described>,
    ) -> Self {
        Self {
            path: path.into(),
            allow,
            describe,
            reads_body: true,
            handlers,
        }
    }
}

/// Every route: [`Front`] serves no others, and tests iterate over these.
pub fn routes() -> Vec<ApiRoute> {
    vec![
        ApiRoute::without_request_body(route::METADATA, get(oauth::metadata), openapi::metadata),
        ApiRoute::without_request_body(route::JWKS, get(oauth::key_set), openapi::key_set),
        ApiRoute::without_request_body(route::PERF, get(perf::list_hosts), openapi::list_hosts),
        // Before it comes to the router, `Front` takes what is posted.
        ApiRoute {
            allow: "GET, HEAD, POST",
            ..ApiRoute::without_request_body(
                format!("{}/{{*rest}}", route::PERF),
                get(perf::read_host),
                openapi::perf,
            )
        },
        ApiRoute::without_request_body(
            format!("{}/{{host}}", route::DELIVERY),
            get(delivery::get),
            openapi::delivery,
        ),
        ApiRoute::without_request_body(route::ALARMS, get(alarms::list), openapi::alarms),
        ApiRoute::without_request_body(
            format!("{}/{{*rest}}", route::HISTORY),
            get(history::get),
            openapi::history,
        ),
        ApiRoute::without_request_body(
            route::CERTIFICATES,
            get(certificates::list_certificates),
            openapi::certificates,
        ),
        ApiRoute::without_request_body(route::HEALTHZ, get(probes::health), openapi::health),
        ApiRoute::without_request_body(route::READYZ, get(probes::ready), openapi::ready),
        ApiRoute::without_request_body(route::OPENAPI, get(read_openapi), openapi::openapi),
        ApiRoute::without_request_body(route::METRICS, get(probes::read_metrics), openapi::metrics),
        ApiRoute::without_request_body(route::PAGE, get(page::hosts), openapi::page_hosts),
        ApiRoute::without_request_body(
            format!("{}/{{host}}", route::PAGE_HOSTS),
            get(page::host),
            openapi::page_host,
        ),
        ApiRoute::without_request_body(route::PAGE_TRUST, get(page::trust), openapi::page_trust),
        ApiRoute::without_request_body(
            route::PAGE_DELIVERY,
            get(page::delivery),
            openapi::page_delivery,
        ),
        ApiRoute::without_request_body(route::PAGE_LIVE, get(page::live), openapi::page_live),
        ApiRoute::without_request_body(route::LIVE, get(page::api_live), openapi::live),
        ApiRoute::without_request_body(route::PAGE_ALARMS, get(page::alarms), openapi::page_alarms),
        ApiRoute::without_request_body(route::PAGE_ADD, get(page::add), openapi::page_add),
        ApiRoute::without_request_body(
            format!("{}/{{host}}", route::PAGE_REVOKE),
            get(page::revoke),
            openapi::page_revoke,
        ),
        ApiRoute::without_request_body(
            format!("{}/{{name}}", route::PAGE_ASSETS),
            get(page::asset),
            openapi::asset,
        ),
        ApiRoute::with_request_body(route::TOKEN, "POST", post(oauth::token), openapi::token),
        ApiRoute::with_request_body(
            format!("{}/{{host}}", route::SILENCES),
            "POST",
            post(alarms::silence),
            openapi::silence,
        ),
        ApiRoute::with_request_body(
            format!("{}/test/{{channel}}", route::ALARMS),
            "POST",
            post(alarms::test_channel),
            openapi::test_channel,
        ),
        ApiRoute::with_request_body(route::CRL, "PUT", put(crl::put), openapi::put_crl),
        ApiRoute::with_request_body(
            format!("{}/{{host}}", route::FACTS),
            "PUT",
            put(facts::put),
            openapi::put_facts,
        ),
        ApiRoute::with_request_body(
            route::REMOTE_WRITE,
            "POST",
            post(remote_write::write),
            openapi::remote_write,
        ),
        ApiRoute::with_request_body(
            route::OTLP_METRICS,
            "POST",
            post(otlp::export),
            openapi::export_metrics,
        ),
        ApiRoute::with_request_body(
            route::REMOTE_READ,
            "POST",
            post(prometheus::read),
            openapi::remote_read,
        ),
        ApiRoute::with_request_body(
            route::SERIES,
            "GET, HEAD, POST",
            get(prometheus::list).post(prometheus::list),
            openapi::series,
        ),
        ApiRoute::with_request_body(
            route::LABELS,
            "GET, HEAD, POST",
            get(prometheus::list).post(prometheus::list),
            openapi::labels,
        ),
        ApiRoute::without_request_body(
            format!("{}/{{name}}/values", route::LABEL_VALUES),
            get(prometheus::values),
            openapi::label_values,
        ),
        ApiRoute::with_request_body(
            format!("{}/{{host}}{}", route::DELIVERY, delivery::PATH_END),
            "POST",
            post(delivery::acknowledge),
            openapi::acknowledge,
        ),
    ]
}

static OPENAPI: LazyLock<openapi::Document> = LazyLock::new(|| {
    let routes = routes().into_iter();
    openapi::Document::of(routes.flat_map(|route| (route.describe)()))
});

/// What `GET /openapi.json` answers: the description of all routes.
pub fn openapi_json() -> Bytes {
    OPENAPI.json()
}

/// `GET /openapi.json`
async fn read_openapi(headers: HeaderMap) -> Response {
    OPENAPI.answer(&headers)
}

/// All routes, without what is done around each.
fn router(app: &Arc<ReceiverState>) -> Router {
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
        .with_state(app.clone())
}

/// What is done around each route: refuses what is invalid for any of them, contains a panic, notes
/// refusals, and adds the time.
async fn respond(
    app: &ReceiverState,
    request: &mut ClientRequest<RequestBody>,
    route: impl AsyncFnOnce(&mut ClientRequest<RequestBody>) -> Response,
) -> Response {
    let client = request.client.clone();
    let contained = async |request: &mut _| {
        let answered = AssertUnwindSafe(async { route(request).await }).catch_unwind();
        answered.await.unwrap_or_else(|_| {
            tracing::error!("a request panicked; other requests continue");
            Rejection::from(Code::InternalError).into_response()
        })
    };
    let mut response = admit(request, contained).await;
    note_refusal(app, &client, &response);
    add_time(app, &mut response);
    response
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
fn note_refusal(app: &ReceiverState, client: &Connection, response: &Response) {
    if let Some(refused) = response.extensions().get::<RefusedRequest>() {
        let is_denial = matches!(response.status().as_u16(), 401 | 403 | 429);
        let who = client.shown_identity();
        app.metrics
            .refused(refused, is_denial, client.address(), who);
    }
}

/// Refuses requests that are invalid from any client. No route reads the body of a client without a
/// certificate.
async fn admit(
    request: &mut ClientRequest<RequestBody>,
    route: impl AsyncFnOnce(&mut ClientRequest<RequestBody>) -> Response,
) -> Response {
    let is_token = request.head.uri.path() == route::TOKEN;
    admission::admit(request, route, false, |refusal| match refusal {
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
fn add_time(app: &ReceiverState, response: &mut Response) {
    let now = (app.fine_clock)();
    let is_steady = app.journal.clock_status().is_steady();
    if let Some(value) = TimeValue::at(now, is_steady, app.run) {
        response.headers_mut().insert(TIME, value);
    }
}

/// The value of the time's header in one millisecond, which has many responses.
struct TimeValue {
    millis: u128,
    is_steady: bool,
    run: u64,
    value: HeaderValue,
}

thread_local! {
    static LAST_TIME: RefCell<Option<TimeValue>> = const { RefCell::new(None) };
}

impl TimeValue {
    fn at(now: Duration, is_steady: bool, run: u64) -> Option<HeaderValue> {
        let millis = now.as_millis();
        LAST_TIME.with_borrow_mut(|last| {
            let is_same = |last: &&mut Self| {
                (last.millis, last.is_steady, last.run) == (millis, is_steady, run)
            };
            if let Some(last) = last.as_mut().filter(is_same) {
                return Some(last.value.clone());
            }
            let text = time_text(now, is_steady, run);
            let value = HeaderValue::from_maybe_shared(text).ok()?;
            *last = Some(Self {
                millis,
                is_steady,
                run,
                value: value.clone(),
            });
            Some(value)
        })
    }
}

/// `{secs}.{millis}`, with its parameters.
fn time_text(now: Duration, is_steady: bool, run: u64) -> Bytes {
    let mut digits = itoa::Buffer::new();
    let mut text = String::with_capacity(TIME_BYTES_MAX);
    text.push_str(digits.format(now.as_secs()));
    text.push('.');
    // Three digits always.
    text.push_str(&digits.format(1_000 + now.subsec_millis())[1..]);
    text.push_str(if is_steady { ";steady" } else { ";steady=?0" });
    text.push_str(";run=");
    text.push_str(digits.format(run));
    Bytes::from(text)
}

async fn discard_body(State(app): SharedState, mut request: Request<Body>, next: Next) -> Response {
    discard(&app, &mut request).await;
    next.run(request).await
}

async fn discard(app: &ReceiverState, request: &mut Request<Body>) {
    let body = std::mem::take(request.body_mut());
    app.bodies.discard(request.headers(), body).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_response() {
        for (secs, millis, is_steady, run, expected) in [
            (0, 0, true, 0, "0.000;steady;run=0"),
            (
                1_465_001_814,
                7,
                true,
                1_465_000_000_123,
                "1465001814.007;steady;run=1465000000123",
            ),
            (
                1_465_001_814,
                999,
                false,
                5,
                "1465001814.999;steady=?0;run=5",
            ),
            (
                u64::MAX,
                10,
                false,
                u64::MAX,
                "18446744073709551615.010;steady=?0;run=18446744073709551615",
            ),
        ] {
            let now = Duration::from_secs(secs) + Duration::from_millis(millis);
            let text = time_text(now, is_steady, run);
            assert_eq!(text, expected.as_bytes());
            assert!(text.len() <= TIME_BYTES_MAX);
        }
    }
}
