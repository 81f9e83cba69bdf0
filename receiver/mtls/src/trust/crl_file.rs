//! Files of CRLs: those that an operator gives, and the one where received CRLs are stored.

use std::io;
use std::path::Path;

use lizmon_pki::atomic_file::{self, Access};
use lizmon_pki::crl::{Crl, UnusableCrl};
use lizmon_pki::pem;
use rustls_pki_types::CertificateDer;

use super::error::TrustError;
use super::files::read;

/// What stands in a file of CRLs.
#[derive(Default)]
pub(super) struct CrlFile {
    pub(super) crls: Vec<Crl>,
    /// Certificates beside them, among which may be those of who signed them.
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

    /// At a start nothing is in force yet that would hold instead of what is not understood.
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

/// Puts the CRLs in the old file's place, and beside them the certificates that say who signed them.
pub(super) fn write(
    file: &Path,
    crls: &[Crl],
    authorities: &[CertificateDer<'static>],
) -> io::Result<()> {
    let crl = |crl: &Crl| pem_text("X509 CRL", crl.der());
    let authority = |der: &CertificateDer<'static>| pem_text("CERTIFICATE", der);
    let text: String = crls
        .iter()
        .map(crl)
        .chain(authorities.iter().map(authority))
        .collect();
    if std::fs::read(file).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    atomic_file::write(file, text.as_bytes(), Access::Secret)
}

fn pem_text(label: &str, der: &[u8]) -> String {
    ::pem::encode(&::pem::Pem::new(label, der))
}
