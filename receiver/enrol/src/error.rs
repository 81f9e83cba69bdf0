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
    /// There was no exchange.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Our own files cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The CA will not.
    #[error("{url} {}: {text} (HTTP {status})", word_for(*status))]
    Refused {
        /// Which CA.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// What it says.
        text: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It is the other server of ours.
    #[error(
        "{url} is a receiver, not liz-ca: liz-ca listens on a port of its own, 8444 unless told otherwise"
    )]
    IsReceiver {
        /// Which server.
        url: BaseUrl,
    },
    /// The root that was asked for is not the one of this CA.
    #[error(
        "{url} is not the CA with the fingerprint {wanted}, its roots have {found}: nothing was sent; \
         compare with `lizctl join-token` or `lizctl init-ca` on the CA, and mind the port"
    )]
    Fingerprint {
        /// Which CA.
        url: BaseUrl,
        /// What was given.
        wanted: RootFingerprint,
        /// What is there.
        found: RootFingerprints,
    },
    /// What came back is not what was asked for.
    #[error("the answer of {url} is not believed: {flaw}")]
    Answer {
        /// Which CA.
        url: BaseUrl,
        /// Why.
        flaw: AnswerFlaw,
    },
    /// Another CA's root is where ours would be written.
    #[error("`{}` is another CA's root: choose another folder with --out", .0.display())]
    OtherRoot(PathBuf),
    /// Two of the files are one, and renewal would write one part over the other.
    #[error(transparent)]
    Shared(#[from] SharedFile),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up with this root")]
    Tls(#[source] rustls::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system's random generator failed.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
}

impl EnrolError {
    /// Whether it is about who we are: asking again as the same will not help.
    pub fn is_refusal_of_us(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 401 | 403),
            Self::Connect(error) => error.is_refusal_of_us(),
            _ => false,
        }
    }

    /// When the CA wants to be asked again, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether it is for a person to mend, here or at the CA, and a CA that is asked again soon can do nothing about it: what it
    /// gives cannot be used, or not be kept.
    pub fn is_for_long(&self) -> bool {
        matches!(
            self,
            Self::Answer { .. } | Self::File(_) | Self::Shared(_) | Self::OtherRoot(_)
        )
    }

    pub(crate) fn is_too_often(&self) -> bool {
        matches!(self, Self::Refused { status: 429, .. })
    }

    /// Whether the CA has decided: nothing that was sent can have been granted.
    pub(crate) fn is_decided(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if (400..500).contains(status) && *status != 408)
    }
}
