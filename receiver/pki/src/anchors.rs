//! What a file of trusted authorities says: the roots are trusted, the others only help to build chains.
//!
//! A file that people call `ca-chain.pem` holds the root and the issuing CAs. Were each of these an anchor, a chain would
//! end at the issuing CA, and no CRL of the root could ever revoke it.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::pem::{self, PemError, PemKind};
use crate::signature::{Signature, judge};

/// The certificates of such a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Anchors {
    /// Those that signed themselves.
    pub roots: Vec<CertificateDer<'static>>,
    /// Authorities that another one signed.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// What has no business there, and is passed over.
    pub passed_over: Vec<IgnoredSection>,
}

/// A section that is of no use among authorities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoredSection {
    /// A key.
    #[error("line {line}: a private key stands among the trusted authorities, and is not used")]
    Key {
        /// Where it begins.
        line: usize,
    },
    /// Somebody's certificate.
    #[error("line {line}: the certificate of {subject} is no authority's, and is not used")]
    Leaf {
        /// Where it begins.
        line: usize,
        /// Whose.
        subject: String,
    },
}

/// Why such a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    /// It is not understood.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A section is not the certificate it says it is.
    #[error("line {line}: the certificate cannot be read: copy it again")]
    Malformed {
        /// Where it begins.
        line: usize,
    },
    /// It holds authorities, and no root.
    #[error(
        "{subject} did not sign itself, so it is no root: add the root's certificate that it leads to"
    )]
    NoRoot {
        /// The first of them.
        subject: String,
    },
}

/// Reads such a file. A CRL in it is an error: here it would not be in force.
pub fn read(bytes: &[u8]) -> Result<Anchors, AnchorsError> {
    let mut found = Anchors::default();
    let mut not_a_root = None;
    for section in pem::read(bytes)? {
        let line = section.line;
        match section.kind {
            PemKind::Certificate => (),
            PemKind::Parameters => continue,
            kind if kind.is_private_key() => {
                found.passed_over.push(IgnoredSection::Key { line });
                continue;
            }
            _ => return Err(section.misplaced("the certificates of authorities").into()),
        }
        let der = CertificateDer::from(section.der);
        let malformed = AnchorsError::Malformed { line };
        let Ok(([], certificate)) = X509Certificate::from_der(&der) else {
            return Err(malformed);
        };
        if is_self_signed(&certificate, &der) {
            webpki::anchor_from_trusted_cert(&der).map_err(|_| malformed)?;
            found.roots.push(der.clone());
            continue;
        }
        let subject = certificate.subject().to_string();
        if certificate.is_ca() {
            not_a_root.get_or_insert(subject);
            found.intermediates.push(der.clone());
        } else {
            not_a_root.get_or_insert(subject.clone());
            found
                .passed_over
                .push(IgnoredSection::Leaf { line, subject });
        }
    }
    match (found.roots.is_empty(), not_a_root) {
        (false, _) => Ok(found),
        (true, Some(subject)) => Err(AnchorsError::NoRoot { subject }),
        (true, None) => Err(PemError::Absent {
            wanted: "certificate of a root",
        }
        .into()),
    }
}

/// By its signature; where that is of an algorithm too old to be verified, by whose key it says it is.
fn is_self_signed(certificate: &X509Certificate<'_>, der: &[u8]) -> bool {
    let is_self_issued = certificate.issuer().as_raw() == certificate.subject().as_raw();
    is_self_issued
        && match judge(der, certificate.public_key().raw) {
            Signature::Good => true,
            Signature::Bad => false,
            Signature::Unsupported => names_its_own_key(certificate),
        }
}

fn names_its_own_key(certificate: &X509Certificate<'_>) -> bool {
    let mut own = None;
    let mut issuers = None;
    for extension in certificate.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                issuers = id.key_identifier.as_ref().map(|id| id.0);
            }
            _ => (),
        }
    }
    issuers.is_none() || issuers == own
}
