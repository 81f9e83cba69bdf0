//! Which certificates a receiver has seen: `GET /api/certificates`.

use serde::{Deserialize, Serialize};

use crate::name::SpiffeId;

/// The answer: certificates that were trusted when they were shown, and have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCertificates {
    /// Since when they are remembered: epoch seconds.
    pub since: u64,
    /// Whether there are all of them: there is room for so many.
    pub complete: bool,
    /// By identity and serial number.
    pub certificates: Vec<SeenCertificate>,
}

/// One certificate that was shown to a receiver, or that it shows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeenCertificate {
    /// Whom it speaks for.
    pub identity: SpiffeId,
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// The name of the CA that signed it.
    pub issuer: String,
    /// Its last second: epoch seconds.
    pub not_after: u64,
    /// When it was shown first: epoch seconds.
    pub first_seen: u64,
    /// When it was shown last: epoch seconds.
    pub last_seen: u64,
    /// SHA-256 of its DER in hexadecimal.
    pub sha256: String,
}
