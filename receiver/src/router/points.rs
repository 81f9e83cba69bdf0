//! Points of hosts, as the protocols of others bring them: who may send them, and their way to the
//! journal.
//!
//! A request is taken for all of its hosts or for none. Where a retry helps, the answer is 503.

use std::sync::Arc;

use futures_util::future::join_all;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::BatchAnswer;

use super::authenticated::Authenticated;
use super::perf::{note_reporter, too_many_records};
use super::problem::Rejection;
use super::state::ReceiverState;
use crate::authorize::{Caller, Ingest, Permit};
use crate::ingest::{self, HostPoints, SeriesHost};
use crate::journal::{AdmissionError, Journal, SubmitError, ValueFault};
use crate::metrics::PointsProtocol;
use crate::store::record::Submission;

/// Hosts of one request, each of which waits for the journal by itself.
const HOSTS_MAX: usize = 2_000;
/// A record of so many bytes is billed as one.
const BYTES_PER_RECORD: usize = 512;
/// A larger message is decoded on a blocking thread.
const DECODED_IN_PLACE_BYTES_MAX: usize = 64 << 10;

/// The caller, if it may send samples at all. A token that its holder got with an earlier
/// certificate is no reason to give samples up: agents drop what is answered with 401.
pub(super) fn writer<'s>(sender: &'s Authenticated<'_>) -> Result<Caller<'s>, Rejection> {
    let caller = sender.caller().map_err(|rejection| {
        match rejection.code() == Code::CertificateMismatch && sender.has_earlier_token() {
            true => Code::CertificateRenewed.into(),
            false => rejection,
        }
    })?;
    caller.write()?;
    Ok(caller)
}

/// The permits to send samples of these hosts, if the caller may of all of them.
pub(super) fn permits<'h>(
    app: &ReceiverState,
    caller: &Caller<'_>,
    hosts: impl ExactSizeIterator<Item = &'h SeriesHost>,
) -> Result<Vec<Permit<Ingest>>, Rejection> {
    let count = hosts.len();
    if count > HOSTS_MAX {
        let detail = format!("it is about {count} hosts, at most {HOSTS_MAX} may be at once");
        return Err(Rejection::from(Code::TooManyRecords).with_detail(detail));
    }
    let tags_of = |host: &NodeName| app.table.tags(host);
    let permit = |host: &SeriesHost| Ok(caller.ingest(host.name(), tags_of)?);
    hosts.map(permit).collect()
}

/// Does the work on a message of so many bytes, on a blocking thread if they are many.
pub(super) async fn off_the_loop<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Rejection> {
    if bytes <= DECODED_IN_PLACE_BYTES_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Code::InternalError.into())
}

/// What a request brings of one host.
pub(super) struct HostSubmission {
    pub(super) host: NodeName,
    pub(super) submission: Submission,
}

impl HostSubmission {
    /// Of these points.
    pub(super) fn of(permit: &Permit<Ingest>, points: &HostPoints, now: u64) -> Self {
        Self {
            host: permit.host().clone(),
            submission: ingest::points(permit, points, now),
        }
    }
}

/// Makes the points of all hosts durable, and counts them.
pub(super) async fn submit(
    app: &Arc<ReceiverState>,
    sender: &Authenticated<'_>,
    points: Vec<HostSubmission>,
    protocol: PointsProtocol,
    now: u64,
) -> Result<BatchAnswer, Rejection> {
    let (mut records, mut bytes) = (0_u32, 0_usize);
    for HostSubmission { submission, .. } in &points {
        let view = submission.view().map_err(|_| Code::InternalError)?;
        records = records.saturating_add(ingest::billed_records(&view));
        bytes = bytes.saturating_add(submission.as_bytes().len());
    }
    // Labels may be long.
    let records = records.max(u32::try_from(bytes / BYTES_PER_RECORD).unwrap_or(u32::MAX));
    let quota = sender.quota()?;
    quota.take_records(records).map_err(too_many_records)?;
    let (hosts, mut submissions): (Vec<_>, Vec<_>) = points
        .into_iter()
        .map(|of_host| (of_host.host, of_host.submission))
        .unzip();
    if submissions.len() > 1 {
        // What is refused is not sent again: then nothing may have been stored.
        let table = app.table.clone();
        let check = move || {
            let checked = Journal::check_together(&table, &submissions, now);
            checked.map(|()| submissions)
        };
        let checked = off_the_loop(bytes, check).await?;
        submissions = checked.map_err(|error| refusal(app, error.into()))?;
    }
    let submitted = submissions.into_iter();
    let submitted = submitted.map(|submission| app.journal.submit(submission, now));
    let mut sum = BatchAnswer::default();
    for answer in join_all(submitted).await {
        let answer = answer.map_err(|error| refusal(app, error))?;
        sum.accepted += answer.accepted;
        sum.duplicate += answer.duplicate;
    }
    app.metrics.points(protocol, sum);
    note_reporters(app, sender, &hosts, now).await?;
    Ok(sum)
}

/// Writes down who reports these hosts.
async fn note_reporters(
    app: &ReceiverState,
    sender: &Authenticated<'_>,
    hosts: &[NodeName],
    now: u64,
) -> Result<(), Rejection> {
    let is_remembered = sender.remember();
    let is_noted = |host: &&NodeName| match sender.is_gateway() {
        true => true,
        // Nobody else reports most hosts.
        false => is_remembered && !app.table.reporters(host).is_empty(),
    };
    let noted = hosts.iter().filter(is_noted);
    let noted = noted.map(|host| note_reporter(sender, app, host, now));
    join_all(noted).await.into_iter().collect()
}

/// While the receiver's own clock may be wrong, the times of points are not refused for good.
fn refusal(app: &ReceiverState, error: SubmitError) -> Rejection {
    let is_of_time = |fault| matches!(fault, ValueFault::EpochTooOld | ValueFault::EpochInFuture);
    match &error {
        SubmitError::Refused(AdmissionError::Values { fault, .. }) if is_of_time(*fault) => {
            may_judge_times(app).err().unwrap_or_else(|| error.into())
        }
        _ => error.into(),
    }
}

/// Whether the receiver's clock is good enough to say that a time is wrong.
pub(super) fn may_judge_times(app: &ReceiverState) -> Result<(), Rejection> {
    match app.journal.clock_status().secs_until_trusted() {
        Some(secs) => Err(Rejection::clock_unsteady(secs, SET_CLOCK)),
        None => Ok(()),
    }
}

const SET_CLOCK: &str =
    "the receiver's clock has just been set, and says another time than the sender's";
