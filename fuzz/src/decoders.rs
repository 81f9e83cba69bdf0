//! Every decoder that sees outside bytes, and what must hold whatever the bytes are. Nothing here
//! may panic.
//!
//! This file is compiled twice: by the fuzz targets, and by the property tests in `tests/decoders`.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lizmon_monitor::spool::disk::DiskBackend;
use lizmon_monitor::spool::{DISK_BYTES_MAX, Spool, SpoolLimits};
use lizmon_mtls::identity::Identity;
use lizmon_mtls::revocation::{self, Crl};
use lizmon_pki::authority;
use lizmon_protocol::facts::{
    FACT_KEY_BYTES_MAX, FACT_TEXT_BYTES_MAX, FACTS_MAX, Fact, Facts, FactsError,
};
use lizmon_protocol::name::{Label, SpiffeId};
use lizmon_protocol::sample::{
    BATCH_DROPPED_MAX, BATCH_RECORDS_MAX, Batch, BodyError, ERRORS_SHOWN_MAX, EncodedSamples,
    Epoch, IdempotencyKey, ProducerId, RECORD_LABELS_MAX, Record, RecordSink, SampleSet, Seq,
    VALUE_MAX, Value, parse_batch, parse_sample_set, read_batch,
};
use lizmon_protocol::token::{Claims, Confirmation, Scopes};
use lizmon_receiver::authorize::Caller;
use lizmon_receiver::ingest;
use lizmon_receiver::otlp::OtlpEncoding;
use lizmon_receiver::otlp::answer::ExportMetricsServiceResponse;
use lizmon_receiver::otlp::message::Metric;
use lizmon_receiver::otlp::points::points;
use lizmon_receiver::prometheus::message::{ReadRequest, WriteRequest};
use lizmon_receiver::prometheus::naming::{Named, WHOLE, is_label_name, is_metric, written};
use lizmon_receiver::prometheus::points::Points;
use lizmon_receiver::prometheus::selector::Selector;
use lizmon_receiver::protobuf;
use lizmon_receiver::store::HistoryRetention;
use lizmon_receiver::store::record::read_group;
use lizmon_receiver::token::Tokens;

/// The current time of decoders that need it: epoch seconds.
pub const NOW: u64 = 1_465_001_814;

/// The body of `POST /api/perf/{host}/{epoch}`: what is taken is within the limits, and reads the
/// same when written.
pub fn sample_set(bytes: &[u8]) {
    match parse_sample_set(bytes) {
        Ok(set) => {
            check_set(&set);
            let written = serde_json::to_vec(&set).expect("a set can be written");
            assert_eq!(parse_sample_set(&written), Ok(set));
        }
        Err(error) => check_error(&error),
    }
}

/// The body of `POST /api/perf/{host}`: the same whether its records are kept or go to a sink.
pub fn batch(bytes: &[u8]) {
    let parsed = parse_batch(bytes);
    let read = read_batch(bytes, KeptRecords::default).map(|batch| Batch {
        producer: batch.producer,
        records: batch.records.records,
        dropped: batch.dropped,
        repair: batch.repair,
    });
    assert_eq!(read, parsed);
    match parsed {
        Ok(batch) => {
            assert!(batch.records.len() <= BATCH_RECORDS_MAX);
            assert!(batch.dropped.len() <= BATCH_DROPPED_MAX);
            batch
                .records
                .iter()
                .for_each(|record| check_set(&record.values));
            assert!(
                batch
                    .dropped
                    .iter()
                    .all(|dropped| dropped.from <= dropped.to)
            );
            let written = serde_json::to_vec(&batch).expect("a batch can be written");
            assert_eq!(parse_batch(&written), Ok(batch));
        }
        Err(error) => check_error(&error),
    }
}

/// Keeps records as they are given.
#[derive(Default)]
struct KeptRecords {
    records: Vec<Record<SampleSet<'static>>>,
    values: Vec<(Label<'static>, Value)>,
}

impl RecordSink for KeptRecords {
    fn push_value(&mut self, label: &str, value: Value) {
        let label = Label::new(label.to_owned()).expect("it was checked");
        self.values.push((label, value));
    }

    fn end_record(&mut self, seq: Seq, epoch: Epoch) {
        let values = SampleSet::new(std::mem::take(&mut self.values));
        self.records.push(Record { seq, epoch, values });
    }
}

fn check_set(set: &SampleSet<'_>) {
    assert!(set.len() <= RECORD_LABELS_MAX);
    for (label, value) in set.iter() {
        assert!(!label.as_str().is_empty());
        assert!(value.get().abs() <= VALUE_MAX);
    }
}

fn check_error(error: &BodyError) {
    if let BodyError::Values(errors) = error {
        assert!((1..=ERRORS_SHOWN_MAX).contains(&errors.len()));
    }
}

/// What Prometheus sends, once it is unpacked, and texts that name series: what is asked for has no
/// time twice, and a name is valid and says which label it was.
pub fn prometheus(bytes: &[u8]) {
    const FIELDS_MAX: usize = 1_000;
    if let Ok(request) = protobuf::decode::<WriteRequest>(bytes, FIELDS_MAX) {
        let series = request.timeseries.iter();
        let fields: usize = series
            .map(|of| 1 + of.labels.len() + of.samples.len())
            .sum();
        assert!(fields + request.metadata.len() <= FIELDS_MAX);
    }
    if let Ok(request) = protobuf::decode::<ReadRequest>(bytes, FIELDS_MAX) {
        for query in &request.queries {
            let points = Points::of(query, &HistoryRetention::default(), NOW);
            let mut before = 0;
            for ends in [points.days, points.hours, points.minutes] {
                if !ends.is_empty() {
                    assert!(before <= ends.after && ends.until <= NOW, "{points:?}");
                    before = ends.until;
                }
            }
            if let Ok(selector) = Selector::of(&query.matchers) {
                select(&selector, "disk-used:/");
            }
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(selector) = Selector::parse(text) {
        select(&selector, text);
    }
    let named = Named::of(text);
    assert!(is_metric(&named.metric), "{text:?}");
    assert!(
        named.labels.keys().all(|name| is_label_name(name)),
        "{text:?}"
    );
    let pairs = named.labels.iter().map(|(name, value)| (*name, &**value));
    match named.labels.get(WHOLE) {
        Some(whole) => assert_eq!(whole, text),
        None => assert_eq!(written(&named.metric, pairs), text),
    }
}

/// A metrics export of OpenTelemetry, in both encodings: each data point is taken or counted as left
/// out, and what is said of it is bounded, however many they are.
pub fn otlp(bytes: &[u8]) {
    const MESSAGE_BYTES_MAX: usize = 20_000;
    for encoding in OtlpEncoding::ALL {
        let Ok(request) = encoding.parse(bytes) else {
            continue;
        };
        let scopes = request.resource_metrics.iter().map(|of| &of.scope_metrics);
        let metrics = scopes.flatten().flat_map(|of| &of.metrics);
        let data_points: usize = metrics.map(data_points).sum();
        let found = points(&request, NOW);
        let taken = (data_points as u64).checked_sub(found.left_out.points);
        let values = found.hosts.values().flat_map(|points| points.values());
        let values: usize = values.map(Vec::len).sum();
        assert!(values as u64 >= taken.expect("no more is left out than there is"));
        for number in found.hosts.values().flat_map(|points| points.keys()) {
            let (_, epoch) = number.stored().expect("it can be stored");
            assert!(lizmon_summary::accepts(epoch.secs(), NOW).is_ok());
        }
        let answer = ExportMetricsServiceResponse::of(&found.left_out, None);
        assert!(answer.body(encoding).len() <= MESSAGE_BYTES_MAX);
    }
}

fn data_points(metric: &Metric) -> usize {
    let gauge = metric.gauge.as_ref().map(|of| of.data_points.len());
    let sum = metric.sum.as_ref().map(|of| of.data_points.len());
    let histogram = metric.histogram.as_ref().map(|of| of.data_points.len());
    let exponential = metric.exponential_histogram.as_ref();
    let exponential = exponential.map(|of| of.data_points.len());
    let summary = metric.summary.as_ref().map(|of| of.data_points.len());
    let all = [gauge, sum, histogram, exponential, summary];
    all.into_iter().flatten().sum()
}

/// A series that is named exactly is one that it means.
fn select(selector: &Selector, label: &str) {
    let _ = (selector.has_label(label), selector.has_stat(Some("min")));
    if let Some((_, label)) = selector.only_series() {
        assert!(selector.has_label(&label), "{label:?}");
    }
}

/// The body of `PUT /api/facts/{host}`, and a document of the journal: what is taken is within the
/// limits, can be shown on a terminal, and reads the same when written. What is said of the rest can
/// be shown too.
pub fn facts(bytes: &[u8]) {
    let facts = match Facts::parse(bytes) {
        Ok(facts) => facts,
        Err(error) => {
            if let FactsError::Fact { key, .. } = &error {
                assert!(!key.contains(char::is_control), "{error:?}");
            }
            return assert!(!error.to_string().is_empty());
        }
    };
    assert!(facts.iter().count() <= FACTS_MAX);
    for (key, fact) in facts.iter() {
        assert!((1..=FACT_KEY_BYTES_MAX).contains(&key.len()));
        if let Fact::Text(text) = fact {
            assert!(text.len() <= FACT_TEXT_BYTES_MAX);
            // A label is printable as well, and has no other rule that a text may break here.
            assert!(
                text.chars().all(|c| Label::new(format!("x{c}")).is_ok()),
                "{text:?}"
            );
        }
    }
    let written = serde_json::to_vec(&facts).expect("facts can be written");
    assert_eq!(Facts::parse(&written).as_ref(), Ok(&facts));
    assert_eq!(serde_json::from_slice::<Facts>(&written).ok(), Some(facts));
}

/// A group of the journal, as it is and with a checksum that fits: the checksum would keep nearly
/// all others out.
pub fn journal_group(bytes: &[u8]) {
    check_group(bytes);
    if let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let sum = crc32fast::hash(rest).to_le_bytes();
        check_group(&[&[head[0]], &sum[..], rest].concat());
    }
}

fn check_group(bytes: &[u8]) {
    for submission in read_group(bytes).into_iter().flatten() {
        assert_eq!(submission.records().count(), submission.len());
        for record in submission.records() {
            assert_eq!(record.values().count(), record.len());
        }
        assert!(
            submission
                .dropped()
                .all(|(from, to, _)| 0 < from && from <= to)
        );
    }
}

/// The header of the same name: whatever is taken is a key of ours, in the one way it is written.
pub fn idempotency_key(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = text.parse::<IdempotencyKey>()
    {
        assert_eq!(key.to_string(), text);
    }
    let identity = identity_of("spiffe://lizmon.internal/node/web1");
    let claims = Arc::new(claims_of(&identity));
    let caller = Caller::new(&identity, &claims).expect("they belong together");
    let own_host = identity.spiffe_id.name.clone();
    let permit = caller.report(Some(&own_host)).expect("it is its own host");
    let epoch = Epoch::new(NOW).expect("it is one");
    let Ok(key) = ingest::idempotency_key(bytes) else {
        return;
    };
    if let Ok(submission) = ingest::single(&permit, epoch, Some(key), b"{\"cpu\":1}", NOW) {
        let view = submission.view().expect("it was just written");
        let seq = view.records().next().and_then(|record| record.seq);
        let key = IdempotencyKey {
            producer: view.producer.expect("there was a key"),
            seq: seq.expect("there was a key"),
        };
        assert!(String::from_utf8_lossy(bytes).contains(&format!("\"{key}\"")));
    }
}

fn identity_of(id: &str) -> Identity {
    Identity {
        spiffe_id: id.parse().expect("it is one"),
        attributes: lizmon_protocol::name::Attributes::default(),
        serial: Box::new([1]),
        thumbprint: [0; 32],
        not_before: 0,
        not_after: u64::MAX,
    }
}

fn claims_of(identity: &Identity) -> Claims {
    Claims {
        iss: String::new(),
        aud: String::new(),
        sub: identity.spiffe_id.name.clone(),
        client_id: identity.spiffe_id.clone(),
        scope: Scopes::of(identity.spiffe_id.role),
        iat: 0,
        nbf: 0,
        exp: u64::MAX,
        jti: String::new(),
        // 32 zero bytes in base64url.
        cnf: Confirmation {
            x5t_s256: "A".repeat(43),
        },
    }
}

/// A client's certificate, DER.
pub fn identity(bytes: &[u8]) {
    if let Ok(identity) = Identity::from_der(bytes) {
        let text = identity.spiffe_id.to_string();
        assert_eq!(text.parse::<SpiffeId>().as_ref(), Ok(&identity.spiffe_id));
        assert_eq!(identity.serial_hex().len(), 2 * identity.serial.len());
    }
}

/// CRLs as an operator pushes them: PEM or DER. They are not signed.
pub fn revocation_list(bytes: &[u8]) {
    let Ok(lists) = Crl::read_all(bytes) else {
        return;
    };
    assert!(!lists.is_empty());
    for list in &lists {
        let take = |mut in_force: Vec<Crl>, shown: &[u8]| {
            let authorities = authority::verified(&[shown.to_vec().into()], []);
            revocation::take(&mut in_force, list.clone(), &authorities, NOW)
        };
        assert!(take(Vec::new(), &[]).is_err());
        // What is in force already changes nothing.
        assert!(take(lists.clone(), &[]).is_ok());
        let _whatever = take(Vec::new(), bytes);
        assert!(!format!("{list:?}").is_empty());
        let _either = list.status().is_due(NOW);
    }
}

/// A bearer token: only one that was minted here is one.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (tokens, minted) = minted();
    assert_eq!(tokens.verify(text, NOW).is_ok(), text == minted);
}

/// The issuer of tokens, and the one valid token.
pub fn minted() -> &'static (Tokens, String) {
    static MINTED: OnceLock<(Tokens, String)> = OnceLock::new();
    MINTED.get_or_init(|| {
        let data = tempfile::tempdir().expect("a folder for the key");
        let here = || "https://localhost:8443".to_owned();
        let (ttl, key_life) = (Duration::from_secs(300), Duration::from_secs(86_400));
        let tokens = Tokens::open(data.path(), here(), here(), ttl, key_life, NOW).expect("a key");
        let identity = identity_of("spiffe://lizmon.internal/node/web1");
        let scope = Scopes::of(identity.spiffe_id.role);
        let minted = tokens.mint(&identity, scope, NOW).expect("a token");
        (tokens, minted.token)
    })
}

/// The spool's files, with some bytes written over one of them: the first byte says which file,
/// four say where. The monitor starts all the same, and gives no number a second time.
pub fn spool_files(bytes: &[u8]) {
    let Some((&[which, a, b, c, d], over)) = bytes.split_first_chunk() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let Spooled { files, given } = spooled();
    for (at, (name, good)) in files.iter().enumerate() {
        let mut file = good.clone();
        if at == usize::from(which) % files.len() {
            let from = u32::from_be_bytes([a, b, c, d]) as usize % (file.len() + 1);
            let to = (from + over.len()).min(file.len());
            file[from..to].copy_from_slice(&over[..to - from]);
        }
        std::fs::write(folder.path().join(name), file).expect("it can be written");
    }
    let mut spool = spool_in(folder.path(), 2);
    let key = push(&mut spool, NOW + 100);
    assert!(!given.contains(&key), "{key} was given before");
    let newest = spool.next_batch(0, 1, 0).expect("it has just come");
    assert!(newest.producer == key.producer && newest.records[0].seq == key.seq);
    while let Some(batch) = spool.next_batch(0, 10, 100) {
        spool.ack(0, &batch);
    }
    assert_eq!(spool.pending(0), 0);
}

/// A spool that was killed: its files, and the numbers it had given.
struct Spooled {
    files: Vec<(String, Vec<u8>)>,
    given: Vec<IdempotencyKey>,
}

fn spooled() -> &'static Spooled {
    static SPOOLED: OnceLock<Spooled> = OnceLock::new();
    SPOOLED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = spool_in(folder.path(), 1);
        let given = (0..40).map(|at| push(&mut spool, NOW + at)).collect();
        let entries = std::fs::read_dir(folder.path()).expect("it can be listed");
        let mut files: Vec<_> = entries
            .map(|entry| {
                let entry = entry.expect("it can be listed");
                let name = entry.file_name().into_string().expect("a name of ours");
                (name, std::fs::read(entry.path()).expect("it can be read"))
            })
            // SQLite's index of its log, rebuilt by the first process that opens it.
            .filter(|(name, _)| !name.ends_with("-shm"))
            .collect();
        files.sort();
        Spooled { files, given }
    })
}

fn spool_in(folder: &Path, producer: u8) -> Spool<DiskBackend> {
    let disk = DiskBackend::open(folder).expect("a spool starts whatever is in its folder");
    let urls = vec!["https://localhost:8443/api/perf".to_owned()];
    let mut last = [producer; 16];
    let new_producer = move || {
        last[15] = last[15].wrapping_add(1);
        ProducerId::from_bytes(last)
    };
    Spool::open(disk, urls, SpoolLimits::new(DISK_BYTES_MAX), new_producer)
}

fn push(spool: &mut Spool<DiskBackend>, epoch: u64) -> IdempotencyKey {
    let values = parse_sample_set(b"{\"cpu\":4.98}").expect("it is one");
    let values = EncodedSamples::encode(&values).expect("it is one");
    let at = Epoch::new(epoch).expect("it is one");
    spool
        .push(at, values, epoch)
        .expect("there are numbers left")
}
