//! Reads the identity of a certificate. Pure: takes DER, returns a name.
//!
//! The identity is the single URI name, which holds both role and name. Beside it
//! only the attributes count: see [`attributes`]. The common name and all other fields are ignored. Client and server both read the identity here, so that they always
//! agree. This module does not check whether the certificate is trusted.

use lizmon_protocol::name::{Attributes, NameError, SpiffeId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::attributes::{self, AttributesError};

/// A certificate with a valid identity.
#[derive(Debug, Clone)]
pub struct Leaf<'a> {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// Its tags, or the hosts it is limited to.
    pub attributes: Attributes,
    /// The first valid second: epoch seconds.
    pub not_before: u64,
    /// The last valid second: epoch seconds.
    pub not_after: u64,
    /// The parsed certificate.
    pub certificate: X509Certificate<'a>,
}

/// Why a certificate has no valid identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not DER, or more than one certificate.
    #[error("it is not the DER of one certificate")]
    NotACertificate,
    /// Several subjectAltName extensions, or one that cannot be parsed.
    #[error("its alternative names cannot be read")]
    Names,
    /// No URI name, or several.
    #[error("it has {0} URI names instead of exactly one")]
    UriCount(usize),
    /// The URI name is not a valid identity.
    #[error(transparent)]
    Uri(#[from] NameError),
    /// The attributes are not as lizmon writes them, or not for this role.
    #[error(transparent)]
    Attributes(#[from] AttributesError),
    /// The validity begins or ends before 1970.
    #[error("its validity is before 1970")]
    Validity,
}

impl<'a> Leaf<'a> {
    /// Parses one certificate.
    pub fn read(der: &'a [u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::NotACertificate)?;
        if !rest.is_empty() {
            return Err(IdentityError::NotACertificate);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::Names)?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris[..] else {
            return Err(IdentityError::UriCount(uris.len()));
        };
        let epoch = |secs: i64| u64::try_from(secs).map_err(|_| IdentityError::Validity);
        let validity = certificate.validity();
        let spiffe_id: SpiffeId = uri.parse()?;
        Ok(Self {
            attributes: attributes::read(&certificate, spiffe_id.role)?,
            spiffe_id,
            not_before: epoch(validity.not_before.timestamp())?,
            not_after: epoch(validity.not_after.timestamp())?,
            certificate,
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

    use super::*;

    const WEB1: &str = "spiffe://lizmon.internal/node/web1";

    fn certificate(names: Vec<SanType>, edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        edit(&mut params);
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn of_uri(text: &str) -> Vec<u8> {
        certificate(vec![uri(text)], |_| ())
    }

    #[test]
    fn the_uri_name_is_the_identity() {
        let der = certificate(
            vec![SanType::DnsName("db1".try_into().unwrap()), uri(WEB1)],
            |params| params.distinguished_name.push(DnType::CommonName, "db1"),
        );
        let leaf = Leaf::read(&der).unwrap();
        assert_eq!(leaf.spiffe_id.to_string(), WEB1);
        assert!(leaf.not_before < leaf.not_after);
    }

    #[test]
    fn hostile_certificates_have_no_identity() {
        let a_second_extension = |params: &mut CertificateParams| {
            let content = vec![0x30, 0x06, 0x86, 0x04, b'h', b't', b't', b'p'];
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
        };
        let long_ago = |params: &mut CertificateParams| {
            params.not_before = time::macros::datetime!(1969-12-31 23:59:59 UTC);
        };
        let nothing = |_: &mut CertificateParams| ();
        let db1 = uri("spiffe://lizmon.internal/node/db1");
        let dns = SanType::DnsName("web1".try_into().unwrap());
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("no name", certificate(vec![], nothing), "UriCount(0)"),
            ("no uri", certificate(vec![dns], nothing), "UriCount(0)"),
            (
                "two uris",
                certificate(vec![uri(WEB1), db1], nothing),
                "UriCount(2)",
            ),
            (
                "the same uri twice",
                certificate(vec![uri(WEB1), uri(WEB1)], nothing),
                "UriCount(2)",
            ),
            (
                "two extensions",
                certificate(vec![uri(WEB1)], a_second_extension),
                "Names",
            ),
            (
                "before 1970",
                certificate(vec![uri(WEB1)], long_ago),
                "Validity",
            ),
            (
                "foreign scheme",
                of_uri("https://lizmon.internal/node/web1"),
                "Uri(",
            ),
            (
                "unknown role",
                of_uri("spiffe://lizmon.internal/root/web1"),
                "Uri(",
            ),
            (
                "a nul inside",
                of_uri("spiffe://lizmon.internal/node/web1\0.evil"),
                "Uri(",
            ),
            (
                "a path inside",
                of_uri("spiffe://lizmon.internal/node/../reader/x"),
                "Uri(",
            ),
            (
                "bytes behind",
                [of_uri(WEB1), vec![0]].concat(),
                "NotACertificate",
            ),
            (
                "half of it",
                of_uri(WEB1)[..200].to_vec(),
                "NotACertificate",
            ),
            ("nothing", Vec::new(), "NotACertificate"),
        ];
        for (story, der, why) in cases {
            let error = format!("{:?}", Leaf::read(&der).unwrap_err());
            assert!(error.starts_with(why), "{story}: {error}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_survived() {
        let der = of_uri(WEB1);
        for at in 0..der.len() {
            assert!(Leaf::read(&der[..at]).is_err());
            for bit in 0..8 {
                let mut flipped = der.clone();
                flipped[at] ^= 1 << bit;
                // Only the signature protects against changed bits. This test checks that none of
                // them causes a panic.
                let _ignored = Leaf::read(&flipped);
            }
        }
    }
}
