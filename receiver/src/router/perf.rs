//! `/api/perf`: samples in, summaries out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, request};
use lizmon_mtls::connection::Connection;
use lizmon_mtls::service::{ClientRequest, RequestBody};
use lizmon_protocol::delivery::REPLAYED_HEADER;
use lizmon_protocol::name::{NodeName, SpiffeId};
use lizmon_protocol::problem::Code;
use lizmon_protocol::route::{self, MalformedEpoch, parse_epoch};
use lizmon_protocol::sample::{Epoch, IdempotencyKey, SAFE_INTEGER_MAX};
use lizmon_protocol::summary::Hosts;

use super::answer::{decode, json, parse_host, wanted_tags};
use super::authenticated::Authenticated;
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_with_body};
use super::state::{ReceiverState, SharedState};
use crate::authorize::{Ingest, ListHosts, Permit};
use crate::body::{BODY_BYTES_MAX, MemoryReservation, ReceivedBody};
use crate::query::FleetSize;
use crate::store::record::Submission;
use crate::{ingest, query, summarize};

/// draft-ietf-httpapi-idempotency-key-header-07 section 2.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const AHEAD: HeaderName = HeaderName::from_static(route::AHEAD_HEADER);

/// With more hosts than this, certificates are verified only of those that have not reported for
/// [`RECENT_SECS`]: each takes a chain to verify.
const JUDGED_AT_ONCE_MAX: usize = 1_000;
const RECENT_SECS: u64 = 2;

/// A larger body is parsed on a blocking thread.
const PARSED_IN_PLACE_BYTES_MAX: usize = 64 << 10;
/// An answer about more labels, of one host or of all, is made on a blocking thread.
const ANSWERED_IN_PLACE_LABELS_MAX: usize = 64;

/// Size of one label in an answer, at most: 85 intervals of some 140 bytes.
const ANSWER_BYTES_PER_LABEL: usize = 13 << 10;
/// Size of a host in a list, with its facts and some tags, and of one of its labels: about.
const LIST_BYTES_PER_HOST: usize = 512;
const LIST_BYTES_PER_LABEL: usize = 32;

/// `POST /api/perf/{host}` and `/api/perf/{host}/{epoch}`.
pub(super) async fn take_samples(
    app: &Arc<ReceiverState>,
    request: &mut ClientRequest<RequestBody>,
) -> Result<Response, Rejection> {
    let client = &*request.client;
    let request = BodyRequest {
        app,
        head: &request.head,
        body: &mut request.body,
    };
    answer_with_body(request, async |request: BodyRequest<'_, _>| {
        ingest(request, client).await
    })
    .await
}

/// `GET /api/perf/{host}` and `/api/perf/{host}/{label}`
pub(super) async fn read_host(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let (host, label) = host_and_rest(&head);
    let (host, label) = (parse_host(host), label.map(decode));
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender
        .caller()?
        .read_host(host.as_ref(), |host| app.table.tags(host))?;
    let filter = label.unwrap_or_default().into_owned();
    let host = permit.host().as_str();
    app.table.read_now(host, (app.sample_clock)()).await;
    sender.check_trust()?;
    let now = (app.sample_clock)();
    let labels = query::label_count(&permit, &app.table);
    if labels <= ANSWERED_IN_PLACE_LABELS_MAX {
        let found = query::summaries(&permit, &app.table, &filter, now).ok_or(Code::UnknownHost)?;
        return sender.answer_bytes(found).await;
    }
    let table = app.table.clone();
    let make = move || {
        let found = query::summaries(&permit, &table, &filter, now).ok_or(Code::UnknownHost)?;
        found.map_err(|_| Code::InternalError)
    };
    sender
        .large_answer(labels * ANSWER_BYTES_PER_LABEL, make)
        .await
}

async fn ingest(
    mut request: BodyRequest<'_, RequestBody>,
    client: &Connection,
) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let sender = Authenticated::check_on(app, client, &head.headers, (app.clock)())?;
    let permit = may_ingest(&sender, app, head)?;
    let for_host = permit.gateway().map(|_| permit.host().clone());
    let now = (app.sample_clock)();
    let epoch = epoch_of(head)?;
    let quota = sender.quota()?;
    quota.may_send_records().map_err(too_many_records)?;
    let body = request.read(BODY_BYTES_MAX, &sender).await?;
    let bytes = body.bytes().len();
    let unparsed = UnparsedSamples {
        permit,
        epoch,
        key: idempotency_key(&head.headers),
        body,
        now,
    };
    let parsed = match bytes > PARSED_IN_PLACE_BYTES_MAX {
        true => {
            let parsed = Box::pin(unparsed.parse_elsewhere()).await;
            sender.check_trust()?;
            parsed
        }
        false => unparsed.parse(),
    };
    let (submission, records, _until_answered) =
        parsed.inspect_err(|_| quota.charge_refused(bytes))?;
    quota.take_records(records).map_err(too_many_records)?;
    let answer = app.journal.submit(submission, now).await?;
    let is_remembered = sender.remember();
    match &for_host {
        Some(host) => note_reporter(&sender, app, host, now).await?,
        None => {
            let host = sender.own_name();
            // Nobody else reports most hosts.
            if is_remembered && !app.table.reporters(host).is_empty() {
                note_reporter(&sender, app, host, now).await?;
            }
            if let Some(ahead_secs) = ahead_of(&head.headers) {
                app.table.note_clock(host.as_str(), ahead_secs, now);
            }
        }
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

/// May the sender send samples of the host in the path?
fn may_ingest(
    sender: &Authenticated<'_>,
    app: &ReceiverState,
    head: &request::Parts,
) -> Result<Permit<Ingest>, Rejection> {
    let (caller, (host, _)) = (sender.caller()?, host_and_rest(head));
    let tags_of = |host: &NodeName| app.table.tags(host);
    Ok(match sender.own_name() {
        // Usually it is, and then needs not be parsed.
        own if own.as_str() == host => caller.ingest(Some(own), tags_of)?,
        _ => caller.ingest(parse_host(host).as_ref(), tags_of)?,
    })
}

/// Writes down that the sender reports this host, where that is not known yet. The samples are
/// durable: if this fails, the next ones bring it again.
pub(super) async fn note_reporter(
    sender: &Authenticated<'_>,
    app: &ReceiverState,
    host: &NodeName,
    now: u64,
) -> Result<(), Rejection> {
    let noted = (host.clone(), sender.own_id()?.clone());
    // The summaries may lag behind what was appended.
    let last = app.noted_reporters.get(&noted);
    if last.is_some_and(|at| summarize::is_recent(at, now)) {
        return Ok(());
    }
    let SpiffeId { role, name, .. } = &noted.1;
    let Some(reporters) = app.table.reporters(host).with(*role, name, now) else {
        return Ok(());
    };
    let submission = ingest::reporters(host, &reporters, now);
    match app.journal.submit(submission, now).await {
        Ok(_) => app.noted_reporters.insert(noted, now),
        Err(error) => tracing::warn!(%host, %error, "who reports the host is not stored"),
    }
    Ok(())
}

/// The epoch in the path of a single sample.
fn epoch_of(head: &request::Parts) -> Result<Option<Epoch>, Rejection> {
    let (_, epoch) = host_and_rest(head);
    let epoch = epoch.map(|epoch| parse_epoch(epoch).or_else(|_| parse_epoch(&decode(epoch))));
    let malformed = |error: MalformedEpoch| {
        Rejection::from(Code::MalformedEpoch).with_detail(error.to_string())
    };
    epoch.transpose().map_err(malformed)
}

/// What was posted.
struct UnparsedSamples {
    permit: Permit<Ingest>,
    epoch: Option<Epoch>,
    key: Result<Option<IdempotencyKey>, Rejection>,
    body: ReceivedBody,
    now: u64,
}

/// A submission, how many records it counts for, and its memory until it is answered.
type ParsedSamples = (Submission, u32, MemoryReservation);

impl UnparsedSamples {
    fn parse(self) -> Result<ParsedSamples, Rejection> {
        let (permit, body, now) = (&self.permit, self.body.bytes(), self.now);
        let submission = match self.epoch {
            Some(epoch) => ingest::single(permit, epoch, self.key?, body, now),
            None => ingest::batch(permit, body, now),
        };
        let submission = submission.map_err(|error| Rejection::of_body(error, now))?;
        let view = submission.view().map_err(|_| Code::InternalError)?;
        let records = ingest::billed_records(&view);
        Ok((submission, records, self.body.into_reservation()))
    }

    async fn parse_elsewhere(self) -> Result<ParsedSamples, Rejection> {
        let parsed = tokio::task::spawn_blocking(|| self.parse()).await;
        parsed.map_err(|_| Rejection::from(Code::InternalError))?
    }
}

/// By how much the sender's clock is ahead of the time it stamps samples with, as it says.
fn ahead_of(headers: &HeaderMap) -> Option<i64> {
    let said: i64 = headers.get(AHEAD)?.to_str().ok()?.parse().ok()?;
    (said.unsigned_abs() <= SAFE_INTEGER_MAX).then_some(said)
}

pub(super) fn too_many_records(wait: Duration) -> Rejection {
    Rejection::rate_limited(wait).with_detail(
        "the certificate's holder has sent too many records, or too many refused requests",
    )
}

/// `GET /api/perf`
pub(super) async fn list_hosts(
    State(app): SharedState,
    head: request::Parts,
) -> Result<Response, Rejection> {
    let now = (app.clock)();
    let sender = Authenticated::check(&app, &head, now)?;
    let permit = sender
        .caller()?
        .list_hosts()?
        .only(wanted_tags(&head, &[])?);
    let FleetSize { hosts, labels } = query::fleet_size(&app.table);
    if labels <= ANSWERED_IN_PLACE_LABELS_MAX {
        return sender.answer(&judged_hosts(&permit, &app, now)).await;
    }
    let bytes_about = hosts * LIST_BYTES_PER_HOST + labels * LIST_BYTES_PER_LABEL;
    let work = app.clone();
    let make = move || {
        let list = judged_hosts(&permit, &work, now);
        serde_json::to_vec(&list).map_err(|_| Code::InternalError)
    };
    sender.large_answer(bytes_about, make).await
}

/// The hosts that the caller may know of, and which of them have a revoked certificate.
fn judged_hosts(permit: &Permit<ListHosts>, app: &ReceiverState, now: u64) -> Hosts {
    let time = (app.sample_clock)();
    let mut hosts = query::hosts(permit, &app.table, time);
    let trust = app.trust.current();
    let is_many = hosts.hosts.len() > JUDGED_AT_ONCE_MAX;
    for host in &mut hosts.hosts {
        // The certificate of a host that has just reported was verified then.
        let is_recent = host.last_epoch.saturating_add(RECENT_SECS) >= time;
        if host.state.is_none() && !(is_many && is_recent) {
            host.state = app.holders.state(&host.name, &trust, now);
        }
    }
    hosts
}

/// The path's host and the rest after it, as they stand there.
fn host_and_rest(head: &request::Parts) -> (&str, Option<&str>) {
    let rest = head
        .uri
        .path()
        .strip_prefix(route::PERF)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or_default();
    match rest.split_once('/') {
        Some((host, rest)) => (host, Some(rest)),
        None => (rest, None),
    }
}

/// The request's idempotency key, if there is one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Rejection> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed =
        |detail: &str| Rejection::from(Code::MalformedIdempotencyKey).with_detail(detail);
    if values.next().is_some() {
        return Err(malformed("there is more than one such header"));
    }
    let key = ingest::idempotency_key(value.as_bytes());
    key.map(Some).map_err(|error| malformed(&error.to_string()))
}
