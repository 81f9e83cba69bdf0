//! Turns a request's body into a submission, which is accepted whole or refused whole. Pure.

mod points;

use lizmon_mtls::identity::Identity;
use lizmon_protocol::facts::Facts;
use lizmon_protocol::name::{NodeName, Tag};
use lizmon_protocol::sample::{
    BodyError, Epoch, IdempotencyKey, MalformedIdempotencyKey, ProducerId, parse_sample_set,
    read_batch,
};

pub use self::points::{HostPoints, SeriesHost, points};
use crate::authorize::{Ingest, Permit};
use crate::store::record::{RecordEncoder, RecordView, Submission, SubmissionView};
use crate::store::{DocumentKind, StoredDocument};
use crate::summarize::{MetricKinds, Reporters};

/// Why an idempotency key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyKeyError {
    /// Not a structured field.
    #[error("not an RFC 9651 item: a string in double quotes")]
    NoItem,
    /// Not a string.
    #[error("not an RFC 9651 string: write it in double quotes")]
    NoString,
    /// A string that is no key.
    #[error(transparent)]
    Malformed(#[from] MalformedIdempotencyKey),
}

/// The body of `POST /api/perf/{host}/{epoch}` as a submission.
pub fn single(
    permit: &Permit<Ingest>,
    epoch: Epoch,
    key: Option<IdempotencyKey>,
    body: &[u8],
    now: u64,
) -> Result<Submission, BodyError> {
    let set = parse_sample_set(body)?;
    let certificate_end = permit.certificate_end();
    let record = (key.map(|key| key.seq), epoch, &set);
    let producer = key.map(|key| key.producer);
    Ok(
        Submission::new(permit.host(), certificate_end, producer, now)
            .with_records(std::iter::once(record)),
    )
}

/// The tags of a node, as its certificate has them.
pub fn tags(holder: &Identity, now: u64) -> Submission {
    let tags: Vec<_> = holder.attributes.tags.iter().map(Tag::as_str).collect();
    let document = StoredDocument {
        kind: DocumentKind::Tags,
        body: tags.join("\n").into_bytes().into(),
    };
    Submission::of_document(&holder.spiffe_id.name, holder.not_after, now, &document)
}

/// Who reports a host. It says nothing of the host's own certificate.
pub fn reporters(host: &NodeName, reporters: &Reporters, now: u64) -> Submission {
    let document = StoredDocument {
        kind: DocumentKind::Reporters,
        body: reporters.write().into(),
    };
    Submission::of_document(host, 0, now, &document)
}

/// Which metrics of a host are counters. It says nothing of the host's own certificate.
pub fn metric_kinds(host: &NodeName, kinds: &MetricKinds, now: u64) -> Submission {
    let document = StoredDocument {
        kind: DocumentKind::MetricKinds,
        body: kinds.write().into(),
    };
    Submission::of_document(host, 0, now, &document)
}

/// The body of `POST /api/perf/{host}` as a submission.
pub fn batch(permit: &Permit<Ingest>, body: &[u8], now: u64) -> Result<Submission, BodyError> {
    // The producer may come behind the records: until then it has the place of its number.
    let none = ProducerId::from_bytes([0; 16]);
    let encoder = || {
        let submission = Submission::new(permit.host(), permit.certificate_end(), Some(none), now);
        RecordEncoder::with_room(submission, body.len())
    };
    let mut batch = read_batch(body, encoder)?;
    batch.records.set_producer(batch.producer);
    let submission = batch.records.finish(&batch.dropped);
    Ok(match batch.repair {
        true => submission.as_repair(),
        false => submission,
    })
}

/// The body of `PUT /api/facts/{host}` as a submission.
pub fn facts(permit: &Permit<Ingest>, facts: &Facts, now: u64) -> serde_json::Result<Submission> {
    let document = StoredDocument {
        kind: DocumentKind::Facts,
        body: serde_json::to_vec(facts)?.into(),
    };
    let certificate_end = permit.certificate_end();
    Ok(Submission::of_document(
        permit.host(),
        certificate_end,
        now,
        &document,
    ))
}

/// So many values of a record take as long to count as a record does.
const VALUES_PER_RECORD: u32 = 4;

/// How many records a submission counts for in its sender's rate limit: a few compressed kilobytes
/// may hold a million values.
pub fn billed_records(submission: &SubmissionView<'_>) -> u32 {
    let billed = |record: RecordView<'_>| (record.len() as u32).div_ceil(VALUES_PER_RECORD).max(1);
    let mut each = submission.records().map(billed);
    let records = match submission.outline().has_same_labels() {
        true => each
            .next()
            .unwrap_or(0)
            .saturating_mul(submission.len() as u32),
        false => each.fold(0, u32::saturating_add),
    };
    records.saturating_add(submission.dropped().count() as u32)
}

/// An idempotency key: an RFC 9651 string that holds producer and number.
pub fn idempotency_key(value: &[u8]) -> Result<IdempotencyKey, IdempotencyKeyError> {
    let item = sfv::Parser::new(value)
        .parse::<sfv::Item>()
        .map_err(|_| IdempotencyKeyError::NoItem)?;
    let text = item.bare_item.as_string();
    let text = text.ok_or(IdempotencyKeyError::NoString)?;
    Ok(text.as_str().parse()?)
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::name::Label;
    use lizmon_protocol::sample::{Dropped, SampleSet, Seq, Value};

    use super::*;

    #[test]
    fn what_a_submission_counts_for() {
        let check = |values: &[usize], dropped: u64, expected: u32| {
            let set = |count: &usize| {
                let value = |at| {
                    (
                        Label::new(format!("l{at}")).unwrap(),
                        Value::new(1.0).unwrap(),
                    )
                };
                SampleSet::new((0..*count).map(value).collect())
            };
            let sets: Vec<_> = values.iter().map(set).collect();
            let epoch = Epoch::new(1_465_001_814).unwrap();
            let records = sets.iter().map(|set| (Seq::new(1), epoch, set));
            let seq = |number| Seq::new(number).unwrap();
            let given_up = |number| Dropped {
                from: seq(number),
                to: seq(number),
                why: Label::new("too old").unwrap(),
            };
            let given_up: Vec<_> = (1..=dropped).map(given_up).collect();
            let id = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b".parse().unwrap();
            let submission = Submission::new(&"web1".parse().unwrap(), 9, Some(id), 0)
                .with_records_and_dropped(records, &given_up);
            let counted = billed_records(&submission.view().unwrap());
            assert_eq!(counted, expected, "{values:?} {dropped}");
        };
        check(&[], 0, 0);
        check(&[0, 1, 4], 0, 3);
        check(&[5, 8, 9], 0, 7);
        check(&[256], 0, 64);
        check(&[1], 3, 4);
    }
}
