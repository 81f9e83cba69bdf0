//! The certificates that a receiver has seen: `GET /api/certificates`.

use serde::{Deserialize, Serialize};

use crate::name::SpiffeId;

/// The response: certificates that were trusted when they were presented, and have not expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCertificates {
    /// The time since which certificates are recorded: epoch seconds.
    pub since: u64,
    /// Whether the list is complete. The number of recorded certificates is limited.
    pub complete: bool,
    /// The certificates, sorted by identity and serial number.
    pub certificates: Vec<SeenCertificate>,
}

/// A certificate that a client presented to the receiver, or the receiver's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeenCertificate {
    /// The identity in the certificate.
    pub identity: SpiffeId,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// The name of the issuing CA.
    pub issuer: String,
    /// The last second in which it is valid: epoch seconds.
    pub not_after: u64,
    /// When it was first presented: epoch seconds.
    pub first_seen: u64,
    /// When it was last presented: epoch seconds.
    pub last_seen: u64,
    /// The SHA-256 of its DER in hexadecimal.
    pub sha256: String,
}
