//! CRL files: those from an operator, and the one that stores received CRLs.

use std::io;
use std::path::Path;

use lizmon_pki::atomic_file::{self, Access};
use lizmon_pki::crl::{Crl, UnusableCrl};
use lizmon_pki::pem;
use rustls_pki_types::CertificateDer;

use super::error::TrustError;
use super::files::read;

/// The contents of a CRL file.
#[derive(Default)]
pub(super) struct CrlFile {
    pub(super) crls: Vec<Crl>,
    /// Certificates in the same file, which may include the issuers of the CRLs.
    pub(super) beside: Vec<CertificateDer<'static>>,
    pub(super) unusable: Vec<UnusableCrl>,
}

impl CrlFile {
    pub(super) fn from_file(file: &Path) -> Result<Self, TrustError> {
        let bytes = read(file)?;
        let (crls, unusable) = Crl::read_usable(&bytes);
        let sections = pem::sections(&bytes).filter_map(Result::ok);
        let beside = sections
            .filter(|section| section.kind == pem::PemKind::Certificate)
            .map(|section| section.der.into())
            .collect();
        Ok(Self {
            crls,
            beside,
            unusable,
        })
    }

    /// At startup there are no CRLs in force that could replace a malformed one.
    pub(super) fn refuse_malformed(&self, file: &Path) -> Result<(), TrustError> {
        match self.unusable.iter().find(|why| why.is_malformed()) {
            None => Ok(()),
            Some(source) => Err(TrustError::MalformedCrl {
                file: file.to_owned(),
                source: source.clone(),
            }),
        }
    }
}

/// Replaces the file with these CRLs and the certificates of their issuers.
pub(super) fn write(
    file: &Path,
    crls: &[Crl],
    authorities: &[CertificateDer<'static>],
) -> io::Result<()> {
    let text = text(crls, authorities);
    if std::fs::read(file).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    atomic_file::write(file, text.as_bytes(), Access::Secret)
}

/// CRLs and the certificates of their issuers, as PEM.
pub(super) fn text(crls: &[Crl], authorities: &[CertificateDer<'static>]) -> String {
    let crl = |crl: &Crl| pem_text("X509 CRL", crl.der());
    let authority = |der: &CertificateDer<'static>| pem_text("CERTIFICATE", der);
    let crls = crls.iter().map(crl);
    crls.chain(authorities.iter().map(authority)).collect()
}

fn pem_text(label: &str, der: &[u8]) -> String {
    ::pem::encode(&::pem::Pem::new(label, der))
}
