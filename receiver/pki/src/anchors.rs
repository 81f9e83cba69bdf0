//! Reads a file of trusted authorities. The roots are trusted. The others only help to build
//! chains.
//!
//! A file named like `ca-chain.pem` holds the root and the issuing CAs. If each of these were a
//! trust anchor, a chain would end at the issuing CA, and a CRL of the root could never revoke that
//! CA.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::pem::{self, PemError, PemKind};
use crate::signature::{Signature, verify};

/// The contents of a file of trusted authorities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Anchors {
    /// The self-signed authorities.
    pub roots: Vec<CertificateDer<'static>>,
    /// Authorities that another authority signed.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// Sections that do not belong in this file and are ignored.
    pub passed_over: Vec<IgnoredSection>,
}

/// A section that is ignored in a file of authorities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoredSection {
    /// A private key.
    #[error("line {line}: a private key among the CA certificates is ignored")]
    Key {
        /// The line on which the section begins.
        line: usize,
    },
    /// A certificate that is not a CA certificate.
    #[error("line {line}: the certificate of {subject} is not a CA certificate and is ignored")]
    Leaf {
        /// The line on which the section begins.
        line: usize,
        /// The subject of the certificate.
        subject: String,
    },
}

/// Why a file of authorities cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    /// The file is not valid PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A section does not hold a valid certificate.
    #[error("line {line}: the certificate cannot be read: copy it again")]
    Malformed {
        /// The line on which the section begins.
        line: usize,
    },
    /// The file holds authorities, but no root.
    #[error("{subject} is not self-signed, so it is not a root: add the certificate of its root")]
    NoRoot {
        /// The subject of the first authority.
        subject: String,
    },
}

/// Parses a file of authorities. A CRL in it is an error, because it would have no effect there.
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
            _ => return Err(section.misplaced("CA certificates").into()),
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

/// Checks the signature. If the signature algorithm is too old to be verified, compares the key
/// identifiers instead.
fn is_self_signed(certificate: &X509Certificate<'_>, der: &[u8]) -> bool {
    let is_self_issued = certificate.issuer().as_raw() == certificate.subject().as_raw();
    is_self_issued
        && match verify(der, certificate.public_key().raw) {
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
