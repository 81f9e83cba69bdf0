//! Malicious signing requests, and folders prepared by an attacker.

use std::path::Path;

use lizmon_ca::Error;
use lizmon_ca::authority::{
    Authority, InitError, InitOptions, IssueError, Issued, KeySource, Request,
};
use lizmon_ca::files::CaFileError;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::{CsrError, DAY_SECS, ValidityError};
use lizmon_protocol::name::Role;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, RsaKeySize, SanType,
};

use crate::sandbox::{NOW, new_ca};

fn with_request(authority: &Authority, der: Vec<u8>) -> Result<Issued, Error> {
    let request = Request {
        key: KeySource::Csr(der),
        ..Request::new(Role::Node, "web1".parse().unwrap())
    };
    authority.issue(request, NOW)
}

/// rcgen signs whatever a request asks for. Our template ignores it.
#[test]
fn a_request_gives_its_key_and_nothing_else() {
    type Greed = fn(&mut CertificateParams);
    let greeds: [(&str, Greed); 8] = [
        ("nothing", |_| {}),
        ("to be a CA", |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
        ("to sign", |p| {
            p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }),
        ("another identity", |p| {
            let uri = "spiffe://lizmon.internal/operator/root".try_into().unwrap();
            p.subject_alt_names = vec![SanType::URI(uri)];
        }),
        ("a server's names", |p| {
            let dns = "metrics.example".try_into().unwrap();
            let address = "10.0.0.5".parse().unwrap();
            p.subject_alt_names = vec![SanType::DnsName(dns), SanType::IpAddress(address)];
        }),
        ("to be a server", |p| {
            p.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::CodeSigning,
                ExtendedKeyUsagePurpose::Any,
            ];
        }),
        ("another name", |p| {
            p.distinguished_name.push(DnType::CommonName, "admin");
            p.distinguished_name.push(DnType::OrganizationName, "root");
        }),
        ("an unknown extension", |p| {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            extension.set_criticality(true);
            p.custom_extensions = vec![extension];
        }),
    ];
    for (what, greed) in greeds {
        let (_dir, certs, authority) = new_ca();
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        greed(&mut params);
        let request = params.serialize_request(&pair).unwrap();
        let issued = with_request(&authority, request.der().to_vec()).unwrap();
        let items = inspect(issued.chain_pem.as_bytes()).unwrap();
        let Item::Certificate {
            subject,
            uris,
            names,
            ca,
            path_len,
            key_usage,
            extended_key_usage,
            key_sha256,
            not_before,
            not_after,
            serial,
            ..
        } = &items[0]
        else {
            panic!("{items:?}");
        };
        assert_eq!(subject, "CN=web1", "{what}");
        // A request has no dates and no serial number; if they are not set, rcgen has defaults.
        assert_eq!((*not_before, *not_after), (NOW - 300, NOW + 90 * DAY_SECS));
        assert_eq!(*serial, issued.serial.to_string(), "{what}");
        assert_eq!(uris, &["spiffe://lizmon.internal/node/web1"], "{what}");
        assert!(names.is_empty(), "{what}: {names:?}");
        assert_eq!((*ca, *path_len), (false, None), "{what}");
        assert_eq!(key_usage, &["digitalSignature"], "{what}");
        assert_eq!(extended_key_usage, &["clientAuth"], "{what}");
        let pem = pair.serialize_pem();
        let key = inspect(pem.as_bytes()).unwrap();
        assert!(
            matches!(&key[0], Item::PrivateKey { key_sha256: ours, .. } if ours == key_sha256),
            "{what}"
        );
        assert!(issued.key_path.is_none() && !certs.join("nodes/web1.key").exists());
        assert!(!issued.chain_pem.contains("PRIVATE"), "{what}");
    }
}

/// A request for another holder's public key, from a client that does not have the private key.
#[test]
fn a_request_for_another_key_is_refused() {
    struct Borrowed {
        shown: KeyPair,
        signs: KeyPair,
    }
    impl PublicKeyData for Borrowed {
        fn der_bytes(&self) -> &[u8] {
            self.shown.der_bytes()
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            PublicKeyData::algorithm(&self.shown)
        }
    }
    impl rcgen::SigningKey for Borrowed {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            self.signs.sign(message)
        }
    }
    let (_dir, _certs, authority) = new_ca();
    let key = Borrowed {
        shown: KeyPair::generate().unwrap(),
        signs: KeyPair::generate().unwrap(),
    };
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let error = with_request(&authority, request.der().to_vec()).unwrap_err();
    assert!(matches!(error, Error::Csr(CsrError::Signature)), "{error}");
}

#[test]
fn weak_and_odd_keys_are_refused() {
    /// A key that cannot sign: the strength is checked before the signature.
    struct Weak(Vec<u8>, &'static rcgen::SignatureAlgorithm);
    impl PublicKeyData for Weak {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            self.1
        }
    }
    impl rcgen::SigningKey for Weak {
        fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            Ok(vec![0; 64])
        }
    }
    /// RSAPublicKey, RFC 8017 appendix A.1.1.
    fn rsa(modulus_bytes: usize, exponent: &[u8]) -> Vec<u8> {
        let integer = |content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[0x02, 0x82], &length[..], content].concat()
        };
        let modulus = [vec![0, 0x80], vec![0; modulus_bytes - 2], vec![1]].concat();
        let both = [integer(&modulus), {
            let length = u8::try_from(exponent.len()).unwrap();
            [&[0x02, length], exponent].concat()
        }]
        .concat();
        let length = u16::try_from(both.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82], &length[..], &both].concat()
    }
    let mut compressed = KeyPair::generate().unwrap().public_key_raw()[..33].to_vec();
    compressed[0] = 2;
    let f4 = [1, 0, 1];
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let cases = [
        (
            Weak(rsa(64, &f4), &rcgen::PKCS_RSA_SHA256),
            CsrError::RsaBits(512),
        ),
        (
            Weak(rsa(128, &f4), &rcgen::PKCS_RSA_SHA256),
            CsrError::RsaBits(1024),
        ),
        (
            Weak(rsa(255, &f4), &rcgen::PKCS_RSA_SHA256),
            CsrError::RsaBits(2040),
        ),
        (
            Weak(rsa(513, &f4), &rcgen::PKCS_RSA_SHA256),
            CsrError::RsaBits(4104),
        ),
        (
            Weak(rsa(256, &[3]), &rcgen::PKCS_RSA_SHA256),
            CsrError::RsaExponent,
        ),
        (
            Weak(rsa(256, &[1]), &rcgen::PKCS_RSA_SHA256),
            CsrError::RsaExponent,
        ),
        (
            Weak(rsa(256, &f4), &rcgen::PKCS_RSA_SHA256),
            CsrError::Signature,
        ),
        (
            Weak(compressed, &rcgen::PKCS_ECDSA_P256_SHA256),
            CsrError::Point,
        ),
        (
            Weak(vec![4; 65], &rcgen::PKCS_ECDSA_P256_SHA256),
            CsrError::Signature,
        ),
        (
            Weak(vec![0], &rcgen::PKCS_ECDSA_P256_SHA256),
            CsrError::Point,
        ),
        (
            Weak(vec![], &rcgen::PKCS_ECDSA_P384_SHA384),
            CsrError::Point,
        ),
        (Weak(vec![1; 31], &rcgen::PKCS_ED25519), CsrError::Point),
        (Weak(vec![0; 32], &rcgen::PKCS_ED25519), CsrError::Signature),
        (
            Weak(
                p521.public_key_raw().to_vec(),
                &rcgen::PKCS_ECDSA_P521_SHA512,
            ),
            CsrError::Unsupported("on the curve 1.3.132.0.35".to_owned()),
        ),
    ];
    let (_dir, certs, authority) = new_ca();
    for (key, expected) in cases {
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        match with_request(&authority, request.der().to_vec()) {
            Err(Error::Csr(error)) => assert_eq!(error, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert!(!certs.join("nodes").exists());
}

#[test]
fn an_rsa_key_of_4096_bits_is_the_largest() {
    let (_dir, _certs, authority) = new_ca();
    let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap();
    let request = CertificateParams::default()
        .serialize_request(&pair)
        .unwrap();
    with_request(&authority, request.der().to_vec()).unwrap();
}

#[test]
fn a_certificate_is_not_written_beside_another_key() {
    let (_dir, certs, authority) = new_ca();
    authority
        .issue(Request::new(Role::Node, "web1".parse().unwrap()), NOW)
        .unwrap();
    let key_path = certs.join("nodes/web1.key");
    let ours = KeyPair::from_pem(&std::fs::read_to_string(&key_path).unwrap()).unwrap();
    let request = |pair: &KeyPair| {
        let request = CertificateParams::default()
            .serialize_request(pair)
            .unwrap();
        request.der().to_vec()
    };
    let error = with_request(&authority, request(&KeyPair::generate().unwrap())).unwrap_err();
    assert!(
        matches!(error, Error::Issue(IssueError::OtherKeyPresent(_))),
        "{error}"
    );
    with_request(&authority, request(&ours)).unwrap();
    assert_eq!(
        std::fs::read_to_string(&key_path).unwrap(),
        ours.serialize_pem()
    );
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn issue(authority: &Authority) -> Result<Issued, Error> {
        authority.issue(Request::new(Role::Node, "web1".parse().unwrap()), NOW)
    }

    fn is_plain(path: &Path) -> bool {
        std::fs::symlink_metadata(path).unwrap().is_file()
    }

    #[test]
    fn links_are_replaced_never_followed() {
        let (dir, certs, authority) = new_ca();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::fs::create_dir(certs.join("nodes")).unwrap();
        symlink(&victim, certs.join("nodes/web1.key")).unwrap();
        symlink(dir.path().join("nowhere"), certs.join("nodes/web1.crt")).unwrap();
        std::fs::remove_file(certs.join("crl.pem")).unwrap();
        symlink(&victim, certs.join("crl.pem")).unwrap();
        issue(&authority).unwrap();
        Authority::open(&certs, NOW).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert!(!dir.path().join("nowhere").exists());
        for file in ["nodes/web1.key", "nodes/web1.crt", "crl.pem"] {
            assert!(is_plain(&certs.join(file)), "{file}");
        }
        let mode = std::fs::metadata(certs.join("nodes/web1.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_written_into_a_link_or_a_file() {
        let (dir, certs, authority) = new_ca();
        let before = authority.entries().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, certs.join("nodes")).unwrap();
        let error = issue(&authority).unwrap_err();
        assert!(
            matches!(error, Error::File(CaFileError::NotAFolder(_))),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        std::fs::remove_file(certs.join("nodes")).unwrap();
        std::fs::write(certs.join("nodes"), "").unwrap();
        let error = issue(&authority).unwrap_err();
        assert!(
            matches!(error, Error::File(CaFileError::NotAFolder(_))),
            "{error}"
        );
        assert_eq!(authority.entries().unwrap(), before);
    }

    #[test]
    fn a_ca_is_not_made_over_dangling_links() {
        for file in ["root.key", "issuing.key", "ledger.db"] {
            let dir = tempfile::tempdir().unwrap();
            symlink(dir.path().join("nowhere"), dir.path().join(file)).unwrap();
            let error = Authority::init(dir.path(), &InitOptions::default(), NOW).unwrap_err();
            assert!(
                matches!(error, Error::Init(InitError::Partial { .. })),
                "{file}: {error}"
            );
            assert!(!dir.path().join("nowhere").exists());
        }
    }

    #[test]
    fn a_ledger_that_is_a_link_is_not_opened() {
        let (dir, certs, authority) = new_ca();
        drop(authority);
        let moved = dir.path().join("moved.db");
        std::fs::rename(certs.join("ledger.db"), &moved).unwrap();
        symlink(&moved, certs.join("ledger.db")).unwrap();
        let error = Authority::open(&certs, NOW).unwrap_err();
        assert!(
            matches!(error, Error::File(CaFileError::Invalid { .. })),
            "{error}"
        );
    }
}

/// rcgen accepts any certificate as an issuer, whether it may sign or not.
#[test]
fn a_certificate_that_may_not_sign_is_no_issuing_ca() {
    type Flaw = fn(&mut CertificateParams);
    let flaws: [Flaw; 4] = [
        |p| p.is_ca = IsCa::NoCa,
        |p| p.is_ca = IsCa::ExplicitNoCa,
        |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        |p| p.key_usages.clear(),
    ];
    for flaw in flaws {
        let (_dir, certs, authority) = new_ca();
        drop(authority);
        let read = |file: &str| std::fs::read_to_string(certs.join(file)).unwrap();
        let root_key = KeyPair::from_pem(&read("root.key")).unwrap();
        let root = rcgen::Issuer::from_ca_cert_pem(&read("root.crt"), root_key).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names =
            vec![SanType::URI("spiffe://lizmon.internal".try_into().unwrap())];
        flaw(&mut params);
        let key = KeyPair::from_pem(&read("issuing.key")).unwrap();
        let certificate = params.signed_by(&key, &root).unwrap();
        std::fs::write(certs.join("issuing.crt"), certificate.pem()).unwrap();
        match Authority::open(&certs, NOW) {
            Err(Error::File(CaFileError::Invalid { why, .. })) => {
                assert_eq!(why, "it is not a CA certificate")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Authority::init(&file.join("certs"), &InitOptions::default(), NOW).unwrap_err();
    assert!(
        matches!(error, Error::File(CaFileError::Io { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn impossible_lifetimes_leave_the_folder_clean() {
    let dir = tempfile::tempdir().unwrap();
    for (root_days, issuing_days) in [(0, 1), (1, 0), (u32::MAX, 1), (1, u32::MAX)] {
        let options = InitOptions {
            root_days,
            issuing_days,
            ..InitOptions::default()
        };
        let error = Authority::init(dir.path(), &options, NOW).unwrap_err();
        assert!(
            matches!(error, Error::Validity(ValidityError::Lifetime(_))),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
