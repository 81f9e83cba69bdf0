//! The parts of trust as they were read, before they are put together.

use lizmon_pki::anchors::Anchors;
use lizmon_pki::crl::Crl;
use rustls_pki_types::CertificateDer;

use super::server_pair::ServerPair;
use super::warning::TrustWarning;

/// What trust is made of.
pub(super) struct TrustParts {
    pub(super) own: ServerPair,
    pub(super) anchors: Anchors,
    pub(super) crls: Vec<Crl>,
    /// Authorities that signed CRLs, and that stand in no file of ours.
    pub(super) known: Vec<CertificateDer<'static>>,
}

/// What was read, and what is to be said of it.
pub(super) struct TrustContents {
    pub(super) parts: TrustParts,
    pub(super) warnings: Vec<TrustWarning>,
    pub(super) notes: Vec<String>,
}
