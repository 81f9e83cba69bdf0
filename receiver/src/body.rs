//! Bodies of requests and answers: bounded in bytes and in time, and never more of them in memory
//! than the budget allows, in all and for each holder. What counts is what has arrived, not what
//! was announced: a client that only begins bodies takes no memory. Small bodies have a budget of
//! their own: they never wait for large ones, not even for their sender's. Tiny ones that have come
//! whole need none: what waits for the journal is limited in number.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use lizmon_mtls::client_quota::{BodyMemoryBudgets, ClientQuota};

use self::encoding::Encoding;
use self::memory::{SMALL_BYTES_MAX, kib, take_now};

mod answer_coding;
mod encoding;
mod error;
mod memory;
mod snappy;

pub use self::answer_coding::{AnswerCoding, AskedCoding, CodedAnswer};
pub use self::encoding::CONTENT_CODINGS;
pub use self::error::BodyReadError;
pub use self::memory::MemoryReservation;
pub use self::snappy::SNAPPY;

/// Largest body on the wire.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Largest body of CRLs: some 300,000 revoked certificates.
pub const CRL_BYTES_MAX: usize = 16 << 20;
/// Largest body once it is unpacked.
pub const UNPACKED_BYTES_MAX: usize = 8 << 20;
/// Maximum wait for a body if `--body-timeout` does not say.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A body up to this size that has come whole is not counted: no more than
/// [`QUEUE_MAX`](crate::journal::QUEUE_MAX) of them are kept, and a client has few in progress.
const TINY_BYTES_MAX: usize = 1 << 10;
/// Memory for all large bodies together. Beyond it requests wait for a moment and then are refused
/// with Retry-After.
const LARGE_KIB_MAX: usize = 256 << 10;
/// Memory for all small bodies together.
const SMALL_KIB_MAX: usize = 32 << 10;
/// Memory that one answer takes of its client's budget at most: half of it.
const ANSWER_MEMORY_BYTES_MAX: usize = 16 << 20;
/// A larger answer is compressed on a blocking thread: this one takes less than 0.1 ms.
const COMPRESSED_IN_PLACE_BYTES_MAX: usize = 16 << 10;
/// How much of a refused body is read and discarded, so that the response arrives.
const DISCARDED_BYTES_MAX: usize = 2 * CRL_BYTES_MAX;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads bodies, never more at once than there is memory for.
#[derive(Debug, Clone)]
pub struct BodyReader {
    all: Arc<BodyMemoryBudgets>,
    timeout: Duration,
}

/// A body in memory.
#[derive(Debug)]
pub struct ReceivedBody {
    bytes: Bytes,
    memory: MemoryReservation,
}

impl ReceivedBody {
    /// The body, unpacked.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Frees the body but keeps its reservation: what was made of it takes about as much.
    pub fn into_reservation(self) -> MemoryReservation {
        self.memory
    }
}

/// An answer's bytes with the memory they take until the last of them is sent: a client that asks
/// much and reads nothing uses up its own budget.
struct Answer {
    bytes: Vec<u8>,
    _memory: MemoryReservation,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyReader {
    /// A reader that waits no longer than this for a body.
    pub fn new(timeout: Duration) -> Self {
        Self {
            all: Arc::new(BodyMemoryBudgets::new(SMALL_KIB_MAX, LARGE_KIB_MAX)),
            timeout,
        }
    }

    /// The sender's body, decompressed, if it has at most `max` bytes on the wire.
    pub async fn read<B: http_body::Body<Data = Bytes> + Unpin>(
        &self,
        headers: &HeaderMap,
        body: &mut B,
        max: usize,
        sender: &ClientQuota,
    ) -> Result<ReceivedBody, BodyReadError> {
        let encoding = Encoding::of(headers)?;
        // As it was announced.
        if body.size_hint().lower() > max as u64 {
            return Err(too_large(max));
        }
        let first = first_frame(body).await?;
        let is_tiny = first.is_all && first.bytes.len() <= TINY_BYTES_MAX.min(max);
        if is_tiny && encoding == Encoding::Identity {
            return Ok(ReceivedBody {
                bytes: first.bytes,
                memory: MemoryReservation::default(),
            });
        }
        // On the heap, because a request that does not come here needs no room for it.
        Box::pin(self.read_rest(encoding, first, body, max, sender)).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant or a flag"
    )]
    async fn read_rest<B: http_body::Body<Data = Bytes> + Unpin>(
        &self,
        encoding: Encoding,
        first: FirstFrame,
        body: &mut B,
        max: usize,
        sender: &ClientQuota,
    ) -> Result<ReceivedBody, BodyReadError> {
        let mut memory = MemoryReservation::default();
        let packed = tokio::time::timeout(
            self.timeout,
            self.collect(first, body, max, sender.body_memory(), &mut memory),
        )
        .await
        .map_err(|_| BodyReadError::TimedOut)??;
        if encoding == Encoding::Identity {
            return Ok(ReceivedBody {
                bytes: packed,
                memory,
            });
        }
        // A sender that ignores 429 is refused before its body is decompressed.
        sender
            .may_send_records()
            .map_err(BodyReadError::RateLimited)?;
        let (bytes, unpacked) = self.unpack(encoding, packed, sender).await?;
        memory.add(unpacked);
        Ok(ReceivedBody { bytes, memory })
    }

    async fn unpack(
        &self,
        encoding: Encoding,
        packed: Bytes,
        sender: &ClientQuota,
    ) -> Result<(Bytes, MemoryReservation), BodyReadError> {
        let budgets = sender.body_memory();
        // A body that turns out to be small takes small memory, if there is any. It is decompressed
        // here, in microseconds.
        if packed.len() <= SMALL_BYTES_MAX
            && let Ok(mut memory) = MemoryReservation::small(&self.all, budgets, SMALL_BYTES_MAX)
        {
            let (bytes, ended) = encoding.unpack(&packed, SMALL_BYTES_MAX);
            if bytes.len() <= SMALL_BYTES_MAX {
                ended.inspect_err(|_| sender.charge_refused(packed.len() + bytes.len()))?;
                memory.shrink(bytes.len());
                return Ok((bytes.into(), memory));
            }
        }
        // Reserve the most it could be, wait for that, and release what was not needed after some
        // milliseconds.
        let mut memory =
            MemoryReservation::large_in_turn(&self.all, budgets, UNPACKED_BYTES_MAX).await?;
        let packed_len = packed.len();
        let work = move || encoding.unpack(&packed, UNPACKED_BYTES_MAX);
        let (bytes, ended) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| BodyReadError::Panicked)?;
        let ended = match bytes.len() > UNPACKED_BYTES_MAX {
            true => Err(BodyReadError::TooLarge {
                bytes_max: UNPACKED_BYTES_MAX,
                measured: "unpacked",
            }),
            false => ended,
        };
        ended.inspect_err(|_| sender.charge_refused(packed_len + bytes.len()))?;
        memory.shrink(bytes.len());
        Ok((bytes.into(), memory))
    }

    async fn collect<B: http_body::Body<Data = Bytes> + Unpin>(
        &self,
        first: FirstFrame,
        body: &mut B,
        max: usize,
        sender: &BodyMemoryBudgets,
        memory: &mut MemoryReservation,
    ) -> Result<Bytes, BodyReadError> {
        let FirstFrame {
            bytes: mut first,
            is_all,
        } = first;
        if first.len() > max {
            return Err(too_large(max));
        }
        memory
            .grow(&self.all, sender, first.len(), first.len())
            .await?;
        let mut all = BytesMut::new();
        while !is_all && let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyReadError::BrokenOff)?.into_data() else {
                continue;
            };
            let total = first.len() + all.len() + data.len();
            if total > max {
                return Err(too_large(max));
            }
            memory.grow(&self.all, sender, data.len(), total).await?;
            // Most bodies come in one piece, which is not copied.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    /// An answer for a sender with this budget. One that is larger than half of the budget for
    /// large ones takes half: there may be two of them at once, not none.
    pub fn answer(
        &self,
        bytes: Vec<u8>,
        sender: &BodyMemoryBudgets,
    ) -> Result<Bytes, BodyReadError> {
        let memory = if bytes.len() <= SMALL_BYTES_MAX {
            MemoryReservation::small(&self.all, sender, bytes.len())?
        } else {
            let kib = kib(bytes.len().min(ANSWER_MEMORY_BYTES_MAX));
            let taken = [
                take_now(&self.all.large, kib)?,
                take_now(&sender.large, kib)?,
            ];
            MemoryReservation {
                small: None,
                large: Some(taken),
            }
        };
        Ok(Bytes::from_owner(Answer {
            bytes,
            _memory: memory,
        }))
    }

    /// The same, compressed as the sender asks.
    pub async fn coded_answer(
        &self,
        bytes: Vec<u8>,
        asked: AskedCoding,
        sender: &BodyMemoryBudgets,
    ) -> Result<CodedAnswer<Bytes>, BodyReadError> {
        let is_coded = asked.coding_of(bytes.len()).is_some();
        if is_coded && bytes.len() > COMPRESSED_IN_PLACE_BYTES_MAX {
            let bytes_about = bytes.len();
            let made = || Ok::<_, Infallible>(bytes);
            let Ok(answer) = self.large_answer(bytes_about, asked, sender, made).await?;
            return Ok(answer);
        }
        let CodedAnswer { body, coding } = asked.code(bytes);
        let body = self.answer(body, sender)?;
        Ok(CodedAnswer { body, coding })
    }

    /// The same for an answer that takes a while to make. Its memory is waited for before it is
    /// made.
    pub async fn large_answer<T: Send + 'static>(
        &self,
        bytes_about: usize,
        asked: AskedCoding,
        sender: &BodyMemoryBudgets,
        make: impl FnOnce() -> Result<Vec<u8>, T> + Send + 'static,
    ) -> Result<Result<CodedAnswer<Bytes>, T>, BodyReadError> {
        let bytes = bytes_about.min(ANSWER_MEMORY_BYTES_MAX);
        let memory = MemoryReservation::large_in_turn(&self.all, sender, bytes).await?;
        let made = tokio::task::spawn_blocking(move || Ok(asked.code(make()?)))
            .await
            .map_err(|_| BodyReadError::Panicked)?;
        Ok(made.map(|CodedAnswer { body, coding }| CodedAnswer {
            body: Bytes::from_owner(Answer {
                bytes: body,
                _memory: memory,
            }),
            coding,
        }))
    }

    /// Discards the rest of a refused body, so that the response arrives.
    pub async fn discard<B: http_body::Body + Unpin>(&self, headers: &HeaderMap, body: B) {
        let time_max = DISCARD_TIMEOUT.min(self.timeout);
        lizmon_mtls::discard(headers, body, DISCARDED_BYTES_MAX, time_max).await;
    }
}

/// What has come of a body with the head.
struct FirstFrame {
    bytes: Bytes,
    /// Whether that is the whole body.
    is_all: bool,
}

/// Does not wait: most bodies have come whole, and no timer is set for those.
async fn first_frame<B>(body: &mut B) -> Result<FirstFrame, BodyReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let come = poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;
    let has_ended = matches!(come, Poll::Ready(None));
    let bytes = match come {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(_))) => return Err(BodyReadError::BrokenOff),
        Poll::Ready(None) | Poll::Pending => Bytes::new(),
    };
    let is_all = has_ended || body.is_end_stream();
    Ok(FirstFrame { bytes, is_all })
}

fn too_large(bytes_max: usize) -> BodyReadError {
    BodyReadError::TooLarge {
        bytes_max,
        measured: "on the wire",
    }
}

#[cfg(test)]
mod tests;
