//! From a request's body to a submission: bounded in bytes and in time, read whole, taken whole or refused whole.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, HeaderName};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::{Epoch, IdempotencyKey, parse_batch, parse_sample_set};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authorize::{Ingest, Permit};
use crate::problem::Rejection;
use crate::store::record::Submission;

/// Largest body as it travels.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Largest body of revocation lists: some 300,000 revoked certificates.
pub const CRL_BYTES_MAX: usize = 16 << 20;
/// Largest body once it is unpacked.
pub const UNPACKED_BYTES_MAX: usize = 8 << 20;
/// Longest wait for a body if `--body-timeout` does not say.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// What all bodies being read may take together. Beyond it requests are told to come again.
const BODIES_KIB_MAX: usize = 256 << 10;
/// Largest window a zstd frame may ask for, as a power of two: the largest unpacked body.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// How much of a refused body is read and thrown away, so that the answer arrives.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// A packed body beyond this is unpacked beside the tasks that serve others.
const UNPACKED_IN_PLACE_MAX: usize = 16 << 10;

/// draft-ietf-httpapi-idempotency-key-header-07 section 2.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Reads bodies, never more at once than there is room for.
#[derive(Debug, Clone)]
pub struct BodyReader {
    room: Arc<Semaphore>,
    timeout: Duration,
}

/// A body in memory, and the room it takes until it is dropped.
#[derive(Debug)]
pub struct TakenBody {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl TakenBody {
    /// The body, unpacked.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyReader {
    /// A reader that waits no longer than this for a body.
    pub fn new(timeout: Duration) -> Self {
        Self {
            room: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            timeout,
        }
    }

    /// The body, unpacked.
    pub async fn read(&self, headers: &HeaderMap, body: &mut Body) -> Result<TakenBody, Rejection> {
        self.read_within(headers, body, BODY_BYTES_MAX).await
    }

    /// The body, unpacked, if it has no more than `max` bytes on the wire.
    pub async fn read_within(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
        max: usize,
    ) -> Result<TakenBody, Rejection> {
        let encoding = Encoding::of(headers)?;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > max) {
            return Err(too_large(max, "on the wire"));
        }
        let wire_max = announced.unwrap_or(max);
        let most = if encoding == Encoding::Identity {
            wire_max
        } else {
            wire_max + UNPACKED_BYTES_MAX
        };
        let room = self.take_room(most)?;
        let collected = tokio::time::timeout(self.timeout, Limited::new(body, max).collect())
            .await
            .map_err(|_| Rejection::from(Code::RequestTimeout))?;
        let packed = match collected {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(too_large(max, "on the wire"));
            }
            Err(_) => {
                return Err(Rejection::from(Code::MalformedJson).with_detail("the body broke off"));
            }
        };
        let bytes = encoding.unpack(packed).await?;
        Ok(TakenBody { bytes, _room: room })
    }

    /// Reads and throws away what is left of a body that was refused, within bounds. Closing a connection with bytes
    /// unread makes the system reset it, and the client would lose the answer that says why it was refused.
    pub async fn discard(&self, headers: &HeaderMap, mut body: Body) {
        // Whoever asked first has sent nothing yet: RFC 9110 section 10.1.1.
        if body.is_end_stream() || headers.contains_key(EXPECT) {
            return;
        }
        let mut left = DISCARDED_BYTES_MAX;
        let all = async {
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        };
        let _out_of_time_or_not =
            tokio::time::timeout(DISCARD_TIMEOUT.min(self.timeout), all).await;
    }

    fn take_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Rejection> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        self.room
            .clone()
            .try_acquire_many_owned(kib)
            .map_err(|_| Code::Overloaded.into())
    }
}

fn too_large(max: usize, what: &str) -> Rejection {
    Rejection::from(Code::BodyTooLarge)
        .with_detail(format!("a body has at most {max} bytes {what}"))
}

/// How a body is packed: RFC 9110 section 8.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Rejection> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Ok(Self::Identity);
        };
        let word = value
            .to_str()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match word.as_str() {
            "identity" | "" if values.next().is_none() => Ok(Self::Identity),
            "gzip" | "x-gzip" if values.next().is_none() => Ok(Self::Gzip),
            "zstd" if values.next().is_none() => Ok(Self::Zstd),
            _ => Err(Rejection::from(Code::UnsupportedEncoding)),
        }
    }

    async fn unpack(self, packed: Bytes) -> Result<Bytes, Rejection> {
        if self == Self::Identity {
            return Ok(packed);
        }
        if packed.len() <= UNPACKED_IN_PLACE_MAX / 16 {
            return self.unpack_now(&packed);
        }
        tokio::task::spawn_blocking(move || self.unpack_now(&packed))
            .await
            .unwrap_or_else(|_| Err(Code::InternalError.into()))
    }

    fn unpack_now(self, packed: &[u8]) -> Result<Bytes, Rejection> {
        let mut unpacked = Vec::new();
        // One byte more than allowed is enough to know.
        let limit = UNPACKED_BYTES_MAX as u64 + 1;
        let result = match self {
            Self::Identity => packed.take(limit).read_to_end(&mut unpacked),
            Self::Gzip => flate2::read::MultiGzDecoder::new(packed)
                .take(limit)
                .read_to_end(&mut unpacked),
            Self::Zstd => {
                zstd::stream::read::Decoder::with_buffer(packed).and_then(|mut decoder| {
                    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                    decoder.take(limit).read_to_end(&mut unpacked)
                })
            }
        };
        if unpacked.len() > UNPACKED_BYTES_MAX {
            return Err(too_large(UNPACKED_BYTES_MAX, "unpacked"));
        }
        result.map_err(|error| {
            Rejection::from(Code::MalformedJson)
                .with_detail(format!("the body cannot be unpacked: {error}"))
        })?;
        Ok(unpacked.into())
    }
}

/// The body of `POST /api/perf/{host}/{epoch}` as a submission.
pub fn single(
    permit: Permit<Ingest>,
    epoch: Epoch,
    headers: &HeaderMap,
    body: &[u8],
    now: u64,
) -> Result<Submission, Rejection> {
    let key = idempotency_key(headers)?;
    let set = parse_sample_set(body).map_err(|error| Rejection::of_body(error, now))?;
    let certificate_end = permit.certificate_end();
    let host = permit.into_host().ok_or(Code::WrongHost)?;
    let record = (key.map(|key| key.seq), epoch, &set);
    Ok(
        Submission::new(&host, certificate_end, key.map(|key| key.producer), now)
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
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Rejection> {
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
