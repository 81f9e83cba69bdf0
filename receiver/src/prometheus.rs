//! What Prometheus sends and asks for, in its own messages.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`message`] | the messages of remote write 1.0 and of remote read |
//! | [`naming`] | what a label of lizmon is called there, and the other way round |
//! | [`selector`] | which series a query means |
//! | [`find`] | those of the hosts that a caller may read |
//! | [`points`] | which intervals answer which time |
//! | [`read`] | the answer to a remote read |
//! | [`listing`] | names: series, labels, values |
//! | [`metadata`] | which metrics are counters |
//! | [`write`](mod@write) | what a remote write brings, as points of hosts |
//!
//! That a message comes as one block of snappy is the matter of [`body`](crate::body).

pub mod find;
pub mod listing;
pub mod message;
pub mod metadata;
pub mod naming;
pub mod points;
pub mod read;
pub mod selector;
pub mod write;

use crate::protobuf::MEDIA_TYPE;

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
