//! Bodies of requests and answers: bounded in bytes and in time, and never more of them in memory than there is room
//! for, in all and for each holder. What counts is what has arrived, not what was announced: whoever only begins bodies
//! takes no room. Small bodies have room of their own: they never wait for large ones, not even for their sender's.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use lizmon_mtls::pace::{BodyRooms, Pace};
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
/// What all large bodies may take together. Beyond it requests wait for a moment, and then are told to come again.
const LARGE_KIB_MAX: usize = 256 << 10;
/// What all small bodies may take together.
const SMALL_KIB_MAX: usize = 32 << 10;
/// Largest small body, as it travels and unpacked: an hour of a monitor that samples once a minute.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Most members of gzip, or frames of zstd, in one body: `bgzip` makes one of each 64 KiB. An empty one costs as much as
/// a kilobyte to unpack.
const MEMBERS_MAX: usize = 256;
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

/// The codings a body may have, as `Accept-Encoding` lists them.
pub const CONTENT_CODINGS: &str = "gzip, zstd";

/// Reads bodies, never more at once than there is room for.
#[derive(Debug, Clone)]
pub struct BodyReader {
    all: Arc<BodyRooms>,
    timeout: Duration,
}

/// A body in memory.
#[derive(Debug)]
pub struct TakenBody {
    bytes: Bytes,
    room: Room,
}

/// Room that is taken until this is dropped, of all and of the sender.
#[derive(Debug, Default)]
pub struct Room {
    small: Option<[OwnedSemaphorePermit; 2]>,
    large: Option<[OwnedSemaphorePermit; 2]>,
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
    /// Room for a small body, if there is any at this moment.
    fn small(all: &BodyRooms, sender: &BodyRooms, bytes: usize) -> Result<Self, Rejection> {
        let taken = [
            take_now(&all.small, kib(bytes))?,
            take_now(&sender.small, kib(bytes))?,
        ];
        Ok(Self {
            small: Some(taken),
            large: None,
        })
    }

    /// Room for a large body or a part of it, waited for behind others who want such room.
    async fn large(all: &BodyRooms, of_sender: OwnedSemaphorePermit) -> Result<Self, Rejection> {
        let kib = u32::try_from(of_sender.num_permits()).unwrap_or(u32::MAX);
        let of_all = take_in_turn(&all.large, kib).await?;
        Ok(Self {
            small: None,
            large: Some([of_all, of_sender]),
        })
    }

    /// The same, where the sender's own is waited for as well: others of its requests give it back in a moment.
    async fn large_in_turn(
        all: &BodyRooms,
        sender: &BodyRooms,
        bytes: usize,
    ) -> Result<Self, Rejection> {
        // The sender's own first: who fills that keeps nobody else waiting.
        Self::large(all, take_in_turn(&sender.large, kib(bytes)).await?).await
    }

    /// Takes room for so many bytes more of a body that then has `total` of them. One that is not small any more moves.
    async fn grow(
        &mut self,
        all: &BodyRooms,
        sender: &BodyRooms,
        bytes: usize,
        total: usize,
    ) -> Result<(), Rejection> {
        if total <= SMALL_BYTES_MAX {
            self.add(Self::small(all, sender, bytes)?);
            return Ok(());
        }
        let moved = self
            .small
            .as_ref()
            .map_or(0, |[permit, _]| permit.num_permits());
        let wanted = kib(bytes).saturating_add(u32::try_from(moved).unwrap_or(u32::MAX));
        self.add(Self::large(all, take_now(&sender.large, wanted)?).await?);
        self.small = None;
        Ok(())
    }

    /// Keeps so much of the room, and gives the rest of it back.
    fn shrink(&mut self, bytes: usize) {
        let kib = kib(bytes) as usize;
        for permit in [&mut self.small, &mut self.large]
            .into_iter()
            .flatten()
            .flatten()
        {
            let spare = permit.num_permits().saturating_sub(kib);
            drop(permit.split(spare));
        }
    }

    fn add(&mut self, more: Self) {
        for (taken, more) in [(&mut self.small, more.small), (&mut self.large, more.large)] {
            match (taken.as_mut(), more) {
                (_, None) => (),
                (None, more) => *taken = more,
                (Some(taken), Some(more)) => taken
                    .iter_mut()
                    .zip(more)
                    .for_each(|(taken, more)| taken.merge(more)),
            }
        }
    }
}

fn take_now(room: &Arc<Semaphore>, kib: u32) -> Result<OwnedSemaphorePermit, Rejection> {
    let taken = room.clone().try_acquire_many_owned(kib);
    taken.map_err(|_| Code::Overloaded.into())
}

async fn take_in_turn(room: &Arc<Semaphore>, kib: u32) -> Result<OwnedSemaphorePermit, Rejection> {
    let taken = tokio::time::timeout(ROOM_WAIT, room.clone().acquire_many_owned(kib)).await;
    // The semaphores are never closed: what fails is the wait.
    taken
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Code::Overloaded.into())
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl BodyReader {
    /// A reader that waits no longer than this for a body.
    pub fn new(timeout: Duration) -> Self {
        Self {
            all: Arc::new(BodyRooms::new(SMALL_KIB_MAX, LARGE_KIB_MAX)),
            timeout,
        }
    }

    /// The body, unpacked, of a sender of this pace, if it has at most `max` bytes on the wire.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
        max: usize,
        sender: &Pace,
    ) -> Result<TakenBody, Rejection> {
        let encoding = Encoding::of(headers)?;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > max) {
            return Err(too_large(max, "on the wire"));
        }
        let mut room = Room::default();
        let packed = tokio::time::timeout(
            self.timeout,
            self.collect(body, max, sender.rooms(), &mut room),
        )
        .await
        .map_err(|_| Rejection::from(Code::RequestTimeout))??;
        if encoding == Encoding::Identity {
            return Ok(TakenBody {
                bytes: packed,
                room,
            });
        }
        // Whoever was told to wait with such work is refused before there is any.
        sender.may_send_records().map_err(Rejection::rate_limited)?;
        let (bytes, unpacked) = self.unpack(encoding, packed, sender).await?;
        room.add(unpacked);
        Ok(TakenBody { bytes, room })
    }

    async fn unpack(
        &self,
        encoding: Encoding,
        packed: Bytes,
        sender: &Pace,
    ) -> Result<(Bytes, Room), Rejection> {
        let rooms = sender.rooms();
        // What turns out to be small takes small room, if there is any. It is unpacked here: that takes microseconds.
        if packed.len() <= SMALL_BYTES_MAX
            && let Ok(mut room) = Room::small(&self.all, rooms, SMALL_BYTES_MAX)
        {
            let (bytes, ended) = encoding.unpack(&packed, SMALL_BYTES_MAX);
            if bytes.len() <= SMALL_BYTES_MAX {
                ended.inspect_err(|_| sender.charge_refused(packed.len() + bytes.len()))?;
                room.shrink(bytes.len());
                return Ok((bytes.into(), room));
            }
        }
        // Waited for, and given back but for what was needed: it is the most it could be, and taken for milliseconds.
        let mut room = Room::large_in_turn(&self.all, rooms, UNPACKED_BYTES_MAX).await?;
        let packed_len = packed.len();
        let work = move || encoding.unpack(&packed, UNPACKED_BYTES_MAX);
        let (bytes, ended) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Rejection::from(Code::InternalError))?;
        let ended = match bytes.len() > UNPACKED_BYTES_MAX {
            true => Err(too_large(UNPACKED_BYTES_MAX, "unpacked")),
            false => ended,
        };
        ended.inspect_err(|_| sender.charge_refused(packed_len + bytes.len()))?;
        room.shrink(bytes.len());
        Ok((bytes.into(), room))
    }

    async fn collect(
        &self,
        body: &mut Body,
        max: usize,
        sender: &BodyRooms,
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
            let total = first.len() + all.len() + data.len();
            if total > max {
                return Err(too_large(max, "on the wire"));
            }
            room.grow(&self.all, sender, data.len(), total).await?;
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

    /// An answer for a sender who may take up these rooms. One that is larger than half of the large room takes half:
    /// there may be two of them at once, not none.
    pub fn answer(&self, bytes: Vec<u8>, sender: &BodyRooms) -> Result<Bytes, Rejection> {
        let room = if bytes.len() <= SMALL_BYTES_MAX {
            Room::small(&self.all, sender, bytes.len())?
        } else {
            let kib = kib(bytes.len().min(ANSWER_ROOM_BYTES_MAX));
            let taken = [
                take_now(&self.all.large, kib)?,
                take_now(&sender.large, kib)?,
            ];
            Room {
                small: None,
                large: Some(taken),
            }
        };
        Ok(Bytes::from_owner(Answer { bytes, _room: room }))
    }

    /// The same for an answer that takes a while to make. Its room is waited for before it is made.
    pub async fn large_answer<T: Send + 'static>(
        &self,
        bytes_about: usize,
        sender: &BodyRooms,
        make: impl FnOnce() -> Result<Vec<u8>, T> + Send + 'static,
    ) -> Result<Result<Bytes, T>, Rejection> {
        let bytes = bytes_about.min(ANSWER_ROOM_BYTES_MAX);
        let room = Room::large_in_turn(&self.all, sender, bytes).await?;
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

    /// What it unpacks to, at most one byte more than `max`, which is enough to know; and whether that is all of it.
    fn unpack(self, packed: &[u8], max: usize) -> (Vec<u8>, Result<(), Rejection>) {
        let mut unpacked = Vec::new();
        let mut rest = packed;
        for _ in 0..MEMBERS_MAX {
            let left = (max + 1 - unpacked.len()) as u64;
            let ended = match self {
                Self::Identity => rest
                    .take(left)
                    .read_to_end(&mut unpacked)
                    .map(|_| rest = &[]),
                Self::Gzip => {
                    let mut member = flate2::bufread::GzDecoder::new(rest);
                    let ended = member.by_ref().take(left).read_to_end(&mut unpacked);
                    rest = member.into_inner();
                    ended.map(|_| ())
                }
                Self::Zstd => unpack_frame(&mut rest, left, &mut unpacked),
            };
            let ended = ended.map_err(|error| {
                Rejection::from(Code::MalformedJson)
                    .with_detail(format!("the body cannot be unpacked: {error}"))
            });
            if ended.is_err() || rest.is_empty() || unpacked.len() > max {
                return (unpacked, ended);
            }
        }
        let detail = format!("a packed body has at most {MEMBERS_MAX} members or frames");
        let refused = Rejection::from(Code::BodyTooLarge).with_detail(detail);
        (unpacked, Err(refused))
    }
}

fn unpack_frame(rest: &mut &[u8], bytes_max: u64, unpacked: &mut Vec<u8>) -> std::io::Result<()> {
    let mut frame = zstd::stream::read::Decoder::with_buffer(*rest)?.single_frame();
    frame.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    frame.by_ref().take(bytes_max).read_to_end(unpacked)?;
    *rest = frame.finish();
    Ok(())
}

#[cfg(test)]
mod tests;
