//! The pure parts of a receiver, each alone: no connection, no disk but where a store is opened.
//!
//! ```text
//! cargo bench --workspace --profile dist --bench pure -- [--quick] [FILTER]
//! ```

#![expect(clippy::unwrap_used, reason = "a measurement: it fails by panicking")]

mod caller;
mod full_store;

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use lizmon_pki::crl::Crl;
use lizmon_protocol::name::Label;
use lizmon_protocol::sample::{ProducerId, parse_batch, parse_sample_set, read_batch};
use lizmon_receiver::authorize::Caller;
use lizmon_receiver::query;
use lizmon_receiver::store::record::{Group, RecordEncoder, Submission};
use lizmon_receiver::summarize::Summarizer;
use lizmon_receiver::token::Tokens;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use uuid::Uuid;

use self::caller::{claims_of, identity};
use self::full_store::{fill, name, store, submission};

const NOW: u64 = 17_000 * 86_400;
/// Of a batch.
const RECORDS: u64 = 5_000;
/// Serials of a CRL.
const REVOKED: u64 = 100_000;
/// Hosts of a store.
const HOSTS: u64 = 100;
const URL: &str = "https://lizmon.test";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    tokens(&mut criterion);
    summaries(&mut criterion);
    crl(&mut criterion);
    criterion.final_summary();
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let two = br#"{"cpu":4.98,"mem":61.2}"#;
    group.bench_function("a sample set of two values", |bencher| {
        bencher.iter(|| parse_sample_set(black_box(two)).unwrap());
    });
    group.bench_function("a label", |bencher| {
        bencher.iter(|| Label::new(black_box("disk-used:/var/lib/postgresql")).unwrap());
    });
    let body = batch();
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("a batch of 5,000 records of two values", |bencher| {
        bencher.iter(|| parse_batch(black_box(body.as_bytes())).unwrap());
    });
    let producer = Some(ProducerId::from_bytes([7; 16]));
    let encoder = || RecordEncoder::new(Submission::new(&name(1), NOW, producer, NOW));
    group.bench_function("the same, encoded for the journal", |bencher| {
        bencher.iter(|| read_batch(black_box(body.as_bytes()), encoder).unwrap());
    });
    group.finish();
}

fn batch() -> String {
    let mut body = format!(r#"{{"producer":"{}","records":["#, Uuid::from_u128(7));
    for seq in 1..=RECORDS {
        let comma = if seq == 1 { "" } else { "," };
        let (epoch, cpu) = (NOW - RECORDS + seq, seq * 37 % 10_000);
        let (whole, cents) = (cpu / 100, cpu % 100);
        write!(
            body,
            r#"{comma}{{"seq":{seq},"epoch":{epoch},"values":{{"cpu":{whole}.{cents:02},"mem":61.2}}}}"#
        )
        .unwrap();
    }
    body + "]}"
}

/// A token that this receiver remembers, and one that it sees for the first time: another one, with
/// the same keys, has minted it.
fn tokens(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let (url, life) = (|| URL.to_owned(), Duration::from_secs(30 * 86_400));
        let ttl = Duration::from_secs(300);
        Tokens::open(folder.path(), url(), url(), ttl, life, NOW).unwrap()
    };
    let (mints, verifies) = (open(), open());
    let holder = identity(NOW);
    let scope = claims_of(&holder, NOW).scope;
    let mint = || mints.mint(&holder, scope, NOW).unwrap().token;
    let mut group = criterion.benchmark_group("token");
    let token = mint();
    verifies.verify(&token, NOW).unwrap();
    group.bench_function("verified before", |bencher| {
        bencher.iter(|| verifies.verify(black_box(&token), NOW).unwrap());
    });
    group.bench_function("seen for the first time", |bencher| {
        let verify = |token: String| verifies.verify(&token, NOW).unwrap();
        bencher.iter_batched(mint, verify, BatchSize::SmallInput);
    });
    group.bench_function("minted", |bencher| bencher.iter(mint));
    group.finish();
}

/// Of hosts of ten labels whose windows are full.
fn summaries(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), HOSTS, NOW);
    let mut store = store(folder.path(), NOW);
    let mut summarizer = Summarizer::open(&mut *store, NOW).unwrap();
    let mut group = criterion.benchmark_group("summaries");

    let table = summarizer.table();
    let reader = identity(NOW);
    let claims = Arc::new(claims_of(&reader, NOW));
    let caller = Caller::new(&reader, &claims).unwrap();
    let host = name(1);
    let permit = caller.read_host(Some(&host), |host| table.tags(host));
    let permit = permit.unwrap();
    group.bench_function("the answer of a host, 104 kB", |bencher| {
        bencher.iter(|| query::summaries(&permit, &table, "", NOW).unwrap().unwrap());
    });

    let added: Submission = submission(1, &[NOW], NOW);
    let view = added.view().unwrap();
    let shard = store.shard_count().shard_of(view.host);
    let mut written = Group::default();
    written.push(&added);
    let position = store.append(&[(shard, written.seal())]).remove(0).unwrap();
    group.throughput(Throughput::Elements(full_store::LABELS));
    group.bench_function("a sample set of ten values, applied", |bencher| {
        bencher.iter(|| {
            summarizer.begin_group();
            summarizer.apply(position, black_box(&view))
        });
    });
    group.finish();
}

fn crl(criterion: &mut Criterion) {
    let der = signed_crl();
    let crl = Crl::read_all(&der).unwrap().remove(0);
    let (revoked, other) = (serial(REVOKED / 2), serial(REVOKED + 1));
    assert!(crl.revokes(&revoked) && !crl.revokes(&other));
    let mut group = criterion.benchmark_group("CRL of 100,000 serials");
    group.bench_function("a serial that is in it", |bencher| {
        bencher.iter(|| crl.revokes(black_box(&revoked)));
    });
    group.bench_function("a serial that is not", |bencher| {
        bencher.iter(|| crl.revokes(black_box(&other)));
    });
    group.sample_size(10);
    group.bench_function("read", |bencher| {
        bencher.iter(|| Crl::read_all(black_box(&der)).unwrap());
    });
    group.finish();
}

/// As long as those that the CA gives.
fn serial(number: u64) -> Vec<u8> {
    let mut bytes = vec![1; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn signed_crl() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let issuer = Issuer::new(params, key);
    let revoked = (1..=REVOKED).map(|number| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial(number)),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2026, 2, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().der().to_vec()
}
