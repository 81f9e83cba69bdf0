//! One pass over the body of a batch: each value goes from the JSON to where it is needed, and
//! nothing is built between.
//!
//! serde_json reads a record, and of those behind it that look the same nothing but the numbers is
//! read: [`Shape`]. This knows what is right, and of what is wrong only that something is: then
//! [`read`](super::read) reads the body again, and says what. Whatever is read here it would read
//! as the same batch.

mod shape;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use self::shape::Shape;
use super::read::{
    BodyError, Errors, RawDropped, find_repeated, number_in_string, parse_batch_text, take_dropped,
    text_of,
};
use super::{
    BATCH_RECORDS_MAX, Epoch, ProducerId, RECORD_LABELS_MAX, RecordSink, Seq, SunkBatch, Value,
};
use crate::name::Label;

/// Like [`parse_batch`](super::parse_batch), but each record goes to a sink. Of a batch that is
/// rejected, some records may have gone to a sink before.
///
/// ```
/// use lizmon_protocol::sample::{Epoch, RecordSink, Seq, Value, read_batch};
///
/// #[derive(Default)]
/// struct Sum(f64);
///
/// impl RecordSink for Sum {
///     fn push_value(&mut self, _label: &str, value: Value) {
///         self.0 += value.get();
///     }
///     fn end_record(&mut self, _seq: Seq, _epoch: Epoch) {}
/// }
///
/// let body = br#"{"producer": "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b",
///     "records": [{"seq": 17, "epoch": 1465001814, "values": {"cpu": 4.98, "mem": "61.2"}}]}"#;
/// assert_eq!(read_batch(body, Sum::default).unwrap().records.0, 66.18);
/// ```
pub fn read_batch<S: RecordSink>(
    body: &[u8],
    new_sink: impl Fn() -> S,
) -> Result<SunkBatch<S>, BodyError> {
    let text = text_of(body)?;
    if let Some(batch) = read(text, new_sink()) {
        return Ok(batch);
    }
    let batch = parse_batch_text(text)?;
    let mut records = new_sink();
    for record in &batch.records {
        for (label, value) in record.values.iter() {
            records.push_value(label.as_str(), *value);
        }
        records.end_record(record.seq, record.epoch);
    }
    Ok(SunkBatch {
        producer: batch.producer,
        records,
        dropped: batch.dropped,
        repair: batch.repair,
    })
}

/// Reads a batch; `None` if it has to be read again.
fn read<S: RecordSink>(text: &str, sink: S) -> Option<SunkBatch<S>> {
    let (before, records) = text.split_at(text.find('[')? + 1);
    // So it is that of the records, and not in a string.
    serde_json::from_str::<Head>(&[before, "]}"].concat()).ok()?;
    let mut reader = Records::new(sink);
    let behind = reader.read_all(records)?;
    let without_records = [before, behind].concat();
    let frame: Frame<'_> = serde_json::from_str(&without_records).ok()?;
    let mut errors = Errors::default();
    let dropped = take_dropped(&frame.dropped, &mut errors);
    Some(SunkBatch {
        producer: frame.producer,
        records: reader.sink,
        dropped: errors.none_or_refuse(dropped).ok()?,
        repair: frame.repair,
    })
}

/// What a batch begins with, up to its records.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "records")]
    _records: [(); 0],
}

/// A batch without its records.
#[derive(Deserialize)]
struct Frame<'a> {
    producer: ProducerId,
    #[serde(rename = "records")]
    _records: [(); 0],
    #[serde(borrow, default)]
    dropped: Vec<RawDropped<'a>>,
    #[serde(default)]
    repair: bool,
}

/// Nobody sees it.
fn not_usual<E: Error>() -> E {
    E::custom("not as usual")
}

/// Sets what was not set before.
fn set_once<T, E: Error>(place: &mut Option<T>, value: T) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(not_usual()),
    }
}

/// The labels of the record before. The next one usually has the same, which are not checked again.
#[derive(Default)]
struct Labels<'de> {
    last: Vec<Label<'de>>,
    /// How many of the first are known to be different from each other.
    distinct: usize,
}

impl<'de> Labels<'de> {
    fn is(&self, at: usize, text: &str) -> bool {
        self.last.get(at).is_some_and(|last| last.as_str() == text)
    }

    /// Another label than in the record before.
    fn set<E: Error>(&mut self, at: usize, text: Cow<'de, str>) -> Result<(), E> {
        self.last.truncate(at);
        self.last.push(Label::new(text).map_err(|_| not_usual())?);
        self.distinct = self.distinct.min(at);
        Ok(())
    }

    /// A record has the first `count` of these.
    fn check_distinct<E: Error>(&mut self, count: usize) -> Result<(), E> {
        if count > self.distinct {
            let labels = self.last.iter().take(count).map(Label::as_str);
            if find_repeated(labels).is_some() {
                return Err(not_usual());
            }
            self.distinct = count;
        }
        Ok(())
    }
}

/// Reads records one after the other.
struct Records<'a, S> {
    sink: S,
    labels: Labels<'a>,
    /// That of the last record whose shape was another one.
    shape: Option<Shape<'a>>,
    /// Reused for each record.
    values: Vec<Value>,
}

impl<'a, S: RecordSink> Records<'a, S> {
    fn new(sink: S) -> Self {
        Self {
            sink,
            labels: Labels::default(),
            shape: None,
            values: Vec::new(),
        }
    }

    /// Reads to the bracket behind the last record, with which the rest begins.
    fn read_all(&mut self, text: &'a str) -> Option<&'a str> {
        let mut text = trim_start(text);
        if text.starts_with(']') {
            return Some(text);
        }
        for _ in 0..BATCH_RECORDS_MAX {
            text = trim_start(self.read_one(text)?);
            match text.strip_prefix(',') {
                Some(next) => text = trim_start(next),
                None => return text.starts_with(']').then_some(text),
            }
        }
        None
    }

    fn read_one(&mut self, text: &'a str) -> Option<&'a str> {
        let shape = self.shape.as_ref();
        let Some((seq, epoch, rest)) = shape.and_then(|of| of.read(text, &mut self.values)) else {
            return self.read_another(text);
        };
        for (label, value) in self.labels.last.iter().zip(&self.values) {
            self.sink.push_value(label.as_str(), *value);
        }
        self.sink.end_record(seq, epoch);
        Some(rest)
    }

    /// Reads a record of another shape, which those behind it may have too.
    fn read_another(&mut self, text: &'a str) -> Option<&'a str> {
        let mut json = serde_json::Deserializer::from_str(text);
        let numbers = json.deserialize_map(OneRecord(self)).ok()?;
        let end = json.into_iter::<IgnoredAny>().byte_offset();
        let (record, rest) = text.split_at_checked(end)?;
        self.shape = numbers.and_then(|numbers| Shape::of(record, numbers));
        Some(rest)
    }
}

/// Without the whitespace of JSON before it.
fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\n', '\r', '\t'])
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum RecordField {
    Seq,
    Epoch,
    Values,
    #[serde(other)]
    Other,
}

struct OneRecord<'r, 'a, S>(&'r mut Records<'a, S>);

impl<'de, S: RecordSink> Visitor<'de> for OneRecord<'_, 'de, S> {
    /// How many numbers it has at most, if they are a number, an epoch and values, in this order.
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<usize>, A::Error> {
        let (mut seq, mut epoch, mut values) = (None, None, None);
        let mut is_in_order = true;
        while let Some(field) = map.next_key()? {
            match field {
                RecordField::Seq => set_once(&mut seq, map.next_value()?)?,
                RecordField::Epoch => set_once(&mut epoch, map.next_value()?)?,
                RecordField::Values => {
                    is_in_order &= seq.is_some() && epoch.is_some();
                    set_once(&mut values, map.next_value_seed(Values(&mut *self.0))?)?;
                }
                RecordField::Other => {
                    is_in_order = false;
                    map.next_value::<IgnoredAny>()?;
                }
            }
            is_in_order &= epoch.is_none() || seq.is_some();
        }
        let values = values.ok_or_else(not_usual)?;
        let seq = seq.and_then(Seq::new).ok_or_else(not_usual)?;
        let epoch = epoch.and_then(Epoch::new).ok_or_else(not_usual)?;
        self.0.sink.end_record(seq, epoch);
        Ok(is_in_order.then_some(values + 2))
    }
}

struct Values<'r, 'a, S>(&'r mut Records<'a, S>);

impl<'de, S: RecordSink> DeserializeSeed<'de> for Values<'_, 'de, S> {
    /// How many there are.
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<usize, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, S: RecordSink> Visitor<'de> for Values<'_, 'de, S> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
        let Records { sink, labels, .. } = self.0;
        let mut count = 0;
        while map.next_key_seed(LabelAt(labels, count))?.is_some() {
            if count == RECORD_LABELS_MAX {
                return Err(not_usual());
            }
            let AnyValue(value) = map.next_value()?;
            sink.push_value(labels.last[count].as_str(), value);
            count += 1;
        }
        labels.check_distinct(count)?;
        Ok(count)
    }
}

/// The label at this place of a record.
struct LabelAt<'r, 'de>(&'r mut Labels<'de>, usize);

impl<'de> DeserializeSeed<'de> for LabelAt<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for LabelAt<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        let Self(labels, at) = self;
        match labels.is(at, text) {
            true => Ok(()),
            false => labels.set(at, Cow::Borrowed(text)),
        }
    }

    /// With escapes.
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let Self(labels, at) = self;
        match labels.is(at, text) {
            true => Ok(()),
            false => labels.set(at, Cow::Owned(text.to_owned())),
        }
    }
}

/// A number, or a string that is one.
struct AnyValue(Value);

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = AnyValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<AnyValue, E> {
        Value::new(number).map(AnyValue).ok_or_else(not_usual)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<AnyValue, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<AnyValue, E> {
        self.visit_f64(number as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<AnyValue, E> {
        number_in_string(text)
            .map(AnyValue)
            .map_err(|_| not_usual())
    }
}

#[cfg(test)]
mod tests;
