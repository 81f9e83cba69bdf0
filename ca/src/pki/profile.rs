//! The content of each kind of certificate. Every certificate is made from a template here and from
//! nothing else.
//!
//! | profile | basicConstraints | keyUsage | extendedKeyUsage | names |
//! | --- | --- | --- | --- | --- |
//! | root | CA, pathLen 1 | keyCertSign cRLSign | | `spiffe://TRUST-DOMAIN` |
//! | issuing | CA, pathLen 0 | keyCertSign cRLSign | | `spiffe://TRUST-DOMAIN` |
//! | node, reader, operator, summarizer, proxy, gateway | no CA | digitalSignature | clientAuth | `spiffe://TRUST-DOMAIN/ROLE/NAME` |
//! | receiver, ca | no CA | digitalSignature | clientAuth serverAuth | the same, and DNS names and addresses |
//!
//! A node can have tags, a reader the hosts that it is limited to, a gateway those that it may write
//! for: [`attributes`].
//! basicConstraints and keyUsage are critical (RFC 5280 sections 4.2.1.9 and 4.2.1.3), all have a
//! subject key identifier, all but the root an authority key identifier. A CA's only URI is its
//! trust domain, as the X.509-SVID specification, section 3.1, requires of a signing certificate.

use std::fmt;
use std::str::FromStr;

use lizmon_pki::attributes;
use lizmon_protocol::name::{
    AttributeError, Attributes, NameError, NodeName, Role, SpiffeId, TrustDomain,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber,
};

use super::san::{SANS_MAX, San};
use super::serial::Serial;
use super::validity::{Validity, ValidityError, date};

/// RFC 5280 appendix A.1, ub-common-name.
const COMMON_NAME_CHARS_MAX: usize = 64;

/// The template of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The trust anchor.
    Root,
    /// The CA that signs leaves.
    Issuing,
    /// A leaf with a role and a name.
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

/// One of the two CAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaKind {
    /// The issuing CA, which signs leaves.
    Issuing,
    /// The root, which signs the issuing CA.
    Root,
}

impl CaKind {
    /// As it is written on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Root => "root",
        }
    }
}

impl fmt::Display for CaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names neither CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such CA: issuing or root")]
pub struct UnknownCaKind;

impl FromStr for CaKind {
    type Err = UnknownCaKind;

    fn from_str(text: &str) -> Result<Self, UnknownCaKind> {
        [Self::Issuing, Self::Root]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownCaKind)
    }
}

/// Why a certificate cannot be made from its template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A server without a name that its clients could check.
    #[error("a {0} needs at least one DNS name or IP address: say which with --san")]
    SanMissing(Role),
    /// A client with a DNS name.
    #[error("a {0} gets no DNS name or IP address: leave --san out")]
    SanUnwanted(Role),
    /// More names than [`SANS_MAX`].
    #[error("{0} DNS names and IP addresses are too many: at most {SANS_MAX}")]
    SansTooMany(usize),
    /// Tags or patterns of hosts that this role cannot have.
    #[error(transparent)]
    Attributes(#[from] AttributeError),
    /// Its dates cannot be encoded.
    #[error(transparent)]
    Validity(#[from] ValidityError),
    /// A name cannot be encoded.
    #[error("cannot encode the certificate")]
    Encode(#[from] rcgen::Error),
}

/// The fields in which certificates of one template differ, beside their names.
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
) -> Result<CertificateParams, ProfileError> {
    ca(trust_domain, "root", 1, facts)
}

/// Template of the CA that signs leaves.
pub(crate) fn issuing(
    trust_domain: &TrustDomain,
    facts: CertFields<'_>,
) -> Result<CertificateParams, ProfileError> {
    let mut params = ca(trust_domain, "issuing CA", 0, facts)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Every generation has a subject of its own: a verifier takes the first CRL that has the issuer's
/// name.
fn ca(
    trust_domain: &TrustDomain,
    title: &str,
    path_len: u8,
    facts: CertFields<'_>,
) -> Result<CertificateParams, ProfileError> {
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
    attributes: &Attributes,
    facts: CertFields<'_>,
) -> Result<CertificateParams, ProfileError> {
    let mut params = base(facts)?;
    if let Some(content) = attributes::encode(attributes) {
        let extension = CustomExtension::from_oid_content(&attributes::EXTENSION, content);
        params.custom_extensions.push(extension);
    }
    params.distinguished_name = subject(&id.name);
    params.subject_alt_names = vec![SanType::URI(id.to_string().as_str().try_into()?)];
    for san in sans {
        params.subject_alt_names.push(match san {
            San::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            San::Ip(address) => SanType::IpAddress(*address),
        });
    }
    // Unlike `NoCa` this writes the subject key identifier and basicConstraints with CA:FALSE.
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

/// Whether the role may have these names.
pub(crate) fn check_sans(role: Role, sans: &[San]) -> Result<(), ProfileError> {
    match (role.is_server(), sans.len()) {
        (true, 0) => Err(ProfileError::SanMissing(role)),
        (true, count) if count > SANS_MAX => Err(ProfileError::SansTooMany(count)),
        (false, count) if count > 0 => Err(ProfileError::SanUnwanted(role)),
        _ => Ok(()),
    }
}

fn base(facts: CertFields<'_>) -> Result<CertificateParams, ProfileError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(facts.serial.as_bytes()));
    params.not_before = date(facts.validity.not_before)?;
    params.not_after = date(facts.validity.not_after)?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(facts.key_id.to_vec());
    Ok(params)
}

/// The name if it is short enough, else an empty subject; rcgen then makes the SAN critical (RFC
/// 5280 section 4.2.1.6).
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

/// The common name of a certificate made with these parameters; empty if it has none.
pub(crate) fn common_name_of(params: &CertificateParams) -> String {
    match params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(text)) => text.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (Role::Summarizer, vec![], true),
            (Role::Summarizer, names(1), false),
            (Role::Proxy, vec![], true),
            (Role::Proxy, names(1), false),
            (Role::Gateway, vec![], true),
            (Role::Gateway, names(1), false),
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
