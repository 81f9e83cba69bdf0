//! What stands in each kind of certificate. Every certificate is made from a template here and from nothing else.
//!
//! | profile | basicConstraints | keyUsage | extendedKeyUsage | names |
//! | --- | --- | --- | --- | --- |
//! | root | CA, pathLen 1 | keyCertSign cRLSign | | `spiffe://TRUST-DOMAIN` |
//! | issuing | CA, pathLen 0 | keyCertSign cRLSign | | `spiffe://TRUST-DOMAIN` |
//! | node, reader, operator | no CA | digitalSignature | clientAuth | `spiffe://TRUST-DOMAIN/ROLE/NAME` |
//! | receiver, ca | no CA | digitalSignature | clientAuth serverAuth | the same, and DNS names and addresses |
//!
//! basicConstraints and keyUsage are critical (RFC 5280 sections 4.2.1.9 and 4.2.1.3), all have a subject key
//! identifier, all but the root an authority key identifier. A CA's only URI is its trust domain, as the X.509-SVID
//! specification, section 3.1, wants of a signing certificate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use lizmon_protocol::name::{NameError, NodeName, Role, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::DnsName;
use time::OffsetDateTime;

use crate::error::Error;

/// How far before now a certificate or CRL starts: the clocks of a fleet differ a little.
pub const BACKDATE_SECS: u64 = lizmon_pki::CLOCK_SKEW_SECS_MAX;
/// How long a leaf from `lizctl` lives unless told otherwise.
pub const LEAF_LIFETIME_SECS: u64 = 90 * DAY_SECS;
/// Seconds of a day.
pub const DAY_SECS: u64 = 86_400;
/// Shortest lifetime that anyone can ask for.
pub const LIFETIME_SECS_MIN: u64 = 60;
/// Longest lifetime that anyone can ask for: 100 years.
pub const LIFETIME_SECS_MAX: u64 = 36_525 * DAY_SECS;
/// DNS names and addresses of one certificate.
pub const SANS_MAX: usize = 100;
/// RFC 5280 appendix A.1, ub-common-name.
const COMMON_NAME_CHARS_MAX: usize = 64;

/// A certificate's serial number: 16 random bytes, positive, none of them a leading zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A new one. RFC 5280 section 4.1.2.2 wants it positive and at most 20 bytes.
    pub(crate) fn random() -> Result<Self, Error> {
        loop {
            let mut bytes = [0; 16];
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
            bytes[0] &= 0x7f;
            if bytes[0] != 0 {
                return Ok(Self(bytes));
            }
        }
    }

    /// The number, big-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Serial {
    type Err = Error;

    /// Hex as [`Display`](fmt::Display) writes it, or as other programs do: in capitals, with colons or blanks, `0x` or
    /// `serial=` before it, with zeros in front or without.
    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownSerial(text.escape_debug().take(80).collect());
        let is_between = |c: char| c == ':' || c == '-' || c.is_ascii_whitespace();
        let packed = text.trim().to_ascii_lowercase();
        let packed = packed.strip_prefix("serial=").unwrap_or(&packed);
        let packed = packed.strip_prefix("0x").unwrap_or(packed);
        let digits = packed.replace(is_between, "");
        if digits.is_empty() {
            return Err(unknown());
        }
        let digits = digits.trim_start_matches('0');
        let mut bytes = [0; 16];
        let padded = format!("{digits:0>width$}", width = 2 * bytes.len());
        hex::decode_to_slice(padded, &mut bytes).map_err(|_| unknown())?;
        Ok(Self(bytes))
    }
}

/// Which template a certificate was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The trust anchor.
    Root,
    /// The CA that signs leaves.
    Issuing,
    /// A holder with a name.
    Leaf(Role),
}

impl Profile {
    /// `root`, `issuing`, or the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Leaf(role) => role.as_str(),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Ok(match text {
            "root" => Self::Root,
            "issuing" => Self::Issuing,
            role => Self::Leaf(role.parse()?),
        })
    }
}

/// A name under which a server is reached.
///
/// ```
/// use lizmon_ca::profile::San;
/// assert_eq!("Metrics.Example".parse::<San>().unwrap().to_string(), "metrics.example");
/// assert!("*.example".parse::<San>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum San {
    /// A host name, lower-case, without a final dot.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl FromStr for San {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        // RFC 5280 section 4.2.1.6 wants the preferred name syntax: no underscore, no final dot.
        let good = DnsName::try_from(text).is_ok() && !text.contains('_') && !text.ends_with('.');
        if good {
            Ok(Self::Dns(text.to_ascii_lowercase()))
        } else {
            Err(Error::San(text.escape_debug().take(80).collect()))
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// From when until when, epoch seconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: u64,
    /// Last second.
    pub not_after: u64,
}

impl Validity {
    /// From a little before `now`, for `lifetime_secs` after it, and within the issuer's own.
    pub(crate) fn new(lifetime_secs: u64, issuer: Option<Self>, now: u64) -> Result<Self, Error> {
        if !(LIFETIME_SECS_MIN..=LIFETIME_SECS_MAX).contains(&lifetime_secs) {
            return Err(Error::Lifetime(lifetime_secs));
        }
        let wanted = Self {
            not_before: now.saturating_sub(BACKDATE_SECS),
            not_after: now.checked_add(lifetime_secs).ok_or(Error::Clock(now))?,
        };
        Ok(issuer.map_or(wanted, |issuer| wanted.within(issuer)))
    }

    fn within(self, outer: Self) -> Self {
        Self {
            not_before: self.not_before.max(outer.not_before),
            not_after: self.not_after.min(outer.not_after),
        }
    }
}

/// What differs from one certificate of a template to the next, beside its names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CertFields<'a> {
    pub(crate) serial: &'a Serial,
    pub(crate) validity: Validity,
    pub(crate) key_id: &'a [u8],
}

/// Template of the trust anchor.
pub(crate) fn root(
    trust_domain: &TrustDomain,
    facts: CertFields<'_>,
) -> Result<CertificateParams, Error> {
    ca(trust_domain, "root", 1, facts)
}

/// Template of the CA that signs leaves.
pub(crate) fn issuing(
    trust_domain: &TrustDomain,
    facts: CertFields<'_>,
) -> Result<CertificateParams, Error> {
    let mut params = ca(trust_domain, "issuing CA", 0, facts)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Every generation has a subject of its own: a verifier takes the first CRL that bears the issuer's name.
fn ca(
    trust_domain: &TrustDomain,
    title: &str,
    path_len: u8,
    facts: CertFields<'_>,
) -> Result<CertificateParams, Error> {
    let mut params = base(facts)?;
    let generation = hex::encode(&facts.serial.as_bytes()[..8]);
    params.distinguished_name = common_name(&format!("lizmon {title} {generation}"));
    params.subject_alt_names = vec![SanType::URI(
        format!("spiffe://{trust_domain}").as_str().try_into()?,
    )];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Template of a leaf.
pub(crate) fn leaf(
    id: &SpiffeId,
    sans: &[San],
    facts: CertFields<'_>,
) -> Result<CertificateParams, Error> {
    let mut params = base(facts)?;
    params.distinguished_name = subject(&id.name);
    params.subject_alt_names = vec![SanType::URI(id.to_string().as_str().try_into()?)];
    for san in sans {
        params.subject_alt_names.push(match san {
            San::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            San::Ip(address) => SanType::IpAddress(*address),
        });
    }
    // Unlike `NoCa` this writes the subject key identifier, and basicConstraints that say no.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if id.role.is_server() {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Whether these names go with this role.
pub(crate) fn check_sans(role: Role, sans: &[San]) -> Result<(), Error> {
    match (role.is_server(), sans.len()) {
        (true, 0) => Err(Error::SanMissing(role)),
        (true, count) if count > SANS_MAX => Err(Error::SansTooMany(count)),
        (false, count) if count > 0 => Err(Error::SanUnwanted(role)),
        _ => Ok(()),
    }
}

fn base(facts: CertFields<'_>) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(facts.serial.as_bytes()));
    params.not_before = date(facts.validity.not_before)?;
    params.not_after = date(facts.validity.not_after)?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(facts.key_id.to_vec());
    Ok(params)
}

/// The name if it fits, else nothing; rcgen makes the SAN critical then (RFC 5280 section 4.2.1.6).
fn subject(name: &NodeName) -> DistinguishedName {
    if name.as_str().len() <= COMMON_NAME_CHARS_MAX {
        common_name(name.as_str())
    } else {
        DistinguishedName::new()
    }
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// The common name that a template puts into its certificate; empty if none.
pub(crate) fn common_name_of(params: &CertificateParams) -> String {
    match params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Epoch seconds as rcgen wants them.
pub(crate) fn date(epoch: u64) -> Result<OffsetDateTime, Error> {
    i64::try_from(epoch)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(Error::Clock(epoch))
}

pub(crate) use lizmon_pki::date::rfc3339;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_full() {
        for _ in 0..1000 {
            let serial = Serial::random().unwrap();
            assert!((1..=0x7f).contains(&serial.as_bytes()[0]), "{serial}");
            assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }
        for bad in ["", "zz", "0x", "::", &"1".repeat(34), "12 g4"] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }

    #[test]
    fn serials_are_read_as_other_programs_print_them() {
        const PLAIN: &str = "0d03f0e6a0c7a3b4c5d8e9f00112233a";
        let spaced = |separator: &str| {
            let pairs = PLAIN.as_bytes().chunks(2);
            let pairs: Vec<_> = pairs
                .map(|pair| std::str::from_utf8(pair).unwrap())
                .collect();
            pairs.join(separator)
        };
        let cases = [
            PLAIN.to_owned(),
            PLAIN.to_uppercase(),
            // openssl x509 -text, with and without its indentation; -serial; certtool; Windows; Python's hex().
            spaced(":").to_uppercase(),
            format!("                {}\n", spaced(":")),
            format!("serial={}", PLAIN.to_uppercase()),
            spaced(" "),
            spaced("-"),
            format!("0x{}", &PLAIN[1..]),
            format!("0X{}", PLAIN.to_uppercase()),
            PLAIN[1..].to_owned(),
            format!("00:{}", spaced(":")),
        ];
        for text in cases {
            let serial = text.parse::<Serial>();
            assert_eq!(serial.unwrap().to_string(), PLAIN, "{text:?}");
        }
    }

    #[test]
    fn validities_stay_within_the_issuers() {
        const NOW: u64 = 1_800_000_000;
        let issuer = Validity {
            not_before: NOW - 100,
            not_after: NOW + 1000,
        };
        let cases = [
            (60, None, Some((NOW - BACKDATE_SECS, NOW + 60))),
            (60, Some(issuer), Some((NOW - 100, NOW + 60))),
            (1000, Some(issuer), Some((NOW - 100, NOW + 1000))),
            (1001, Some(issuer), Some((NOW - 100, NOW + 1000))),
            (59, None, None),
            (0, None, None),
            (
                LIFETIME_SECS_MAX,
                None,
                Some((NOW - 300, NOW + LIFETIME_SECS_MAX)),
            ),
            (LIFETIME_SECS_MAX + 1, None, None),
        ];
        for (lifetime, issuer, expected) in cases {
            let got = Validity::new(lifetime, issuer, NOW).ok();
            assert_eq!(
                got.map(|v| (v.not_before, v.not_after)),
                expected,
                "{lifetime}"
            );
        }
    }

    #[test]
    fn names_of_servers() {
        let long = format!("{}.example", "a".repeat(63));
        let too_long = format!("{}.example", "a".repeat(64));
        let cases = [
            ("localhost", Some("localhost")),
            ("A.Example", Some("a.example")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            (long.as_str(), Some(long.as_str())),
            ("127.0.0.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            (too_long.as_str(), None),
            ("", None),
            (".", None),
            ("a.", None),
            ("a..b", None),
            ("*.example", None),
            ("a_b", None),
            ("-a", None),
            ("a b", None),
            ("bücher.example", None),
            ("https://a.example", None),
            ("a.example:8443", None),
            ("[::1]", None),
            ("1.2.3", None),
            ("256.1.1.1", None),
        ];
        for (text, expected) in cases {
            let got = text.parse::<San>().ok().map(|san| san.to_string());
            assert_eq!(got.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn servers_need_names_and_clients_get_none() {
        let names = |count| vec![San::Dns("a.example".to_owned()); count];
        let cases = [
            (Role::Receiver, names(1), true),
            (Role::Ca, names(1), true),
            (Role::Receiver, vec![], false),
            (Role::Receiver, names(SANS_MAX), true),
            (Role::Receiver, names(SANS_MAX + 1), false),
            (Role::Node, vec![], true),
            (Role::Node, names(1), false),
            (Role::Reader, names(1), false),
            (Role::Operator, names(1), false),
        ];
        for (role, sans, good) in cases {
            assert_eq!(
                check_sans(role, &sans).is_ok(),
                good,
                "{role} {}",
                sans.len()
            );
        }
    }
}
