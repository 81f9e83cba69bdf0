//! Routes and the order of checks. Every handler that touches a host holds a `Permit`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, request};
use lizmon_mtls::Clock;
use lizmon_mtls::connection::Connection;
use lizmon_mtls::service::{self, Crowded};
use lizmon_mtls::trust::{TrustReader, TrustWriter};
use lizmon_pki::date::rfc3339;
use lizmon_protocol::delivery::REPLAYED_HEADER;
use lizmon_protocol::problem::Code;
use lizmon_protocol::route::{self, parse_epoch};
use lizmon_protocol::sample::SAFE_INTEGER_MAX;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;

use crate::authorize;
use crate::body::{BODY_BYTES_MAX, BodyReader};
use crate::clock::FineClock;
use crate::health::Judge;
use crate::holders::Holders;
use crate::ingest;
use crate::journal::Journal;
use crate::metrics::{self, Metrics, Refused};
use crate::problem::Rejection;
use crate::query;
use crate::seen::Seen;
use crate::summarize::SummaryTable;
use crate::token::Tokens;

mod acknowledge;
mod authenticated;
mod crl;
mod oauth;

use authenticated::{Authenticated, connection_of, peer_of};

/// What the handlers work with.
pub struct App {
    /// Whom we trust at this moment.
    pub trust: TrustReader,
    /// Changes whom we trust.
    pub trust_writer: Mutex<TrustWriter>,
    /// Mints and verifies.
    pub tokens: Tokens,
    /// Reads bodies.
    pub bodies: BodyReader,
    /// Makes durable.
    pub journal: Journal,
    /// The numbers.
    pub summaries: Arc<SummaryTable>,
    /// By which certificates hosts report.
    pub(crate) holders: Holders,
    /// Which certificates were seen.
    pub(crate) seen: Seen,
    /// Counts.
    pub metrics: Metrics,
    /// Says what somebody has to see to.
    pub health: Judge,
    /// The time.
    pub clock: Clock,
    /// The same to the millisecond.
    pub fine_clock: FineClock,
    /// Which start of this receiver this is: the millisecond of it.
    pub run: u64,
}

type Shared = State<Arc<App>>;

/// Of more hosts than this only those are looked at that have not reported for so long: each is a chain to verify.
const JUDGED_AT_ONCE_MAX: usize = 1_000;
const HEARD_SECS: u64 = 2;

/// A body beyond this is read into records beside the tasks that serve others.
const PARSED_IN_PLACE_BYTES_MAX: usize = 64 << 10;
/// An answer about more labels is made beside the tasks that serve others.
const ANSWERED_IN_PLACE_LABELS_MAX: usize = 64;

/// What a label of a full host comes to in an answer: 85 intervals of some 140 bytes.
const ANSWER_BYTES_PER_LABEL: usize = 13 << 10;

/// A path that is served, and with which methods.
pub struct Route {
    /// As the router matches it: `{name}` is one segment, `{*name}` all that is left.
    pub path: String,
    /// As the `Allow` header names them.
    pub allow: &'static str,
    reads_body: bool,
    handlers: MethodRouter<Arc<App>>,
}

impl Route {
    /// A route that has no use for a body.
    fn to_get(path: impl Into<String>, handlers: MethodRouter<Arc<App>>) -> Self {
        Self {
            path: path.into(),
            allow: "GET, HEAD",
            reads_body: false,
            handlers,
        }
    }

    /// A route that reads the body itself.
    fn to_send(
        path: impl Into<String>,
        allow: &'static str,
        handlers: MethodRouter<Arc<App>>,
    ) -> Self {
        Self {
            path: path.into(),
            allow,
            reads_body: true,
            handlers,
        }
    }
}

/// Everything that is served: [`router`] knows no other routes, and tests ask here which there are.
pub fn routes() -> Vec<Route> {
    vec![
        Route::to_get(route::METADATA, get(oauth::metadata)),
        Route::to_get(route::JWKS, get(oauth::key_set)),
        Route::to_get(route::PERF, get(list_hosts)),
        Route::to_get(format!("{}/{{host}}", route::DELIVERY), get(delivery)),
        Route::to_get(route::CERTIFICATES, get(list_certificates)),
        Route::to_get(route::HEALTHZ, get(health)),
        Route::to_get(route::READYZ, get(ready)),
        Route::to_get(route::METRICS, get(read_metrics)),
        Route::to_send(route::TOKEN, "POST", post(oauth::token)),
        Route::to_send(
            format!("{}/{{*rest}}", route::PERF),
            "GET, HEAD, POST",
            get(host).post(host),
        ),
        Route::to_send(route::CRL, "PUT", put(crl::put)),
        Route::to_send(
            format!("{}/{{host}}{}", route::DELIVERY, acknowledge::PATH_END),
            "POST",
            post(acknowledge::post),
        ),
    ]
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let add = |router: Router<Arc<App>>, route: Route| {
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
            tracing::error!("a request panicked; the others go on");
            Rejection::from(Code::InternalError).into_response()
        }))
        .layer(from_fn_with_state(app.clone(), note_refusals))
        .layer(from_fn_with_state(app.clone(), tell_time))
        .with_state(app)
}

/// The route's methods, and an answer for all others that names them.
fn only(allow: &'static str, methods: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    methods.fallback(
        move |State(app): Shared, mut request: Request<Body>| async move {
            discard(&app, &mut request).await;
            Rejection::method_not_allowed(allow)
        },
    )
}

/// Counts what is refused, and says who is.
async fn note_refusals(State(app): Shared, request: Request<Body>, next: Next) -> Response {
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let response = admit(request, next).await;
    if let Some(refused) = response.extensions().get::<Refused>() {
        let is_denial = matches!(response.status().as_u16(), 401 | 403 | 429);
        let address = connection.as_ref().map(|connection| connection.address());
        let who = connection
            .as_ref()
            .and_then(|connection| connection.shown_identity());
        app.metrics.refused(refused, is_denial, address, who);
    }
    response
}

/// Lets a request in, or refuses it for what it is, whoever sends it. No route has a use for what strangers send: they are
/// answered at once, and their bodies not waited for.
async fn admit(request: Request<Body>, next: Next) -> Response {
    let is_crowded = request.extensions().get::<Crowded>().is_some();
    let connection = request.extensions().get::<Arc<Connection>>();
    let is_stranger = connection.is_none_or(|connection| connection.shown_identity().is_none());
    let (head, mut body) = request.into_parts();
    let is_last =
        (is_crowded || is_stranger) && service::drop_body(&head, std::mem::take(&mut body)).await;
    let request = Request::from_parts(head, body);
    let mut response = match lizmon_mtls::check_host(&request) {
        _ if is_crowded => Rejection::from(Code::Overloaded).without_body(),
        Ok(()) => next.run(request).await,
        Err(error) => Rejection::from(Code::InvalidHost)
            .with_detail(error.to_string())
            .closing()
            .into_response(),
    };
    if is_last {
        service::close_after(&mut response);
    }
    response
}

/// Says in every answer what time it is here: `Date` has whole seconds, and whoever sends on each whole second would find
/// us half a second off.
async fn tell_time(State(app): Shared, request: Request<Body>, next: Next) -> Response {
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

async fn discard_body(State(app): Shared, mut request: Request<Body>, next: Next) -> Response {
    discard(&app, &mut request).await;
    next.run(request).await
}

async fn discard(app: &App, request: &mut Request<Body>) {
    let body = std::mem::take(request.body_mut());
    app.bodies.discard(request.headers(), body).await;
}

/// `/api/perf/{host}`, `/api/perf/{host}/{label}` and `/api/perf/{host}/{epoch}`: told apart by method and form.
async fn host(State(app): Shared, request: Request<Body>) -> Result<Response, Rejection> {
    let (head, mut body) = request.into_parts();
    let answer = match head.method {
        Method::POST => ingest(&app, &head, &mut body).await,
        _ => read_host(&app, &head).await,
    };
    let took_too_long = answer
        .as_ref()
        .is_err_and(|rejection| rejection.code() == Code::RequestTimeout);
    if !took_too_long {
        app.bodies.discard(&head.headers, body).await;
    }
    answer
}

async fn read_host(app: &Arc<App>, head: &request::Parts) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let (host, label) = host_and_rest(head);
    let sender = Authenticated::check(app, head, now)?;
    let permit = sender.caller()?.read_host(&host)?;
    let filter = label.unwrap_or_default();
    let labels = query::label_count(&permit, &app.summaries);
    if labels <= ANSWERED_IN_PLACE_LABELS_MAX {
        let found =
            query::summaries(&permit, &app.summaries, &filter, now).ok_or(Code::UnknownHost)?;
        return sender.answer(&found);
    }
    let summaries = app.summaries.clone();
    let make = move || {
        let found = query::summaries(&permit, &summaries, &filter, now).ok_or(Code::UnknownHost)?;
        serde_json::to_vec(&found).map_err(|_| Code::InternalError)
    };
    let made = app
        .bodies
        .large_answer(labels * ANSWER_BYTES_PER_LABEL, sender.rooms()?, make)
        .await?;
    Ok(json_bytes(made?))
}

async fn ingest(app: &App, head: &request::Parts, body: &mut Body) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let (host, epoch) = host_and_rest(head);
    let sender = Authenticated::check(app, head, now)?;
    let permit = sender.caller()?.ingest(&host)?;
    let epoch = epoch
        .map(|epoch| parse_epoch(&epoch))
        .transpose()
        .map_err(|error| Rejection::from(Code::MalformedEpoch).with_detail(error.to_string()))?;
    sender
        .pace()?
        .may_send_records()
        .map_err(too_many_records)?;
    let body = app
        .bodies
        .read(&head.headers, body, BODY_BYTES_MAX, sender.pace()?)
        .await?;
    let bytes = body.bytes().len();
    let is_large = bytes > PARSED_IN_PLACE_BYTES_MAX;
    let key = ingest::idempotency_key(&head.headers);
    let parse = move || {
        let submission = match epoch {
            Some(epoch) => ingest::single(permit, epoch, key?, body.bytes(), now),
            None => ingest::batch(permit, body.bytes(), now),
        };
        let submission = submission?;
        let view = submission.view().map_err(|_| Code::InternalError)?;
        let records = ingest::paced_records(&view);
        Ok::<_, Rejection>((submission, records, body.into_room()))
    };
    let parsed = if is_large {
        tokio::task::spawn_blocking(parse)
            .await
            .map_err(|_| Rejection::from(Code::InternalError))?
    } else {
        parse()
    };
    let (submission, records, _until_answered) = parsed.or_else(|refused| {
        sender.pace().and_then(|pace| {
            pace.charge_refused(bytes);
            Err(refused)
        })
    })?;
    sender
        .pace()?
        .take_records(records)
        .map_err(too_many_records)?;
    let answer = app.journal.submit(submission, now).await?;
    sender.remember();
    if let Some(ahead_secs) = ahead_of(&head.headers) {
        app.summaries.note_clock(&host, ahead_secs, now);
    }
    match epoch {
        Some(_) if answer.duplicate > 0 => {
            let replayed = [(REPLAYED_HEADER, "true")];
            Ok((StatusCode::NO_CONTENT, replayed).into_response())
        }
        Some(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Ok(json(&answer)),
    }
}

/// How far the sender says its clock is ahead of what it stamps samples by.
fn ahead_of(headers: &HeaderMap) -> Option<i64> {
    let said: i64 = headers
        .get(route::AHEAD_HEADER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    (said.unsigned_abs() <= SAFE_INTEGER_MAX).then_some(said)
}

fn too_many_records(wait: Duration) -> Rejection {
    Rejection::rate_limited(wait)
        .with_detail("the certificate's holder has sent too many records in this time, or too much that was refused")
}

async fn list_hosts(State(app): Shared, head: request::Parts) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender.caller()?.list_hosts()?;
    let mut hosts = query::hosts(&permit, &app.summaries, now);
    let trust = app.trust.current();
    let is_many = hosts.hosts.len() > JUDGED_AT_ONCE_MAX;
    for host in &mut hosts.hosts {
        // Who reports at this moment was judged at this moment.
        let is_heard = host.last_epoch.saturating_add(HEARD_SECS) >= now;
        if host.state.is_none() && !(is_many && is_heard) {
            host.state = app.holders.state(&host.name, &trust, now);
        }
    }
    sender.answer(&hosts)
}

/// For whoever looks after the CA: what it issued and has forgotten.
async fn list_certificates(
    State(app): Shared,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender.caller()?.list_certificates()?;
    sender.answer(&app.seen.list(&permit, now))
}

async fn delivery(State(app): Shared, head: request::Parts) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let host = head
        .uri
        .path()
        .rsplit('/')
        .next()
        .map(decode)
        .unwrap_or_default();
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender.caller()?.read_host(&host)?;
    sender.answer(&query::delivery(&permit, &app.summaries).ok_or(Code::UnknownHost)?)
}

/// What a probe gets: fine, fine but soon not any more, or what is wrong.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Whether the process lives. An expired revocation list is no reason to start it anew.
async fn health(State(app): Shared) -> Response {
    let now = (app.clock)();
    let trust = app.trust.current();
    let mut warnings = app.health.warnings(&trust, now);
    warnings.extend(app.journal.clock_status().warning());
    warnings.extend(app.journal.status().warnings(now));
    json(&Health {
        status: "ok",
        warnings,
    })
}

/// Whether requests would be served.
async fn ready(State(app): Shared) -> Result<Response, Rejection> {
    check_crls(&app, (app.clock)())?;
    if let Some(words) = app.journal.status().refusal() {
        return Err(Rejection::from(Code::StoreUnavailable).with_detail(words));
    }
    Ok(health(State(app)).await)
}

/// For whoever scrapes: a reader's certificate, and no token.
async fn read_metrics(State(app): Shared, head: request::Parts) -> Result<Response, Rejection> {
    let now = (app.clock)();
    check_crls(&app, now)?;
    let peer = peer_of(&app, connection_of(&head)?, now)?.ok_or_else(|| {
        Rejection::from(Code::CertificateMismatch).with_detail("show a reader's certificate")
    })?;
    let permit = authorize::read_metrics(peer.identity)?;
    let text = app.metrics.text(&permit, peer.pace.scrapes()).await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(metrics::MEDIA_TYPE)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, text).into_response())
}

/// Past its end and the grace after it, a revocation list says nothing any more: nobody is let in.
fn check_crls(app: &App, now: u64) -> Result<(), Rejection> {
    match app.health.refused_for(&app.trust.current(), now) {
        Some(crl) => {
            let detail = format!(
                "the revocation list of {} ended on {}",
                crl.issuer,
                rfc3339(crl.next_update)
            );
            Err(Rejection::from(Code::CrlExpired).with_detail(detail))
        }
        None => Ok(()),
    }
}

/// The path's host, and what stands behind it, both decoded.
fn host_and_rest(head: &request::Parts) -> (String, Option<String>) {
    let rest = head
        .uri
        .path()
        .strip_prefix(route::PERF)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or_default();
    match rest.split_once('/') {
        Some((host, rest)) => (decode(host), Some(decode(rest))),
        None => (decode(rest), None),
    }
}

/// Undoes percent-encoding. What is not UTF-8 then matches no name: U+FFFD is in none.
fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json_bytes(body.into()),
        Err(_) => Rejection::from(Code::InternalError).into_response(),
    }
}

fn json_bytes(body: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}
