//! The attributes in a certificate: the subject directory attributes extension of RFC 5280 section
//! 4.2.1.8, with one attribute, organizationalUnitName, that has a value for each.
//!
//! ```text
//! SEQUENCE { SEQUENCE { OID 2.5.4.11, SET OF { UTF8String "env=prod", … } } }
//! ```
//!
//! The extension is not critical, as that section demands: programs that do not know it ignore it.
//! A certificate in which it is not exactly so has no valid identity.

use lizmon_protocol::name::{AttributeError, Attributes, Role};
use x509_parser::asn1_rs::{Any, FromDer, Oid, Sequence, Set, ToDer, Utf8String, oid};
use x509_parser::certificate::X509Certificate;

/// The extension's identifier, id-ce-subjectDirectoryAttributes.
pub const EXTENSION: [u64; 4] = [2, 5, 29, 9];
const EXTENSION_OID: Oid<'static> = oid!(2.5.29.9);
/// id-at-organizationalUnitName.
const UNIT_NAME: Oid<'static> = oid!(2.5.4.11);

/// Why a certificate's attributes are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// Not the extension as lizmon writes it.
    #[error("its subject directory attributes cannot be read")]
    Malformed,
    /// Not attributes that its role may have.
    #[error(transparent)]
    Refused(#[from] AttributeError),
}

/// The content of the extension; `None` if there is nothing to say.
pub fn encode(attributes: &Attributes) -> Option<Vec<u8>> {
    if attributes.is_empty() {
        return None;
    }
    let mut values: Vec<Vec<u8>> = attributes
        .texts()
        .map(|text| Utf8String::from(text).to_der_vec())
        .collect::<Result<_, _>>()
        .ok()?;
    // X.690 section 11.6.
    values.sort();
    let set = Set::new(values.concat().into()).to_der_vec().ok()?;
    let attribute = [UNIT_NAME.to_der_vec().ok()?, set].concat();
    let attribute = Sequence::new(attribute.into()).to_der_vec().ok()?;
    Sequence::new(attribute.into()).to_der_vec().ok()
}

/// The attributes of a certificate whose holder has this role.
pub fn read(certificate: &X509Certificate<'_>, role: Role) -> Result<Attributes, AttributesError> {
    let extensions = certificate.extensions().iter();
    let mut extensions = extensions.filter(|extension| extension.oid == EXTENSION_OID);
    let Some(extension) = extensions.next() else {
        return Ok(Attributes::default());
    };
    if extensions.next().is_some() {
        return Err(AttributesError::Malformed);
    }
    let attributes = decode(extension.value)?;
    attributes.check(role)?;
    Ok(attributes)
}

/// Only what [`encode`] makes is read: its result must be the same bytes.
fn decode(content: &[u8]) -> Result<Attributes, AttributesError> {
    let values = values(content).ok_or(AttributesError::Malformed)?;
    let attributes = Attributes::of_texts(values.iter().map(String::as_str))?;
    match encode(&attributes) {
        Some(same) if same == content => Ok(attributes),
        _ => Err(AttributesError::Malformed),
    }
}

fn values(content: &[u8]) -> Option<Vec<String>> {
    let (_, all) = Sequence::from_der(content).ok()?;
    let (_, attribute) = Sequence::from_der(&all.content).ok()?;
    let (rest, kind) = Oid::from_der(&attribute.content).ok()?;
    if kind != UNIT_NAME {
        return None;
    }
    let (_, set) = Set::from_der(rest).ok()?;
    let mut values = Vec::new();
    let mut rest = &*set.content;
    while !rest.is_empty() {
        let (behind, value) = Any::from_der(rest).ok()?;
        values.push(value.utf8string().ok()?.string());
        rest = behind;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};
    use x509_parser::prelude::FromDer as _;

    use super::*;

    fn of(texts: &[&str]) -> Attributes {
        Attributes::of_texts(texts.iter().copied()).unwrap()
    }

    fn read_back(contents: &[Vec<u8>], role: Role) -> Result<Attributes, AttributesError> {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://lizmon.internal/{role}/a");
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        for content in contents {
            let extension = CustomExtension::from_oid_content(&EXTENSION, content.clone());
            params.custom_extensions.push(extension);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
        read(&certificate, role)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(encode(&Attributes::default()), None);
        assert_eq!(read_back(&[], Role::Operator), Ok(Attributes::default()));
        for (role, texts) in [
            (Role::Node, &["env=prod"][..]),
            (Role::Node, &["team=a", "env=production", "z=0"]),
            (Role::Reader, &["web*", "db-?", "env=prod", "env=test"]),
            (Role::Gateway, &["web*", "env=prod"]),
        ] {
            let content = encode(&of(texts)).unwrap();
            assert_eq!(read_back(&[content], role), Ok(of(texts)), "{texts:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = encode(&of(&["env=prod", "team=web"])).unwrap();
        let cases = [
            ("twice", vec![good.clone(), good.clone()]),
            ("empty", vec![vec![]]),
            ("no attribute", vec![vec![0x30, 0]]),
            ("cut", vec![good[..good.len() - 1].to_vec()]),
            ("bytes behind", vec![[&*good, &[0]].concat()]),
        ];
        for (story, contents) in cases {
            let read = read_back(&contents, Role::Node);
            assert_eq!(read, Err(AttributesError::Malformed), "{story}");
        }
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 0x20;
            // A letter of a value is another value; the structure must stay.
            if let Ok(attributes) = read_back(&[flipped.clone()], Role::Node) {
                assert_eq!(encode(&attributes), Some(flipped), "byte {at}");
            }
        }
    }

    #[test]
    fn a_role_has_only_its_own() {
        let tags = encode(&of(&["env=prod"])).unwrap();
        let patterns = encode(&of(&["web*"])).unwrap();
        for (content, role, good) in [
            (&tags, Role::Node, true),
            (&patterns, Role::Node, false),
            (&patterns, Role::Reader, true),
            (&tags, Role::Operator, false),
            (&patterns, Role::Receiver, false),
        ] {
            let read = read_back(std::slice::from_ref(content), role);
            assert_eq!(read.is_ok(), good, "{role}");
        }
    }
}
