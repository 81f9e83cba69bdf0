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
use lizmon_summary::PointKind;

use super::authenticated::Authenticated;
use super::perf::too_many_records;
use super::points::{self, HostSubmission};
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::{ReceiverState, SharedState};
use crate::authorize::{Ingest, Permit};
use crate::body::{BODY_BYTES_MAX, MemoryReservation, ReceivedBody, UNPACKED_BYTES_MAX};
use crate::ingest;
use crate::metrics::PointsProtocol;
use crate::prometheus::message::{WRITE_REQUEST, WriteRequest};
use crate::prometheus::write::SeriesOfHost;
use crate::prometheus::{metadata, write};
use crate::protobuf;
use crate::summarize::{MetricKinds, SaidKinds};

/// Fields of one request: a sample with six labels has 21. What 8 MiB hold is about as much.
const FIELDS_MAX: usize = 1_000_000;
/// Metadata of a metric takes as much of the journal as so many records, about.
const BILLED_RECORDS_OF_METADATA: u32 = 50;
/// Metadata of so many metrics is billed as a record.
const METADATA_PER_RECORD: u32 = 4;
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
    let known = KnownKinds::of(app, &sender);
    let decode = move || Decoded::of(body, &known, now);
    let decoded = points::off_the_loop(bytes, decode).await?;
    let decoded = decoded.inspect_err(|_| quota.charge_refused(bytes))?;
    let named = decoded.hosts.iter().map(|of| &of.host);
    let permits = points::permits(app, &sender.caller()?, named);
    let permits = permits.inspect_err(|_| quota.charge_refused(bytes))?;
    let metadata = decoded.message.metadata.len() as u32;
    let billed = quota.take_records(metadata.div_ceil(METADATA_PER_RECORD));
    billed.map_err(too_many_records)?;
    let passed_over = write::exemplars(&decoded.message);
    let kinds = decoded.kinds.clone();
    let (work, gateway) = (app.clone(), sender.own_name().clone());
    let weight = bytes.max(permits.len() * kinds.said_len());
    let read = move || decoded.submissions(&work, &gateway, &permits, now);
    let read = points::off_the_loop(weight, read).await?;
    let (submissions, news, _until_answered) = read.inspect_err(|_| quota.charge_refused(bytes))?;
    sender.check_trust()?;
    let protocol = PointsProtocol::RemoteWrite;
    let hosts: Vec<_> = submissions.iter().map(|of| of.host.clone()).collect();
    points::submit(app, &sender, submissions, protocol, now).await?;
    kinds.keep(app, &sender, news, hosts, now).await?;
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

/// What is known of metrics before a request, and with what it says.
#[derive(Clone)]
enum KnownKinds {
    /// A node's: what is kept with it, and whether that is new.
    OfNode(Arc<MetricKinds>, bool),
    /// A gateway's. Metadata names no host, so it is kept with each that it brings samples of.
    OfGateway(Arc<SaidKinds>),
}

impl KnownKinds {
    fn of(app: &ReceiverState, sender: &Authenticated<'_>) -> Self {
        let own = sender.own_name();
        match sender.is_gateway() {
            true => Self::OfGateway(app.gateway_kinds.get(own).unwrap_or_default()),
            false => Self::OfNode(app.table.metric_kinds(own), false),
        }
    }

    fn with(&self, said: &[(String, PointKind)]) -> Self {
        let all = said.iter().map(|(metric, kind)| (metric.as_str(), *kind));
        match self {
            Self::OfNode(known, _) => match known.with(all) {
                Some(more) => Self::OfNode(Arc::new(more), true),
                None => self.clone(),
            },
            Self::OfGateway(known) => match known.with(said) {
                Some(more) => Self::OfGateway(Arc::new(more)),
                None => self.clone(),
            },
        }
    }

    fn said_len(&self) -> usize {
        match self {
            Self::OfNode(..) => 0,
            Self::OfGateway(said) => said.len(),
        }
    }

    /// Keeps what is new, once the samples are durable: the next ones are counted by it.
    async fn keep(
        self,
        app: &ReceiverState,
        sender: &Authenticated<'_>,
        news: Vec<(NodeName, Arc<MetricKinds>)>,
        hosts: Vec<NodeName>,
        now: u64,
    ) -> Result<(), Rejection> {
        let own = sender.own_name();
        let kept = news.iter();
        let kept = kept.map(|(host, kinds)| keep_kinds(app, sender, host, kinds, now));
        join_all(kept)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        match self {
            Self::OfNode(kinds, true) => keep_kinds(app, sender, own, &kinds, now).await,
            Self::OfNode(_, false) => Ok(()),
            Self::OfGateway(said) => {
                for host in hosts {
                    app.kept_kinds.insert((own.clone(), host), said.digest());
                }
                app.gateway_kinds.insert(own.clone(), said);
                Ok(())
            }
        }
    }
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

/// A request that was read.
struct Decoded {
    message: WriteRequest,
    hosts: Vec<SeriesOfHost>,
    kinds: KnownKinds,
    until_answered: MemoryReservation,
}

/// What is to be stored, and the memory of the request until it is answered.
type Submissions = (
    Vec<HostSubmission>,
    Vec<(NodeName, Arc<MetricKinds>)>,
    MemoryReservation,
);

impl Decoded {
    fn of(body: ReceivedBody, known: &KnownKinds, now: u64) -> Result<Self, Rejection> {
        let message = message_of(&body)?;
        let too_many = |detail: String| Rejection::from(Code::TooManyRecords).with_detail(detail);
        let points_bytes = write::points_bytes(&message);
        if points_bytes > UNPACKED_BYTES_MAX {
            return Err(too_many(format!(
                "samples with their labels are {points_bytes} bytes, at most {UNPACKED_BYTES_MAX} may be"
            )));
        }
        let said = metadata::kinds(&message.metadata);
        let said = said.map_err(|error| too_many(error.to_string()))?;
        Ok(Self {
            hosts: write::hosts(&message).map_err(|errors| invalid(errors, now))?,
            kinds: known.with(&said),
            message,
            until_answered: body.into_reservation(),
        })
    }

    fn submissions(
        self,
        app: &ReceiverState,
        sender: &NodeName,
        permits: &[Permit<Ingest>],
        now: u64,
    ) -> Result<Submissions, Rejection> {
        let (mut submissions, mut news) = (Vec::with_capacity(permits.len()), Vec::new());
        for (of_host, permit) in self.hosts.iter().zip(permits) {
            let host = permit.host();
            let kinds = match &self.kinds {
                KnownKinds::OfNode(own, _) => own.clone(),
                KnownKinds::OfGateway(said) => {
                    let known = app.table.metric_kinds(host);
                    let kept = app.kept_kinds.get(&(sender.clone(), host.clone()));
                    let is_kept = kept == Some(said.digest());
                    match (!is_kept).then(|| known.with(said.iter())).flatten() {
                        Some(more) => {
                            let more = Arc::new(more);
                            news.push((host.clone(), more.clone()));
                            more
                        }
                        None => known,
                    }
                }
            };
            let points = write::points(&self.message, of_host, &kinds);
            let points = points.map_err(|errors| invalid(errors, now))?;
            submissions.push(HostSubmission::of(permit, &points, now));
        }
        Ok((submissions, news, self.until_answered))
    }
}

fn message_of(body: &ReceivedBody) -> Result<WriteRequest, Rejection> {
    let message = protobuf::decode(body.bytes(), FIELDS_MAX);
    message.map_err(|error| Rejection::from(Code::MalformedProtobuf).with_detail(error.to_string()))
}

fn invalid(errors: Vec<ValueError>, now: u64) -> Rejection {
    Rejection::from(Code::InvalidValues).with_errors(errors, now)
}
