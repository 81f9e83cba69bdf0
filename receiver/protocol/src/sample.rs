//! The wire format of samples: one set of values at one second, alone or in a batch.
//!
//! [`parse_sample_set`] and [`parse_batch`] parse them; [`read_batch`] parses a batch without keeping
//! its records.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::name::Label;

mod one_pass;
mod read;

pub use one_pass::read_batch;
pub use read::{BodyError, ERRORS_SHOWN_MAX, parse_batch, parse_sample_set};

/// The largest integer that every JSON parser represents exactly: RFC 8259 section 6.
pub const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;
/// The maximum magnitude of a value. The sum of a day of such samples is still finite.
pub const VALUE_MAX: f64 = 1e290;
/// The maximum number of labels in one record.
pub const RECORD_LABELS_MAX: usize = 256;
/// The maximum number of records in one batch.
pub const BATCH_RECORDS_MAX: usize = 10_000;
/// The maximum number of dropped ranges in one batch.
pub const BATCH_DROPPED_MAX: usize = 1_024;

/// Whole seconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch this many seconds after 1970, if JSON can represent it exactly.
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

/// The producer of records: one spool, for as long as it exists. Written as a lower-case UUID (RFC
/// 9562 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProducerId(Uuid);

/// The text is not a valid UUID of a producer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a producer is a lower-case UUID like 1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b")]
pub struct MalformedProducer;

impl ProducerId {
    /// A producer with this UUID.
    pub fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The sixteen bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// A producer with these sixteen bytes.
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

/// The sequence number of a record, per producer: 1 to 2^53 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// The sequence number, or `None` if it is out of range.
    pub fn new(number: u64) -> Option<Self> {
        (1..=SAFE_INTEGER_MAX)
            .contains(&number)
            .then_some(Self(number))
    }

    /// The sequence number as an integer.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// The value of the header `Idempotency-Key: "PRODUCER/SEQ"` without its quotes. It is the same as
/// `producer` and `seq` in a batch.
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
    /// The producer of the record.
    pub producer: ProducerId,
    /// The sequence number of the record.
    pub seq: Seq,
}

/// The text is not a valid `Idempotency-Key`.
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

/// A measured value: finite, and at most [`VALUE_MAX`] in magnitude.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Value(f64);

impl Value {
    /// The value, or `None` if it is not finite or out of range.
    pub fn new(value: f64) -> Option<Self> {
        (value.abs() <= VALUE_MAX).then_some(Self(value))
    }

    /// The value as a float.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The values of one host at one second, in the order in which they were sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SampleSet<'a>(Vec<(Label<'a>, Value)>);

impl<'a> SampleSet<'a> {
    /// A set of these values. Labels must be unique: the receiver rejects duplicates.
    pub fn new(values: Vec<(Label<'a>, Value)>) -> Self {
        Self(values)
    }

    /// The labels and values, in the order in which they were sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(Label<'a>, Value)> {
        self.0.iter()
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for SampleSet<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(label, value)| (label.as_str(), value)))
    }
}

/// A [`SampleSet`], encoded as JSON once. Copies share the text.
///
/// ```
/// use lizmon_protocol::sample::{EncodedSamples, parse_sample_set};
/// let set = parse_sample_set(br#"{ "cpu": 4.98 }"#).unwrap();
/// let encoded = EncodedSamples::encode(&set).unwrap();
/// assert_eq!(encoded.as_str(), r#"{"cpu":4.98}"#);
/// assert_eq!(serde_json::to_vec(&encoded).unwrap(), encoded.as_str().as_bytes());
/// ```
#[derive(Debug, Clone)]
pub struct EncodedSamples(Arc<RawValue>);

impl EncodedSamples {
    /// Encodes a set. A set has only strings and finite numbers, so this does not fail.
    pub fn encode(set: &SampleSet<'_>) -> Result<Self, serde_json::Error> {
        let json = serde_json::value::to_raw_value(set)?;
        Ok(Self(json.into()))
    }

    /// Takes text from [`Self::as_str`]. Returns an error if it is not JSON.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let json = RawValue::from_string(json.to_owned())?;
        Ok(Self(json.into()))
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.as_str() == "{}"
    }
}

impl PartialEq for EncodedSamples {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Serialize for EncodedSamples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

/// One record of a batch. `V` is [`SampleSet`] or [`EncodedSamples`]; both have the same JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record<V> {
    /// The record's sequence number.
    pub seq: Seq,
    /// The second of the measurement.
    pub epoch: Epoch,
    /// The measured values.
    pub values: V,
}

/// Numbers that their producer dropped, as an inclusive range. In JSON `[from, to, "why"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The first number.
    pub from: Seq,
    /// The last number.
    pub to: Seq,
    /// The reason: text with the same rules as a label.
    pub why: Label<'static>,
}

impl Serialize for Dropped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.from, self.to, self.why.as_str()).serialize(serializer)
    }
}

/// The body of `POST /api/perf/{host}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Batch<V> {
    /// The producer of the records.
    pub producer: ProducerId,
    /// The records, in the order in which the receiver counts them.
    pub records: Vec<Record<V>>,
    /// Numbers that the producer will never send. Repeating a range has no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// Whether the records are a repair: the receiver has acknowledged them once, and reports them
    /// missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
}

/// Takes the records of a batch in their order: see [`read_batch`].
pub trait RecordSink {
    /// The next value of the record that is being read. Its labels are unique.
    fn push_value(&mut self, label: &str, value: Value);

    /// All values of the record came before.
    fn end_record(&mut self, seq: Seq, epoch: Epoch);
}

/// A [`Batch`] whose records went to a [`RecordSink`].
#[derive(Debug, Clone, PartialEq)]
pub struct SunkBatch<S> {
    /// The producer of the records.
    pub producer: ProducerId,
    /// What took the records.
    pub records: S,
    /// As in [`Batch`].
    pub dropped: Vec<Dropped>,
    /// As in [`Batch`].
    pub repair: bool,
}

/// The response to a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// The number of records that were counted.
    pub accepted: u64,
    /// The number of duplicates, which changed nothing.
    pub duplicate: u64,
}

#[cfg(test)]
mod tests;
