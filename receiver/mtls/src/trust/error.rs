//! What can be wrong with the files.

use std::io;
use std::path::{Path, PathBuf};

use lizmon_pki::anchors::AnchorsError;
use lizmon_pki::path::Fault;
use lizmon_pki::pem::PemError;
use lizmon_protocol::name::Role;
use rustls::server::VerifierBuilderError;

use super::warning::{TrustPart, TrustWarning};
use crate::identity::IdentityError;
use crate::revocation::UnusableCrl;

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that the system does not let us read.
    #[error("{file}: cannot be read", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that cannot be read as what it should be.
    #[error("{file}: cannot read {what}", file = file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Why not.
        source: PemError,
    },
    /// A file that says whom to trust, and cannot be used.
    #[error("{file}", file = file.display())]
    Anchors {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: AnchorsError,
    },
    /// No CRL speaks for somebody without whose CRL nobody is let in.
    #[error("{file}: {}", no_lists(issuers, reasons), file = file.display())]
    NoLists {
        /// Which file.
        file: PathBuf,
        /// Whose CRLs are missing; none if there are none at all.
        issuers: Vec<String>,
        /// What is wrong with CRLs that are there.
        reasons: Vec<String>,
    },
    /// A file that is no CRL.
    #[error("{file}", file = file.display())]
    MalformedCrl {
        /// Which file.
        file: PathBuf,
        /// What it is not.
        source: UnusableCrl,
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
    #[error("{file}: clients would not take our own certificate{}", new_one(source), file = file.display())]
    OwnRefused {
        /// Which file.
        file: PathBuf,
        /// What they would say.
        source: Fault,
    },
    /// The parts do not fit each other.
    #[error("{file}: certificate and key cannot be used together", file = file.display())]
    Unusable {
        /// The certificate's file.
        file: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Roots or CRLs nobody could be verified with.
    #[error("{file}: these roots and revocation lists cannot be used", file = file.display())]
    Verifier {
        /// The roots' file.
        file: PathBuf,
        /// Why not.
        source: VerifierBuilderError,
    },
}

impl TrustError {
    pub(super) fn no_lists(file: PathBuf, issuers: Vec<String>, warnings: &[TrustWarning]) -> Self {
        let reasons = warnings
            .iter()
            .filter(|warning| warning.part == TrustPart::Crls)
            .map(ToString::to_string);
        Self::NoLists {
            file,
            issuers,
            reasons: reasons.collect(),
        }
    }

    /// What is wrong, in one line, without the name of this file.
    pub(super) fn reason(&self, file: &Path) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        let named = format!("{}: ", file.display());
        text.strip_prefix(&named).map(str::to_owned).unwrap_or(text)
    }
}

/// A new certificate mends no clock.
fn new_one(fault: &Fault) -> &'static str {
    match fault {
        Fault::NotYetValid { .. } => "",
        _ => "; issue a new one with `lizctl issue-receiver`",
    }
}

fn no_lists(issuers: &[String], reasons: &[String]) -> String {
    let mut text = match issuers {
        [] => "there should be a certificate revocation list in it".to_owned(),
        issuers => format!(
            "no revocation list of {} can be used, and without one every client is refused",
            issuers.join(" or ")
        ),
    };
    for reason in reasons {
        text.push_str("; ");
        text.push_str(reason);
    }
    text
}
