//! Key pairs, their fingerprints and kinds.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::asn1_rs::Tag;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedInfo;

use super::ca_certificate::parse;
use super::random::RandomError;

/// The algorithm of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlg {
    /// ECDSA on P-256: every TLS library supports it.
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
    type Err = UnknownKeyAlg;

    fn from_str(text: &str) -> Result<Self, UnknownKeyAlg> {
        [Self::P256, Self::Ed25519]
            .into_iter()
            .find(|alg| alg.as_str() == text)
            .ok_or(UnknownKeyAlg)
    }
}

/// Text that names no [`KeyAlg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such kind of key: p256 or ed25519")]
pub struct UnknownKeyAlg;

/// Why no key pair was generated.
#[derive(Debug, thiserror::Error)]
pub enum KeyGenError {
    /// No random numbers.
    #[error("cannot generate a key: {RandomError}")]
    Random,
    /// The key cannot be encoded.
    #[error("cannot generate a key")]
    Encode(#[from] rcgen::Error),
}

/// Generates a key pair. Its PKCS #8 form is version 1, because OpenSSL 3.0 reads no Ed25519 key of
/// version 2.
pub(crate) fn generate(alg: KeyAlg) -> Result<KeyPair, KeyGenError> {
    let (pkcs8, signs) = match alg {
        KeyAlg::P256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .map_err(|_| KeyGenError::Random)?;
            let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyGenError::Random)?;
            (
                PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()),
                &rcgen::PKCS_ECDSA_P256_SHA256,
            )
        }
        KeyAlg::Ed25519 => {
            let pair = Ed25519KeyPair::generate().map_err(|_| KeyGenError::Random)?;
            let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyGenError::Random)?;
            (
                PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()),
                &rcgen::PKCS_ED25519,
            )
        }
    };
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, signs)?)
}

/// The subject public key info that a certificate certifies; `None` if it is no certificate.
pub(crate) fn certified_by(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = parse(certificate).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

/// SHA-256 of the subject public key info, lower-case hex: the same key in a certificate, a request
/// and a key file.
pub(crate) fn fingerprint(key: &impl PublicKeyData) -> String {
    sha256_hex(&key.subject_public_key_info())
}

/// The subject key identifier: RFC 7093 section 2, method 1, over the bits of the key alone.
/// rcgen's own also hashes the structure around them, which is allowed but not a method that
/// linters know.
pub(crate) fn identifier(key: &impl PublicKeyData) -> Vec<u8> {
    digest(&SHA256, key.der_bytes()).as_ref()[..20].to_vec()
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// `P-256`, `Ed25519`, `RSA-2048`, or the OID of something else.
pub(crate) fn kind(info: &ParsedInfo<'_>) -> String {
    let algorithm = &info.algorithm.algorithm;
    let parameters = info.algorithm.parameters.as_ref();
    // RFC 5480 section 2.1.1: a curve is named. Without this check, explicit parameters would be
    // read as an OID.
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
pub(super) fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let bytes = significant.clone().count();
    let first = significant.copied().next().unwrap_or(0);
    (bytes * 8).saturating_sub(first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

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
