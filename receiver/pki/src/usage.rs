//! The extended key usages of certificates: RFC 5280 section 4.2.1.12.

use std::fmt;

/// The extended key usage that a peer's certificate must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Client authentication: clientAuth.
    Client,
    /// Server authentication: serverAuth.
    Server,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "clientAuth",
            Self::Server => "serverAuth",
        })
    }
}
