//! `POST /v1/metrics`: what OpenTelemetry's SDKs and Collectors send, by OTLP/HTTP.
//!
//! They send again what is answered with 429, 502, 503 or 504, and drop what is answered with any
//! other error. What is not good of a request that is taken is left out, and named in the answer.
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use lizmon_protocol::problem::Code;

use super::authenticated::Authenticated;
use super::perf::too_many_records;
use super::points::{self, HostSubmission};
use super::problem::Rejection;
use super::request_body::{BodyRequest, answer_routed};
use super::state::SharedState;
use crate::body::BODY_BYTES_MAX;
use crate::ingest::HostPoints;
use crate::metrics::PointsProtocol;
use crate::otlp::answer::ExportMetricsServiceResponse;
use crate::otlp::points::{OtlpPoints, POINTS_BYTES_MAX, points as points_of};
use crate::otlp::{OtlpEncoding, ParseError};

/// Values that are left out take as long as those that are taken, four of which count as a record.
const LEFT_OUT_PER_RECORD: u64 = 4;

/// `POST /v1/metrics`
pub(super) async fn export(
    State(app): SharedState,
    request: Request<Body>,
) -> Result<Response, Rejection> {
    let answer = answer_routed(&app, request, take_metrics).await;
    answer.map_err(|rejection| match rejection.code() {
        // That is to be sent again.
        Code::RequestTimeout => rejection.with_code(Code::Overloaded),
        _ => rejection,
    })
}

async fn take_metrics(mut request: BodyRequest<'_>) -> Result<Response, Rejection> {
    let (app, head) = (request.app, request.head);
    let sender = Authenticated::check(app, head, (app.clock)())?;
    let caller = points::writer(&sender)?;
    let encoding = encoding_of(&head.headers)?;
    let quota = sender.quota()?;
    quota.may_send_records().map_err(too_many_records)?;
    let body = request.read(BODY_BYTES_MAX, &sender).await?;
    let bytes = body.bytes().len();
    let now = (app.sample_clock)();
    let parse = move || {
        let message = encoding.parse(body.bytes());
        let found = message.map(|message| points_of(&message, now));
        (found, body.into_reservation())
    };
    let (found, _until_answered) = points::off_the_loop(bytes, parse).await?;
    let found = found.map_err(malformed).and_then(not_too_much);
    let found = found.inspect_err(|_| quota.charge_refused(bytes))?;
    let OtlpPoints {
        hosts, left_out, ..
    } = found;
    if left_out.untimely > 0 {
        points::may_judge_times(app)?;
    }
    let (hosts, points_of_hosts): (Vec<_>, Vec<_>) = hosts.into_iter().unzip();
    let permits = points::permits(app, &caller, hosts.iter());
    let permits = permits.inspect_err(|_| quota.charge_refused(bytes))?;
    let billed = u32::try_from(left_out.values.div_ceil(LEFT_OUT_PER_RECORD)).unwrap_or(u32::MAX);
    quota.take_records(billed).map_err(too_many_records)?;
    if points_of_hosts.iter().all(HostPoints::is_empty) {
        // Also if it has no points at all: it was read.
        quota.charge_refused(bytes);
    }
    let submit = move || -> Vec<HostSubmission> {
        let hosts = permits.iter().zip(&points_of_hosts);
        // All of its points may have been left out.
        let hosts = hosts.filter(|(_, points)| !points.is_empty());
        let submission = hosts.map(|(permit, points)| HostSubmission::of(permit, points, now));
        submission.collect()
    };
    let submissions = points::off_the_loop(bytes, submit).await?;
    sender.check_trust()?;
    let protocol = PointsProtocol::Otlp;
    let taken = points::submit(app, &sender, submissions, protocol, now).await?;
    app.metrics.points_left_out(protocol, left_out.points);
    let warning = (taken.duplicate > 0).then(|| not_later(taken.duplicate));
    let answer = ExportMetricsServiceResponse::of(&left_out, warning.as_deref());
    let mut response = Response::new(Body::from(answer.body(encoding)));
    let media_type = HeaderValue::from_static(encoding.media_type());
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    Ok(response)
}

fn encoding_of(headers: &HeaderMap) -> Result<OtlpEncoding, Rejection> {
    let said = headers.get(CONTENT_TYPE);
    let said = said.and_then(|said| said.to_str().ok());
    let encoding = said.and_then(OtlpEncoding::of);
    encoding.ok_or_else(|| {
        let [one, other] = OtlpEncoding::ALL.map(OtlpEncoding::media_type);
        let detail = format!("it must be {one} or {other}");
        Rejection::from(Code::UnsupportedMediaType).with_detail(detail)
    })
}

fn malformed(error: ParseError) -> Rejection {
    let code = match error {
        ParseError::Protobuf(_) => Code::MalformedProtobuf,
        ParseError::Json(_) => Code::MalformedJson,
    };
    Rejection::from(code).with_detail(error.to_string())
}

fn not_too_much(found: OtlpPoints) -> Result<OtlpPoints, Rejection> {
    if found.is_too_much {
        let detail = format!(
            "its values, each with the name of its series, have more than {POINTS_BYTES_MAX} bytes: \
             send fewer points at once"
        );
        return Err(Rejection::from(Code::TooManyRecords).with_detail(detail));
    }
    Ok(found)
}

fn not_later(points: u64) -> String {
    format!(
        "{points} values were not later than the last one of their series: they have been sent again, \
         or more than one program sends the same series"
    )
}
