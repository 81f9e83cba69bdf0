//! A CA's certificate with its key: what signs.

use std::path::Path;

use rcgen::{
    Certificate, CertificateParams, CertificateRevocationList, CertificateRevocationListParams,
    Issuer, KeyPair, PublicKeyData,
};

use super::ca_certificate::{CaCertificate, parse};
use crate::files::CaFileError;

/// Signing or encoding failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign")]
pub struct SignError(#[from] rcgen::Error);

/// A CA that can sign.
#[derive(Debug)]
pub(crate) struct Signer {
    certificate: CaCertificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    /// An error if the key, which was read from `path`, is not the certificate's.
    pub(crate) fn new(
        certificate: CaCertificate,
        path: &Path,
        key: KeyPair,
    ) -> Result<Self, CaFileError> {
        let parsed = parse(&certificate.der).map_err(|why| CaFileError::invalid(path, why))?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(CaFileError::invalid(path, "the key of another certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key)
            .map_err(|_| CaFileError::invalid(path, "not a certificate that can sign"))?;
        Ok(Self {
            certificate,
            issuer,
        })
    }

    pub(crate) fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    pub(crate) fn sign_certificate(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, SignError> {
        Ok(params.signed_by(key, &self.issuer)?)
    }

    pub(crate) fn sign_crl(
        &self,
        params: &CertificateRevocationListParams,
    ) -> Result<CertificateRevocationList, SignError> {
        Ok(params.signed_by(&self.issuer)?)
    }
}
