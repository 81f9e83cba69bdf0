//! What each route does: who may try, then what they send, then the CA.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Request, request};
use lizmon_mtls::Clock;
use lizmon_mtls::connection::Connection;
use lizmon_mtls::identity::Identity;
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::service;
use lizmon_mtls::trust::TrustReader;
use lizmon_protocol::enrol;
use lizmon_protocol::name::NodeName;
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;

use super::handle::{AuthorityHandle, DetectRotation};
use super::rate_limits::RateLimiters;
use super::response::ErrorResponse;
use super::{body, est};
use crate::authority::{Authority, Enrolled, Error, IssuanceError, JoinTokenError};
use crate::pki::{csr, rfc3339};

/// Requests that use the ledger or wait for it at one time. It runs one transaction at a time,
/// which takes a few milliseconds.
const WAITING_MAX: usize = 256;
/// RFC 7030 section 4.1.3, and RFC 8951: the body is base64, whatever this header says.
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

static LEDGER_PERMITS: Semaphore = Semaphore::const_new(WAITING_MAX);

/// What the handlers share.
pub(super) struct ServiceState {
    pub(super) handle: Arc<AuthorityHandle>,
    pub(super) trust: TrustReader,
    pub(super) rates: RateLimiters,
    pub(super) refusals: RateLimitedLog,
    /// The address from which each name has joined since the start.
    pub(super) joined: Mutex<HashMap<NodeName, IpAddr>>,
    pub(super) body_timeout: Duration,
    pub(super) clock: Clock,
}

type Shared = State<Arc<ServiceState>>;

/// Names whose address is stored. Beyond it all are deleted, and a repeated join may be logged as a
/// warning.
const JOINED_NAMES_MAX: usize = 10_000;

/// RFC 7030 section 4.1: the roots and issuing CAs that are trusted.
pub(super) async fn ca_certificates(
    State(state): Shared,
    request: Request<Body>,
) -> Result<Response, ErrorResponse> {
    let (now, shown) = ((state.clock)(), shown_certificate(&state, &request));
    let found = with_authority(&state, move |authority| {
        if let Some(shown) = &shown {
            authority.record_use(shown, now)?;
        }
        authority.ca_certificates()
    })
    .await?;
    let found = found.map_err(|error| unavailable(&state, &error))?;
    in_pkcs7(&state, &found)
}

/// A first certificate: RFC 7030 section 4.2.1.
pub(super) async fn simple_enroll(
    State(state): Shared,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request<Body>,
) -> Response {
    let (head, mut content) = request.into_parts();
    let joined = join(&state, &head.headers, &mut content, connection.address()).await;
    let mut response = joined.into_response();
    // The join may be refused before its body is read.
    if service::drop_body(&head, content).await {
        service::close_after(&mut response);
    }
    response
}

async fn join(
    state: &ServiceState,
    headers: &HeaderMap,
    content: &mut Body,
    address: IpAddr,
) -> Result<Response, ErrorResponse> {
    state
        .rates
        .join_from(address)
        .map_err(ErrorResponse::TooMany)?;
    let (name, token) = basic_credentials(headers).ok_or(ErrorResponse::NO_TOKEN)?;
    state.rates.join_as(&name).map_err(ErrorResponse::TooMany)?;
    // The token first: the body of a client without one is not read.
    let (now, holder, secret) = ((state.clock)(), name.clone(), token.clone());
    let checked = with_authority(state, move |authority| {
        authority.check_token(&holder, &secret, now)
    });
    if let Err(error) = checked.await? {
        return answer(state, Err(error), address, name.as_str());
    }
    let body = body::read(state.body_timeout, headers, content).await?;
    let (now, holder) = ((state.clock)(), name.clone());
    let enrolled = with_authority(state, move |authority| {
        authority.enrol(&holder, &token, &csr::read(&body)?, now)
    })
    .await?;
    match &enrolled {
        Ok(_) => remember_join(state, name.clone(), address),
        Err(error) if is_same_host(state, error, &name, address) => {
            state.refusals.say(|unsaid| {
                tracing::info!(%address, who = %name, unsaid,
                               "join refused: the same host used this token before, with another key");
            });
            return Err(ErrorResponse::of(error));
        }
        Err(_) => (),
    }
    answer(state, enrolled, address, name.as_str())
}

fn remember_join(state: &ServiceState, name: NodeName, address: IpAddr) {
    let mut joined = state.joined.lock().unwrap_or_else(PoisonError::into_inner);
    if joined.len() >= JOINED_NAMES_MAX {
        joined.clear();
    }
    joined.insert(name, address);
}

/// Whether a used token with another key comes from the address that used it: then `join` was only
/// run again. From another address it may be stolen.
fn is_same_host(
    state: &ServiceState,
    error: &IssuanceError,
    name: &NodeName,
    address: IpAddr,
) -> bool {
    let joined = state.joined.lock().unwrap_or_else(PoisonError::into_inner);
    matches!(error, IssuanceError::Token(JoinTokenError::Used))
        && joined.get(name) == Some(&address)
}

/// The next certificate, by the current one: RFC 7030 section 4.2.2.
pub(super) async fn simple_reenroll(
    State(state): Shared,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request<Body>,
) -> Result<Response, ErrorResponse> {
    let (parts, mut content) = request.into_parts();
    let body = body::read(state.body_timeout, &parts.headers, &mut content).await?;
    let current = current_certificate(&state, &parts)?;
    state
        .rates
        .renew_as(&current.spiffe_id)
        .map_err(ErrorResponse::TooMany)?;
    let (now, holder) = ((state.clock)(), current.spiffe_id.to_string());
    let enrolled = with_authority(&state, move |authority| {
        authority.renew(&current, &csr::read(&body)?, now)
    })
    .await?;
    answer(&state, enrolled, connection.address(), &holder)
}

/// The valid certificate of this connection, if there is one. A client that shows it when it
/// fetches public data proves that the certificate is in use.
fn shown_certificate(state: &ServiceState, request: &Request<Body>) -> Option<Identity> {
    let connection = request.extensions().get::<Arc<Connection>>()?;
    let peer = connection.peer(&state.trust.current(), (state.clock)())?;
    peer.ok().map(|peer| peer.identity.clone())
}

/// The certificate of this connection, verified with the current trust files.
fn current_certificate(
    state: &ServiceState,
    parts: &request::Parts,
) -> Result<Identity, ErrorResponse> {
    let connection = parts.extensions.get::<Arc<Connection>>();
    let trust = state.trust.current();
    let peer = connection.and_then(|connection| connection.peer(&trust, (state.clock)()));
    match peer {
        Some(Ok(peer)) => Ok(peer.identity.clone()),
        Some(Err(refusal)) => Err(ErrorResponse::of_certificate(refusal)),
        None => Err(ErrorResponse::Forbidden(
            "renewal needs the current certificate by mutual TLS: curl --cert CERT --key KEY; \
             without one, join with a token from `lizctl join-token NAME`"
                .to_owned(),
        )),
    }
}

fn answer(
    state: &ServiceState,
    enrolled: Result<Enrolled, IssuanceError>,
    address: IpAddr,
    who: &str,
) -> Result<Response, ErrorResponse> {
    let enrolled = enrolled.map_err(|error| {
        state.refusals.say(|unsaid| {
            tracing::warn!(%address, who, unsaid, error = &error as &dyn std::error::Error, "certificate refused");
        });
        ErrorResponse::of(&error)
    })?;
    tracing::info!(%address, holder = %enrolled.spiffe_id, serial = enrolled.serial, not_after = rfc3339(enrolled.not_after),
                   again = enrolled.again, "certificate issued");
    // RFC 7030 section 4.2.3: only the issued certificate. Its issuers are at cacerts.
    in_pkcs7(state, &[enrolled.der])
}

/// The current CRLs, as in `certs/crl.pem`.
pub(super) async fn crls(State(state): Shared) -> Result<Response, ErrorResponse> {
    let pem = with_authority(&state, |authority| authority.read_crls()).await?;
    let pem = pem.map_err(|error| unavailable(&state, &error))?;
    let kind = (CONTENT_TYPE, "application/x-pem-file");
    Ok(([kind, (CACHE_CONTROL, "no-cache")], pem).into_response())
}

/// The process is alive. The body warns of an expiring CA.
pub(super) async fn health(State(state): Shared) -> Response {
    let warnings: Vec<String> = state.handle.expiry((state.clock)()).into_iter().collect();
    let mut body = serde_json::json!({ "status": "ok" });
    if !warnings.is_empty() {
        body["warnings"] = warnings.into();
    }
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// The CA can be used and can sign.
pub(super) async fn ready(State(state): Shared) -> Result<Response, ErrorResponse> {
    let now = (state.clock)();
    let ready = with_authority(&state, move |authority| authority.check_ready(now)).await?;
    ready.map_err(|error| unavailable(&state, &error))?;
    Ok(health(State(state)).await)
}

fn in_pkcs7(
    state: &ServiceState,
    certificates: &[CertificateDer<'_>],
) -> Result<Response, ErrorResponse> {
    let body = est::certificates_body(certificates).map_err(|error| unavailable(state, &error))?;
    let kind = (CONTENT_TYPE, enrol::MEDIA_TYPE_CERTIFICATES);
    Ok(([kind, (TRANSFER_ENCODING, "base64")], body).into_response())
}

/// Runs `work` with the CA on a blocking thread, unless too many requests wait for that.
async fn with_authority<T, E>(
    state: &ServiceState,
    work: impl Fn(&Authority) -> Result<T, E> + Send + 'static,
) -> Result<Result<T, E>, ErrorResponse>
where
    T: Send + 'static,
    E: DetectRotation + From<Error> + Send + 'static,
{
    let _permit = LEDGER_PERMITS
        .try_acquire()
        .map_err(|_| ErrorResponse::Unavailable)?;
    let (handle, now) = (state.handle.clone(), (state.clock)());
    blocking(move || handle.with(now, work))
        .await
        .map_err(|error| unavailable(state, &error))
}

fn unavailable(state: &ServiceState, error: &(dyn std::error::Error + 'static)) -> ErrorResponse {
    state
        .refusals
        .say(|unsaid| tracing::error!(error, unsaid, "the CA failed: nothing can be issued"));
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

/// Runs `work` on a blocking thread: the ledger and the keys block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
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
