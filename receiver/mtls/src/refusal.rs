//! Why a peer's certificate is rejected.

use std::error::Error as StdError;
use std::fmt;

use lizmon_pki::path::Fault;
use lizmon_protocol::name::TrustDomain;

use crate::identity::IdentityError;

/// Why a peer's certificate is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// The chain is invalid.
    #[error("the certificate is rejected: {0}")]
    Chain(#[from] Fault),
    /// The certificate has no valid ID.
    #[error("the certificate is not a lizmon certificate: {0}: issue one with lizctl")]
    NoIdentity(#[source] IdentityError),
    /// The ID belongs to another trust domain.
    #[error(
        "the certificate is of the trust domain `{found}`, and this server serves `{ours}`: use a certificate of that domain"
    )]
    OtherDomain {
        /// The trust domain of the peer.
        found: TrustDomain,
        /// Our trust domain.
        ours: TrustDomain,
    },
}

impl PeerRefusal {
    /// Whether a certificate is revoked.
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Chain(Fault::Revoked(_)))
    }

    /// Whether the reason is the time: the certificate may be valid later, or by a different clock.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Chain(fault) if fault.is_about_time())
    }
}

/// A certificate that made its handshake fail.
#[derive(Debug)]
pub(crate) struct RefusedCertificate {
    /// The ID or subject in the certificate, which is unverified.
    pub(crate) shown: String,
    /// Why it was rejected.
    pub(crate) refusal: PeerRefusal,
}

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl StdError for RefusedCertificate {}
