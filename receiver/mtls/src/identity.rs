//! The identity in a certificate. Pure functions: DER in, identity out.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use lizmon_pki::identity::Leaf;
use lizmon_protocol::name::{Attributes, SpiffeId};
use rustls_pki_types::DnsName;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub use lizmon_pki::identity::IdentityError;

/// What later stages need from a peer's certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The SPIFFE ID of the holder.
    pub spiffe_id: SpiffeId,
    /// Its tags, or the hosts it is limited to.
    pub attributes: Attributes,
    /// The serial number, as encoded in the DER.
    pub serial: Box<[u8]>,
    /// SHA-256 of the DER: RFC 8705 section 3.1.
    pub thumbprint: [u8; 32],
    /// The first second in which the certificate is valid: epoch seconds.
    pub not_before: u64,
    /// The last second in which the certificate is valid: epoch seconds.
    pub not_after: u64,
}

impl Identity {
    /// Whether the certificate is overdue for renewal: past five sixths of its lifetime. Renewal is
    /// due between two thirds and two thirds plus one twelfth.
    pub fn is_late(&self, now: u64) -> bool {
        now > self.late_after()
    }

    /// The last second in which it is not overdue: epoch seconds.
    pub fn late_after(&self) -> u64 {
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_before + life / 6 * 5
    }
}

impl Identity {
    /// Reads the identity from one certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let leaf = Leaf::read(der)?;
        Ok(Self {
            spiffe_id: leaf.spiffe_id,
            attributes: leaf.attributes,
            serial: leaf.certificate.raw_serial().into(),
            thumbprint: thumbprint(der),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    /// The serial number in hexadecimal, as `lizctl list` prints it.
    pub fn serial_hex(&self) -> String {
        self.serial
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (serial {})", self.spiffe_id, self.serial_hex())
    }
}

/// SHA-256 of a certificate's DER.
pub fn thumbprint(der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    bytes
}

/// The issuer name of a certificate, as text.
pub fn issuer(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.issuer().to_string())
}

/// The first name or address of a server with this certificate, in the form used in a URL. Wildcard
/// names such as `*.example` are skipped, because no client can connect to them.
pub fn first_server_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::DNSName(name) => {
                DnsName::try_from(*name).is_ok().then(|| (*name).to_owned())
            }
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
                _ => Some(format!(
                    "[{}]",
                    IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?)
                )),
            },
            _ => None,
        })
}

/// The maximum length of an unverified name, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// The ID of a certificate, or its subject if it has no ID: for logs, where the certificate is
/// unverified.
pub(crate) fn shown_name(der: &[u8]) -> String {
    let name = match Leaf::read(der) {
        Ok(leaf) => leaf.spiffe_id.to_string(),
        Err(_) => X509Certificate::from_der(der)
            .map(|(_, certificate)| certificate.subject().to_string())
            .unwrap_or_default(),
    };
    name.escape_debug().take(SHOWN_CHARS_MAX).collect()
}

/// The subject of a certificate as text, and the first and last second in which it is valid.
pub(crate) fn subject_and_term(der: &[u8]) -> Option<(String, u64, u64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let begin = certificate.validity().not_before.timestamp();
    let begin = u64::try_from(begin).unwrap_or(0);
    Some((certificate.subject().to_string(), begin, not_after(der)?))
}

/// The last second in which a certificate is valid. Does not read its ID.
pub(crate) fn not_after(der: &[u8]) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    const WEB1: &str = "spiffe://lizmon.internal/node/web1";

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(WEB1.try_into().unwrap())];
        let certificate = params.self_signed(&KeyPair::generate().unwrap());
        certificate.unwrap().der().to_vec()
    }

    #[test]
    fn what_is_known_of_a_certificate() {
        let der = certificate();
        let identity = Identity::from_der(&der).unwrap();
        assert_eq!(identity.spiffe_id.to_string(), WEB1);
        assert_eq!(identity.thumbprint, thumbprint(&der));
        assert!(!identity.serial.is_empty() && identity.not_before < identity.not_after);
        assert_eq!(not_after(&der), Some(identity.not_after));
        assert!(Identity::from_der(&der[1..]).is_err());
    }

    #[test]
    fn a_server_is_called_by_its_first_concrete_name() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let ip = |address: &str| SanType::IpAddress(address.parse().unwrap());
        let cases = [
            (vec![dns("localhost")], Some("localhost")),
            (
                vec![dns("*.lizmon.test"), dns("localhost")],
                Some("localhost"),
            ),
            (vec![dns("*.lizmon.test"), ip("10.0.0.5")], Some("10.0.0.5")),
            (vec![dns("*"), ip("::1"), dns("a.example")], Some("[::1]")),
            (
                vec![dns("a.*.example"), dns("a_b.example")],
                Some("a_b.example"),
            ),
            (vec![dns("*.lizmon.test")], None),
            (vec![], None),
        ];
        for (sans, expected) in cases {
            let mut params = CertificateParams::default();
            params.subject_alt_names = sans;
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let name = first_server_name(certificate.der());
            assert_eq!(name.as_deref(), expected, "{:?}", params.subject_alt_names);
        }
    }

    #[test]
    fn a_certificate_is_late_past_five_sixths_of_its_life() {
        let mut identity = Identity::from_der(&certificate()).unwrap();
        (identity.not_before, identity.not_after) = (1000, 1600);
        for (now, expected) in [(0, false), (1500, false), (1501, true), (1601, true)] {
            assert_eq!(identity.is_late(now), expected, "{now}");
        }
    }

    /// A modified certificate never has the identity of the original.
    #[test]
    fn a_flipped_bit_is_another_certificate() {
        let der = certificate();
        for at in 0..der.len() {
            let mut flipped = der.clone();
            flipped[at] ^= 1;
            if let Ok(identity) = Identity::from_der(&flipped) {
                assert_ne!(identity.thumbprint, thumbprint(&der));
            }
        }
    }
}
