//! What Prometheus sends and asks for, in its own messages.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`message`] | the messages of remote write 1.0 and of remote read |
//! | [`wire`] | how many fields a message has, before it is decoded |
//! | [`naming`] | what a label of lizmon is called there, and the other way round |
//! | [`selector`] | which series a query means |
//! | [`find`] | those of the hosts that a caller may read |
//! | [`points`] | which intervals answer which time |
//! | [`read`] | the answer to a remote read |
//! | [`listing`] | names: series, labels, values |
//!
//! That a message comes as one block of snappy is the matter of [`body`](crate::body).

pub mod find;
pub mod listing;
pub mod message;
pub mod naming;
pub mod points;
pub mod read;
pub mod selector;
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

/// The message in `bytes`, if it has at most `fields_max` fields. A field takes two bytes of a
/// message at least, and some hundred in memory: what bounds the bytes does not bound the memory.
pub fn decode<M: Message + Nested + Default>(
    bytes: &[u8],
    fields_max: usize,
) -> Result<M, MessageError> {
    wire::check::<M>(bytes, fields_max)?;
    M::decode(bytes).map_err(MessageError::Undecodable)
}

/// Whether a `Content-Type` is that of this message. Without a name of a message it is: remote read
/// has none, and remote write had none at first.
pub fn is_media_type_of(content_type: &str, message: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let is_protobuf = parts
        .next()
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case(MEDIA_TYPE));
    is_protobuf
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("proto") => {
                value.trim_matches('"') == message
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests;
