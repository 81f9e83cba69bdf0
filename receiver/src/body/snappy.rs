//! Bodies that are one block of snappy: Prometheus sends no others.
//!
//! A block begins with the size of what is in it. So that much memory is reserved, and nothing is
//! unpacked that would have more than is taken.

use std::io;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use lizmon_mtls::client_quota::ClientQuota;

use super::error::BodyReadError;
use super::memory::{MemoryReservation, SMALL_BYTES_MAX};
use super::{BodyReader, ReceivedBody, UNPACKED_BYTES_MAX, first_frame, too_large};

/// As `Content-Encoding` names it.
pub const SNAPPY: &str = "snappy";

impl BodyReader {
    /// The sender's body, unpacked, if it is a block of snappy of at most `max` bytes on the wire.
    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant or a flag"
    )]
    pub async fn read_snappy<B: http_body::Body<Data = Bytes> + Unpin>(
        &self,
        headers: &HeaderMap,
        body: &mut B,
        max: usize,
        sender: &ClientQuota,
    ) -> Result<ReceivedBody, BodyReadError> {
        if !is_snappy(headers) {
            return Err(BodyReadError::NotSnappy);
        }
        // As it was announced.
        if body.size_hint().lower() > max as u64 {
            return Err(too_large(max));
        }
        let mut memory = MemoryReservation::default();
        let first = first_frame(body).await?;
        let all = self.collect(first, body, max, sender.body_memory(), &mut memory);
        let packed = tokio::time::timeout(self.timeout, all)
            .await
            .map_err(|_| BodyReadError::TimedOut)??;
        // A sender that ignores 429 is refused before its body is unpacked.
        sender
            .may_send_records()
            .map_err(BodyReadError::RateLimited)?;
        let (bytes, unpacked) = self.unpack_block(packed, sender).await?;
        memory.add(unpacked);
        Ok(ReceivedBody { bytes, memory })
    }

    async fn unpack_block(
        &self,
        packed: Bytes,
        sender: &ClientQuota,
    ) -> Result<(Bytes, MemoryReservation), BodyReadError> {
        let packed_len = packed.len();
        let charge = |_: &BodyReadError| sender.charge_refused(packed_len);
        let bytes = unpacked_len(&packed).inspect_err(charge)?;
        let budgets = sender.body_memory();
        if bytes <= SMALL_BYTES_MAX
            && let Ok(memory) = MemoryReservation::small(&self.all, budgets, bytes)
        {
            return Ok((unpack(&packed).inspect_err(charge)?, memory));
        }
        let memory = MemoryReservation::large_in_turn(&self.all, budgets, bytes).await?;
        let unpacked = tokio::task::spawn_blocking(move || unpack(&packed))
            .await
            .map_err(|_| BodyReadError::Panicked)?;
        Ok((unpacked.inspect_err(charge)?, memory))
    }
}

fn is_snappy(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let value = values.next().and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.trim().eq_ignore_ascii_case(SNAPPY)) && values.next().is_none()
}

/// How much is in a block, as it says itself.
fn unpacked_len(packed: &[u8]) -> Result<usize, BodyReadError> {
    match snap::raw::decompress_len(packed).map_err(undecodable)? {
        len if len > UNPACKED_BYTES_MAX => Err(BodyReadError::TooLarge {
            bytes_max: UNPACKED_BYTES_MAX,
            measured: "unpacked",
        }),
        len => Ok(len),
    }
}

/// All that is in a block, which is as much as it says.
fn unpack(packed: &[u8]) -> Result<Bytes, BodyReadError> {
    let unpacked = snap::raw::Decoder::new().decompress_vec(packed);
    unpacked.map(Bytes::from).map_err(undecodable)
}

fn undecodable(error: snap::Error) -> BodyReadError {
    BodyReadError::Undecodable(io::Error::from(error))
}

#[cfg(test)]
mod tests;
