//! Why there is no new certificate.

use std::path::PathBuf;
use std::time::Duration;

use lizmon_pki::certificate_files::{FileError, SharedFile};
use lizmon_pki::credentials::CredentialsError;
use lizmon_transport::error::word_for;
use lizmon_transport::{BaseUrl, ConnectError};

use crate::answer::AnswerFlaw;
use crate::root_fingerprint::{RootFingerprint, RootFingerprints};

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The connection to the CA failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The local credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The CA rejects the request.
    #[error("{url} {}: {text} (HTTP {status})", word_for(*status))]
    Refused {
        /// The URL of the CA.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// The text of the answer.
        text: String,
        /// The Retry-After of the answer.
        retry_after: Option<Duration>,
    },
    /// The server is a receiver.
    #[error("{url} is a receiver, not liz-ca: liz-ca listens on another port, 8444 by default")]
    IsReceiver {
        /// The URL of the server.
        url: BaseUrl,
    },
    /// The CA does not have the expected root.
    #[error(
        "{url} is not the CA with the fingerprint {wanted}, its roots have {found}: nothing was sent; \
         compare with `lizctl join-token` or `lizctl init-ca` on the CA, and mind the port"
    )]
    Fingerprint {
        /// The URL of the CA.
        url: BaseUrl,
        /// The expected fingerprint.
        wanted: RootFingerprint,
        /// The fingerprints of the CA's roots.
        found: RootFingerprints,
    },
    /// The answer does not match the request.
    #[error("{url} sent an invalid answer: {flaw}")]
    Answer {
        /// The URL of the CA.
        url: BaseUrl,
        /// The reason.
        flaw: AnswerFlaw,
    },
    /// The file of roots already holds the root of another CA.
    #[error("`{}` is another CA's root: choose another folder with --out", .0.display())]
    OtherRoot(PathBuf),
    /// Two of the paths are the same file, so that a renewal would overwrite one part with the
    /// other.
    #[error(transparent)]
    Shared(#[from] SharedFile),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up with this root")]
    Tls(#[source] rustls::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key cannot be generated.
    #[error("cannot generate a key")]
    Key(#[from] rcgen::Error),
}

impl EnrolError {
    /// Whether the CA rejects this identity. Retrying with the same identity does not help.
    pub fn is_identity_refused(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 401 | 403),
            Self::Connect(error) => error.is_identity_refused(),
            _ => false,
        }
    }

    /// The Retry-After of the CA, if it sent one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the error needs manual action, here or on the CA, and quick retries cannot help: the
    /// certificate cannot be used or stored.
    pub fn is_for_long(&self) -> bool {
        matches!(
            self,
            Self::Answer { .. } | Self::File(_) | Self::Shared(_) | Self::OtherRoot(_)
        )
    }

    pub(crate) fn is_rate_limited(&self) -> bool {
        matches!(self, Self::Refused { status: 429, .. })
    }

    /// Whether the CA made a final decision, so that no certificate was issued.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if (400..500).contains(status) && *status != 408)
    }
}
