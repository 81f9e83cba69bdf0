//! What can be wrong with the files.

use std::io;
use std::path::PathBuf;

use lizmon_protocol::name::Role;
use rustls::server::VerifierBuilderError;

use super::Refusal;
use crate::identity::IdentityError;
use crate::revocation::MalformedCrl;

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that cannot be read as what it should be.
    #[error("{file}: cannot read {what}", file = file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// A file without what it should hold.
    #[error("{file}: there should be {what} in it", file = file.display())]
    Empty {
        /// Which file.
        file: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// A file that is no revocation list.
    #[error("{file}", file = file.display())]
    MalformedCrl {
        /// Which file.
        file: PathBuf,
        /// What it is not.
        source: MalformedCrl,
    },
    /// The folder for what is handed in cannot be written.
    #[error("{file}: the revocation list cannot be kept", file = file.display())]
    NotKept {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A certificate of ours that speaks for nobody.
    #[error("{file}: not a certificate of ours", file = file.display())]
    Identity {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: IdentityError,
    },
    /// A certificate of ours for another use.
    #[error("{file}: this certificate is for the role `{role}`, a server needs one from `lizctl issue-receiver`", file = file.display())]
    WrongRole {
        /// Which file.
        file: PathBuf,
        /// What it is for.
        role: Role,
    },
    /// A certificate of ours that peers would refuse.
    #[error("{file}: our own certificate is of no use: {refusal}; issue a new one with `lizctl issue-receiver`", file = file.display())]
    OwnRefused {
        /// Which file.
        file: PathBuf,
        /// What peers would say.
        refusal: Refusal,
    },
    /// The parts do not fit each other.
    #[error("{file}: certificate and key cannot be used together", file = file.display())]
    Unusable {
        /// The certificate's file.
        file: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Roots or revocation lists nobody could be verified with.
    #[error("{file}: these roots and revocation lists cannot be used", file = file.display())]
    Verifier {
        /// The roots' file.
        file: PathBuf,
        /// Why not.
        source: VerifierBuilderError,
    },
}
