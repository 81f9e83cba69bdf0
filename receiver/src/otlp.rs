//! Metrics as OpenTelemetry sends them: OTLP over HTTP, in protobuf and in JSON.
//! <https://opentelemetry.io/docs/specs/otlp/>
//!
//! | module | what it does |
//! | --- | --- |
//! | [`message`] | the messages, for both encodings |
//! | [`json`] | JSON as protobuf maps it |
//! | [`attribute`] | the values of attributes, and their texts |
//! | `series` | of which host and series a point is |
//! | `measures` | what is kept of a point of each kind |
//! | [`points`](mod@points) | what a request brings, as points of hosts |
//! | [`left_out`] | what of it is left out, and why |
//! | [`answer`] | the answer, which says so |

pub mod answer;
pub mod attribute;
pub mod json;
pub mod left_out;
mod measures;
pub mod message;
pub mod points;
mod series;

use self::json::JsonError;
use self::message::ExportMetricsServiceRequest;
use crate::protobuf::{self, MessageError};

/// The media type of JSON.
pub const JSON_MEDIA_TYPE: &str = "application/json";
/// Fields of one message: 8,192 points with 10 attributes each, as a Collector sends them at once,
/// are 400,000.
pub const FIELDS_MAX: usize = 500_000;
/// Objects of one message in JSON: of what fits into a body, hardly any has more.
pub const OBJECTS_MAX: usize = 300_000;

/// How a message is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtlpEncoding {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

/// Why a body is not a message.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It was to be protobuf.
    #[error(transparent)]
    Protobuf(#[from] MessageError),
    /// It was to be JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
}

impl OtlpEncoding {
    /// Every encoding.
    pub const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    /// What a `Content-Type` says; its parameters change nothing.
    pub fn of(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let mut all = Self::ALL.into_iter();
        all.find(|encoding| media_type.eq_ignore_ascii_case(encoding.media_type()))
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => protobuf::MEDIA_TYPE,
            Self::Json => JSON_MEDIA_TYPE,
        }
    }

    /// The message in a body.
    pub fn parse(self, bytes: &[u8]) -> Result<ExportMetricsServiceRequest, ParseError> {
        Ok(match self {
            Self::Protobuf => protobuf::decode(bytes, FIELDS_MAX)?,
            Self::Json => json::parse(bytes, OBJECTS_MAX)?,
        })
    }
}

#[cfg(test)]
mod tests;
