//! Key pairs, and the public key of a signing request, which is all we take from one.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::PrivatePkcs8KeyDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedInfo;

use crate::error::Error;

/// Smallest and largest RSA key of a signing request: below it is breakable, above it slows every handshake.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The one public exponent that every tool makes.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// What kind of key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlg {
    /// ECDSA on P-256: every TLS library has it.
    #[default]
    P256,
    /// Ed25519, RFC 8410.
    Ed25519,
}

impl KeyAlg {
    /// As it is written on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl fmt::Display for KeyAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyAlg {
    type Err = CsrError;

    fn from_str(text: &str) -> Result<Self, CsrError> {
        [Self::P256, Self::Ed25519]
            .into_iter()
            .find(|alg| alg.as_str() == text)
            .ok_or(CsrError::UnknownAlg)
    }
}

/// Why a key or a signing request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// A kind of key that we do not make.
    #[error("no such kind of key: p256 or ed25519")]
    UnknownAlg,
    /// Not a PKCS #10 request.
    #[error("not a certificate signing request (PKCS #10, PEM or DER)")]
    CsrFormatError,
    /// Not signed by the key it asks for.
    #[error("the signing request is not signed by its own key")]
    Signature,
    /// A kind of key that our servers do not verify.
    #[error("the request's key is {0}: make a P-256, P-384, Ed25519 or RSA key")]
    Unsupported(String),
    /// An RSA key outside [`RSA_BITS`].
    #[error("the request's RSA key has {0} bits: make one of {min} to {max}", min = RSA_BITS.start(), max = RSA_BITS.end())]
    RsaBits(usize),
    /// An RSA key with an odd exponent.
    #[error("the request's RSA key has another public exponent than 65537: make a new key")]
    RsaExponent,
    /// A point in a form that not every TLS library reads.
    #[error("the request's key is not an uncompressed point of its curve: make a new key")]
    Point,
}

/// Makes a key pair. Its PKCS #8 form is version 1, because OpenSSL 3.0 reads no Ed25519 key of version 2.
pub(crate) fn generate(alg: KeyAlg) -> Result<KeyPair, Error> {
    let (pkcs8, signs) = match alg {
        KeyAlg::P256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .map_err(|_| Error::Random)?;
            let pkcs8 = pair.to_pkcs8v1().map_err(|_| Error::Random)?;
            (
                PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()),
                &rcgen::PKCS_ECDSA_P256_SHA256,
            )
        }
        KeyAlg::Ed25519 => {
            let pair = Ed25519KeyPair::generate().map_err(|_| Error::Random)?;
            let pkcs8 = pair.to_pkcs8v1().map_err(|_| Error::Random)?;
            (
                PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()),
                &rcgen::PKCS_ED25519,
            )
        }
    };
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, signs)?)
}

/// SHA-256 of the subject public key info, lower-case hex: the same key in a certificate, a request and a key file.
pub(crate) fn fingerprint(key: &impl PublicKeyData) -> String {
    sha256_hex(&key.subject_public_key_info())
}

/// The subject key identifier: RFC 7093 section 2, method 1, over the bits of the key alone. rcgen's own hashes what
/// stands around them too, which is allowed but no method that a linter knows.
pub(crate) fn identifier(key: &impl PublicKeyData) -> Vec<u8> {
    digest(&SHA256, key.der_bytes()).as_ref()[..20].to_vec()
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// The public key of a request, after its own signature and its strength were checked. Nothing else in the request
/// is looked at: rcgen would sign it as it asks, CA:TRUE and foreign names included.
pub(crate) fn from_request(der: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::CsrFormatError)?;
    if !rest.is_empty() {
        return Err(CsrError::CsrFormatError);
    }
    let info = &request.certification_request_info.subject_pki;
    check_strength(info)?;
    request
        .verify_signature()
        .map_err(|_| CsrError::Signature)?;
    SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| CsrError::Unsupported(kind(info)))
}

fn check_strength(info: &ParsedInfo<'_>) -> Result<(), CsrError> {
    let key = &info.subject_public_key.data;
    match kind(info).as_str() {
        "Ed25519" => (key.len() == 32).then_some(()).ok_or(CsrError::Point),
        "P-256" => check_point(key, 32),
        "P-384" => check_point(key, 48),
        _ if info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION => check_rsa(info),
        other => Err(CsrError::Unsupported(other.to_owned())),
    }
}

/// SEC 1 section 2.3.3: 04, then two coordinates.
fn check_point(point: &[u8], coordinate_bytes: usize) -> Result<(), CsrError> {
    let good = point.len() == 1 + 2 * coordinate_bytes && point[0] == 4;
    good.then_some(()).ok_or(CsrError::Point)
}

fn check_rsa(info: &ParsedInfo<'_>) -> Result<(), CsrError> {
    let Ok(ParsedKey::RSA(key)) = info.parsed() else {
        return Err(CsrError::CsrFormatError);
    };
    let bits = bits(key.modulus);
    if !RSA_BITS.contains(&bits) {
        return Err(CsrError::RsaBits(bits));
    }
    if key.exponent != RSA_EXPONENT {
        return Err(CsrError::RsaExponent);
    }
    Ok(())
}

/// `P-256`, `Ed25519`, `RSA-2048`, or the OID of something else.
pub(crate) fn kind(info: &ParsedInfo<'_>) -> String {
    let algorithm = &info.algorithm.algorithm;
    let parameters = info.algorithm.parameters.as_ref();
    // RFC 5480 section 2.1.1: a curve is named. Parameters written out are read as an OID of their bytes otherwise.
    let named = parameters.filter(|parameters| parameters.tag() == Tag::Oid);
    let curve = || named?.as_oid().ok();
    if *algorithm == OID_SIG_ED25519 {
        "Ed25519".to_owned()
    } else if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        match curve() {
            Some(oid) if oid == OID_EC_P256 => "P-256".to_owned(),
            Some(oid) if oid == OID_NIST_EC_P384 => "P-384".to_owned(),
            Some(oid) => format!("on the curve {oid}"),
            None => "on a curve without a name".to_owned(),
        }
    } else if *algorithm == OID_PKCS1_RSAENCRYPTION {
        match info.parsed() {
            Ok(ParsedKey::RSA(key)) => format!("RSA-{}", bits(key.modulus)),
            _ => "RSA".to_owned(),
        }
    } else {
        format!("of the kind {algorithm}")
    }
}

/// Length of a big-endian number in bits.
fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let bytes = significant.clone().count();
    let first = significant.copied().next().unwrap_or(0);
    (bytes * 8).saturating_sub(first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, RsaKeySize};

    use super::*;

    fn request(pair: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(vec![]).unwrap();
        params.serialize_request(pair).unwrap().der().to_vec()
    }

    #[test]
    fn the_kinds_of_key_that_requests_may_bring() {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        let cases = [
            (generate(KeyAlg::P256).unwrap(), true),
            (generate(KeyAlg::Ed25519).unwrap(), true),
            (
                KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
                true,
            ),
            (rsa(RsaKeySize::_2048), true),
            (
                KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap(),
                false,
            ),
        ];
        for (pair, taken) in cases {
            let key = from_request(&request(&pair));
            assert_eq!(key.is_ok(), taken, "{pair:?}: {key:?}");
            if let Ok(key) = key {
                assert_eq!(fingerprint(&key), fingerprint(&pair));
            }
        }
    }

    #[test]
    fn requests_that_are_none_are_refused() {
        let good = request(&generate(KeyAlg::P256).unwrap());
        let mut tampered = good.clone();
        // Inside the signature: the last byte of its last integer.
        *tampered.last_mut().unwrap() ^= 1;
        let mut trailing = good.clone();
        trailing.push(0);
        let cases: [(&[u8], CsrError); 5] = [
            (&tampered, CsrError::Signature),
            (&trailing, CsrError::CsrFormatError),
            (&good[..good.len() - 1], CsrError::CsrFormatError),
            (&[], CsrError::CsrFormatError),
            (b"-----BEGIN", CsrError::CsrFormatError),
        ];
        for (der, error) in cases {
            assert_eq!(from_request(der).unwrap_err(), error);
        }
    }

    #[test]
    fn a_number_has_as_many_bits_as_it_needs() {
        for (number, expected) in [
            (&[][..], 0),
            (&[0, 0], 0),
            (&[1], 1),
            (&[0, 0x80], 8),
            (&[0x7f, 0xff], 15),
        ] {
            assert_eq!(bits(number), expected, "{number:?}");
        }
    }
}
