//! The fuzz targets' functions with stable tooling: any bytes, and good ones with a few changes.
//! See `docs/testing.md`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[expect(unreachable_pub, reason = "it is a library's module there")]
#[path = "../../fuzz/src/decoders.rs"]
mod decoders;

use std::path::Path;

use proptest::prelude::*;

/// What is done to good bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize, usize),
    /// A piece from one place stands at another as well.
    Repeat(usize, usize, usize),
    Cut(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // Bytes that mean something to one of the formats, more often than chance would have it.
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"{}[]\",:-+.eE0123456789\\/u\x00\x30\x82\x80\xff".as_slice())
    ];
    let place = 0..4_000_usize;
    let change = prop_oneof![
        4 => (place.clone(), byte.clone()).prop_map(|(at, to)| Change::Set(at, to)),
        2 => (place.clone(), byte).prop_map(|(at, to)| Change::Insert(at, to)),
        2 => (place.clone(), 1..8_usize).prop_map(|(at, n)| Change::Remove(at, n)),
        1 => (place.clone(), place.clone(), 1..64_usize).prop_map(|(a, b, n)| Change::Repeat(a, b, n)),
        1 => place.prop_map(Change::Cut),
    ];
    prop::collection::vec(change, 1..6)
}

fn changed(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match change {
            Change::Set(at, to) => bytes[at % length] = to,
            Change::Insert(at, to) => bytes.insert(at % length, to),
            Change::Remove(at, count) => {
                let from = at % length;
                bytes.drain(from..(from + count).min(length));
            }
            Change::Repeat(from, at, count) => {
                let from = from % length;
                let piece = bytes[from..(from + count).min(length)].to_vec();
                let at = at % length;
                bytes.splice(at..at, piece);
            }
            Change::Cut(at) => bytes.truncate(at % length),
        }
    }
    bytes
}

/// The committed seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(target);
    let files = std::fs::read_dir(&folder).expect("every target has seeds");
    let mut files: Vec<_> = files
        .map(|file| file.expect("it can be listed").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
        .iter()
        .map(|file| std::fs::read(file).expect("it can be read"))
        .collect()
}

/// Certificates and CRLs are made for each run: none are committed.
fn authority() -> (rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, Vec<u8>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
    ];
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("a certificate");
    let der = issuer.der().to_vec();
    (issuer, der)
}

fn certificates() -> Vec<Vec<u8>> {
    let (issuer, root) = authority();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![
        rcgen::SanType::URI(
            "spiffe://lizmon.internal/node/web1"
                .try_into()
                .expect("a name"),
        ),
        rcgen::SanType::DnsName("web1.example".try_into().expect("a name")),
    ];
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, &issuer).expect("a certificate");
    vec![leaf.der().to_vec(), root]
}

fn revocation_lists() -> Vec<Vec<u8>> {
    let (issuer, _) = authority();
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2016, 6, 1),
        next_update: rcgen::date_time_ymd(2016, 7, 1),
        crl_number: 7_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: 17_u64.into(),
            revocation_time: rcgen::date_time_ymd(2016, 6, 1),
            reason_code: Some(rcgen::RevocationReason::KeyCompromise),
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).expect("a list");
    vec![
        list.der().to_vec(),
        list.pem().expect("a text").into_bytes(),
    ]
}

/// Good inputs as they are, good inputs with changes, and any bytes.
fn check(decoder: fn(&[u8]), good: &[Vec<u8>]) {
    check_cases(decoder, good, 10_000);
}

fn check_cases(decoder: fn(&[u8]), good: &[Vec<u8>], cases: u32) {
    good.iter().for_each(|bytes| decoder(bytes));
    let from_good = (prop::sample::select(good.to_vec()), changes());
    let bytes = prop_oneof![
        3 => from_good.prop_map(|(bytes, changes)| changed(bytes, changes)),
        1 => prop::collection::vec(any::<u8>(), 0..600),
    ];
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = proptest::test_runner::TestRunner::new(config).run(&bytes, |bytes| {
        decoder(&bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn sample_sets() {
    check(decoders::sample_set, &seeds("sample_set"));
}

#[test]
fn batches() {
    check(decoders::batch, &seeds("batch"));
}

#[test]
fn facts_of_machines() {
    let good = seeds("facts");
    let taken = |bytes: &Vec<u8>| lizmon_protocol::facts::Facts::parse(bytes).is_ok();
    assert_eq!(good.iter().filter(|bytes| taken(bytes)).count(), 2);
    check(decoders::facts, &good);
}

#[test]
fn messages_of_prometheus() {
    check(decoders::prometheus, &seeds("prometheus"));
}

#[test]
fn metrics_of_opentelemetry() {
    let good = seeds("otlp");
    for bytes in &good {
        let mut encodings = lizmon_receiver::otlp::OtlpEncoding::ALL.into_iter();
        assert!(encodings.any(|encoding| encoding.parse(bytes).is_ok()));
    }
    check(decoders::otlp, &good);
}

#[test]
fn journal_groups() {
    let good = seeds("journal_group");
    for group in &good {
        let read = lizmon_receiver::store::record::read_group(group);
        assert!(read.is_ok_and(|submissions| !submissions.is_empty()));
    }
    check(decoders::journal_group, &good);
}

#[test]
fn idempotency_keys() {
    check(decoders::idempotency_key, &seeds("idempotency_key"));
}

#[test]
fn identities() {
    let good = certificates();
    let leaf = lizmon_mtls::identity::Identity::from_der(&good[0]);
    assert_eq!(
        leaf.expect("it is good").spiffe_id.to_string(),
        "spiffe://lizmon.internal/node/web1"
    );
    check(decoders::identity, &[good, seeds("identity")].concat());
}

#[test]
fn revocation_lists_handed_in() {
    let good = revocation_lists();
    for list in &good {
        let lists = lizmon_mtls::revocation::Crl::read_all(list);
        assert_eq!(
            lists.expect("it is good")[0].status().numbered(),
            "number 7"
        );
    }
    check(
        decoders::revocation_list,
        &[good, seeds("revocation_list")].concat(),
    );
}

#[test]
fn tokens() {
    let minted = decoders::minted().1.clone().into_bytes();
    check(decoders::token, &[vec![minted], seeds("token")].concat());
}

/// Fewer: each case opens a database and waits for the disk.
#[test]
fn files_of_the_spool() {
    check_cases(decoders::spool_files, &seeds("spool_files"), 150);
}
