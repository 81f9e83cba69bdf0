//! Strict parsing of POST bodies. The error lists every invalid value, so that a client can fix all
//! of them at once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    BATCH_DROPPED_MAX, BATCH_RECORDS_MAX, Batch, Dropped, Epoch, MalformedProducer,
    RECORD_LABELS_MAX, Record, SampleSet, Seq, Value,
};
use crate::name::Label;
use crate::problem::ValueError;

/// The maximum number of invalid values in one response.
pub const ERRORS_SHOWN_MAX: usize = 100;

/// Why the body of a POST was rejected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BodyError {
    /// The body is not JSON, or not the JSON of this route.
    #[error("{0}")]
    Malformed(String),
    /// The batch has too many records.
    #[error("a batch has at most {BATCH_RECORDS_MAX} records")]
    TooManyRecords,
    /// A record has too many labels. The list may also have other invalid values.
    #[error("a record has at most {RECORD_LABELS_MAX} labels")]
    TooManyLabels(Vec<ValueError>),
    /// The JSON is well-formed but has invalid values.
    #[error("{} of the values are not accepted", .0.len())]
    Values(Vec<ValueError>),
}

/// Parses the body of `POST /api/perf/{host}/{epoch}`.
///
/// ```
/// use lizmon_protocol::sample::parse_sample_set;
/// let set = parse_sample_set(br#"{"cpu": 4.98, "mem": "61.2"}"#).unwrap();
/// assert_eq!(set.iter().map(|(_, value)| value.get()).sum::<f64>(), 66.18);
/// ```
pub fn parse_sample_set(body: &[u8]) -> Result<SampleSet<'_>, BodyError> {
    let mut errors = Errors::default();
    let set = errors.take_set(0, from_json(text_of(body)?)?);
    errors.none_or_refuse(set)
}

/// Parses the body of `POST /api/perf/{host}`.
pub fn parse_batch(body: &[u8]) -> Result<Batch<SampleSet<'_>>, BodyError> {
    parse_batch_text(text_of(body)?)
}

pub(super) fn parse_batch_text(text: &str) -> Result<Batch<SampleSet<'_>>, BodyError> {
    let raw: RawBatch<'_> = from_json(text)?;
    let RawRecords::Within(records, of_records) = raw.records else {
        return Err(BodyError::TooManyRecords);
    };
    let mut errors = Errors::default();
    let producer = raw.producer.parse().ok();
    if producer.is_none() {
        errors.push(None, None, MalformedProducer.to_string());
    }
    errors.append(of_records);
    let dropped = take_dropped(&raw.dropped, &mut errors);
    match producer {
        Some(producer) => errors.none_or_refuse(Batch {
            producer,
            records,
            dropped,
            repair: raw.repair,
        }),
        None => Err(errors.refuse()),
    }
}

pub(super) fn take_dropped(raw: &[RawDropped<'_>], errors: &mut Errors) -> Vec<Dropped> {
    if raw.len() > BATCH_DROPPED_MAX {
        errors.push(
            None,
            None,
            format!("a batch has at most {BATCH_DROPPED_MAX} dropped ranges"),
        );
        return Vec::new();
    }
    let mut dropped = Vec::with_capacity(raw.len());
    for RawDropped(from, to, why) in raw {
        let range = (take_integer(from, Seq::new), take_integer(to, Seq::new));
        match (range, Label::new(why.clone())) {
            ((Some(from), Some(to)), Ok(why)) if from <= to => {
                dropped.push(Dropped {
                    from,
                    to,
                    why: why.into_owned(),
                });
            }
            ((Some(from), Some(to)), Err(error)) if from <= to => {
                errors.push(
                    None,
                    None,
                    format!("the reason of a dropped range: {error}"),
                );
            }
            _ => errors.push(
                None,
                None,
                "a dropped range is [from, to, \"why\"] with 1 <= from <= to <= 2^53-1",
            ),
        }
    }
    dropped
}

pub(super) fn text_of(body: &[u8]) -> Result<&str, BodyError> {
    if let Some(reason) = foreign_encoding(body) {
        return Err(BodyError::Malformed(reason.to_owned()));
    }
    std::str::from_utf8(body)
        .map_err(|error| BodyError::Malformed(format!("the body is not UTF-8: {error}")))
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BodyError> {
    serde_json::from_str(text).map_err(|error| BodyError::Malformed(error.to_string()))
}

/// Detects encodings and non-JSON that text editors and other languages' JSON writers produce: RFC
/// 8259 section 8.1.
fn foreign_encoding(body: &[u8]) -> Option<&'static str> {
    const UTF_16: &str =
        "the body is UTF-16 or UTF-32, JSON is sent as UTF-8: RFC 8259 section 8.1";
    match body {
        [0xEF, 0xBB, 0xBF, ..] => Some(
            "the body begins with a byte order mark (EF BB BF): send it without one, RFC 8259 section 8.1",
        ),
        // Either a byte order mark, or zero bytes next to the first character, which is ASCII in
        // every JSON text.
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, ..] | [_, 0, ..] => Some(UTF_16),
        _ => None,
    }
}

/// The invalid values so far. The first ones are kept.
#[derive(Default)]
pub(super) struct Errors {
    shown: Vec<ValueError>,
    has_too_many_labels: bool,
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

    /// Those of a later part of the body.
    fn append(&mut self, later: Self) {
        let left = ERRORS_SHOWN_MAX.saturating_sub(self.shown.len());
        self.shown.extend(later.shown.into_iter().take(left));
        self.has_too_many_labels |= later.has_too_many_labels;
    }

    /// The set, whose errors are those of the record at this place.
    fn take_set<'a>(&mut self, record: usize, read: ReadSet<'a>) -> SampleSet<'a> {
        let ReadSet { values, mut errors } = read;
        for error in &mut errors.shown {
            error.record = Some(record);
        }
        self.append(errors);
        SampleSet(values)
    }

    /// A record; `None` if it has no number or no epoch.
    fn take_record<'a>(&mut self, at: usize, raw: RawRecord<'a>) -> Option<Record<SampleSet<'a>>> {
        let seq = take_integer(raw.seq, Seq::new);
        if seq.is_none() {
            self.push(Some(at), None, "seq is not a whole number from 1 to 2^53-1");
        }
        let epoch = take_integer(raw.epoch, Epoch::new);
        if epoch.is_none() {
            self.push(Some(at), None, "epoch is not whole seconds since 1970 UTC");
        }
        let values = self.take_set(at, raw.values);
        let (seq, epoch) = seq.zip(epoch)?;
        Some(Record { seq, epoch, values })
    }

    pub(super) fn none_or_refuse<T>(self, value: T) -> Result<T, BodyError> {
        if self.shown.is_empty() {
            Ok(value)
        } else {
            Err(self.refuse())
        }
    }

    fn refuse(self) -> BodyError {
        match self.has_too_many_labels {
            true => BodyError::TooManyLabels(self.shown),
            false => BodyError::Values(self.shown),
        }
    }
}

/// The maximum length of a rejected label in a response.
const LABEL_CHARS_SHOWN: usize = 128;

/// The first duplicate label. A few labels are compared directly; a hash set is faster for more.
pub(super) fn find_repeated<'s>(
    mut labels: impl ExactSizeIterator<Item = &'s str> + Clone,
) -> Option<&'s str> {
    const COMPARED_IN_PLACE_MAX: usize = 16;
    if labels.len() <= COMPARED_IN_PLACE_MAX {
        let all = labels.clone();
        return labels
            .enumerate()
            .find(|(at, label)| all.clone().take(*at).any(|l| l == *label))
            .map(|(_, label)| label);
    }
    let mut seen = HashSet::with_capacity(labels.len());
    labels.find(|label| !seen.insert(*label))
}

/// A JSON number, or a string with the grammar of a JSON number. It is rounded to the nearest f64.
fn take_value(raw: &RawValue) -> Result<Value, &'static str> {
    const NOT_A_NUMBER: &str = "the value is not a number";
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => parse_number(text),
        Some(b'"') => {
            let inner: Cow<'_, str> = serde_json::from_str::<CowStr<'_>>(text)
                .map_err(|_| NOT_A_NUMBER)?
                .0;
            number_in_string(&inner)
        }
        _ => Err(NOT_A_NUMBER),
    }
}

/// Of a string with the grammar of a JSON number.
pub(super) fn number_in_string(text: &str) -> Result<Value, &'static str> {
    let is_number = matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9'))
        && matches!(text.as_bytes().last(), Some(b'0'..=b'9'))
        && serde_json::from_str::<&RawValue>(text).is_ok();
    if is_number {
        parse_number(text)
    } else {
        Err("the string is not a number in JSON's grammar")
    }
}

fn parse_number(text: &str) -> Result<Value, &'static str> {
    text.parse()
        .ok()
        .and_then(Value::new)
        .ok_or("the value is beyond 1e290")
}

/// A JSON integer without a fraction or exponent.
fn take_integer<T>(raw: &RawValue, new: impl FnOnce(u64) -> Option<T>) -> Option<T> {
    raw.get().parse().ok().and_then(new)
}

#[derive(Deserialize)]
struct CowStr<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object of labels and values, with what is wrong in it. Values behind the limit are passed over:
/// that there are any is enough to reject the record.
#[derive(Default)]
struct ReadSet<'a> {
    values: Vec<(Label<'a>, Value)>,
    errors: Errors,
}

impl<'a> ReadSet<'a> {
    fn take(&mut self, label: Cow<'a, str>, raw_value: &RawValue) {
        match (Label::new(label.clone()), take_value(raw_value)) {
            (Ok(label), Ok(value)) => self.values.push((label, value)),
            (Err(error), _) => self.errors.push(None, Some(&label), error.to_string()),
            (_, Err(reason)) => self.errors.push(None, Some(&label), reason),
        }
    }

    /// All values were taken.
    fn end(&mut self, more_than_allowed: bool) {
        let labels = self.values.iter().map(|(label, _)| label.as_str());
        if more_than_allowed {
            self.errors.has_too_many_labels = true;
            let reason = format!("a record has at most {RECORD_LABELS_MAX} labels");
            self.errors.push(None, None, reason);
        } else if let Some(label) = find_repeated(labels) {
            let reason = "the label occurs twice in one record";
            self.errors.push(None, Some(label), reason);
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ReadSet<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SetVisitor;

        impl<'de> Visitor<'de> for SetVisitor {
            type Value = ReadSet<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of labels and numbers like {\"cpu\": 4.98}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut set = ReadSet::default();
                let mut seen = 0_usize;
                while let Some((CowStr(label), value)) =
                    map.next_entry::<CowStr<'de>, &'de RawValue>()?
                {
                    if seen < RECORD_LABELS_MAX {
                        set.take(label, value);
                    }
                    seen = seen.saturating_add(1);
                }
                set.end(seen > RECORD_LABELS_MAX);
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
    #[serde(borrow, default)]
    dropped: Vec<RawDropped<'a>>,
    #[serde(default)]
    repair: bool,
}

#[derive(Deserialize)]
pub(super) struct RawDropped<'a>(
    #[serde(borrow)] &'a RawValue,
    #[serde(borrow)] &'a RawValue,
    #[serde(borrow)] Cow<'a, str>,
);

#[derive(Deserialize)]
struct RawRecord<'a> {
    #[serde(borrow)]
    seq: &'a RawValue,
    #[serde(borrow)]
    epoch: &'a RawValue,
    #[serde(borrow)]
    values: ReadSet<'a>,
}

enum RawRecords<'a> {
    Within(Vec<Record<SampleSet<'a>>>, Errors),
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
                let (mut records, mut errors) = (Vec::new(), Errors::default());
                for at in 0..BATCH_RECORDS_MAX {
                    match seq.next_element()? {
                        Some(raw) => records.extend(errors.take_record(at, raw)),
                        None => return Ok(RawRecords::Within(records, errors)),
                    }
                }
                let mut more = false;
                while seq.next_element::<de::IgnoredAny>()?.is_some() {
                    more = true;
                }
                Ok(if more {
                    RawRecords::TooMany
                } else {
                    RawRecords::Within(records, errors)
                })
            }
        }

        deserializer.deserialize_seq(RecordsVisitor)
    }
}
