//! Health, readiness and metrics.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, request};
use lizmon_protocol::problem::Code;
use serde::Serialize;

use super::answer::{json, wanted_tags};
use super::authenticated::{check_crls, connection_of, peer_of};
use super::problem::Rejection;
use super::state::{ReceiverState, SharedState};
use crate::{authorize, metrics};

/// The body of a probe's response.
#[derive(Serialize)]
pub(super) struct Health {
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

/// Liveness. An expired CRL is no reason to restart the process.
pub(super) async fn health(State(app): SharedState) -> Response {
    json(&Health {
        status: "ok",
        warnings: health_warnings(&app),
    })
}

/// What the receiver warns of now.
pub(crate) fn health_warnings(app: &ReceiverState) -> Vec<String> {
    let now = (app.clock)();
    let trust = app.trust.current();
    let mut warnings = app.health.warnings(&trust, now);
    warnings.extend(app.journal.clock_status().warning());
    warnings.extend(app.journal.status().warnings(now));
    warnings.extend(app.alarms.warnings(now));
    warnings
}

/// Readiness.
pub(super) async fn ready(State(app): SharedState) -> Result<Response, Rejection> {
    check_crls(&app, (app.clock)())?;
    if let Some(words) = app.journal.status().refusal() {
        return Err(Rejection::from(Code::StoreUnavailable).with_detail(words));
    }
    Ok(health(State(app)).await)
}

/// For scrapers: needs a reader's certificate, and no token.
pub(super) async fn read_metrics(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    check_crls(&app, now)?;
    let peer = peer_of(&app, connection_of(&head)?, now)?.ok_or_else(|| {
        Rejection::from(Code::CertificateMismatch).with_detail("present a reader's certificate")
    })?;
    let permit = authorize::read_metrics(peer.identity)?.only(wanted_tags(&head, &[])?);
    let text = app.metrics.text(permit, peer.quota.scrapes()).await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(metrics::MEDIA_TYPE)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, text).into_response())
}
