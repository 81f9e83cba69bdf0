//! `PUT /api/crl`: an operator pushes CRLs, which take effect before the response.

use std::sync::PoisonError;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use lizmon_mtls::revocation::{Crl, UnusableCrl, in_words};
use lizmon_pki::pem;
use lizmon_protocol::problem::{Code, ValueError};
use rustls_pki_types::CertificateDer;

use super::authenticated::{Authenticated, connection_of};
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::{ReceiverState, SharedState};
use crate::authorize::{Administer, Permit};
use crate::body::CRL_BYTES_MAX;

/// How many certificates beside the CRLs are read.
const AUTHORITIES_MAX: usize = 16;

/// `PUT /api/crl`
pub(super) async fn put(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    answer_routed(&app, request, take_crls).await
}

async fn take_crls(mut request: BodyRequest<'_>) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let now = (app.clock)();
    // Not refused for an expired CRL: this is how an operator replaces it.
    let sender = Authenticated::check_in_any_case(app, head, now)?;
    let permit = sender.caller()?.administer()?;
    let shown = connection_of(head)?.shown().to_vec();
    let body = request.read(CRL_BYTES_MAX, &sender).await?;
    let app = app.clone();
    // Waits for the disk, and a long CRL takes a while to read and to verify: nobody else is to wait
    // for that on this thread.
    let take = move || {
        let pushed = PushedCrls::read(body.bytes()).map_err(|error| unusable(&error, now))?;
        drop(body);
        put_in_force(&permit, &app, pushed, shown, now)
    };
    tokio::task::spawn_blocking(take)
        .await
        .map_err(|_| Rejection::from(Code::InternalError))?
}

/// What an operator pushes.
struct PushedCrls {
    crls: Vec<Crl>,
    /// Certificates of authorities beside the CRLs: of the next generation, which has not signed any
    /// client yet.
    beside: Vec<CertificateDer<'static>>,
}

impl PushedCrls {
    fn read(bytes: &[u8]) -> Result<Self, UnusableCrl> {
        let beside = pem::sections(bytes)
            .filter_map(Result::ok)
            .filter(|section| section.kind == pem::PemKind::Certificate)
            .map(|section| CertificateDer::from(section.der));
        Ok(Self {
            crls: Crl::read_all(bytes)?,
            beside: beside.take(AUTHORITIES_MAX).collect(),
        })
    }
}

/// A body without a CRL is malformed; a CRL that cannot be used is invalid.
fn unusable(error: &UnusableCrl, now: u64) -> Rejection {
    let reason = error.to_string();
    if error.is_malformed() {
        return Rejection::from(Code::MalformedCrl).with_detail(reason);
    }
    let error = ValueError {
        record: None,
        label: None,
        reason: reason.clone(),
    };
    Rejection::from(Code::InvalidCrl)
        .with_detail(reason)
        .with_errors(vec![error], now)
}

fn put_in_force(
    _permit: &Permit<Administer>,
    app: &ReceiverState,
    PushedCrls { crls, beside }: PushedCrls,
    mut shown: Vec<CertificateDer<'static>>,
    now: u64,
) -> Result<Response, Rejection> {
    shown.extend(beside);
    let mut trust = app
        .trust_writer
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match trust.add_crls(crls, &shown) {
        Ok(Ok(trust)) => {
            tracing::info!(
                generation = trust.generation(),
                crls = in_words(trust.crls()),
                "CRLs received and in force"
            );
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Ok(Err(refused)) => {
            let reason = refused.to_string();
            let error = ValueError {
                record: None,
                label: None,
                reason,
            };
            Err(Rejection::from(refused).with_errors(vec![error], now))
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "CRL refused");
            Err(Code::StoreUnavailable.into())
        }
    }
}
