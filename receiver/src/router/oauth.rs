//! The token endpoint (RFC 6749 sections 4.4 and 5, RFC 8705 section 2.1) and what describes it
//! (RFC 8414, RFC 7517).

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, StatusCode, request};
use lizmon_mtls::connection::TrustedPeer;
use lizmon_mtls::forwarding::ForwardingError;
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{Role, SpiffeId};
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use lizmon_protocol::token::{GRANT_CLIENT_CREDENTIALS, Scope, Scopes, TokenError, TokenResponse};

use super::answer::json;
use super::authenticated::{check_crls, connection_of, peer_of};
use super::problem::Rejection;
use super::state::{ReceiverState, SharedState};
use crate::body::BODY_BYTES_MAX;
use crate::{ingest, metrics};

/// Error codes of RFC 6749 section 5.2 and its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OAuthErrorCode {
    InvalidRequest,
    InvalidClient,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    /// RFC 8707 section 2.
    InvalidTarget,
}

impl OAuthErrorCode {
    pub(super) const ALL: [Self; 6] = [
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::UnauthorizedClient,
        Self::UnsupportedGrantType,
        Self::InvalidScope,
        Self::InvalidTarget,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
        }
    }

    fn because(self, description: impl Into<String>) -> OAuthError {
        OAuthError {
            error: self,
            description: description.into(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct OAuthError {
    error: OAuthErrorCode,
    description: String,
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let status = match self.error {
            OAuthErrorCode::InvalidClient => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        let error = TokenError {
            error: self.error.as_str().to_owned(),
            error_description: Some(self.description),
        };
        tracing::debug!(
            error = error.error,
            description = error.error_description,
            "token request refused"
        );
        let mut response = uncached(status, &error);
        response.extensions_mut().insert(metrics::RefusedRequest {
            is_token: true,
            code: self.error.as_str(),
            detail: error.error_description,
        });
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2 wants one; what is missing is a certificate, for which there
            // is no scheme.
            let challenge =
                HeaderValue::from_static(r#"Bearer realm="lizmon", error="invalid_client""#);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// `POST /oauth2/token`
pub(super) async fn token(State(app): SharedState, request: Request<Body>) -> Response {
    let (head, mut body) = request.into_parts();
    match answer(&app, &head, &mut body).await {
        Ok(token) => uncached(StatusCode::OK, &token),
        Err(refused) => {
            app.bodies.discard(&head.headers, body).await;
            *refused
        }
    }
}

async fn answer(
    app: &ReceiverState,
    head: &request::Parts,
    body: &mut Body,
) -> Result<TokenResponse, Box<Response>> {
    let now = (app.clock)();
    let connection = connection_of(head).map_err(refused)?;
    let peer = peer_of(app, connection, now).map_err(as_token_error);
    // With an expired CRL an operator still gets a token, to push a new one; nothing else accepts
    // it.
    let is_operator = |peer: &TrustedPeer<'_>| peer.identity.spiffe_id.role == Role::Operator;
    if !matches!(&peer, Ok(Some(peer)) if is_operator(peer)) {
        check_crls(app, now).map_err(refused)?;
    }
    let peer = peer?;
    let peer = peer.ok_or_else(|| {
        refused(
            OAuthErrorCode::InvalidClient
                .because("present a client certificate in the TLS handshake"),
        )
    })?;
    let body = app
        .bodies
        .read(&head.headers, body, BODY_BYTES_MAX, peer.quota)
        .await
        .map_err(|error| as_token_error(error.into()))?;
    let form = Form::parse(&head.headers, body.bytes()).map_err(|why| {
        peer.quota.charge_refused(body.bytes().len());
        refused(why)
    })?;
    let scope = form
        .grant(peer.identity, app.tokens.audience())
        .map_err(refused)?;
    let minted = app
        .tokens
        .mint(peer.identity, scope, now)
        .map_err(|error| {
            tracing::error!(%error, "no token can be minted");
            refused(Rejection::from(Code::InternalError))
        })?;
    app.metrics.token_minted(peer.identity);
    keep_tags(app, peer.identity).await;
    Ok(TokenResponse {
        access_token: minted.token,
        token_type: "Bearer".to_owned(),
        expires_in: minted.expires_in,
        scope,
    })
}

/// Stores a node's tags where they differ from those that are known. Until they are stored nobody
/// who is limited to them sees the host; its next token brings them again.
async fn keep_tags(app: &ReceiverState, holder: &Identity) {
    let SpiffeId { role, name, .. } = &holder.spiffe_id;
    if *role != Role::Node || app.table.tags(name) == holder.attributes.tags {
        return;
    }
    let now = (app.sample_clock)();
    let submission = ingest::tags(holder, now);
    if let Err(error) = app.journal.submit(submission, now).await {
        tracing::warn!(host = %name, %error, "the host's tags are not stored");
    }
}

/// A request that a proxy passed on, and is not accepted so.
pub(super) fn refuse_forwarding(error: &ForwardingError) -> Response {
    let code = match error.is_about_the_peer() {
        true => OAuthErrorCode::UnauthorizedClient,
        false => OAuthErrorCode::InvalidRequest,
    };
    code.because(plain(&error.to_string())).into_response()
}

fn refused(refused: impl IntoResponse) -> Box<Response> {
    Box::new(refused.into_response())
}

/// A certificate that is no longer valid is a failed client authentication, a body that cannot be
/// read an invalid request: RFC 6749 section 5.2. That has no code for an unavailable server: such
/// an error stays a problem document.
fn as_token_error(rejection: Rejection) -> Box<Response> {
    let code = rejection.code();
    match code.status() {
        401 => refused(OAuthErrorCode::InvalidClient.because(described(&rejection))),
        400 | 408 | 413 | 415 => {
            let why = match code {
                Code::MalformedJson => described(&rejection),
                _ => code.title().to_owned(),
            };
            let mut response = OAuthErrorCode::InvalidRequest.because(why).into_response();
            *response.status_mut() =
                StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST);
            Box::new(response)
        }
        _ => refused(rejection),
    }
}

/// The reason as RFC 6749 section 5.2 allows it: ASCII without quotes or backslashes.
fn described(rejection: &Rejection) -> String {
    plain(rejection.detail().unwrap_or(rejection.code().title()))
}

fn plain(text: &str) -> String {
    let plain = |character| match character {
        '"' | '\\' => '\'',
        ' '..='~' => character,
        _ => '?',
    };
    text.chars().map(plain).collect()
}

/// What clients send that cannot be without a secret, such as the OpenTelemetry Collector: no more
/// than that there is none.
const NO_SECRET: &str = "none";

/// The request's parameters: RFC 6749 section 4.4.2.
#[derive(Debug, Default, PartialEq, Eq)]
struct Form {
    grant_type: Option<String>,
    client_id: Option<String>,
    scope: Option<String>,
    resource: Option<String>,
}

impl Form {
    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, OAuthError> {
        let media_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(OAuthErrorCode::InvalidRequest
                .because("the body must be application/x-www-form-urlencoded"));
        }
        // RFC 6749 section 2.3: one way of authentication, and ours is the certificate.
        if headers.contains_key(AUTHORIZATION) {
            return Err(OAuthErrorCode::InvalidRequest
                .because("the certificate authenticates: send no Authorization header"));
        }
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let field = match &*name {
                "grant_type" => &mut form.grant_type,
                "client_id" => &mut form.client_id,
                "scope" => &mut form.scope,
                "resource" => &mut form.resource,
                "client_secret" if value == NO_SECRET => continue,
                "client_secret" | "client_assertion" | "client_assertion_type" => {
                    return Err(OAuthErrorCode::InvalidRequest
                        .because(format!("the certificate authenticates: send no {name}")));
                }
                // RFC 6749 section 3.2: unrecognized parameters are ignored.
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return Err(
                    OAuthErrorCode::InvalidRequest.because(format!("{name} is given twice"))
                );
            }
        }
        // RFC 6749 section 3.2: a parameter without a value is one that was not sent.
        for field in [
            &mut form.grant_type,
            &mut form.client_id,
            &mut form.scope,
            &mut form.resource,
        ] {
            if field.as_deref() == Some("") {
                *field = None;
            }
        }
        Ok(form)
    }

    /// What the holder of this certificate gets. Pure.
    fn grant(&self, holder: &Identity, audience: &str) -> Result<Scopes, OAuthError> {
        let id = &holder.spiffe_id;
        match self.grant_type.as_deref() {
            None => return Err(OAuthErrorCode::InvalidRequest.because("grant_type is missing")),
            Some(GRANT_CLIENT_CREDENTIALS) => (),
            Some(_) => {
                return Err(OAuthErrorCode::UnsupportedGrantType
                    .because("grant_type must be client_credentials"));
            }
        }
        if self
            .client_id
            .as_ref()
            .is_some_and(|client_id| *client_id != id.to_string())
        {
            return Err(OAuthErrorCode::InvalidClient
                .because(format!("client_id is not the certificate's identity {id}")));
        }
        let allowed = Scopes::of(id.role);
        if allowed.is_empty() {
            let roles = [Role::Node, Role::Reader, Role::Operator, Role::Gateway]
                .map(Role::as_str)
                .join(", ");
            return Err(OAuthErrorCode::UnauthorizedClient.because(format!(
                "tokens are not issued to the role {}, but to {roles}",
                id.role
            )));
        }
        if self
            .resource
            .as_deref()
            .is_some_and(|resource| resource != audience)
        {
            return Err(OAuthErrorCode::InvalidTarget
                .because(format!("tokens of this server are for {audience}")));
        }
        let Some(asked) = &self.scope else {
            return Ok(allowed);
        };
        match asked.parse::<Scopes>() {
            Ok(asked) if allowed.contains_all(asked) => Ok(asked),
            _ => Err(OAuthErrorCode::InvalidScope
                .because(format!("the role {} may have: {allowed}", id.role))),
        }
    }
}

/// A response that must not be cached: RFC 6749 section 5.1.
fn uncached(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let mut response = json(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
        .headers_mut()
        .insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// `GET /.well-known/oauth-authorization-server`
pub(super) async fn metadata(State(app): SharedState) -> Result<Response, Rejection> {
    check_crls(&app, (app.clock)())?;
    Ok(json(&metadata_of(app.tokens.issuer())))
}

pub(super) fn metadata_of(issuer: &str) -> serde_json::Value {
    serde_json::json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}{}", route::TOKEN),
        "jwks_uri": format!("{issuer}{}", route::JWKS),
        "response_types_supported": [],
        "grant_types_supported": [GRANT_CLIENT_CREDENTIALS],
        "token_endpoint_auth_methods_supported": ["tls_client_auth"],
        "tls_client_certificate_bound_access_tokens": true,
        "scopes_supported": Scope::ALL.map(Scope::as_str),
    })
}

/// `GET /.well-known/jwks.json`
pub(super) async fn key_set(State(app): SharedState) -> Result<Response, Rejection> {
    check_crls(&app, (app.clock)())?;
    Ok(json(&app.tokens.key_set()))
}
