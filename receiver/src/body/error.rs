//! Why a body was not read.

use std::io;
use std::time::Duration;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyReadError {
    /// It has more bytes than are accepted.
    #[error("a body has at most {bytes_max} bytes {measured}")]
    TooLarge {
        /// How many are accepted.
        bytes_max: usize,
        /// `on the wire` or `unpacked`.
        measured: &'static str,
    },
    /// It is compressed in too many parts.
    #[error("a compressed body has at most {members_max} members or frames")]
    TooManyMembers {
        /// How many are accepted.
        members_max: usize,
    },
    /// It did not arrive in time.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The sender ended it early.
    #[error("the body ended early")]
    BrokenOff,
    /// It cannot be decompressed.
    #[error("the body cannot be decompressed: {0}")]
    Undecodable(io::Error),
    /// It is compressed in another way than is supported.
    #[error("the body has an unsupported encoding")]
    UnsupportedEncoding,
    /// It is no block of snappy, where it has to be one.
    #[error("the body must be one block of snappy, and say so: `Content-Encoding: snappy`")]
    NotSnappy,
    /// The sender has to wait for so long.
    #[error("the sender has to wait for {0:?}")]
    RateLimited(Duration),
    /// There was no memory for it in time.
    #[error("no memory is free for the body")]
    OutOfMemory,
    /// A defect of ours.
    #[error("reading the body panicked")]
    Panicked,
}
