//! The certificate of a CA, checked.

use std::path::Path;

use lizmon_pki::pem;
use lizmon_protocol::name::TrustDomain;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::serial::strip_sign;
use super::validity::{Validity, validity_of};
use crate::files::CaFileError;

/// A CA's certificate. Its signature and its place in the chain are checked.
#[derive(Debug, Clone)]
pub(crate) struct CaCertificate {
    /// Lower-case hex.
    pub(crate) serial: String,
    pub(crate) common_name: String,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) validity: Validity,
    pub(crate) key_id: Vec<u8>,
    pub(crate) der: CertificateDer<'static>,
}

impl CaCertificate {
    /// Reads the first certificate of a PEM file, which must be a CA of ours, signed by `parent` or
    /// by itself.
    pub(crate) fn from_pem(
        path: &Path,
        pem: &[u8],
        parent: Option<&Self>,
    ) -> Result<Self, CaFileError> {
        let mut ders = pem::certificates(pem).map_err(CaFileError::pem(path))?;
        Self::from_der(ders.swap_remove(0), parent).map_err(|why| CaFileError::invalid(path, why))
    }

    /// Reads every certificate of a PEM file, all of which must be roots of ours.
    pub(crate) fn all_from_pem(path: &Path, pem: &[u8]) -> Result<Vec<Self>, CaFileError> {
        let ders = pem::certificates(pem).map_err(CaFileError::pem(path))?;
        ders.into_iter()
            .map(|der| Self::from_der(der, None).map_err(|why| CaFileError::invalid(path, why)))
            .collect()
    }

    /// Reads a CA that one of these roots signed, and returns both.
    pub(crate) fn below(
        path: &Path,
        pem: &[u8],
        roots: &[Self],
    ) -> Result<(Self, Self), CaFileError> {
        let mut last = Err(CaFileError::invalid(path, "there is no root"));
        for root in roots {
            last = Self::from_pem(path, pem, Some(root)).map(|found| (found, root.clone()));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn from_der(der: CertificateDer<'static>, parent: Option<&Self>) -> Result<Self, &'static str> {
        let certificate = parse(&der)?;
        let parent_der = parent.map_or(&der, |parent| &parent.der);
        let parent_certificate = parse(parent_der)?;
        if certificate.issuer() != parent_certificate.subject() {
            return Err("it names another CA as its issuer");
        }
        certificate
            .verify_signature(Some(parent_certificate.public_key()))
            .map_err(|_| "it is not signed by the CA's root")?;
        let is_ca = matches!(certificate.basic_constraints(), Ok(Some(found)) if found.value.ca);
        let may_sign = matches!(certificate.key_usage(), Ok(Some(found))
            if found.value.key_cert_sign() && found.value.crl_sign());
        if !is_ca || !may_sign {
            return Err("it is not a CA certificate");
        }
        Ok(Self {
            serial: hex::encode(strip_sign(certificate.raw_serial())),
            common_name: common_name(&certificate).ok_or("it has no common name")?,
            trust_domain: trust_domain(&certificate).ok_or("it names no trust domain")?,
            validity: validity_of(&certificate),
            key_id: key_id(&certificate).ok_or("it has no subject key identifier")?,
            der: der.clone(),
        })
    }
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, &'static str> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err("not a certificate"),
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// The trust domain of a CA's certificate.
pub(crate) fn trust_domain_of(der: &CertificateDer<'_>) -> Option<TrustDomain> {
    parse(der).ok().as_ref().and_then(trust_domain)
}

fn trust_domain(certificate: &X509Certificate<'_>) -> Option<TrustDomain> {
    let sans = certificate.subject_alternative_name().ok()??;
    sans.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://")?.parse().ok(),
        _ => None,
    })
}

fn key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
}
