//! From a request's body to a submission: read whole, taken whole or refused whole. Pure.

use http::{HeaderMap, HeaderName};
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::{Epoch, IdempotencyKey, parse_batch, parse_sample_set};

use crate::authorize::{Ingest, Permit};
use crate::problem::Rejection;
use crate::store::record::Submission;

/// draft-ietf-httpapi-idempotency-key-header-07 section 2.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The body of `POST /api/perf/{host}/{epoch}` as a submission.
pub fn single(
    permit: Permit<Ingest>,
    epoch: Epoch,
    key: Option<IdempotencyKey>,
    body: &[u8],
    now: u64,
) -> Result<Submission, Rejection> {
    let set = parse_sample_set(body).map_err(|error| Rejection::of_body(error, now))?;
    let certificate_end = permit.certificate_end();
    let host = permit.into_host().ok_or(Code::WrongHost)?;
    let record = (key.map(|key| key.seq), epoch, &set);
    let producer = key.map(|key| key.producer);
    Ok(
        Submission::new(&host, certificate_end, producer, now)
            .with_records(std::iter::once(record)),
    )
}

/// The body of `POST /api/perf/{host}` as a submission.
pub fn batch(permit: Permit<Ingest>, body: &[u8], now: u64) -> Result<Submission, Rejection> {
    let batch = parse_batch(body).map_err(|error| Rejection::of_body(error, now))?;
    let certificate_end = permit.certificate_end();
    let host = permit.into_host().ok_or(Code::WrongHost)?;
    let records = batch
        .records
        .iter()
        .map(|record| (Some(record.seq), record.epoch, &record.values));
    Ok(
        Submission::new(&host, certificate_end, Some(batch.producer), now)
            .with_records_and_dropped(records, &batch.dropped),
    )
}

/// The request's idempotency key: an RFC 8941 string with ours in it.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Rejection> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed =
        |detail: &str| Rejection::from(Code::MalformedIdempotencyKey).with_detail(detail);
    if values.next().is_some() {
        return Err(malformed("the header stands twice"));
    }
    let item = sfv::Parser::new(value.as_bytes())
        .parse::<sfv::Item>()
        .map_err(|_| malformed("not an RFC 8941 item: a string in double quotes"))?;
    let Some(text) = item.bare_item.as_string() else {
        return Err(malformed(
            "not an RFC 8941 string: write it in double quotes",
        ));
    };
    text.as_str().parse().map(Some).map_err(
        |error: lizmon_protocol::sample::MalformedIdempotencyKey| malformed(&error.to_string()),
    )
}
