//! Errors in trust files.

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
    /// A file cannot be read because of a system error.
    #[error("{file}: cannot be read", file = file.display())]
    File {
        /// The path of the file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be parsed.
    #[error("{file}: cannot read {what}", file = file.display())]
    Unreadable {
        /// The path of the file.
        file: PathBuf,
        /// The expected contents.
        what: &'static str,
        /// The cause.
        source: PemError,
    },
    /// The file of trusted roots cannot be used.
    #[error("{file}", file = file.display())]
    Anchors {
        /// The path of the file.
        file: PathBuf,
        /// The cause.
        source: AnchorsError,
    },
    /// A required CRL is missing. Without it, all clients would be rejected.
    #[error("{file}: {}", no_crls(issuers, reasons), file = file.display())]
    NoLists {
        /// The path of the file.
        file: PathBuf,
        /// The issuers whose CRLs are missing; empty if there are no CRLs at all.
        issuers: Vec<String>,
        /// The problems of the CRLs that are present.
        reasons: Vec<String>,
    },
    /// A file contains a malformed CRL.
    #[error("{file}", file = file.display())]
    MalformedCrl {
        /// The path of the file.
        file: PathBuf,
        /// The cause.
        source: UnusableCrl,
    },
    /// The directory for uploaded CRLs is not writable.
    #[error("{file}: the CRL cannot be saved", file = file.display())]
    NotKept {
        /// The path of the file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Our certificate has no valid ID.
    #[error("{file}: not a lizmon certificate", file = file.display())]
    Identity {
        /// The path of the file.
        file: PathBuf,
        /// The cause.
        source: IdentityError,
    },
    /// Our certificate is for another role.
    #[error("{file}: this certificate is for the role `{role}`, {wanted}", file = file.display())]
    WrongRole {
        /// The path of the file.
        file: PathBuf,
        /// The role in the certificate.
        role: Role,
        /// What is needed, and where it comes from.
        wanted: &'static str,
    },
    /// Clients would reject our certificate.
    #[error("{file}: clients would reject the server certificate{}", new_one(source), file = file.display())]
    OwnRefused {
        /// The path of the file.
        file: PathBuf,
        /// Why clients would reject it.
        source: Fault,
    },
    /// The certificate and the key do not match.
    #[error("{file}: certificate and key cannot be used together", file = file.display())]
    Unusable {
        /// The path of the certificate.
        file: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The roots or CRLs cannot be used for verification.
    #[error("{file}: these roots and CRLs cannot be used", file = file.display())]
    Verifier {
        /// The path of the file of roots.
        file: PathBuf,
        /// The cause.
        source: VerifierBuilderError,
    },
}

impl TrustError {
    pub(super) fn no_crls(file: PathBuf, issuers: Vec<String>, warnings: &[TrustWarning]) -> Self {
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

    /// The error in one line, without the path `file`.
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

/// A new certificate does not help if the clock is wrong.
fn new_one(fault: &Fault) -> &'static str {
    match fault {
        Fault::NotYetValid { .. } => "",
        _ => "; issue a new one with `lizctl issue-receiver`",
    }
}

fn no_crls(issuers: &[String], reasons: &[String]) -> String {
    let mut text = match issuers {
        [] => "it contains no certificate revocation list (CRL)".to_owned(),
        issuers => format!(
            "there is no usable CRL of {}, and without one every client is refused",
            issuers.join(" or ")
        ),
    };
    for reason in reasons {
        text.push_str("; ");
        text.push_str(reason);
    }
    text
}
