//! Who may sign CRLs: the roots, and those below them, to any depth.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, KeyUsage, X509Certificate};

use crate::signature::{Signature, content, judge};

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityCertificate {
    /// All of it.
    pub der: CertificateDer<'static>,
    /// Its name as text.
    pub subject: String,
    /// The content of its name's DER.
    pub name: Arc<[u8]>,
    /// Its SubjectPublicKeyInfo, DER.
    pub key: Arc<[u8]>,
    signs_crls: bool,
    signs_certificates: bool,
    /// The content of its issuer's name's DER.
    pub issuer_name: Box<[u8]>,
    /// Its issuer's name as text.
    pub issuer: String,
}

impl AuthorityCertificate {
    /// Reads one certificate; `None` if that is no certificate. Whether it is an authority's is not asked yet.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let usages = certificate.key_usage().ok()?.map(|usages| usages.value);
        // RFC 5280 sections 4.2.1.3 and 4.2.1.9. A root of version 1 has no extensions to say it with, and a certificate that
        // says nothing of its key's usage forbids none.
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

    /// Whether it may sign CRLs.
    pub fn signs_crls(&self) -> bool {
        self.signs_crls
    }

    /// Whether it bears its own name as its issuer's.
    pub fn is_self_issued(&self) -> bool {
        *self.name == *self.issuer_name
    }

    fn has_signed(&self, candidate: &Self) -> bool {
        *candidate.issuer_name == *self.name
            && self.signs_certificates
            && candidate.signs_certificates | candidate.signs_crls
            && judge(&candidate.der, &self.key) == Signature::Good
    }
}

/// The roots, and those of `candidates` that a root, or one below it, has signed as an authority. Whoever shows a candidate
/// need not be believed.
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
    // Each round goes one step further down; one that finds nobody is the last.
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
