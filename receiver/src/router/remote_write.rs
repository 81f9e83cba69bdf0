//! `POST /api/v1/write`: what Prometheus and its agents send.
//!
//! They drop what is answered with 4xx, and send again what is answered with 5xx. So whatever helps
//! by itself later is 503 here, also where other routes answer 408 or 429.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::{Code, ValueError};

use super::authenticated::Authenticated;
use super::perf::too_many_records;
use super::points::{self, HostSubmission};
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::{ReceiverState, SharedState};
use crate::authorize::{Ingest, Permit};
use crate::body::{BODY_BYTES_MAX, ReceivedBody};
use crate::ingest;
use crate::metrics::PointsProtocol;
use crate::prometheus::message::{WRITE_REQUEST, WriteRequest};
use crate::prometheus::write::SeriesOfHost;
use crate::prometheus::{metadata, write};
use crate::protobuf;
use crate::summarize::MetricKinds;

/// Fields of one request: a sample with six labels has 21. What 8 MiB hold is about as much.
const FIELDS_MAX: usize = 1_000_000;
/// Metadata of a metric takes as much of the journal as so many records, about.
const BILLED_RECORDS_OF_METADATA: u32 = 50;
/// A sender of version 2.0 says so.
const VERSION: &str = "x-prometheus-remote-write-version";

/// `POST /api/v1/write`
pub(super) async fn write(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    let answer = answer_routed(&app, request, take_series).await;
    answer.map_err(to_send_again)
}

/// What another route would answer with 408 or 429, to be sent again.
fn to_send_again(rejection: Rejection) -> Rejection {
    match rejection.code() {
        Code::RateLimited | Code::RequestTimeout => rejection.with_code(Code::Overloaded),
        _ => rejection,
    }
}

async fn take_series(mut request: BodyRequest<'_>) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let sender = Authenticated::check(app, head, (app.clock)())?;
    points::writer(&sender)?;
    check_version(&head.headers)?;
    let quota = sender.quota()?;
    quota.may_send_records().map_err(too_many_records)?;
    let body = request
        .read_message(BODY_BYTES_MAX, WRITE_REQUEST, &sender)
        .await?;
    let bytes = body.bytes().len();
    let now = (app.sample_clock)();
    let decode = move || {
        let message = message_of(&body)?;
        let hosts = write::hosts(&message).map_err(|errors| invalid(errors, now))?;
        Ok::<_, Rejection>((message, hosts, body.into_reservation()))
    };
    let decoded = points::off_the_loop(bytes, decode).await?;
    let (message, hosts, _until_answered) = decoded.inspect_err(|_| quota.charge_refused(bytes))?;
    let named = hosts.iter().map(|of| &of.host);
    let permits = points::permits(app, &sender.caller()?, named);
    let permits = permits.inspect_err(|_| quota.charge_refused(bytes))?;
    let learned = learn(app, &sender, &message)?;
    let passed_over = write::exemplars(&message);
    let kinds = match &learned {
        Some(own) => vec![own.clone(); permits.len()],
        None => kinds_of(app, &sender, &permits, now).await?,
    };
    let read = move || {
        let of_each = hosts.iter().zip(&permits).zip(&kinds);
        let submission = |((of_host, permit), kinds): ((&SeriesOfHost, _), &Arc<MetricKinds>)| {
            let points = write::points(&message, of_host, kinds);
            let points = points.map_err(|errors| invalid(errors, now))?;
            Ok::<_, Rejection>(HostSubmission::of(permit, &points, now))
        };
        of_each.map(submission).collect::<Result<Vec<_>, _>>()
    };
    let submissions = points::off_the_loop(bytes, read).await?;
    let submissions = submissions.inspect_err(|_| quota.charge_refused(bytes))?;
    sender.check_trust()?;
    let protocol = PointsProtocol::RemoteWrite;
    points::submit(app, &sender, submissions, protocol, now).await?;
    if let Some(own) = learned {
        keep_kinds(app, &sender, sender.own_name(), &own, now).await?;
    }
    app.metrics.points_passed_over(protocol, passed_over);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The specification of 2.0 has receivers that know 1.0 alone answer 415.
fn check_version(headers: &HeaderMap) -> Result<(), Rejection> {
    let version = headers.get(VERSION).map(HeaderValue::as_bytes);
    match version {
        Some(version) if !version.starts_with(b"0.") && !version.starts_with(b"1.") => {
            let detail =
                "remote write 1.0 is understood: set protobuf_message to prometheus.WriteRequest";
            Err(Rejection::from(Code::UnsupportedMediaType).with_detail(detail))
        }
        _ => Ok(()),
    }
}

/// What a node's metadata says that is not known of its metrics, with what is. Metadata names no
/// host, so a gateway's is remembered, and is kept with each host that it brings samples of.
fn learn(
    app: &ReceiverState,
    sender: &Authenticated<'_>,
    message: &WriteRequest,
) -> Result<Option<Arc<MetricKinds>>, Rejection> {
    if message.metadata.is_empty() {
        return Ok(None);
    }
    let said = metadata::kinds(&message.metadata);
    let own = sender.own_name();
    if sender.is_gateway() {
        let known = app.gateway_kinds.get(own).unwrap_or_default();
        if let Some(kinds) = known.with(said) {
            app.gateway_kinds.insert(own.clone(), Arc::new(kinds));
        }
        return Ok(None);
    }
    sender.caller()?.report(Some(own))?;
    Ok(app.table.metric_kinds(own).with(said).map(Arc::new))
}

async fn keep_kinds(
    app: &ReceiverState,
    sender: &Authenticated<'_>,
    host: &NodeName,
    kinds: &MetricKinds,
    now: u64,
) -> Result<(), Rejection> {
    let billed = sender.quota()?.take_records(BILLED_RECORDS_OF_METADATA);
    billed.map_err(too_many_records)?;
    let submission = ingest::metric_kinds(host, kinds, now);
    app.journal.submit(submission, now).await?;
    Ok(())
}

/// The kinds of the metrics of each host.
async fn kinds_of(
    app: &ReceiverState,
    sender: &Authenticated<'_>,
    permits: &[Permit<Ingest>],
    now: u64,
) -> Result<Vec<Arc<MetricKinds>>, Rejection> {
    let of_gateway = match sender.is_gateway() {
        true => app.gateway_kinds.get(sender.own_name()),
        false => None,
    };
    let kinds_of = async |permit: &Permit<Ingest>| {
        let kinds = app.table.metric_kinds(permit.host());
        let said = of_gateway.iter().flat_map(|said| said.exceptions());
        Ok(match kinds.with(said) {
            Some(more) => {
                keep_kinds(app, sender, permit.host(), &more, now).await?;
                Arc::new(more)
            }
            None => kinds,
        })
    };
    join_all(permits.iter().map(kinds_of))
        .await
        .into_iter()
        .collect()
}

fn message_of(body: &ReceivedBody) -> Result<WriteRequest, Rejection> {
    let message = protobuf::decode(body.bytes(), FIELDS_MAX);
    message.map_err(|error| Rejection::from(Code::MalformedProtobuf).with_detail(error.to_string()))
}

fn invalid(errors: Vec<ValueError>, now: u64) -> Rejection {
    Rejection::from(Code::InvalidValues).with_errors(errors, now)
}
