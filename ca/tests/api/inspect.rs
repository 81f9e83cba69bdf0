//! `inspect` on valid and invalid files. The content of certificates is tested where they are
//! issued.

use lizmon_ca::pki::inspect::{InspectError, Item, inspect};
use lizmon_pki::pem::PemError;
use rcgen::{CertificateParams, DnType, KeyPair};

type Kinds = Result<Vec<&'static str>, InspectError>;

fn kinds(bytes: &[u8]) -> Kinds {
    let kind = |item: &Item| match item {
        Item::Certificate { .. } => "certificate",
        Item::EncryptedPrivateKey { .. } => "encrypted key",
        Item::PrivateKey { .. } => "key",
        Item::Crl { .. } => "crl",
        Item::SigningRequest { .. } => "request",
    };
    inspect(bytes).map(|items| items.iter().map(kind).collect())
}

#[test]
fn every_part_of_a_file_is_shown_in_order() {
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::default();
    let certificate = params.self_signed(&pair).unwrap();
    let request = params.serialize_request(&pair).unwrap();
    let (cert_pem, key_pem) = (certificate.pem(), pair.serialize_pem());
    let request_pem = request.pem().unwrap();
    let all = format!("a note\n{cert_pem}{key_pem}\n{request_pem}{cert_pem}");
    let public = "-----BEGIN PUBLIC KEY-----\nBQA=\n-----END PUBLIC KEY-----\n";
    let liar = cert_pem.replace("CERTIFICATE", "X509 CRL");
    let cut = &cert_pem[..cert_pem.len() - 40];
    let older = format!(
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n\
         c2VjcmV0IHNlY3JldCBzZWNyZXQ=\n-----END EC PRIVATE KEY-----\n{cert_pem}"
    );
    let marked = format!("\u{feff}{}", cert_pem.replace('\n', "\r\n"));
    let key_der = pair.serialize_der();
    let cases: [(&[u8], Kinds); 13] = [
        (
            all.as_bytes(),
            Ok(vec!["certificate", "key", "request", "certificate"]),
        ),
        (certificate.der(), Ok(vec!["certificate"])),
        (request.der(), Ok(vec!["request"])),
        (&certificate.der()[..50], Err(InspectError::Nothing)),
        (b"", Err(InspectError::Nothing)),
        (b"hello", Err(InspectError::Nothing)),
        (public.as_bytes(), Err(InspectError::Nothing)),
        (liar.as_bytes(), Err(InspectError::Part(1, "CRL"))),
        (
            cut.as_bytes(),
            Err(InspectError::Pem(PemError::NoEnd {
                line: 1,
                label: "CERTIFICATE".to_owned(),
            })),
        ),
        (older.as_bytes(), Ok(vec!["encrypted key", "certificate"])),
        (marked.as_bytes(), Ok(vec!["certificate"])),
        (&key_der, Ok(vec!["key"])),
        (
            b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            Err(InspectError::Part(1, "private key")),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(kinds(bytes), expected, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_private_key_is_never_shown() {
    let pair = KeyPair::generate().unwrap();
    let items = inspect(pair.serialize_pem().as_bytes()).unwrap();
    let json = serde_json::to_string(&items).unwrap();
    // PKCS #8 of P-256: the secret is the octet string (04) of 32 bytes here.
    let der = pair.serialized_der();
    assert_eq!(der[34..36], [4, 32]);
    let secret = &der[36..68];
    assert!(!json.contains(&hex_of(secret)), "{json}");
    assert!(json.contains(r#""type":"private-key""#), "{json}");
}

#[test]
fn text_in_a_file_cannot_control_the_terminal() {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "\u{1b}[2Jgone\r\n\u{9b}1m");
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    match &inspect(certificate.der()).unwrap()[0] {
        Item::Certificate { subject, .. } => {
            assert!(!subject.chars().any(char::is_control), "{subject:?}");
            assert!(subject.contains("gone"), "{subject:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
