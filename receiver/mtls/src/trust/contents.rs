//! The parts of a trust as read from the files, before they are assembled.

use lizmon_pki::anchors::Anchors;
use lizmon_pki::crl::Crl;
use rustls_pki_types::CertificateDer;

use super::server_pair::ServerPair;
use super::warning::TrustWarning;

/// The parts of a trust.
pub(super) struct TrustParts {
    pub(super) own: ServerPair,
    pub(super) anchors: Anchors,
    pub(super) crls: Vec<Crl>,
    /// Authorities that signed CRLs and are in none of our files.
    pub(super) known: Vec<CertificateDer<'static>>,
}

/// What was read, with warnings and notes about it.
pub(super) struct TrustContents {
    pub(super) parts: TrustParts,
    pub(super) warnings: Vec<TrustWarning>,
    pub(super) notes: Vec<String>,
}
