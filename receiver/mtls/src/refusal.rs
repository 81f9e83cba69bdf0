//! Why the certificate of a peer is refused.

use std::error::Error as StdError;
use std::fmt;

use lizmon_pki::path::Fault;
use lizmon_protocol::name::TrustDomain;

use crate::identity::IdentityError;

/// Why a peer's certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// By its chain.
    #[error("the certificate is not taken: {0}")]
    Chain(#[from] Fault),
    /// It speaks for nobody here.
    #[error("the certificate is not one of lizmon's: {0}: issue one with lizctl")]
    Nobody(#[source] IdentityError),
    /// It speaks for somebody elsewhere.
    #[error(
        "the certificate is of the trust domain `{found}`, and here `{ours}` is served: show one of that domain"
    )]
    OtherDomain {
        /// Its own.
        found: TrustDomain,
        /// Ours.
        ours: TrustDomain,
    },
}

impl PeerRefusal {
    /// Whether somebody is revoked.
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Chain(Fault::Revoked(_)))
    }

    /// Whether it is the time: tomorrow, or by another clock, it may be taken.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Chain(fault) if fault.is_about_time())
    }
}

/// A certificate that ended its handshake.
#[derive(Debug)]
pub(crate) struct RefusedCertificate {
    /// Whose it says it is: nobody has vouched for that.
    pub(crate) shown: String,
    /// Why.
    pub(crate) refusal: PeerRefusal,
}

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl StdError for RefusedCertificate {}
