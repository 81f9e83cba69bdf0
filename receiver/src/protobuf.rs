//! Messages of protobuf that clients send.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`wire`] | how many fields a message has, before it is decoded |

pub mod wire;

use prost::Message;

use self::wire::{Nested, WireError};

/// The media type of all messages.
pub const MEDIA_TYPE: &str = "application/x-protobuf";

/// Why bytes are not a message that is taken.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// They are no protobuf, or have too many fields.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A field has another type, or a text is not UTF-8.
    #[error("the message cannot be decoded")]
    Undecodable(#[source] prost::DecodeError),
}

/// A message whose fields nobody asks for: that it is there is known, and it takes no memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Skipped {}

/// The message in `bytes`, if it has at most `fields_max` fields. A field takes two bytes of a
/// message at least, and some hundred in memory: what bounds the bytes does not bound the memory.
pub fn decode<M: Message + Nested + Default>(
    bytes: &[u8],
    fields_max: usize,
) -> Result<M, MessageError> {
    wire::check::<M>(bytes, fields_max)?;
    M::decode(bytes).map_err(MessageError::Undecodable)
}
