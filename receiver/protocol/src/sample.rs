//! Samples as they travel: one set of values at one second, alone or many in a batch.
//!
//! Reading is strict and complete: every bad value of a request is named, so that one answer is enough to mend it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::name::Label;
use crate::problem::ValueError;

/// Greatest whole number that every JSON reader keeps exactly: RFC 8259 section 6.
pub const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;
/// Greatest magnitude of a value. A day of samples this big can still be summed.
pub const VALUE_MAX: f64 = 1e290;
/// Most labels in one record.
pub const RECORD_LABELS_MAX: usize = 256;
/// Most records in one batch.
pub const BATCH_RECORDS_MAX: usize = 10_000;
/// Most bad values named in one answer; the rest would tell nothing new.
pub const ERRORS_SHOWN_MAX: usize = 100;

/// Whole seconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch so many seconds after 1970, if that is within the whole numbers JSON keeps exactly.
    pub fn new(secs: u64) -> Option<Self> {
        (secs <= SAFE_INTEGER_MAX).then_some(Self(secs))
    }

    /// Seconds since 1970 UTC.
    pub fn secs(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who numbers records: one spool, for as long as it exists. Written as a lower-case UUID (RFC 9562 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProducerId(Uuid);

/// Text that should have been a producer's UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a producer is a lower-case UUID like 1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b")]
pub struct MalformedProducer;

impl ProducerId {
    /// A producer that has been given this UUID.
    pub fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The sixteen bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The producer with these sixteen bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for ProducerId {
    type Err = MalformedProducer;

    fn from_str(text: &str) -> Result<Self, MalformedProducer> {
        let uuid = Uuid::try_parse(text).map_err(|_| MalformedProducer)?;
        let written = uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
        if written {
            Ok(Self(uuid))
        } else {
            Err(MalformedProducer)
        }
    }
}

impl TryFrom<String> for ProducerId {
    type Error = MalformedProducer;

    fn try_from(text: String) -> Result<Self, MalformedProducer> {
        text.parse()
    }
}

impl From<ProducerId> for String {
    fn from(producer: ProducerId) -> Self {
        producer.to_string()
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

/// A record's number within its producer: 1 to 2^53 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// The number, if it is one a record can have.
    pub fn new(number: u64) -> Option<Self> {
        (1..=SAFE_INTEGER_MAX)
            .contains(&number)
            .then_some(Self(number))
    }

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What the header `Idempotency-Key: "PRODUCER/SEQ"` holds between its quotes: what `producer` and `seq` are in a batch.
///
/// ```
/// use lizmon_protocol::sample::IdempotencyKey;
/// let text = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b/17";
/// let key: IdempotencyKey = text.parse().unwrap();
/// assert_eq!(key.seq.get(), 17);
/// assert_eq!(key.to_string(), text);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Who numbered the record.
    pub producer: ProducerId,
    /// Its number.
    pub seq: Seq,
}

/// An `Idempotency-Key` that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an idempotency key is \"PRODUCER/SEQ\": a lower-case UUID, and a number from 1 to 2^53-1 without leading zeros"
)]
pub struct MalformedIdempotencyKey;

impl FromStr for IdempotencyKey {
    type Err = MalformedIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, MalformedIdempotencyKey> {
        let (producer, seq) = text.split_once('/').ok_or(MalformedIdempotencyKey)?;
        let canonical = !seq.starts_with('0') && seq.bytes().all(|byte| byte.is_ascii_digit());
        let seq = seq.parse().ok().filter(|_| canonical).and_then(Seq::new);
        Ok(Self {
            producer: producer.parse().map_err(|_| MalformedIdempotencyKey)?,
            seq: seq.ok_or(MalformedIdempotencyKey)?,
        })
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.producer, self.seq.0)
    }
}

/// A measured value: finite, and at most [`VALUE_MAX`] either way.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Value(f64);

impl Value {
    /// The value, if it is one lizmon can sum.
    pub fn new(value: f64) -> Option<Self> {
        (value.abs() <= VALUE_MAX).then_some(Self(value))
    }

    /// The number itself.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The values of one host at one second, in the order they were sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SampleSet<'a>(Vec<(Label<'a>, Value)>);

impl<'a> SampleSet<'a> {
    /// A set of these values. Labels must differ; a later one of the same name would be refused by the receiver.
    pub fn new(values: Vec<(Label<'a>, Value)>) -> Self {
        Self(values)
    }

    /// Label and value, in the order they were sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(Label<'a>, Value)> {
        self.0.iter()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for SampleSet<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(label, value)| (label.as_str(), value)))
    }
}

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record<'a> {
    /// Its number within the batch's producer.
    pub seq: Seq,
    /// The second it was measured at.
    pub epoch: Epoch,
    /// What was measured.
    pub values: SampleSet<'a>,
}

/// The body of `POST /api/perf/{host}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Batch<'a> {
    /// Who numbered the records.
    pub producer: ProducerId,
    /// The records, in the order they shall be counted.
    pub records: Vec<Record<'a>>,
}

/// The answer to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// Records that counted.
    pub accepted: u64,
    /// Records that were known already and changed nothing.
    pub duplicate: u64,
}

/// Why the body of a POST was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON, or not the JSON this route takes.
    #[error("{0}")]
    Malformed(String),
    /// More records than one batch may have.
    #[error("a batch has at most {BATCH_RECORDS_MAX} records")]
    TooManyRecords,
    /// Good JSON with bad values in it.
    #[error("{} of the values cannot be taken", .0.len())]
    Values(Vec<ValueError>),
}

/// Reads the body of `POST /api/perf/{host}/{epoch}`.
///
/// ```
/// use lizmon_protocol::sample::parse_sample_set;
/// let set = parse_sample_set(br#"{"cpu": 4.98, "mem": "61.2"}"#).unwrap();
/// assert_eq!(set.iter().map(|(_, value)| value.get()).sum::<f64>(), 66.18);
/// ```
pub fn parse_sample_set(body: &[u8]) -> Result<SampleSet<'_>, BodyError> {
    let raw: RawSet<'_> = from_json(body)?;
    let mut errors = Errors::default();
    let set = take_set(raw, 0, &mut errors);
    errors.none_or_refuse(set)
}

/// Reads the body of `POST /api/perf/{host}`.
pub fn parse_batch(body: &[u8]) -> Result<Batch<'_>, BodyError> {
    let raw: RawBatch<'_> = from_json(body)?;
    let RawRecords::Within(raw_records) = raw.records else {
        return Err(BodyError::TooManyRecords);
    };
    let mut errors = Errors::default();
    let producer = raw.producer.parse().ok();
    if producer.is_none() {
        errors.push(None, None, MalformedProducer.to_string());
    }
    let mut records = Vec::with_capacity(raw_records.len());
    for (at, raw) in raw_records.into_iter().enumerate() {
        let seq = take_integer(raw.seq, Seq::new);
        if seq.is_none() {
            errors.push(Some(at), None, "seq is not a whole number from 1 to 2^53-1");
        }
        let epoch = take_integer(raw.epoch, Epoch::new);
        if epoch.is_none() {
            errors.push(Some(at), None, "epoch is not whole seconds since 1970 UTC");
        }
        let values = take_set(raw.values, at, &mut errors);
        if let (Some(seq), Some(epoch)) = (seq, epoch) {
            records.push(Record { seq, epoch, values });
        }
    }
    match producer {
        Some(producer) => errors.none_or_refuse(Batch { producer, records }),
        None => Err(BodyError::Values(errors.shown)),
    }
}

fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| BodyError::Malformed(format!("the body is not UTF-8: {error}")))?;
    serde_json::from_str(text).map_err(|error| BodyError::Malformed(error.to_string()))
}

/// The bad values found so far, the first of them kept.
#[derive(Default)]
struct Errors {
    shown: Vec<ValueError>,
}

impl Errors {
    fn push(&mut self, record: Option<usize>, label: Option<&str>, reason: impl Into<String>) {
        if self.shown.len() < ERRORS_SHOWN_MAX {
            let label = label.map(|label| label.chars().take(LABEL_CHARS_SHOWN).collect());
            self.shown.push(ValueError {
                record,
                label,
                reason: reason.into(),
            });
        }
    }

    fn none_or_refuse<T>(self, value: T) -> Result<T, BodyError> {
        if self.shown.is_empty() {
            Ok(value)
        } else {
            Err(BodyError::Values(self.shown))
        }
    }
}

/// As much of a refused label as an answer repeats.
const LABEL_CHARS_SHOWN: usize = 128;

fn take_set<'a>(raw: RawSet<'a>, record: usize, errors: &mut Errors) -> SampleSet<'a> {
    let mut values = Vec::with_capacity(raw.values.len());
    for (label, raw_value) in raw.values {
        match (Label::new(label.clone()), take_value(raw_value)) {
            (Ok(label), Ok(value)) => values.push((label, value)),
            (Err(error), _) => errors.push(Some(record), Some(&label), error.to_string()),
            (_, Err(reason)) => errors.push(Some(record), Some(&label), reason),
        }
    }
    if raw.more_than_allowed {
        errors.push(
            Some(record),
            None,
            format!("a record has at most {RECORD_LABELS_MAX} labels"),
        );
    } else if let Some(label) = find_repeated(&values) {
        errors.push(
            Some(record),
            Some(label),
            "the label stands twice in one record",
        );
    }
    SampleSet(values)
}

/// The first label that stands a second time. A handful is compared in place; a hash set pays for more.
fn find_repeated<'s>(values: &'s [(Label<'_>, Value)]) -> Option<&'s str> {
    const COMPARED_IN_PLACE_MAX: usize = 16;
    let labels = || values.iter().map(|(label, _)| label.as_str());
    if values.len() <= COMPARED_IN_PLACE_MAX {
        return labels()
            .enumerate()
            .find(|(at, label)| labels().take(*at).any(|l| l == *label))
            .map(|(_, label)| label);
    }
    let mut seen = HashSet::with_capacity(values.len());
    labels().find(|label| !seen.insert(*label))
}

/// A JSON number, or a string in JSON's number grammar; rounded to the nearest f64, as every JSON reader should.
fn take_value(raw: &RawValue) -> Result<Value, &'static str> {
    const NOT_A_NUMBER: &str = "the value is not a number";
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => parse_number(text),
        Some(b'"') => {
            let inner: Cow<'_, str> = serde_json::from_str::<CowStr<'_>>(text)
                .map_err(|_| NOT_A_NUMBER)?
                .0;
            let is_number = matches!(inner.as_bytes().first(), Some(b'-' | b'0'..=b'9'))
                && matches!(inner.as_bytes().last(), Some(b'0'..=b'9'))
                && serde_json::from_str::<&RawValue>(&inner).is_ok();
            if is_number {
                parse_number(&inner)
            } else {
                Err("the string is not a number in JSON's grammar")
            }
        }
        _ => Err(NOT_A_NUMBER),
    }
}

fn parse_number(text: &str) -> Result<Value, &'static str> {
    text.parse()
        .ok()
        .and_then(Value::new)
        .ok_or("the value is beyond 1e290")
}

/// A JSON integer without fraction or exponent.
fn take_integer<T>(raw: &RawValue, new: impl FnOnce(u64) -> Option<T>) -> Option<T> {
    raw.get().parse().ok().and_then(new)
}

#[derive(Deserialize)]
struct CowStr<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object of labels and values, as far as it was read: one more than a record may have is enough to refuse it.
struct RawSet<'a> {
    values: Vec<(Cow<'a, str>, &'a RawValue)>,
    more_than_allowed: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawSet<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SetVisitor;

        impl<'de> Visitor<'de> for SetVisitor {
            type Value = RawSet<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of labels and numbers like {\"cpu\": 4.98}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut set = RawSet {
                    values: Vec::new(),
                    more_than_allowed: false,
                };
                while let Some((CowStr(label), value)) =
                    map.next_entry::<CowStr<'de>, &'de RawValue>()?
                {
                    if set.values.len() < RECORD_LABELS_MAX {
                        set.values.push((label, value));
                    } else {
                        set.more_than_allowed = true;
                    }
                }
                Ok(set)
            }
        }

        deserializer.deserialize_map(SetVisitor)
    }
}

#[derive(Deserialize)]
struct RawBatch<'a> {
    #[serde(borrow)]
    producer: Cow<'a, str>,
    #[serde(borrow)]
    records: RawRecords<'a>,
}

#[derive(Deserialize)]
struct RawRecord<'a> {
    #[serde(borrow)]
    seq: &'a RawValue,
    #[serde(borrow)]
    epoch: &'a RawValue,
    #[serde(borrow)]
    values: RawSet<'a>,
}

enum RawRecords<'a> {
    Within(Vec<RawRecord<'a>>),
    TooMany,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawRecords<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RecordsVisitor;

        impl<'de> Visitor<'de> for RecordsVisitor {
            type Value = RawRecords<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut records = Vec::new();
                while records.len() < BATCH_RECORDS_MAX {
                    match seq.next_element()? {
                        Some(record) => records.push(record),
                        None => return Ok(RawRecords::Within(records)),
                    }
                }
                let mut more = false;
                while seq.next_element::<de::IgnoredAny>()?.is_some() {
                    more = true;
                }
                Ok(if more {
                    RawRecords::TooMany
                } else {
                    RawRecords::Within(records)
                })
            }
        }

        deserializer.deserialize_seq(RecordsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_set(body: &str, expected: Result<&[(&str, f64)], &str>) {
        match (parse_sample_set(body.as_bytes()), expected) {
            (Ok(set), Ok(expected)) => {
                let got: Vec<_> = set
                    .iter()
                    .map(|(label, value)| (label.as_str(), value.get()))
                    .collect();
                assert_eq!(got, expected, "{body}");
            }
            (Err(BodyError::Malformed(_)), Err("malformed")) => (),
            (Err(BodyError::Values(errors)), Err(reason)) => {
                assert!(
                    errors.iter().any(|error| error.reason.contains(reason)),
                    "{body}: {errors:?}"
                );
            }
            (got, expected) => panic!("{body}: got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn sample_sets() {
        check_set(
            r#"{"cpu":4.98,"mem":61.2}"#,
            Ok(&[("cpu", 4.98), ("mem", 61.2)]),
        );
        check_set(
            r#" { "a" : -0.0 , "b" : 1e290 , "c" : -1E+290 , "d" : 5e-324 } "#,
            Ok(&[("a", -0.0), ("b", 1e290), ("c", -1e290), ("d", 5e-324)]),
        );
        check_set(
            r#"{"a":"4.5","b":"5","c":"-1e3"}"#,
            Ok(&[("a", 4.5), ("b", 5.0), ("c", -1000.0)]),
        );
        check_set(r#"{"\u0061":1}"#, Ok(&[("a", 1.0)]));
        check_set("{}", Ok(&[]));
        for malformed in [
            "",
            "{",
            "[]",
            "[1]",
            "3",
            "\"x\"",
            "null",
            "true",
            r#"{"a":1}x"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":+1}"#,
            r#"{"a":.5}"#,
            r#"{"a":1.}"#,
            r#"{"a":NaN}"#,
            r#"{"a":Infinity}"#,
            r#"{a:1}"#,
            r#"{"a" 1}"#,
            r#"{'a':1}"#,
            "{\"a\":1}\0",
            "\u{feff}{}",
            r#"{"\ud800":1}"#,
        ] {
            check_set(malformed, Err("malformed"));
        }
        for not_a_number in ["true", "false", "null", "[]", "[1]", "{}", r#"{"b":1}"#] {
            check_set(&format!(r#"{{"a":{not_a_number}}}"#), Err("not a number"));
        }
        for not_in_grammar in [
            "", " 1", "1 ", "+1", "01", ".5", "1.", "0x10", "NaN", "inf", "1_000", "1,5", "١",
            "true", "null", "[1]", "1e", "--1",
        ] {
            check_set(
                &format!(r#"{{"a":"{not_in_grammar}"}}"#),
                Err("JSON's grammar"),
            );
        }
        for beyond in [
            "1.000000000000001e290",
            "1e291",
            "-1e291",
            "1e400",
            "\"1e400\"",
            "\"-1e300\"",
        ] {
            check_set(&format!(r#"{{"a":{beyond}}}"#), Err("beyond"));
        }
        check_set(r#"{"a":1,"a":2}"#, Err("twice"));
        check_set(r#"{"a":1,"\u0061":2}"#, Err("twice"));
        check_set(r#"{"":1}"#, Err("has none"));
        check_set(r#"{"summary:x":1}"#, Err("does not start"));
        check_set(r#"{"a\u0000b":1}"#, Err("printable"));
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_f64() {
        for text in [
            "0.1",
            "2.675",
            "1.005",
            "9007199254740993",
            "8.41984744e-3",
            "123456789.123456789e-5",
        ] {
            let body = format!(r#"{{"a":{text}}}"#);
            let set = parse_sample_set(body.as_bytes()).unwrap();
            assert_eq!(
                set.0[0].1.get().to_bits(),
                text.parse::<f64>().unwrap().to_bits(),
                "{text}"
            );
        }
    }

    #[test]
    fn every_bad_value_is_named() {
        let body = r#"{"cpu":1,"mem":null,"disk":"x","":2}"#;
        let Err(BodyError::Values(errors)) = parse_sample_set(body.as_bytes()) else {
            panic!()
        };
        let labels: Vec<_> = errors.iter().map(|error| error.label.as_deref()).collect();
        assert_eq!(labels, [Some("mem"), Some("disk"), Some("")]);
    }

    fn labels_body(count: usize) -> String {
        let pairs: Vec<_> = (0..count).map(|at| format!("\"l{at}\":1")).collect();
        format!("{{{}}}", pairs.join(","))
    }

    #[test]
    fn labels_at_under_and_over_the_limit() {
        for (count, good) in [
            (RECORD_LABELS_MAX - 1, true),
            (RECORD_LABELS_MAX, true),
            (RECORD_LABELS_MAX + 1, false),
        ] {
            assert_eq!(
                parse_sample_set(labels_body(count).as_bytes()).is_ok(),
                good,
                "{count}"
            );
        }
        let twice = labels_body(20).replace("\"l19\"", "\"l3\"");
        check_set(&twice, Err("twice"));
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        check_set(&deep, Err("not a number"));
    }

    const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

    fn batch_body(records: usize) -> String {
        let records: Vec<_> = (1..=records)
            .map(|seq| format!(r#"{{"seq":{seq},"epoch":1465001814,"values":{{"cpu":1}}}}"#))
            .collect();
        format!(
            r#"{{"producer":"{PRODUCER}","records":[{}]}}"#,
            records.join(",")
        )
    }

    #[test]
    fn batches() {
        let body = batch_body(2);
        let batch = parse_batch(body.as_bytes()).unwrap();
        assert_eq!(
            serde_json::to_string(&batch).unwrap(),
            body.replace(":1}}", ":1.0}}")
        );
        assert!(
            parse_batch(batch_body(0).as_bytes())
                .unwrap()
                .records
                .is_empty()
        );
    }

    #[test]
    fn records_at_and_over_the_limit() {
        assert!(parse_batch(batch_body(BATCH_RECORDS_MAX).as_bytes()).is_ok());
        assert_eq!(
            parse_batch(batch_body(BATCH_RECORDS_MAX + 1).as_bytes()),
            Err(BodyError::TooManyRecords)
        );
    }

    #[test]
    fn bad_batches_name_the_record() {
        let record = |text: &str| {
            format!(
                r#"{{"producer":"{PRODUCER}","records":[{{"seq":1,"epoch":1,"values":{{}}}},{text}]}}"#
            )
        };
        let cases = [
            (record(r#"{"seq":0,"epoch":1,"values":{}}"#), "seq"),
            (record(r#"{"seq":-1,"epoch":1,"values":{}}"#), "seq"),
            (record(r#"{"seq":1.5,"epoch":1,"values":{}}"#), "seq"),
            (record(r#"{"seq":"7","epoch":1,"values":{}}"#), "seq"),
            (
                record(r#"{"seq":9007199254740992,"epoch":1,"values":{}}"#),
                "seq",
            ),
            (record(r#"{"seq":7,"epoch":-1,"values":{}}"#), "epoch"),
            (record(r#"{"seq":7,"epoch":null,"values":{}}"#), "epoch"),
            (
                record(r#"{"seq":7,"epoch":1,"values":{"cpu":null}}"#),
                "not a number",
            ),
        ];
        for (body, reason) in cases {
            let Err(BodyError::Values(errors)) = parse_batch(body.as_bytes()) else {
                panic!("{body}")
            };
            assert_eq!(errors[0].record, Some(1), "{body}");
            assert!(errors[0].reason.contains(reason), "{body}: {errors:?}");
        }
        for producer in [
            "",
            "x",
            "1B4E28BA-2FA1-4D3B-A3F5-EF19B5A7633B",
            "1b4e28ba2fa14d3ba3f5ef19b5a7633b",
            "{1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b}",
            "urn:uuid:1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b",
        ] {
            let body = format!(r#"{{"producer":"{producer}","records":[]}}"#);
            assert!(
                matches!(parse_batch(body.as_bytes()), Err(BodyError::Values(_))),
                "{producer}"
            );
        }
        for body in [
            "{}",
            r#"{"producer":1,"records":[]}"#,
            r#"{"records":[]}"#,
            "[]",
            r#"{"producer":"x"}"#,
            &record("7"),
            &record(r#"{"seq":7,"epoch":1}"#),
            &record(r#"{"seq":7,"epoch":1,"values":[]}"#),
        ] {
            assert!(
                matches!(parse_batch(body.as_bytes()), Err(BodyError::Malformed(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn idempotency_keys() {
        let cases = [
            (format!("{PRODUCER}/1"), true),
            (format!("{PRODUCER}/9007199254740991"), true),
            (format!("{PRODUCER}/9007199254740992"), false),
            (format!("{PRODUCER}/0"), false),
            (format!("{PRODUCER}/01"), false),
            (format!("{PRODUCER}/-1"), false),
            (format!("{PRODUCER}/+1"), false),
            (format!("{PRODUCER}/"), false),
            (format!("{PRODUCER}/1/"), false),
            (format!("{}/1", PRODUCER.to_uppercase()), false),
            (PRODUCER.to_owned(), false),
            (String::new(), false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<IdempotencyKey>().is_ok(), good, "{text}");
        }
    }
}
