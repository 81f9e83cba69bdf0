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
    /// The file is not there, or not ours to read.
    #[error("cannot read the {what} `{}`: check the path and who may read it", path.display())]
    Unreadable {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("there is no {what} in `{}`: it should hold PEM text that starts with -----BEGIN", path.display())]
    Absent {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or holds what does not belong there.
    #[error("the {what} in `{}` cannot be used", path.display())]
    Damaged {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Where the PEM text is broken.
        source: PemError,
    },
    /// The file holds no root that could be trusted.
    #[error("the CA certificate `{}` cannot be used", path.display())]
    Anchors {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: AnchorsError,
    },
    /// The certificate does not say who it speaks for.
    #[error("the certificate `{}` is not one of lizmon's: issue one with lizctl", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ServerIdentityError,
    },
    /// The certificate has ended.
    #[error(
        "the certificate `{}` has expired {} ago: it was valid until {}, and the clock here says {}: join anew with a token, \
         or issue a new one with lizctl",
        path.display(), ApproxDuration(now.saturating_sub(*not_after)), rfc3339(*not_after), rfc3339(*now)
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its last second: epoch seconds.
        not_after: u64,
        /// Our clock.
        now: u64,
    },
    /// The certificate is not good yet.
    #[error(
        "the certificate `{}` is not valid yet, and is good only in {}: it begins at {}, and the clock here says {}: \
         check this machine's clock, and the CA's",
        path.display(), ApproxDuration(not_before.saturating_sub(*now)), rfc3339(*not_before), rfc3339(*now)
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Its first second: epoch seconds.
        not_before: u64,
        /// Our clock.
        now: u64,
    },
    /// No server would look at it.
    #[error("the certificate `{}` cannot be shown to anybody", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Fault,
    },
    /// The key belongs to another certificate.
    #[error("the key `{}` does not belong to the certificate `{}`: give the two that were issued together", key.display(), cert.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// No server would take the new one, and the one in use is good.
    #[error("no server would take the certificate `{}` that is there now: the one from before stays in use", path.display())]
    NoBetter {
        /// The file.
        path: PathBuf,
        /// What a server would say.
        source: Fault,
    },
    /// The file changed hands while we ran.
    #[error("the certificate `{}` is now {found}'s and was {held}'s: restart to change who this is", path.display())]
    IdentityChanged {
        /// The file.
        path: PathBuf,
        /// Who we are.
        held: Box<SpiffeId>,
        /// Who the file says we are.
        found: Box<SpiffeId>,
    },
    /// The TLS library refuses the files for a reason of its own.
    #[error("`{}` cannot be used for TLS", path.display())]
    Tls {
        /// The file it is about.
        path: PathBuf,
        /// Its reason.
        source: rustls::Error,
    },
}

impl CredentialsError {
    /// Stays the same as long as the reason does: what [`Display`](std::fmt::Display) says of clocks is another text each second.
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
