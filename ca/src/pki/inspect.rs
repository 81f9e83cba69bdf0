//! The content of a certificate, key, CRL or signing request, as a plain struct.
//!
//! Nothing is verified here: see [`verify`](crate::pki::verify). Text from a file is made safe to
//! print on a terminal.

use lizmon_pki::pem::{self, PemError, PemKind};
use lizmon_protocol::name::Role;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::PrivateKeyDer;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{OidRegistry, format_oid};
use x509_parser::prelude::{CertificateRevocationList, FromDer};
use x509_parser::revocation_list::RevokedCertificate;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Name};

use super::encrypted_key::scheme;
use super::key::{self, sha256_hex};
use super::serial::strip_sign;
use super::validity::validity_of;

/// One part of a file. Times are epoch seconds; serial numbers and hashes are lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
#[expect(clippy::large_enum_variant, reason = "a file has few parts")]
pub enum Item {
    /// A certificate.
    Certificate {
        /// The holder's distinguished name, which is not its identity.
        subject: String,
        /// The issuer's distinguished name.
        issuer: String,
        /// Its serial number.
        serial: String,
        /// URI names: a single one is the identity.
        uris: Vec<String>,
        /// DNS names and addresses.
        names: Vec<String>,
        /// A node's tags, or the tags and patterns of the hosts that a reader is limited to.
        attributes: Vec<String>,
        /// First second.
        not_before: u64,
        /// Last second.
        not_after: u64,
        /// `P-256`, `Ed25519` and so on.
        key: String,
        /// Of the subject public key info.
        key_sha256: String,
        /// The signature algorithm.
        signature: String,
        /// Whether it may sign certificates.
        ca: bool,
        /// How many CAs may be below it.
        path_len: Option<u32>,
        /// RFC 5280 section 4.2.1.3.
        key_usage: Vec<String>,
        /// RFC 5280 section 4.2.1.12.
        extended_key_usage: Vec<String>,
        /// Identifies its key.
        subject_key_id: Option<String>,
        /// Identifies the key that signed it.
        authority_key_id: Option<String>,
        /// Of the whole certificate.
        sha256: String,
    },
    /// A private key. The key itself is not in here.
    PrivateKey {
        /// `P-256`, `Ed25519` and so on.
        key: String,
        /// Of the subject public key info: compare it with the certificate's.
        key_sha256: String,
    },
    /// An encrypted private key.
    EncryptedPrivateKey {
        /// `PBES2, scrypt, AES-256-CBC` and so on.
        encryption: String,
    },
    /// A CRL.
    Crl {
        /// The CA that signed it.
        issuer: String,
        /// RFC 5280 section 5.2.3, decimal.
        number: Option<String>,
        /// When it was signed.
        this_update: u64,
        /// When the next one is due at the latest.
        next_update: Option<u64>,
        /// Identifies the key that signed it.
        authority_key_id: Option<String>,
        /// The signature algorithm.
        signature: String,
        /// What it revokes.
        revoked: Vec<Revoked>,
    },
    /// A signing request. lizmon takes only the public key from it.
    SigningRequest {
        /// The name it asks for.
        subject: String,
        /// `P-256`, `Ed25519` and so on.
        key: String,
        /// Of the subject public key info.
        key_sha256: String,
        /// The signature algorithm.
        signature: String,
        /// Whether it is signed by its own key.
        signature_is_good: bool,
    },
}

/// One entry of a CRL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Revoked {
    /// The serial number of the certificate.
    pub serial: String,
    /// When it was revoked: epoch seconds.
    pub since: u64,
    /// The reason, if there is one.
    pub reason: Option<String>,
}

/// Why a file cannot be inspected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Neither PEM nor DER of a known kind.
    #[error("there is no certificate, private key, CRL or signing request in it")]
    Nothing,
    /// PEM that is damaged.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A PEM section whose content does not match its label.
    #[error("part {0}, a {1} by its first line, is damaged or of an unknown kind")]
    Part(usize, &'static str),
}

/// Inspects every part of a PEM file, or the content of a DER file.
pub fn inspect(bytes: &[u8]) -> Result<Vec<Item>, InspectError> {
    if bytes.first() == Some(&DER_SEQUENCE) {
        let item = certificate(bytes)
            .or_else(|| crl(bytes))
            .or_else(|| signing_request(bytes))
            .or_else(|| encrypted_key(bytes))
            .or_else(|| private_key(&PrivateKeyDer::try_from(bytes).ok()?));
        return item.map(|item| vec![item]).ok_or(InspectError::Nothing);
    }
    let mut items = Vec::new();
    for (index, section) in pem::read(bytes)?.into_iter().enumerate() {
        let der = &section.der;
        let (item, what) = match section.kind {
            PemKind::Certificate => (certificate(der), "certificate"),
            PemKind::Crl => (crl(der), "CRL"),
            PemKind::SigningRequest => (signing_request(der), "signing request"),
            PemKind::EncryptedKey => (
                encrypted_key(der)
                    .or_else(|| is_legacy_label(&section.label).then(legacy_encrypted_key)),
                "private key",
            ),
            kind if kind.is_private_key() => (
                section
                    .into_private_key()
                    .ok()
                    .and_then(|key| private_key(&key)),
                "private key",
            ),
            _ => continue,
        };
        items.push(item.ok_or(InspectError::Part(index + 1, what))?);
    }
    if items.is_empty() {
        return Err(InspectError::Nothing);
    }
    Ok(items)
}

const DER_SEQUENCE: u8 = 0x30;

fn encrypted_key(der: &[u8]) -> Option<Item> {
    let encryption = scheme(der)?;
    Some(Item::EncryptedPrivateKey { encryption })
}

/// The format with `Proc-Type` and `DEK-Info` before the base64.
fn is_legacy_label(label: &str) -> bool {
    label != "ENCRYPTED PRIVATE KEY"
}

fn legacy_encrypted_key() -> Item {
    Item::EncryptedPrivateKey {
        encryption: "OpenSSL's legacy format (Proc-Type, DEK-Info)".to_owned(),
    }
}

fn certificate(der: &[u8]) -> Option<Item> {
    let (rest, parsed) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let validity = validity_of(&parsed);
    let basic = parsed.basic_constraints().ok()?.map(|found| found.value);
    let usage = parsed.key_usage().ok()?.map(|found| found.value);
    let extended = parsed.extended_key_usage().ok()?.map(|found| found.value);
    let names = parsed.subject_alternative_name().ok()?;
    let names = names.map_or(&[][..], |found| &found.value.general_names);
    let (uris, names): (Vec<_>, Vec<_>) = names
        .iter()
        .partition(|name| matches!(name, GeneralName::URI(_)));
    Some(Item::Certificate {
        subject: distinguished(parsed.subject()),
        issuer: distinguished(parsed.issuer()),
        serial: hex::encode(strip_sign(parsed.raw_serial())),
        uris: uris.into_iter().map(general).collect(),
        names: names.into_iter().map(general).collect(),
        attributes: attributes_of(&parsed),
        not_before: validity.not_before,
        not_after: validity.not_after,
        key: key::kind(parsed.public_key()),
        key_sha256: sha256_hex(parsed.public_key().raw),
        signature: algorithm(&parsed.signature_algorithm),
        ca: basic.is_some_and(|found| found.ca),
        path_len: basic.and_then(|found| found.path_len_constraint),
        key_usage: usage.map(usages).unwrap_or_default(),
        extended_key_usage: extended.map(extended_usages).unwrap_or_default(),
        subject_key_id: parsed
            .iter_extensions()
            .find_map(|found| match found.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(hex::encode(id.0)),
                _ => None,
            }),
        authority_key_id: parsed
            .iter_extensions()
            .find_map(|found| authority_key_id(found.parsed_extension())),
        sha256: sha256_hex(der),
    })
}

fn attributes_of(parsed: &X509Certificate<'_>) -> Vec<String> {
    // A reader can have any that another role can.
    match lizmon_pki::attributes::read(parsed, Role::Reader) {
        Ok(attributes) => attributes.texts().map(str::to_owned).collect(),
        Err(error) => vec![error.to_string()],
    }
}

fn crl(der: &[u8]) -> Option<Item> {
    let (rest, parsed) = CertificateRevocationList::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let epoch = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    Some(Item::Crl {
        issuer: distinguished(parsed.issuer()),
        number: parsed.crl_number().map(ToString::to_string),
        this_update: epoch(parsed.last_update()),
        next_update: parsed.next_update().map(epoch),
        authority_key_id: parsed
            .extensions()
            .iter()
            .find_map(|found| authority_key_id(found.parsed_extension())),
        signature: algorithm(&parsed.signature_algorithm),
        revoked: parsed.iter_revoked_certificates().map(revoked).collect(),
    })
}

fn revoked(entry: &RevokedCertificate<'_>) -> Revoked {
    Revoked {
        serial: hex::encode(strip_sign(entry.raw_serial())),
        since: u64::try_from(entry.revocation_date.timestamp()).unwrap_or(0),
        reason: entry.reason_code().map(|(_, code)| code.to_string()),
    }
}

fn signing_request(der: &[u8]) -> Option<Item> {
    let (rest, parsed) = X509CertificationRequest::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let info = &parsed.certification_request_info;
    Some(Item::SigningRequest {
        subject: distinguished(&info.subject),
        key: key::kind(&info.subject_pki),
        key_sha256: sha256_hex(info.subject_pki.raw),
        signature: algorithm(&parsed.signature_algorithm),
        signature_is_good: parsed.verify_signature().is_ok(),
    })
}

fn private_key(der: &PrivateKeyDer<'_>) -> Option<Item> {
    let info = KeyPair::try_from(der).ok()?.subject_public_key_info();
    let (_, parsed) = SubjectPublicKeyInfo::from_der(&info).ok()?;
    Some(Item::PrivateKey {
        key: key::kind(&parsed),
        key_sha256: sha256_hex(&info),
    })
}

fn authority_key_id(extension: &ParsedExtension<'_>) -> Option<String> {
    match extension {
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            id.key_identifier.as_ref().map(|id| hex::encode(id.0))
        }
        _ => None,
    }
}

fn distinguished(name: &X509Name<'_>) -> String {
    escape_control(&name.to_string())
}

fn general(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) => escape_control(text),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).map(|v4| std::net::Ipv4Addr::from(v4).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).map(|v6| std::net::Ipv6Addr::from(v6).to_string()),
        }
        .unwrap_or_else(|_| hex::encode(bytes)),
        other => escape_control(&other.to_string()),
    }
}

fn algorithm(identifier: &AlgorithmIdentifier<'_>) -> String {
    let registry = OidRegistry::default().with_crypto().with_x509();
    format_oid(&identifier.algorithm, &registry)
}

fn usages(usage: &KeyUsage) -> Vec<String> {
    let known = [
        (usage.digital_signature(), "digitalSignature"),
        (usage.non_repudiation(), "nonRepudiation"),
        (usage.key_encipherment(), "keyEncipherment"),
        (usage.data_encipherment(), "dataEncipherment"),
        (usage.key_agreement(), "keyAgreement"),
        (usage.key_cert_sign(), "keyCertSign"),
        (usage.crl_sign(), "cRLSign"),
        (usage.encipher_only(), "encipherOnly"),
        (usage.decipher_only(), "decipherOnly"),
    ];
    set(&known)
}

fn extended_usages(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let known = [
        (usage.any, "any"),
        (usage.client_auth, "clientAuth"),
        (usage.server_auth, "serverAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let mut all = set(&known);
    all.extend(usage.other.iter().map(ToString::to_string));
    all
}

fn set(known: &[(bool, &str)]) -> Vec<String> {
    let present = known.iter().filter(|(present, _)| *present);
    present.map(|(_, name)| (*name).to_owned()).collect()
}

/// Escapes control characters, which could manipulate the terminal.
fn escape_control(text: &str) -> String {
    let shown = |c: char| -> String {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    text.chars().map(shown).collect()
}
