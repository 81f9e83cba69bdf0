//! The version of HTTP that is spoken.

use clap::ValueEnum;
use serde::Serialize;

/// The version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1
    #[value(name = "1")]
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2
    #[value(name = "2")]
    #[serde(rename = "2")]
    Two,
}

impl HttpVersion {
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::One => b"http/1.1",
            Self::Two => b"h2",
        }
    }
}
