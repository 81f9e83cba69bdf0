//! What a network client gets: a certificate, or the reason why not.

use std::time::Duration;

use lizmon_protocol::name::SpiffeId;
use rustls_pki_types::CertificateDer;

use super::error::Error;
use crate::ledger::{Entry, LedgerError};
use crate::pki::{CsrError, CsrFormatError};

/// A certificate that was requested over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The holder's identity.
    pub spiffe_id: SpiffeId,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// Its last second.
    pub not_after: u64,
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// Whether it was issued earlier, for a request whose answer was lost.
    pub again: bool,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssuanceError {
    /// There is no signing request.
    #[error(transparent)]
    Body(#[from] CsrFormatError),
    /// The signing request is refused.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// The join token is refused. The client is not told why: [`JoinTokenError`] is for the log.
    #[error("the join token is not valid for this name")]
    Token(#[source] JoinTokenError),
    /// The current certificate cannot be renewed.
    #[error(transparent)]
    Renewal(#[from] RenewalError),
    /// The CA failed.
    #[error(transparent)]
    Ca(#[from] Error),
}

/// Why a join token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// No such token for this name.
    #[error("no such token was issued for this name")]
    Unknown,
    /// Expired, or withdrawn by a revocation.
    #[error("it has expired, or was withdrawn by a revocation")]
    Ended,
    /// Used with another key.
    #[error("it was used before, with another key")]
    Used,
    /// Used, and the certificate is no longer valid.
    #[error("the certificate it was used for is revoked or has expired")]
    CertificateEnded,
}

/// Why a certificate cannot be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    /// Another CA's certificate.
    #[error("this CA has not issued the certificate")]
    Unknown,
    /// It is revoked, or one that it renews is.
    #[error("the certificate, or one that it renews, is revoked")]
    Revoked,
    /// It has expired, or the clock is before the CA's start.
    #[error("the certificate is not valid at this time")]
    NotValidNow,
    /// The holder has too many unused renewals.
    #[error(
        "{valid} certificates that this holder was given by renewal are valid beside this one: use the newest of them, \
         or ask again in {} s", .wait.as_secs()
    )]
    TooMany {
        /// How many.
        valid: usize,
        /// How long to wait before asking again.
        wait: Duration,
    },
}

impl From<LedgerError> for IssuanceError {
    fn from(error: LedgerError) -> Self {
        Self::Ca(error.into())
    }
}

impl Enrolled {
    pub(super) fn new(spiffe_id: SpiffeId, entry: &Entry, again: bool) -> Result<Self, Error> {
        Ok(Self {
            spiffe_id,
            serial: entry.serial.clone(),
            not_after: entry.not_after,
            der: entry.der()?,
            again,
        })
    }
}
