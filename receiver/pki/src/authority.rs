//! The authorities that may sign CRLs: the roots and all authorities below them, to any depth.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, KeyUsage, X509Certificate};

use crate::signature::{Signature, content, verify};

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityCertificate {
    /// The certificate, DER.
    pub der: CertificateDer<'static>,
    /// The subject as text.
    pub subject: String,
    /// The content of the subject's DER.
    pub name: Arc<[u8]>,
    /// The SubjectPublicKeyInfo, DER.
    pub key: Arc<[u8]>,
    signs_crls: bool,
    signs_certificates: bool,
    /// The content of the issuer's name, DER.
    pub issuer_name: Box<[u8]>,
    /// The issuer's name as text.
    pub issuer: String,
}

impl AuthorityCertificate {
    /// Parses one certificate. Returns `None` if the input is not a certificate. Does not check
    /// whether it is a CA certificate.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let usages = certificate.key_usage().ok()?.map(|usages| usages.value);
        // RFC 5280 sections 4.2.1.3 and 4.2.1.9. A version 1 root has no extensions. A certificate
        // without the key usage extension allows every usage.
        let is_ca = certificate.version().0 == 0 || certificate.is_ca();
        Some(Self {
            subject: certificate.subject().to_string(),
            name: content(certificate.subject().as_raw())?.into(),
            key: certificate.public_key().raw.into(),
            signs_crls: is_ca && usages.is_none_or(KeyUsage::crl_sign),
            signs_certificates: is_ca && usages.is_none_or(KeyUsage::key_cert_sign),
            issuer_name: content(certificate.issuer().as_raw())?.into(),
            issuer: certificate.issuer().to_string(),
            der: der.clone().into_owned(),
        })
    }

    /// Whether this authority may sign CRLs.
    pub fn signs_crls(&self) -> bool {
        self.signs_crls
    }

    /// Whether subject and issuer are the same.
    pub fn is_self_issued(&self) -> bool {
        *self.name == *self.issuer_name
    }

    fn has_signed(&self, candidate: &Self) -> bool {
        *candidate.issuer_name == *self.name
            && self.signs_certificates
            && candidate.signs_certificates | candidate.signs_crls
            && verify(&candidate.der, &self.key) == Signature::Good
    }
}

/// Returns the roots, and those of `candidates` that a root or an authority below a root has signed
/// as a CA. The candidates need not be trusted.
pub fn verified<'a>(
    roots: &[CertificateDer<'_>],
    candidates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Vec<AuthorityCertificate> {
    let mut known: Vec<AuthorityCertificate> = roots
        .iter()
        .filter_map(AuthorityCertificate::read)
        .collect();
    let mut left: Vec<AuthorityCertificate> = Vec::new();
    for candidate in candidates
        .into_iter()
        .filter_map(AuthorityCertificate::read)
    {
        if !left.contains(&candidate) && !known.contains(&candidate) {
            left.push(candidate);
        }
    }
    // Each round goes one level further down. The loop ends when a round finds no authority.
    loop {
        let (found, others): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|candidate| known.iter().any(|above| above.has_signed(candidate)));
        if found.is_empty() {
            return known;
        }
        known.extend(found);
        left = others;
    }
}
