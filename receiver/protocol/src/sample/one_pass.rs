//! One pass over the body of a batch: each value goes from the JSON to where it is needed, and
//! nothing is built between.
//!
//! This knows what is right, and of what is wrong only that something is: then [`read`](super::read)
//! reads the body again, and says what. Whatever is read here it would read as the same batch.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::read::{Errors, RawDropped, find_repeated, number_in_string, take_dropped};
use super::{
    BATCH_RECORDS_MAX, Dropped, Epoch, RECORD_LABELS_MAX, RecordSink, Seq, SunkBatch, Value,
};
use crate::name::Label;

/// Reads a batch; `None` if it has to be read again.
pub(super) fn read<S: RecordSink>(text: &str, sink: S) -> Option<SunkBatch<S>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let batch = json.deserialize_map(BatchVisitor(sink)).ok()?;
    json.end().ok()?;
    Some(batch)
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

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum BatchField {
    Producer,
    Records,
    Dropped,
    Repair,
    #[serde(other)]
    Other,
}

struct BatchVisitor<S>(S);

impl<'de, S: RecordSink> Visitor<'de> for BatchVisitor<S> {
    type Value = SunkBatch<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut records = self.0;
        let (mut producer, mut dropped, mut repair) = (None, None, None);
        let mut has_records = None;
        while let Some(field) = map.next_key()? {
            match field {
                BatchField::Producer => set_once(&mut producer, map.next_value()?)?,
                BatchField::Records => {
                    let labels = Labels::default();
                    let sink = &mut records;
                    set_once(&mut has_records, ())?;
                    map.next_value_seed(Records { sink, labels })?;
                }
                BatchField::Dropped => set_once(&mut dropped, dropped_ranges(map.next_value()?)?)?,
                BatchField::Repair => set_once(&mut repair, map.next_value()?)?,
                BatchField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        has_records.ok_or_else(not_usual)?;
        Ok(SunkBatch {
            producer: producer.ok_or_else(not_usual)?,
            records,
            dropped: dropped.unwrap_or_default(),
            repair: repair.unwrap_or_default(),
        })
    }
}

fn dropped_ranges<E: Error>(raw: Vec<RawDropped<'_>>) -> Result<Vec<Dropped>, E> {
    let mut errors = Errors::default();
    let dropped = take_dropped(&raw, &mut errors);
    errors.none_or_refuse(dropped).map_err(|_| not_usual())
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

struct Records<'s, 'de, S> {
    sink: &'s mut S,
    labels: Labels<'de>,
}

impl<'de, S: RecordSink> DeserializeSeed<'de> for Records<'_, 'de, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, S: RecordSink> Visitor<'de> for Records<'_, 'de, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut count = 0;
        while seq.next_element_seed(OneRecord(&mut self))?.is_some() {
            count += 1;
            if count > BATCH_RECORDS_MAX {
                return Err(not_usual());
            }
        }
        Ok(())
    }
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

struct OneRecord<'r, 's, 'de, S>(&'r mut Records<'s, 'de, S>);

impl<'de, S: RecordSink> DeserializeSeed<'de> for OneRecord<'_, '_, 'de, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, S: RecordSink> Visitor<'de> for OneRecord<'_, '_, 'de, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut seq, mut epoch, mut has_values) = (None, None, None);
        while let Some(field) = map.next_key()? {
            match field {
                RecordField::Seq => set_once(&mut seq, map.next_value()?)?,
                RecordField::Epoch => set_once(&mut epoch, map.next_value()?)?,
                RecordField::Values => {
                    set_once(&mut has_values, ())?;
                    map.next_value_seed(Values(&mut *self.0))?;
                }
                RecordField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        has_values.ok_or_else(not_usual)?;
        let seq = seq.and_then(Seq::new).ok_or_else(not_usual)?;
        let epoch = epoch.and_then(Epoch::new).ok_or_else(not_usual)?;
        self.0.sink.end_record(seq, epoch);
        Ok(())
    }
}

struct Values<'r, 's, 'de, S>(&'r mut Records<'s, 'de, S>);

impl<'de, S: RecordSink> DeserializeSeed<'de> for Values<'_, '_, 'de, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, S: RecordSink> Visitor<'de> for Values<'_, '_, 'de, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Records { sink, labels } = self.0;
        let mut count = 0;
        while map.next_key_seed(LabelAt(labels, count))?.is_some() {
            if count == RECORD_LABELS_MAX {
                return Err(not_usual());
            }
            let AnyValue(value) = map.next_value()?;
            sink.push_value(labels.last[count].as_str(), value);
            count += 1;
        }
        labels.check_distinct(count)
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
