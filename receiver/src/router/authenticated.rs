//! Authentication: from a request's connection and token to its caller and the caller's limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, request};
use lizmon_mtls::client_quota::{BodyMemoryBudgets, ClientQuota};
use lizmon_mtls::connection::{Connection, TrustedPeer};
use lizmon_pki::date::rfc3339;
use lizmon_protocol::name::{NodeName, Role, SpiffeId};
use lizmon_protocol::problem::Code;
use lizmon_protocol::token::Claims;
use serde::Serialize;

use super::answer::coded_json;
use super::problem::Rejection;
use super::state::ReceiverState;
use crate::authorize::Caller;
use crate::body::AskedCoding;
use crate::token::{self, AccessTokenError, LastToken};

/// A request whose certificate and token have been verified.
pub(super) struct Authenticated<'a> {
    connection: &'a Connection,
    peer: Option<TrustedPeer<'a>>,
    claims: Arc<Claims>,
    kept: &'a KeptWithConnection,
    headers: &'a HeaderMap,
    app: &'a ReceiverState,
    now: u64,
}

/// What is kept with a connection until it ends.
struct KeptWithConnection {
    token: LastToken,
    /// The second in which its certificate was last remembered.
    remembered_at: AtomicU64,
}

impl Default for KeptWithConnection {
    fn default() -> Self {
        Self {
            token: LastToken::default(),
            remembered_at: AtomicU64::new(u64::MAX),
        }
    }
}

impl KeptWithConnection {
    fn is_first_of_second(&self, now: u64) -> bool {
        self.remembered_at.swap(now, Ordering::Relaxed) != now
    }
}

impl<'a> Authenticated<'a> {
    /// In this order: the CRLs, the certificate if there is one, its rate limit, the token.
    pub(super) fn check(
        app: &'a ReceiverState,
        head: &'a request::Parts,
        now: u64,
    ) -> Result<Self, Rejection> {
        Self::check_on(app, connection_of(head)?, &head.headers, now)
    }

    /// The same on a connection that is known.
    pub(super) fn check_on(
        app: &'a ReceiverState,
        connection: &'a Connection,
        headers: &'a HeaderMap,
        now: u64,
    ) -> Result<Self, Rejection> {
        check_crls(app, now)?;
        let peer = peer_of(app, connection, now)?;
        Self::of_token(app, headers, connection, peer, now)
    }

    /// The same, even if a CRL has expired.
    pub(super) fn check_in_any_case(
        app: &'a ReceiverState,
        head: &'a request::Parts,
        now: u64,
    ) -> Result<Self, Rejection> {
        let connection = connection_of(head)?;
        let peer = peer_of(app, connection, now)?;
        Self::of_token(app, &head.headers, connection, peer, now)
    }

    /// The same for a request whose answer goes on: it does not count again.
    pub(super) fn check_again(
        app: &'a ReceiverState,
        head: &'a request::Parts,
        now: u64,
    ) -> Result<Self, Rejection> {
        check_crls(app, now)?;
        let connection = connection_of(head)?;
        let peer = connection.peer(&app.trust.current(), now).transpose()?;
        Self::of_token(app, &head.headers, connection, peer, now)
    }

    fn of_token(
        app: &'a ReceiverState,
        headers: &'a HeaderMap,
        connection: &'a Connection,
        peer: Option<TrustedPeer<'a>>,
        now: u64,
    ) -> Result<Self, Rejection> {
        let authorization = authorization(headers)?;
        let kept: &KeptWithConnection = connection.kept().ok_or(Code::InternalError)?;
        let known = kept
            .token
            .claims(&app.tokens, authorization.as_bytes(), now);
        let claims = match known {
            Some(known) => Ok(known),
            None => {
                let token = bearer_token(authorization)?;
                kept.token
                    .verify(&app.tokens, authorization.as_bytes(), token, now)
            }
        };
        let claims = claims.map_err(|error| match error {
            AccessTokenError::Expired => Rejection::from(Code::TokenExpired),
            AccessTokenError::Invalid(why) => Rejection::from(Code::TokenInvalid).with_detail(why),
        })?;
        Ok(Self {
            connection,
            peer,
            claims,
            kept,
            headers,
            app,
            now,
        })
    }

    fn peer(&self) -> Result<TrustedPeer<'a>, Rejection> {
        Ok(self.peer.ok_or(Code::CertificateMismatch)?)
    }

    /// Whether the certificate is still trusted: a body may have taken a while.
    pub(super) fn check_trust(&self) -> Result<(), Rejection> {
        let trust = self.app.trust.current();
        let judged = self.connection.peer(&trust, self.now);
        judged.ok_or(Code::CertificateMismatch)??;
        Ok(())
    }

    /// The sender's limits.
    pub(super) fn quota(&self) -> Result<&'a ClientQuota, Rejection> {
        Ok(self.peer()?.quota)
    }

    /// Remembers which certificate a host reports with. Says whether it did: once a second of a
    /// connection, and never of a gateway's, which is no host.
    pub(super) fn remember(&self) -> bool {
        if !self.kept.is_first_of_second(self.now) {
            return false;
        }
        let shown = self.connection.shown_identity();
        let Some(shown) = shown.filter(|shown| shown.spiffe_id.role == Role::Node) else {
            return false;
        };
        let host = shown.spiffe_id.name.as_str();
        self.app.holders.saw(host, shown, self.connection.shown());
        true
    }

    /// Whether the sender is a gateway.
    pub(super) fn is_gateway(&self) -> bool {
        let role = self.peer.map(|peer| peer.identity.spiffe_id.role);
        role == Some(Role::Gateway)
    }

    /// Role and name in the certificate.
    pub(super) fn own_id(&self) -> Result<&SpiffeId, Rejection> {
        Ok(&self.peer()?.identity.spiffe_id)
    }

    /// The memory for the sender's bodies.
    pub(super) fn memory_budget(&self) -> Result<&BodyMemoryBudgets, Rejection> {
        Ok(self.quota()?.body_memory())
    }

    /// An answer that takes up the sender's memory until it is sent.
    pub(super) async fn answer(&self, value: &impl Serialize) -> Result<Response, Rejection> {
        self.answer_bytes(serde_json::to_vec(value)).await
    }

    /// The same of JSON.
    pub(super) async fn answer_bytes(
        &self,
        bytes: serde_json::Result<Vec<u8>>,
    ) -> Result<Response, Rejection> {
        let bytes = bytes.map_err(|_| Code::InternalError)?;
        let (bodies, budget) = (&self.app.bodies, self.memory_budget()?);
        let answer = bodies.coded_answer(bytes, AskedCoding::of(self.headers), budget);
        Ok(coded_json(answer.await?))
    }

    /// An answer of about so many bytes that is made on a blocking thread.
    pub(super) async fn large_answer<E: Send + 'static>(
        &self,
        bytes_about: usize,
        make: impl FnOnce() -> Result<Vec<u8>, E> + Send + 'static,
    ) -> Result<Response, Rejection>
    where
        Rejection: From<E>,
    {
        let (asked, budget) = (AskedCoding::of(self.headers), self.memory_budget()?);
        let made = self
            .app
            .bodies
            .large_answer(bytes_about, asked, budget, make);
        Ok(coded_json(made.await??))
    }

    /// The name that the token is for.
    pub(super) fn own_name(&self) -> &NodeName {
        &self.claims.sub
    }

    /// Whether the token was got with an earlier certificate of the same holder.
    pub(super) fn has_earlier_token(&self) -> bool {
        self.peer.is_some_and(|peer| {
            let identity = peer.identity;
            self.claims.client_id == identity.spiffe_id
                && !token::is_bound_to(&self.claims, &identity.thumbprint)
        })
    }

    /// The caller, if the token belongs to the connection's certificate.
    pub(super) fn caller(&self) -> Result<Caller<'_>, Rejection> {
        Ok(Caller::new(self.peer()?.identity, &self.claims)?)
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
fn authorization(headers: &HeaderMap) -> Result<&HeaderValue, Rejection> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Code::TokenMissing)?;
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Rejection::from(Code::TokenInvalid)
            .with_detail("there is more than one Authorization header")),
    }
}

fn bearer_token(authorization: &HeaderValue) -> Result<&str, Rejection> {
    let not_text =
        || Rejection::from(Code::TokenInvalid).with_detail("the Authorization header is not text");
    let text = authorization.to_str().map_err(|_| not_text())?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(token.trim_matches(' '))
        }
        _ => Err(Rejection::from(Code::TokenMissing)
            .with_detail("the Authorization header is not `Bearer TOKEN`")),
    }
}
