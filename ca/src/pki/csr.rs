//! Signing requests (PKCS #10). Only the public key is ever taken from one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lizmon_pki::pem::{self, PemError, PemKind};
use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedInfo;

use super::key::{bits, kind};

/// Smallest and largest RSA key of a signing request: below it is breakable, above it slows every
/// handshake.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The public exponent that every tool uses.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// The first byte of a request in DER; its base64 begins with another.
const DER_SEQUENCE: u8 = 0x30;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why no signing request could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrFormatError {
    /// Neither PEM nor DER nor base64.
    #[error(
        "there is no signing request in it: send PKCS #10 as PEM, as DER, or as the base64 of its DER"
    )]
    Nothing,
    /// PEM of something else.
    #[error("there is no signing request in it, but {0}: send a CERTIFICATE REQUEST")]
    Other(String),
    /// PEM that is damaged.
    #[error("the signing request cannot be read")]
    Pem(#[from] PemError),
    /// More than one request.
    #[error("there are {0} signing requests in it: send one")]
    Several(usize),
}

/// The DER of a signing request, from a file or an HTTP body: PEM as any tool writes it, DER, or
/// the base64 of RFC 7030 section 4.2.1. Line ends may be missing, because curl's `--data` removes
/// them. Text and other PEM sections beside the request are ignored.
pub fn read(bytes: &[u8]) -> Result<Vec<u8>, CsrFormatError> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    if bytes.first() == Some(&DER_SEQUENCE) {
        return Ok(bytes.to_vec());
    }
    if bytes
        .windows(PEM_BEGIN.len())
        .any(|window| window == PEM_BEGIN)
    {
        return read_pem(bytes);
    }
    let packed: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    match STANDARD.decode(packed) {
        Ok(der) if !der.is_empty() => Ok(der),
        _ => Err(CsrFormatError::Nothing),
    }
}

const PEM_BEGIN: &[u8] = b"-----BEGIN ";

fn read_pem(bytes: &[u8]) -> Result<Vec<u8>, CsrFormatError> {
    let (mut requests, mut others, mut damage) = (Vec::new(), Vec::new(), None);
    for section in pem::sections(bytes) {
        match section {
            Ok(section) if section.kind == PemKind::SigningRequest => requests.push(section.der),
            Ok(section) => others.push(section.label),
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    match (requests.len(), damage) {
        (1, _) => Ok(requests.swap_remove(0)),
        (0, Some(error)) => Err(error.into()),
        (0, None) => Err(CsrFormatError::Other(others.join(", "))),
        (several, _) => Err(CsrFormatError::Several(several)),
    }
}

/// Why a signing request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not a PKCS #10 request.
    #[error("not a certificate signing request (PKCS #10, PEM or DER)")]
    NotACsr,
    /// Not signed by its own key.
    #[error("the signing request is not signed by its own key")]
    Signature,
    /// A kind of key that our servers do not support.
    #[error("the request's key is {0}: make a P-256, P-384, Ed25519 or RSA key")]
    Unsupported(String),
    /// An RSA key outside [`RSA_BITS`].
    #[error("the request's RSA key has {0} bits: make one of {min} to {max}", min = RSA_BITS.start(), max = RSA_BITS.end())]
    RsaBits(usize),
    /// An RSA key with an unusual exponent.
    #[error("the request's RSA key has another public exponent than 65537: make a new key")]
    RsaExponent,
    /// A point in a form that not every TLS library reads.
    #[error("the request's key is not an uncompressed point of its curve: make a new key")]
    Point,
}

/// The public key of a request, after its signature and the strength of the key were checked.
/// Nothing else in the request is used: rcgen would sign whatever it asks for, CA:TRUE and other
/// people's names included.
pub(crate) fn public_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::NotACsr)?;
    if !rest.is_empty() {
        return Err(CsrError::NotACsr);
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
        return Err(CsrError::NotACsr);
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

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, RsaKeySize,
    };

    use super::*;
    use crate::pki::key::{KeyAlg, fingerprint, generate};

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
            let key = public_key(&request(&pair));
            assert_eq!(key.is_ok(), taken, "{pair:?}: {key:?}");
            if let Ok(key) = key {
                assert_eq!(fingerprint(&key), fingerprint(&pair));
            }
        }
    }

    #[test]
    fn damaged_requests_are_refused() {
        let good = request(&generate(KeyAlg::P256).unwrap());
        let mut tampered = good.clone();
        // Inside the signature: the last byte of its last integer.
        *tampered.last_mut().unwrap() ^= 1;
        let mut trailing = good.clone();
        trailing.push(0);
        let cases: [(&[u8], CsrError); 5] = [
            (&tampered, CsrError::Signature),
            (&trailing, CsrError::NotACsr),
            (&good[..good.len() - 1], CsrError::NotACsr),
            (&[], CsrError::NotACsr),
            (b"-----BEGIN", CsrError::NotACsr),
        ];
        for (der, error) in cases {
            assert_eq!(public_key(der).unwrap_err(), error);
        }
    }

    #[test]
    fn requests_come_in_several_forms() {
        let der = request(&KeyPair::generate().unwrap());
        let base64 = STANDARD.encode(&der);
        let lines = base64
            .as_bytes()
            .chunks(64)
            .map(|line| format!("{}\n", std::str::from_utf8(line).unwrap()))
            .collect::<String>();
        let pem = |label: &str, inner: &str| {
            format!("-----BEGIN {label}-----\n{inner}-----END {label}-----\n")
        };
        let plain = pem("CERTIFICATE REQUEST", &lines);
        let key = KeyPair::generate().unwrap().serialize_pem();
        let text = "Certificate Request:\n    Data:\n        Version: 1 (0x0)\n        Subject: CN = web1\n                pub:\n                    04:4b:0c:9e:01:\n";
        let good = [
            base64.clone(),
            lines.clone(),
            lines.replace('\n', "\r\n"),
            format!("  {base64}  "),
            format!("\u{feff}{base64}\n"),
            plain.clone(),
            pem("NEW CERTIFICATE REQUEST", &lines),
            plain.replace('\n', ""),
            plain.replace('\n', "\r\n"),
            plain.trim_end().to_owned(),
            format!("\u{feff}{plain}"),
            format!("{text}{plain}"),
            format!("Bag Attributes\n    friendlyName: web1\n{plain}"),
            format!("{key}{plain}"),
            format!("{plain}{key}"),
        ];
        for body in good {
            assert_eq!(read(body.as_bytes()).as_ref(), Ok(&der), "{body}");
        }
        assert_eq!(read(&der).as_ref(), Ok(&der));
        let bad: [(Vec<u8>, &str); 10] = [
            (vec![], "there is no signing request"),
            (b" \n".to_vec(), "there is no signing request"),
            (b"hello".to_vec(), "there is no signing request"),
            (
                base64[..base64.len() - 1].into(),
                "there is no signing request",
            ),
            (
                base64.replace(['A', 'B'], "%2B").into(),
                "there is no signing request",
            ),
            (pem("CERTIFICATE", &lines).into(), "but CERTIFICATE"),
            (key.into_bytes(), "but PRIVATE KEY"),
            (pem("CERTIFICATE REQUEST", "").into(), "cannot be read"),
            (plain[..plain.len() - 30].into(), "cannot be read"),
            (format!("{plain}{plain}").into(), "2 signing requests"),
        ];
        for (body, expected) in bad {
            let error = read(&body).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
