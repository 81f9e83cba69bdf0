//! Bodies of requests and answers: bounded in bytes and in time, and never more of them in memory than there is room
//! for, in all and for each certificate. What counts is what has arrived, not what was announced: whoever only begins
//! bodies takes no room.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use lizmon_protocol::problem::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Rejection;

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
/// What one answer takes of its asker's room at most: half of it.
const ANSWER_ROOM_BYTES_MAX: usize = 16 << 20;
/// How much of a refused body is read and thrown away, so that the answer arrives.
const DISCARDED_BYTES_MAX: usize = 2 * CRL_BYTES_MAX;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a packed body waits for room to be unpacked in, and a large answer for room to be made in.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// A packed body beyond this is unpacked beside the tasks that serve others.
const UNPACKED_IN_PLACE_MAX: usize = 1 << 10;

/// The codings a body may have, as `Accept-Encoding` lists them.
pub const CONTENT_CODINGS: &str = "gzip, zstd";

/// Reads bodies, never more at once than there is room for.
#[derive(Debug, Clone)]
pub struct BodyReader {
    room: Arc<Semaphore>,
    timeout: Duration,
}

/// A body in memory.
#[derive(Debug)]
pub struct TakenBody {
    bytes: Bytes,
    room: Room,
}

/// Room that is taken until this is dropped.
#[derive(Debug, Default)]
pub struct Room {
    taken: Option<[OwnedSemaphorePermit; 2]>,
}

impl TakenBody {
    /// The body, unpacked.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lets go of the body, but not of its room: what was made of it takes about as much.
    pub fn into_room(self) -> Room {
        self.room
    }
}

/// An answer's bytes with the room they take until the last of them is sent: whoever asks much and reads nothing fills
/// its own room.
struct Answer {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    /// Room that others give back in a moment.
    async fn waited_for(of_all: &Arc<Semaphore>, of_sender: &Arc<Semaphore>, bytes: usize) -> Self {
        let kib = kib(bytes);
        // The sender's own first: who fills that keeps nobody else waiting.
        let sender = of_sender.clone().acquire_many_owned(kib).await;
        let all = of_all.clone().acquire_many_owned(kib).await;
        // Neither semaphore is ever closed.
        Self {
            taken: all.ok().zip(sender.ok()).map(|(all, sender)| [all, sender]),
        }
    }

    /// Keeps so much of another room, and gives the rest of it back.
    fn keep_of(&mut self, other: Self, bytes: usize) {
        let kib = kib(bytes) as usize;
        let Some(mut other) = other.taken else { return };
        let kept = other
            .each_mut()
            .map(|permit| permit.split(kib.min(permit.num_permits())));
        if let [Some(all), Some(sender)] = kept {
            self.add([all, sender]);
        }
    }

    fn add(&mut self, more: [OwnedSemaphorePermit; 2]) {
        match &mut self.taken {
            None => self.taken = Some(more),
            Some(taken) => taken
                .iter_mut()
                .zip(more)
                .for_each(|(taken, more)| taken.merge(more)),
        }
    }

    fn take_more(
        &mut self,
        of_all: &Arc<Semaphore>,
        of_sender: &Arc<Semaphore>,
        bytes: usize,
    ) -> Result<(), Rejection> {
        let take = |room: &Arc<Semaphore>| {
            let taken = room.clone().try_acquire_many_owned(kib(bytes));
            taken.map_err(|_| Rejection::from(Code::Overloaded))
        };
        self.add([take(of_all)?, take(of_sender)?]);
        Ok(())
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl BodyReader {
    /// A reader that waits no longer than this for a body.
    pub fn new(timeout: Duration) -> Self {
        Self {
            room: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            timeout,
        }
    }

    /// The body, unpacked, of a sender who may take up this room, if it has at most `max` bytes on the wire.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
        max: usize,
        sender: &Arc<Semaphore>,
    ) -> Result<TakenBody, Rejection> {
        let encoding = Encoding::of(headers)?;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > max) {
            return Err(too_large(max, "on the wire"));
        }
        let mut room = Room::default();
        let packed = tokio::time::timeout(self.timeout, self.collect(body, max, sender, &mut room))
            .await
            .map_err(|_| Rejection::from(Code::RequestTimeout))??;
        if encoding == Encoding::Identity {
            return Ok(TakenBody {
                bytes: packed,
                room,
            });
        }
        // Waited for, and given back but for what was needed: it is the most it could be, and taken for milliseconds.
        let unpacking = tokio::time::timeout(
            ROOM_WAIT,
            Room::waited_for(&self.room, sender, UNPACKED_BYTES_MAX),
        )
        .await
        .map_err(|_| Rejection::from(Code::Overloaded))?;
        let bytes = encoding.unpack(packed).await?;
        room.keep_of(unpacking, bytes.len());
        Ok(TakenBody { bytes, room })
    }

    async fn collect(
        &self,
        body: &mut Body,
        max: usize,
        sender: &Arc<Semaphore>,
        room: &mut Room,
    ) -> Result<Bytes, Rejection> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broke_off =
                |_| Rejection::from(Code::MalformedJson).with_detail("the body broke off");
            let Ok(data) = frame.map_err(broke_off)?.into_data() else {
                continue;
            };
            if first.len() + all.len() + data.len() > max {
                return Err(too_large(max, "on the wire"));
            }
            room.take_more(&self.room, sender, data.len())?;
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

    /// An answer for a sender who may take up this room. One that is larger than half of it takes half: there may be
    /// two of them at once, not none.
    pub fn answer(&self, bytes: Vec<u8>, sender: &Arc<Semaphore>) -> Result<Bytes, Rejection> {
        let mut room = Room::default();
        room.take_more(&self.room, sender, bytes.len().min(ANSWER_ROOM_BYTES_MAX))?;
        Ok(Bytes::from_owner(Answer { bytes, _room: room }))
    }

    /// The same for an answer that takes a while to make. Its room is waited for before it is made.
    pub async fn large_answer<T: Send + 'static>(
        &self,
        bytes_about: usize,
        sender: &Arc<Semaphore>,
        make: impl FnOnce() -> Result<Vec<u8>, T> + Send + 'static,
    ) -> Result<Result<Bytes, T>, Rejection> {
        let bytes = bytes_about.min(ANSWER_ROOM_BYTES_MAX);
        let room = tokio::time::timeout(ROOM_WAIT, Room::waited_for(&self.room, sender, bytes))
            .await
            .map_err(|_| Rejection::from(Code::Overloaded))?;
        let made = tokio::task::spawn_blocking(make)
            .await
            .map_err(|_| Rejection::from(Code::InternalError))?;
        Ok(made.map(|bytes| Bytes::from_owner(Answer { bytes, _room: room })))
    }

    /// Throws away what is left of a body that was refused, so that the answer arrives.
    pub async fn discard(&self, headers: &HeaderMap, body: Body) {
        let time_max = DISCARD_TIMEOUT.min(self.timeout);
        lizmon_mtls::discard(headers, body, DISCARDED_BYTES_MAX, time_max).await;
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
        if packed.len() <= UNPACKED_IN_PLACE_MAX {
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use lizmon_mtls::limits::BODIES_KIB_PER_CERTIFICATE_MAX;

    fn sender() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(BODIES_KIB_PER_CERTIFICATE_MAX))
    }

    async fn read(
        reader: &BodyReader,
        sender: &Arc<Semaphore>,
        packed: &[u8],
    ) -> Result<TakenBody, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        let mut body = Body::from(packed.to_vec());
        reader
            .read(&headers, &mut body, BODY_BYTES_MAX, sender)
            .await
            .map_err(|rejection| rejection.code())
    }

    /// One certificate that fills its room leaves the others theirs; what is let go of can be taken again.
    #[tokio::test]
    async fn no_sender_takes_anothers_room() {
        let reader = BodyReader::new(BODY_TIMEOUT);
        let (greedy, other) = (sender(), sender());
        let mib = vec![b' '; BODY_BYTES_MAX];
        let take = async |sender: &Arc<Semaphore>| {
            let mut body = Body::from(mib.clone());
            let taken = reader
                .read(&HeaderMap::new(), &mut body, BODY_BYTES_MAX, sender)
                .await;
            taken
                .map(TakenBody::into_room)
                .map_err(|rejection| rejection.code())
        };
        let mut held = Vec::new();
        let refused = loop {
            match take(&greedy).await {
                Ok(room) => held.push(room),
                Err(code) => break code,
            }
        };
        assert_eq!(refused, Code::Overloaded);
        assert_eq!(
            held.len(),
            (BODIES_KIB_PER_CERTIFICATE_MAX << 10) / BODY_BYTES_MAX
        );
        assert!(take(&other).await.is_ok());
        held.pop();
        assert!(take(&greedy).await.is_ok());
    }

    /// A fleet that comes back sends packed batches all at once: small ones do not take the room of large ones.
    #[tokio::test]
    async fn many_small_packed_bodies_fit_at_once() {
        let reader = BodyReader::new(BODY_TIMEOUT);
        let packed = zstd::encode_all(&[b' '; 15_000][..], 0).unwrap();
        let mut held = Vec::new();
        for _ in 0..500 {
            held.push(read(&reader, &sender(), &packed).await.unwrap().into_room());
        }
        assert_eq!(
            reader.room.available_permits(),
            BODIES_KIB_MAX - 500 * (15 + 1)
        );
        drop(held);
        assert_eq!(reader.room.available_permits(), BODIES_KIB_MAX);
    }

    #[tokio::test]
    async fn bodies_unpacked_at_and_over_the_limit() {
        let reader = BodyReader::new(BODY_TIMEOUT);
        for (bytes, expected) in [
            (UNPACKED_BYTES_MAX, Ok(UNPACKED_BYTES_MAX)),
            (UNPACKED_BYTES_MAX + 1, Err(Code::BodyTooLarge)),
            (200 * UNPACKED_BYTES_MAX, Err(Code::BodyTooLarge)),
        ] {
            let packed = zstd::encode_all(std::io::repeat(b' ').take(bytes as u64), 0).unwrap();
            let got = read(&reader, &sender(), &packed).await;
            assert_eq!(got.map(|body| body.bytes().len()), expected, "{bytes}");
        }
    }
}
