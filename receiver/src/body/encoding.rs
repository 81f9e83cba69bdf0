//! How bodies are compressed: RFC 9110 section 8.4.

use std::io::Read;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::error::BodyReadError;

/// Most members of gzip, or frames of zstd, in one body: `bgzip` makes one of each 64 KiB. An empty
/// one costs as much as a kilobyte to unpack.
pub(super) const MEMBERS_MAX: usize = 256;
/// Largest window a zstd frame may ask for, as a power of two: the largest unpacked body.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The codings a body may have, as `Accept-Encoding` lists them.
pub const CONTENT_CODINGS: &str = "gzip, zstd";

/// How a body is packed: RFC 9110 section 8.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, BodyReadError> {
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
            _ => Err(BodyReadError::UnsupportedEncoding),
        }
    }

    /// What it unpacks to, at most one byte more than `max`, which is enough to know; and whether
    /// that is all of it.
    pub(super) fn unpack(self, packed: &[u8], max: usize) -> (Vec<u8>, Result<(), BodyReadError>) {
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
            let ended = ended.map_err(BodyReadError::Undecodable);
            if ended.is_err() || rest.is_empty() || unpacked.len() > max {
                return (unpacked, ended);
            }
        }
        let refused = BodyReadError::TooManyMembers {
            members_max: MEMBERS_MAX,
        };
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
