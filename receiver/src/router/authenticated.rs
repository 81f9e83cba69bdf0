//! Authentication: from a request's connection and token to its caller and the caller's limits.

use std::sync::Arc;

use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, request};
use lizmon_mtls::client_quota::{BodyMemoryBudgets, ClientQuota};
use lizmon_mtls::connection::{Connection, TrustedPeer};
use lizmon_pki::date::rfc3339;
use lizmon_protocol::problem::Code;
use lizmon_protocol::token::Claims;
use serde::Serialize;

use super::answer::json_bytes;
use super::problem::Rejection;
use super::state::ReceiverState;
use crate::authorize::Caller;
use crate::token::AccessTokenError;

/// A request whose certificate and token have been verified.
pub(super) struct Authenticated<'a> {
    connection: &'a Connection,
    claims: Arc<Claims>,
    app: &'a ReceiverState,
    now: u64,
}

impl<'a> Authenticated<'a> {
    /// In this order: the CRLs, the certificate if there is one, its rate limit, the token.
    pub(super) fn check(
        app: &'a ReceiverState,
        head: &'a request::Parts,
        now: u64,
    ) -> Result<Self, Rejection> {
        check_crls(app, now)?;
        Self::check_in_any_case(app, head, now)
    }

    /// The same, even if a CRL has expired.
    pub(super) fn check_in_any_case(
        app: &'a ReceiverState,
        head: &'a request::Parts,
        now: u64,
    ) -> Result<Self, Rejection> {
        let connection = connection_of(head)?;
        peer_of(app, connection, now)?;
        Self::of_token(app, head, connection, now)
    }

    /// The same for a request whose answer goes on: it does not count again.
    pub(super) fn check_again(
        app: &'a ReceiverState,
        head: &'a request::Parts,
        now: u64,
    ) -> Result<Self, Rejection> {
        check_crls(app, now)?;
        let connection = connection_of(head)?;
        Self::of_token(app, head, connection, now)
    }

    fn of_token(
        app: &'a ReceiverState,
        head: &'a request::Parts,
        connection: &'a Connection,
        now: u64,
    ) -> Result<Self, Rejection> {
        let token = bearer_token(&head.headers)?;
        let claims = app.tokens.verify(token, now).map_err(|error| match error {
            AccessTokenError::Expired => Rejection::from(Code::TokenExpired),
            AccessTokenError::Invalid(why) => Rejection::from(Code::TokenInvalid).with_detail(why),
        })?;
        Ok(Self {
            connection,
            claims,
            app,
            now,
        })
    }

    /// The sender's limits.
    pub(super) fn quota(&self) -> Result<&ClientQuota, Rejection> {
        let trust = self.app.trust.current();
        let peer = self.connection.peer(&trust, self.now);
        Ok(peer.ok_or(Code::CertificateMismatch)??.quota)
    }

    /// Remembers which certificate a host reports with.
    pub(super) fn remember(&self) {
        if let Some(shown) = self.connection.shown_identity() {
            let host = shown.spiffe_id.name.as_str();
            self.app.holders.saw(host, shown, self.connection.shown());
        }
    }

    /// The memory for the sender's bodies.
    pub(super) fn memory_budget(&self) -> Result<&BodyMemoryBudgets, Rejection> {
        Ok(self.quota()?.body_memory())
    }

    /// An answer that takes up the sender's memory until it is sent.
    pub(super) fn answer(&self, value: &impl Serialize) -> Result<Response, Rejection> {
        self.answer_bytes(serde_json::to_vec(value))
    }

    pub(super) fn answer_bytes(
        &self,
        bytes: serde_json::Result<Vec<u8>>,
    ) -> Result<Response, Rejection> {
        let bytes = bytes.map_err(|_| Code::InternalError)?;
        Ok(json_bytes(
            self.app.bodies.answer(bytes, self.memory_budget()?)?,
        ))
    }

    /// The caller, if the token belongs to the connection's certificate.
    pub(super) fn caller(&self) -> Result<Caller<'_>, Rejection> {
        let trust = self.app.trust.current();
        let peer = self
            .connection
            .peer(&trust, self.now)
            .ok_or(Code::CertificateMismatch)??;
        Ok(Caller::new(peer.identity, &self.claims)?)
    }
}

pub(super) fn connection_of(head: &request::Parts) -> Result<&Connection, Rejection> {
    let connection = head
        .extensions
        .get::<Arc<Connection>>()
        .ok_or(Code::InternalError)?;
    Ok(connection)
}

/// The certificate's holder, if one was shown; an error if the certificate is no longer valid, or
/// the holder sends too much.
pub(super) fn peer_of<'a>(
    app: &ReceiverState,
    connection: &'a Connection,
    now: u64,
) -> Result<Option<TrustedPeer<'a>>, Rejection> {
    let trust = app.trust.current();
    let Some(peer) = connection.peer(&trust, now) else {
        return Ok(None);
    };
    let peer = peer?;
    peer.quota.take().map_err(Rejection::rate_limited)?;
    if connection.is_first_of_minute(now)
        && let Some(shown) = connection.shown().first()
    {
        app.seen.note(peer.identity, shown, now);
    }
    Ok(Some(peer))
}

/// After the end of a CRL and the grace period every request is refused.
pub(super) fn check_crls(app: &ReceiverState, now: u64) -> Result<(), Rejection> {
    match app.health.refused_for(&app.trust.current(), now) {
        Some(crl) => {
            let detail = format!(
                "the CRL of {} expired on {}",
                crl.issuer,
                rfc3339(crl.next_update)
            );
            Err(Rejection::from(Code::CrlExpired).with_detail(detail))
        }
        None => Ok(()),
    }
}

/// RFC 6750 section 2.1: the header, and no other place.
fn bearer_token(headers: &HeaderMap) -> Result<&str, Rejection> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Code::TokenMissing)?;
    if values.next().is_some() {
        return Err(Rejection::from(Code::TokenInvalid)
            .with_detail("there is more than one Authorization header"));
    }
    let not_text =
        || Rejection::from(Code::TokenInvalid).with_detail("the Authorization header is not text");
    let text = value.to_str().map_err(|_| not_text())?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(token.trim_matches(' '))
        }
        _ => Err(Rejection::from(Code::TokenMissing)
            .with_detail("the Authorization header is not `Bearer TOKEN`")),
    }
}
