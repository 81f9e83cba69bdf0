//! Routes: who may try, then what they send, then the handle.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderName, Request, request};
use http_body_util::BodyExt;
use lizmon_mtls::Clock;
use lizmon_mtls::bounded_log::BoundedLog;
use lizmon_mtls::connection::Connection;
use lizmon_mtls::identity::Identity;
use lizmon_mtls::service::{self, Crowded};
use lizmon_mtls::trust::TrustReader;
use lizmon_protocol::enrol;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::route::{HEALTHZ, READYZ};
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use super::blocking;
use super::handle::{AuthorityHandle, DetectRotation};
use super::rates::Rates;
use super::refusal::ErrorResponse;
use crate::authority::Authority;
use crate::disk;
use crate::enrol::{Enrolled, IssuanceError, JoinTokenError};
use crate::error::Error;
use crate::est;
use crate::profile::rfc3339;

/// Largest body: four times the request with the largest key that is taken.
const BODY_BYTES_MAX: usize = 16 << 10;
/// How much of a body that is too large is read and thrown away, so that the answer arrives.
const DISCARDED_BYTES_MAX: usize = 1 << 20;
/// Requests that work with the ledger or wait for it at one time. It does one thing at a time, in a few milliseconds.
const WAITING_MAX: usize = 256;
/// RFC 7030 section 4.1.3, and RFC 8951: what the body is, whatever it says.
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

static LEDGER_PERMITS: Semaphore = Semaphore::const_new(WAITING_MAX);

/// What the handlers work with.
pub(super) struct ServiceState {
    pub(super) handle: Arc<AuthorityHandle>,
    pub(super) trust: TrustReader,
    pub(super) rates: Rates,
    pub(super) refusals: BoundedLog,
    /// From where names have joined since the start.
    pub(super) joined: Mutex<HashMap<NodeName, IpAddr>>,
    pub(super) body_timeout: Duration,
    pub(super) clock: Clock,
}

type Shared = State<Arc<ServiceState>>;

/// Names whose address is remembered: beyond it all are forgotten, and an alarm may be one too many.
const JOINED_NAMES_MAX: usize = 10_000;

/// A path that is served, and with which methods.
pub struct CaRoute {
    /// The whole path.
    pub path: &'static str,
    /// As the `Allow` header names them.
    pub allow: &'static str,
    reads_body: bool,
    handlers: MethodRouter<Arc<ServiceState>>,
}

impl CaRoute {
    /// A route that has no use for a body.
    fn to_get(path: &'static str, handlers: MethodRouter<Arc<ServiceState>>) -> Self {
        Self {
            path,
            allow: "GET, HEAD",
            reads_body: false,
            handlers,
        }
    }

    /// A route that reads the body itself.
    fn to_post(path: &'static str, handlers: MethodRouter<Arc<ServiceState>>) -> Self {
        Self {
            path,
            allow: "POST",
            reads_body: true,
            handlers,
        }
    }
}

/// Everything that is served: there are no other routes, and tests ask here which there are.
pub fn routes() -> Vec<CaRoute> {
    vec![
        CaRoute::to_get(enrol::CACERTS, get(ca_certificates)),
        CaRoute::to_get(enrol::CRL, get(revocation_lists)),
        CaRoute::to_get(HEALTHZ, get(health)),
        CaRoute::to_get(READYZ, get(ready)),
        CaRoute::to_post(enrol::SIMPLE_ENROLL, post(simple_enroll)),
        CaRoute::to_post(enrol::SIMPLE_REENROLL, post(simple_reenroll)),
    ]
}

/// All routes.
pub(super) fn router(app: Arc<ServiceState>) -> Router {
    let add = |router: Router<Arc<ServiceState>>, route: CaRoute| {
        router.route(route.path, only(route.allow, route.handlers))
    };
    let (sent_to, others): (Vec<_>, Vec<_>) =
        routes().into_iter().partition(|route| route.reads_body);
    let others = others
        .into_iter()
        .fold(Router::new(), add)
        .fallback(|| async { ErrorResponse::NotFound })
        .layer(from_fn(discard_body));
    sent_to
        .into_iter()
        .fold(others, add)
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request panicked; the others go on");
            ErrorResponse::Unavailable.into_response()
        }))
        .layer(from_fn(admit))
        .with_state(app)
}

/// The route's methods, and an answer for all others that names them.
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

/// RFC 7030 section 4.1: roots and issuing CAs that are trusted now.
async fn ca_certificates(
    State(app): Shared,
    request: Request<Body>,
) -> Result<Response, ErrorResponse> {
    let (now, shown) = ((app.clock)(), shown(&app, &request));
    let found = with_authority(&app, move |authority| {
        if let Some(shown) = &shown {
            authority.record_use(shown, now)?;
        }
        authority.ca_certificates()
    })
    .await?;
    let found = found.map_err(|error| unavailable(&app, &error))?;
    in_pkcs7(&app, &found)
}

/// A first certificate: RFC 7030 section 4.2.1.
async fn simple_enroll(
    State(app): Shared,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request<Body>,
) -> Response {
    let (head, mut body) = request.into_parts();
    let joined = join(&app, &head.headers, &mut body, connection.address()).await;
    let mut response = joined.into_response();
    // A join may be refused before its body is read.
    if service::drop_body(&head, body).await {
        service::close_after(&mut response);
    }
    response
}

async fn join(
    app: &ServiceState,
    headers: &HeaderMap,
    body: &mut Body,
    address: IpAddr,
) -> Result<Response, ErrorResponse> {
    app.rates
        .join_from(address)
        .map_err(ErrorResponse::TooMany)?;
    let (name, token) = basic_credentials(headers).ok_or(ErrorResponse::NO_TOKEN)?;
    app.rates.join_as(&name).map_err(ErrorResponse::TooMany)?;
    // First the token: what a stranger sends is not worth the wait.
    let (now, holder, secret) = ((app.clock)(), name.clone(), token.clone());
    let checked = with_authority(app, move |authority| {
        authority.check_token(&holder, &secret, now)
    });
    if let Err(error) = checked.await? {
        return answer(app, Err(error), address, name.as_str());
    }
    let body = read_body(app, headers, body).await?;
    let (now, holder) = ((app.clock)(), name.clone());
    let enrolled = with_authority(app, move |authority| {
        authority.enrol(&holder, &token, &est::read_request(&body)?, now)
    })
    .await?;
    match &enrolled {
        Ok(_) => remember_join(app, name.clone(), address),
        Err(error) if is_same_host(app, error, &name, address) => {
            app.refusals.say(|unsaid| {
                tracing::info!(%address, who = %name, unsaid,
                               "its own join, run again with another key: refused, and no alarm");
            });
            return Err(ErrorResponse::of(error));
        }
        Err(_) => (),
    }
    answer(app, enrolled, address, name.as_str())
}

fn remember_join(app: &ServiceState, name: NodeName, address: IpAddr) {
    let mut joined = app.joined.lock().unwrap_or_else(PoisonError::into_inner);
    if joined.len() >= JOINED_NAMES_MAX {
        joined.clear();
    }
    joined.insert(name, address);
}

/// Whether who shows a used token with another key is who used it, as far as its address tells: then `join` was only run
/// again. From elsewhere it may be a thief.
fn is_same_host(
    app: &ServiceState,
    error: &IssuanceError,
    name: &NodeName,
    address: IpAddr,
) -> bool {
    let joined = app.joined.lock().unwrap_or_else(PoisonError::into_inner);
    matches!(error, IssuanceError::Token(JoinTokenError::Used))
        && joined.get(name) == Some(&address)
}

/// The next certificate, by the current one: RFC 7030 section 4.2.2.
async fn simple_reenroll(
    State(app): Shared,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request<Body>,
) -> Result<Response, ErrorResponse> {
    let (parts, mut body) = request.into_parts();
    let body = read_body(&app, &parts.headers, &mut body).await?;
    let current = current_certificate(&app, &parts)?;
    app.rates
        .renew_as(&current.spiffe_id)
        .map_err(ErrorResponse::TooMany)?;
    let (now, holder) = ((app.clock)(), current.spiffe_id.to_string());
    let enrolled = with_authority(&app, move |authority| {
        authority.renew(&current, &est::read_request(&body)?, now)
    })
    .await?;
    answer(&app, enrolled, connection.address(), &holder)
}

/// The certificate that came with this connection, if one did that is good. Whoever fetches what is public with it tells
/// us that it is in use.
fn shown(app: &ServiceState, request: &Request<Body>) -> Option<Identity> {
    let connection = request.extensions().get::<Arc<Connection>>()?;
    let peer = connection.peer(&app.trust.current(), (app.clock)())?;
    peer.ok().map(|peer| peer.identity.clone())
}

/// The certificate of this very connection, judged by the trust of this moment.
fn current_certificate(
    app: &ServiceState,
    parts: &request::Parts,
) -> Result<Identity, ErrorResponse> {
    let connection = parts.extensions.get::<Arc<Connection>>();
    let trust = app.trust.current();
    let peer = connection.and_then(|connection| connection.peer(&trust, (app.clock)()));
    match peer {
        Some(Ok(peer)) => Ok(peer.identity.clone()),
        Some(Err(refusal)) => Err(ErrorResponse::of_certificate(refusal)),
        None => Err(ErrorResponse::Forbidden(
            "renewal takes the current certificate by mutual TLS: curl --cert CERT --key KEY; \
             who has none joins with a token from `lizctl join-token NAME`"
                .to_owned(),
        )),
    }
}

fn answer(
    app: &ServiceState,
    enrolled: Result<Enrolled, IssuanceError>,
    address: IpAddr,
    who: &str,
) -> Result<Response, ErrorResponse> {
    let enrolled = enrolled.map_err(|error| {
        app.refusals.say(|unsaid| {
            tracing::warn!(%address, who, unsaid, error = &error as &dyn std::error::Error, "refused");
        });
        ErrorResponse::of(&error)
    })?;
    tracing::info!(%address, holder = %enrolled.spiffe_id, serial = enrolled.serial, not_after = rfc3339(enrolled.not_after),
                   again = enrolled.again, "issued");
    // RFC 7030 section 4.2.3: only the certificate that was issued. What is above it is at cacerts.
    in_pkcs7(app, &[enrolled.der])
}

/// The current lists, as `certs/crl.pem` has them.
async fn revocation_lists(State(app): Shared) -> Result<Response, ErrorResponse> {
    let pem = with_authority(&app, |authority| disk::read(&authority.files().crl)).await?;
    let pem = pem.map_err(|error| unavailable(&app, &error))?;
    let kind = (CONTENT_TYPE, "application/x-pem-file");
    Ok(([kind, (CACHE_CONTROL, "no-cache")], pem).into_response())
}

/// The process lives. What will go wrong if nobody does anything is said too.
async fn health(State(app): Shared) -> Response {
    let warnings: Vec<String> = app.handle.ending((app.clock)()).into_iter().collect();
    let mut body = serde_json::json!({ "status": "ok" });
    if !warnings.is_empty() {
        body["warnings"] = warnings.into();
    }
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// The CA can be worked with, and can sign.
async fn ready(State(app): Shared) -> Result<Response, ErrorResponse> {
    let now = (app.clock)();
    let ready = with_authority(&app, move |authority| authority.check_ready(now)).await?;
    ready.map_err(|error| unavailable(&app, &error))?;
    Ok(health(State(app)).await)
}

fn in_pkcs7(
    app: &ServiceState,
    certificates: &[CertificateDer<'_>],
) -> Result<Response, ErrorResponse> {
    let body = est::certificates_body(certificates).map_err(|error| unavailable(app, &error))?;
    let kind = (CONTENT_TYPE, enrol::MEDIA_TYPE_CERTIFICATES);
    Ok(([kind, (TRANSFER_ENCODING, "base64")], body).into_response())
}

/// Works with the CA beside the event loop, if there is room.
async fn with_authority<T, E>(
    app: &ServiceState,
    work: impl Fn(&Authority) -> Result<T, E> + Send + 'static,
) -> Result<Result<T, E>, ErrorResponse>
where
    T: Send + 'static,
    E: DetectRotation + From<Error> + Send + 'static,
{
    let _room = LEDGER_PERMITS
        .try_acquire()
        .map_err(|_| ErrorResponse::Unavailable)?;
    let (handle, now) = (app.handle.clone(), (app.clock)());
    blocking(move || handle.with(now, work))
        .await
        .map_err(|error| unavailable(app, &error))
}

fn unavailable(app: &ServiceState, error: &(dyn std::error::Error + 'static)) -> ErrorResponse {
    app.refusals
        .say(|unsaid| tracing::error!(error, unsaid, "nothing can be issued"));
    ErrorResponse::Unavailable
}

/// RFC 7617: name and token. A token holds no colon, and neither does a name.
fn basic_credentials(headers: &HeaderMap) -> Option<(NodeName, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, packed) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(packed.trim()).ok()?).ok()?;
    let (name, token) = text.split_once(':')?;
    Some((name.parse().ok()?, token.to_owned()))
}

/// The whole body, bounded in bytes and in time.
async fn read_body(
    app: &ServiceState,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Bytes, ErrorResponse> {
    let announced = body.size_hint().lower();
    if announced > BODY_BYTES_MAX as u64 && headers.contains_key(EXPECT) {
        // Nothing was sent yet: RFC 9110 section 10.1.1.
        return Err(ErrorResponse::TooLarge);
    }
    let mut taken = BytesMut::new();
    let mut seen: usize = 0;
    let all = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(ErrorResponse::BadRequest("the body broke off".to_owned()));
            };
            let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
            seen += data.len();
            if seen <= BODY_BYTES_MAX {
                taken.extend_from_slice(data);
            } else if seen > DISCARDED_BYTES_MAX {
                break;
            }
        }
        Ok(())
    };
    tokio::time::timeout(app.body_timeout, all)
        .await
        .map_err(|_| ErrorResponse::Timeout)??;
    if seen > BODY_BYTES_MAX {
        return Err(ErrorResponse::TooLarge);
    }
    Ok(taken.freeze())
}

/// Lets a request in, or refuses it for what it is, whoever sends it. Only for a join token is the body of a stranger waited
/// for.
async fn admit(request: Request<Body>, next: Next) -> Response {
    let is_crowded = request.extensions().get::<Crowded>().is_some();
    let connection = request.extensions().get::<Arc<Connection>>();
    let is_stranger = connection.is_none_or(|connection| connection.shown_identity().is_none());
    let is_enrolment = request.uri().path() == enrol::SIMPLE_ENROLL;
    let is_dropped = is_crowded || is_stranger && !is_enrolment;
    let (head, mut body) = request.into_parts();
    let is_last = is_dropped && service::drop_body(&head, std::mem::take(&mut body)).await;
    let request = Request::from_parts(head, body);
    let mut response = match lizmon_mtls::check_host(&request) {
        _ if is_crowded => ErrorResponse::Unavailable.without_body(),
        Ok(()) => next.run(request).await,
        // What follows a request without one clear Host may not be what it seems: it is the connection's last.
        Err(error) => {
            let close = [(CONNECTION, "close")];
            (close, ErrorResponse::BadRequest(error.to_string())).into_response()
        }
    };
    if is_last {
        service::close_after(&mut response);
    }
    response
}

async fn discard_body(mut request: Request<Body>, next: Next) -> Response {
    let headers = request.headers().clone();
    discard(&headers, request.body_mut()).await;
    next.run(request).await
}

async fn discard(headers: &HeaderMap, body: &mut Body) {
    lizmon_mtls::discard(headers, body, DISCARDED_BYTES_MAX, super::BODY_TIMEOUT).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_name_and_token() {
        let pack = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let cases = [
            (pack("web1:secret"), Some(("web1", "secret"))),
            (pack("web1:a:b"), Some(("web1", "a:b"))),
            (pack("web1:"), Some(("web1", ""))),
            (
                pack("web1:secret").replace("Basic", "bASIC"),
                Some(("web1", "secret")),
            ),
            (pack("web1"), None),
            (pack(":secret"), None),
            (pack("../x:secret"), None),
            (pack("we b1:secret"), None),
            ("Basic".to_owned(), None),
            ("Basic ".to_owned(), None),
            ("Basic !!!".to_owned(), None),
            (
                format!("Basic {}", STANDARD.encode([0xff, b':', b'x'])),
                None,
            ),
            (pack("web1:secret").replace("Basic", "Bearer"), None),
            (String::new(), None),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            let got = basic_credentials(&headers);
            let got = got.as_ref().map(|(name, token)| (name.as_str(), &**token));
            assert_eq!(got, expected, "{value}");
        }
        assert_eq!(basic_credentials(&HeaderMap::new()), None);
    }
}
