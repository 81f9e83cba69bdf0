//! A CA's certificate, checked, and the key that goes with it.

use std::path::Path;

use lizmon_pki::pem::{self, PemError};
use lizmon_protocol::name::TrustDomain;
use rcgen::{
    Certificate, CertificateParams, CertificateRevocationList, CertificateRevocationListParams,
    Issuer, KeyPair, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::error::Error;
use crate::profile::Validity;

/// A CA's certificate. Its signature and its place in the chain were checked.
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
    /// Reads the first certificate of a PEM file that must be a CA of ours, signed by `parent` or by itself.
    pub(crate) fn from_pem(path: &Path, pem: &[u8], parent: Option<&Self>) -> Result<Self, Error> {
        let mut ders = pem::certificates(pem).map_err(in_file(path))?;
        Self::from_der(ders.swap_remove(0), parent).map_err(|why| bad(path, why))
    }

    /// Reads every certificate of a PEM file that holds nothing but roots of ours.
    pub(crate) fn all_from_pem(path: &Path, pem: &[u8]) -> Result<Vec<Self>, Error> {
        let ders = pem::certificates(pem).map_err(in_file(path))?;
        ders.into_iter()
            .map(|der| Self::from_der(der, None).map_err(|why| bad(path, why)))
            .collect()
    }

    /// Reads a CA of ours that one of these roots signed, and says which.
    pub(crate) fn below(path: &Path, pem: &[u8], roots: &[Self]) -> Result<(Self, Self), Error> {
        let mut last = Err(bad(path, "there is no root"));
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
            return Err("another CA's name is in it");
        }
        certificate
            .verify_signature(Some(parent_certificate.public_key()))
            .map_err(|_| "it is not signed by the CA's root")?;
        let is_ca = matches!(certificate.basic_constraints(), Ok(Some(found)) if found.value.ca);
        let may_sign = matches!(certificate.key_usage(), Ok(Some(found))
            if found.value.key_cert_sign() && found.value.crl_sign());
        if !is_ca || !may_sign {
            return Err("the certificate is no CA's");
        }
        Ok(Self {
            serial: hex::encode(strip_sign(certificate.raw_serial())),
            common_name: common_name(&certificate).ok_or("it has no common name")?,
            trust_domain: trust_domain(&certificate).ok_or("it names no trust domain")?,
            validity: validity(&certificate),
            key_id: key_id(&certificate).ok_or("it has no subject key identifier")?,
            der: der.clone(),
        })
    }
}

/// A CA that can sign.
#[derive(Debug)]
pub(crate) struct Signer {
    certificate: CaCertificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    /// Makes sure that the key, which was read from `path`, is the certificate's.
    pub(crate) fn new(
        certificate: CaCertificate,
        path: &Path,
        key: KeyPair,
    ) -> Result<Self, Error> {
        let parsed = parse(&certificate.der).map_err(|why| bad(path, why))?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(bad(path, "the key of another certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key)?;
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
    ) -> Result<Certificate, Error> {
        Ok(params.signed_by(key, &self.issuer)?)
    }

    pub(crate) fn sign_crl(
        &self,
        params: &CertificateRevocationListParams,
    ) -> Result<CertificateRevocationList, Error> {
        Ok(params.signed_by(&self.issuer)?)
    }
}

fn in_file(path: &Path) -> impl Fn(PemError) -> Error {
    move |source| Error::Pem {
        path: path.to_owned(),
        source,
    }
}

fn bad(path: &Path, why: &'static str) -> Error {
    Error::BadFile {
        path: path.to_owned(),
        why,
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, &'static str> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err("not a certificate"),
    }
}

/// DER puts a zero byte before a positive number whose first bit is set.
pub(crate) fn strip_sign(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    Validity {
        not_before: seconds(certificate.validity().not_before),
        not_after: seconds(certificate.validity().not_after),
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// The trust domain that a CA's certificate names.
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
