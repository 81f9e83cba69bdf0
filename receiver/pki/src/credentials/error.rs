//! Why credentials cannot be used.

use std::io;
use std::path::PathBuf;

use crate::anchors::AnchorsError;
use crate::date::{ApproxDuration, rfc3339};
use crate::path::Fault;
use crate::pem::PemError;
use lizmon_protocol::name::SpiffeId;

use super::server_verifier::ServerIdentityError;

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file does not exist or is not readable.
    #[error("cannot read the {what} `{}`: check the path and its permissions", path.display())]
    Unreadable {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file does not hold the expected PEM section.
    #[error("there is no {what} in `{}`: it should hold PEM text that starts with -----BEGIN", path.display())]
    Absent {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or holds a section that does not belong there.
    #[error("the {what} in `{}` cannot be used", path.display())]
    Damaged {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Where the PEM text is broken.
        source: PemError,
    },
    /// The file holds no usable root.
    #[error("the CA certificate `{}` cannot be used", path.display())]
    Anchors {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: AnchorsError,
    },
    /// The certificate has no valid identity.
    #[error("the certificate `{}` is not a lizmon certificate: issue one with lizctl", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ServerIdentityError,
    },
    /// The certificate has expired.
    #[error(
        "the certificate `{}` has expired {} ago: it was valid until {}, and the clock here says {}: join again with a token, \
         or issue a new one with lizctl",
        path.display(), ApproxDuration(now.saturating_sub(*not_after)), rfc3339(*not_after), rfc3339(*now)
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its last valid second: epoch seconds.
        not_after: u64,
        /// The current time of the local clock: epoch seconds.
        now: u64,
    },
    /// The certificate is not valid yet.
    #[error(
        "the certificate `{}` is not valid yet, and is good only in {}: it begins at {}, and the clock here says {}: \
         check this machine's clock, and the CA's",
        path.display(), ApproxDuration(not_before.saturating_sub(*now)), rfc3339(*not_before), rfc3339(*now)
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Its first valid second: epoch seconds.
        not_before: u64,
        /// The current time of the local clock: epoch seconds.
        now: u64,
    },
    /// The certificate cannot be presented to any server.
    #[error("the certificate `{}` cannot be used as a client certificate", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Fault,
    },
    /// The key does not belong to the certificate.
    #[error("the key `{}` does not belong to the certificate `{}`: give the two that were issued together", key.display(), cert.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// Every server would reject the new certificate, and the one in use is valid.
    #[error("servers would reject the new certificate `{}`: the previous one stays in use", path.display())]
    NoBetter {
        /// The file.
        path: PathBuf,
        /// Why a server would reject it.
        source: Fault,
    },
    /// The certificate in the file has another identity than the one in use.
    #[error("the certificate `{}` is now {found}'s and was {held}'s: restart to change the identity", path.display())]
    IdentityChanged {
        /// The file.
        path: PathBuf,
        /// The identity in use.
        held: Box<SpiffeId>,
        /// The identity in the file.
        found: Box<SpiffeId>,
    },
    /// rustls rejects the files for another reason.
    #[error("`{}` cannot be used for TLS", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// The error of rustls.
        source: rustls::Error,
    },
}

impl CredentialsError {
    /// A text that changes only if the reason changes. The [`Display`](std::fmt::Display) text may
    /// contain the current time, which changes every second.
    pub fn reason(&self) -> String {
        let kind = std::mem::discriminant(self);
        match self {
            Self::Expired { path, .. } | Self::NotYetValid { path, .. } => {
                format!("{} {kind:?}", path.display())
            }
            Self::NoBetter { path, source } | Self::Unusable { path, source } => {
                let fault = std::mem::discriminant(source);
                format!("{} {kind:?} {fault:?}", path.display())
            }
            error => crate::error_chain::in_one_line(error),
        }
    }
}
