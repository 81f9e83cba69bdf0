//! Signing requests with more than a key: they get our template, or an error.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{CaServer, certificate_in, refused, request, token};
use crate::harness::World;
use crate::harness::process;

/// Whatever was requested: one URI, clientAuth, digitalSignature, no CA, our subject and our dates.
#[track_caller]
fn is_our_template(der: &[u8], name: &str, now: u64, story: &str) {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty(), "{story}");
    assert_eq!(
        certificate.subject().to_string(),
        format!("CN={name}"),
        "{story}"
    );
    let sans = certificate.subject_alternative_name().unwrap().unwrap();
    let id = format!("spiffe://lizmon.internal/node/{name}");
    assert_eq!(sans.value.general_names, [GeneralName::URI(&id)], "{story}");
    assert!(!certificate.is_ca(), "{story}");
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(
        usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty(),
        "{story}"
    );
    assert!(
        !usage.code_signing && !usage.email_protection && !usage.ocsp_signing,
        "{story}"
    );
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert_eq!(usage.flags, 1, "{story}: digitalSignature alone");
    for extension in certificate.extensions() {
        let known = !matches!(
            extension.parsed_extension(),
            ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::Unparsed
        );
        assert!(known, "{story}: {extension:?}");
    }
    let end = certificate.validity().not_after.timestamp() as u64;
    assert!((now..=now + 7 * 86_400).contains(&end), "{story}");
    assert!(der.len() < 1024, "{story}: {} bytes", der.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_contributes_its_key_alone() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    type Edit<'e> = Box<dyn Fn(&mut CertificateParams) + 'e>;
    let sans = |names: Vec<SanType>| -> Edit<'static> {
        Box::new(move |params| params.subject_alt_names.clone_from(&names))
    };
    let cases: Vec<(&str, Edit<'_>)> = vec![
        ("nothing", Box::new(|_| ())),
        (
            "another's CN",
            Box::new(|params| params.distinguished_name.push(DnType::CommonName, "db1")),
        ),
        (
            "a whole subject",
            Box::new(|params| {
                params
                    .distinguished_name
                    .push(DnType::OrganizationName, "Evil");
                params.distinguished_name.push(DnType::CountryName, "XX");
            }),
        ),
        (
            "another's URI",
            sans(vec![uri("spiffe://lizmon.internal/node/db1")]),
        ),
        (
            "a reader's URI",
            sans(vec![uri("spiffe://lizmon.internal/reader/web1")]),
        ),
        (
            "two URIs",
            sans(vec![
                uri("spiffe://lizmon.internal/node/web1"),
                uri("spiffe://lizmon.internal/operator/root"),
            ]),
        ),
        ("a DNS name", sans(vec![dns("localhost")])),
        ("a wildcard", sans(vec![dns("*.example")])),
        (
            "an address",
            sans(vec![SanType::IpAddress("127.0.0.1".parse().unwrap())]),
        ),
        (
            "a mail address",
            sans(vec![SanType::Rfc822Name(
                "root@localhost".try_into().unwrap(),
            )]),
        ),
        (
            "an other name",
            sans(vec![SanType::OtherName((
                vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
                "admin@example".into(),
            ))]),
        ),
        (
            "a CA",
            Box::new(|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }),
        ),
        (
            "odd usages",
            Box::new(|params| {
                params.extended_key_usages = vec![
                    ExtendedKeyUsagePurpose::Any,
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::CodeSigning,
                    ExtendedKeyUsagePurpose::OcspSigning,
                    ExtendedKeyUsagePurpose::Other(vec![1, 2, 3, 4]),
                ];
                params.key_usages = vec![KeyUsagePurpose::DataEncipherment];
            }),
        ),
        (
            "an unknown extension",
            Box::new(|params| {
                params.custom_extensions = vec![CustomExtension::from_oid_content(
                    &[1, 2, 3, 4, 5],
                    vec![5, 0],
                )];
            }),
        ),
    ];
    let now = world.clock.now();
    for (at, (story, edit)) in cases.iter().enumerate() {
        let mut params = CertificateParams::default();
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let body = STANDARD.encode(params.serialize_request(&key).unwrap().der());
        let name = format!("web{at}");
        let got = ca_server
            .enroll(&world, &name, &token(&world, &name), body.clone())
            .await;
        let der = certificate_in(world.folder(), &got);
        is_our_template(&der, &name, now, story);
        // The same at a renewal by the holder that joined.
        let shown = crate::harness::raw::Shown {
            chain: vec![der, issuing(&world)],
            key: key.serialize_der().try_into().unwrap(),
        };
        let got = ca_server.reenroll(&world, shown, body).await.unwrap();
        is_our_template(&certificate_in(world.folder(), &got), &name, now, story);
    }
}

fn issuing(world: &World) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    PemObject::from_pem_file(world.certs().join("issuing.crt")).unwrap()
}

/// A request made by OpenSSL, with key types that we do not have.
fn openssl_request(folder: &Path, algorithm: &[&str]) -> String {
    let (key, csr) = (folder.join("odd.key"), folder.join("odd.csr"));
    let mut genpkey = Command::new("openssl");
    genpkey.arg("genpkey").args(algorithm).arg("-out").arg(&key);
    process::run(&mut genpkey).success();
    let mut req = Command::new("openssl");
    req.args(["req", "-new", "-subj", "/CN=x", "-key"])
        .arg(&key);
    req.arg("-out").arg(&csr);
    process::run(&mut req).success();
    std::fs::read_to_string(csr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_strong_or_refused() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let rsa = |bits| vec!["-algorithm", "RSA", "-pkeyopt", bits];
    let curve = |name| vec!["-algorithm", "EC", "-pkeyopt", name];
    // Regression: its parameters were printed as the curve's name.
    let explicit = [
        curve("ec_paramgen_curve:P-256"),
        vec!["-pkeyopt", "ec_param_enc:explicit"],
    ]
    .concat();
    let cases = [
        (curve("ec_paramgen_curve:P-256"), 200),
        (curve("ec_paramgen_curve:P-384"), 200),
        (vec!["-algorithm", "ED25519"], 200),
        (rsa("rsa_keygen_bits:2048"), 200),
        (rsa("rsa_keygen_bits:1024"), 400),
        (curve("ec_paramgen_curve:P-521"), 400),
        (curve("ec_paramgen_curve:secp256k1"), 400),
        (curve("ec_paramgen_curve:P-224"), 400),
        (vec!["-algorithm", "ED448"], 400),
        (explicit.clone(), 400),
    ];
    let token = token(&world, "web1");
    let mut refusals = 0;
    for (algorithm, status) in cases.iter().rev() {
        let pem = openssl_request(world.folder(), algorithm);
        if *status == 400 {
            let got = ca_server.enroll(&world, "web1", &token, pem).await;
            refused(&got, 400, &format!("{algorithm:?}"));
            let names_none = got.text().contains("on a curve without a name");
            assert_eq!(names_none, *algorithm == explicit, "{}", got.text());
            refusals += 1;
            continue;
        }
        // None of the refused requests has used up the token; each accepted one has its own.
        let name = format!("web-{}", algorithm.concat().len());
        let own = super::token(&world, &name);
        let got = ca_server.enroll(&world, &name, &own, pem).await;
        certificate_in(world.folder(), &got);
    }
    assert_eq!(refusals, 6);
    let got = ca_server.enroll(&world, "web1", &token, request()).await;
    assert_eq!(got.status, 200, "{}", got.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_request() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open(&world).await;
    let token = token(&world, "web1");
    let good = request();
    let der = STANDARD.decode(&good).unwrap();
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    let certificate = std::fs::read_to_string(world.root()).unwrap();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("nothing", vec![], 400),
        ("text", b"hello".to_vec(), 400),
        ("JSON", b"{\"csr\":\"x\"}".to_vec(), 400),
        (
            "half of it",
            good.as_bytes()[..good.len() / 2].to_vec(),
            400,
        ),
        (
            "twice",
            STANDARD.encode([der.clone(), der.clone()].concat()).into(),
            400,
        ),
        (
            "not signed by its key",
            STANDARD.encode(&forged).into(),
            400,
        ),
        ("a certificate", certificate.into(), 400),
        (
            "a hundred thousand brackets",
            STANDARD.encode([0x30, 0x80].repeat(4000)).into(),
            400,
        ),
        ("16 KiB", vec![b'A'; 16 << 10], 400),
        ("a byte more", vec![b'A'; (16 << 10) + 1], 413),
        ("a megabyte and more", vec![b'A'; 3 << 20], 413),
    ];
    for (story, body, status) in cases {
        let edit =
            |asked: reqwest::RequestBuilder| asked.basic_auth("web1", Some(&token)).body(body);
        match ca_server.ask(&world, None, super::ENROLL, edit).await {
            Ok(got) => refused(&got, status, story),
            // Far beyond what is read and discarded, the response may be lost with the connection.
            Err(error) => assert!(story.starts_with("a megabyte"), "{story}: {error:?}"),
        }
    }
    // A valid request, truncated at every length and with every byte changed: always refused, and
    // the token is not used up.
    for at in (0..der.len()).step_by(7) {
        for body in [der[..at].to_vec(), {
            let mut changed = der.clone();
            changed[at] ^= 0x55;
            changed
        }] {
            let got = ca_server
                .enroll(&world, "web1", &token, STANDARD.encode(body))
                .await;
            refused(&got, 400, &format!("at {at}"));
        }
    }
    let got = ca_server.enroll(&world, "web1", &token, good).await;
    assert_eq!(got.status, 200, "{}", got.text());
}
