//! Verifies the signature of a certificate or a CRL, with the same algorithms as TLS.

use webpki::ALL_VERIFICATION_ALGS;
use x509_parser::asn1_rs::{Any, FromDer};

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    /// The key made the signature.
    Good,
    /// The key did not make the signature.
    Bad,
    /// The algorithm is obsolete or unknown.
    Unsupported,
}

/// Verifies a certificate or a CRL (DER) with a SubjectPublicKeyInfo (DER).
pub(crate) fn verify(signed: &[u8], key: &[u8]) -> Signature {
    try_verify(signed, key).unwrap_or(Signature::Bad)
}

/// RFC 5280 sections 4.1 and 5.1: the signed content, the algorithm, the signature.
fn try_verify(signed: &[u8], key: &[u8]) -> Option<Signature> {
    let content = content(signed)?;
    let (rest, _) = Any::from_der(content).ok()?;
    let message = &content[..content.len() - rest.len()];
    let (algorithm, signature) = two(rest)?;
    let (key_algorithm, public_key) = two(self::content(key)?)?;
    let mut fitting = ALL_VERIFICATION_ALGS
        .iter()
        .filter(|known| known.signature_alg_id().as_ref() == algorithm)
        .filter(|known| known.public_key_alg_id().as_ref() == key_algorithm)
        .peekable();
    if fitting.peek().is_none() {
        return Some(Signature::Unsupported);
    }
    let (signature, public_key) = (whole_bytes(signature)?, whole_bytes(public_key)?);
    let good = fitting.any(|known| {
        known
            .verify_signature(public_key, message, signature)
            .is_ok()
    });
    Some(if good {
        Signature::Good
    } else {
        Signature::Bad
    })
}

/// The content of a DER value, without its tag and length.
pub(crate) fn content(der: &[u8]) -> Option<&[u8]> {
    let (_, value) = Any::from_der(der).ok()?;
    Some(value.data)
}

/// The contents of two consecutive DER values.
fn two(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, first) = Any::from_der(der).ok()?;
    let (_, second) = Any::from_der(rest).ok()?;
    Some((first.data, second.data))
}

/// The bytes of a BIT STRING of whole bytes.
fn whole_bytes(bits: &[u8]) -> Option<&[u8]> {
    bits.strip_prefix(&[0])
}
