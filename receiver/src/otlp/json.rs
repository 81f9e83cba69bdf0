//! JSON as OTLP has it: the mapping of proto3, with liberties that senders take.
//! <https://protobuf.dev/programming-guides/json/>
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>
//!
//! | in JSON | here |
//! | --- | --- |
//! | a field that is not there, or `null` | its default |
//! | a field that is not known | skipped |
//! | `"7"`, `7`, `7.0` for an integer | 7 |
//! | `"NaN"`, `"Infinity"`, `"-Infinity"`, `"1.5"` for a double | these |
//! | `2`, `"AGGREGATION_TEMPORALITY_CUMULATIVE"` | the same |
//! | an array where an object has to be, the same field twice, another type | an error that says where |

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::protobuf::Skipped;

/// Why a body is not a message in JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It has too many objects.
    #[error("the message has more than {objects_max} objects")]
    TooManyObjects {
        /// How many it may have.
        objects_max: usize,
    },
    /// It is no JSON, or a field has another type. `path` is where.
    #[error("{path}: {reason}")]
    Malformed {
        /// As `resourceMetrics[0].resource`.
        path: String,
        /// What is wrong there.
        reason: serde_json::Error,
    },
}

/// The message in `bytes`, if it has at most `objects_max` objects. An object takes three bytes of
/// a message at least, and some hundred in memory: what bounds the bytes does not bound the memory.
pub fn parse<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    objects_max: usize,
) -> Result<T, JsonError> {
    // A brace in a text counts as well.
    if bytes.iter().filter(|byte| **byte == b'{').count() > objects_max {
        return Err(JsonError::TooManyObjects { objects_max });
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = MessageVisitor::default().deserialize(&mut json);
    let parsed = parsed.and_then(|message| json.end().map(|()| message));
    parsed.map_err(|error| malformed::<T>(bytes, error))
}

/// Where the error is takes time to follow, so that is done only where there is one.
fn malformed<T: for<'de> Deserialize<'de>>(bytes: &[u8], reason: serde_json::Error) -> JsonError {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let json = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let _ = MessageVisitor::<T>::default().deserialize(json);
    JsonError::Malformed {
        path: track.path().to_string(),
        reason,
    }
}

/// A message that may be missing.
pub(super) fn message<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    json: D,
) -> Result<Option<T>, D::Error> {
    json.deserialize_option(OrNull(MessageVisitor::default()))
}

/// Any number of messages.
pub(super) fn messages<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    json: D,
) -> Result<Vec<T>, D::Error> {
    let all = json.deserialize_option(OrNull(ListVisitor::<MessageVisitor<T>>::default()))?;
    Ok(all.unwrap_or_default())
}

/// How many messages there are.
pub(super) fn skipped<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<Skipped>, D::Error> {
    let all = json.deserialize_option(OrNull(ListVisitor::<PhantomData<IgnoredAny>>::default()))?;
    let all = all.unwrap_or_default();
    Ok(all.iter().map(|IgnoredAny| Skipped {}).collect())
}

/// A number, a text, a truth.
pub(super) fn scalar<'de, D: Deserializer<'de>, T: Scalar + Default>(
    json: D,
) -> Result<T, D::Error> {
    Ok(optional(json)?.unwrap_or_default())
}

/// The same, if it is there.
pub(super) fn optional<'de, D: Deserializer<'de>, T: Scalar>(
    json: D,
) -> Result<Option<T>, D::Error> {
    ScalarVisitor::default().deserialize(json)
}

/// What [`optional`] reads.
pub(super) struct Optional<T>(pub(super) Option<T>);

impl<'de, T: Scalar> Deserialize<'de> for Optional<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        optional(json).map(Self)
    }
}

/// What [`message`] reads.
pub(super) struct OptionalMessage<T>(pub(super) Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OptionalMessage<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        message(json).map(Self)
    }
}

/// A message: an object, and never an array of what its fields would be, which serde takes too.
struct MessageVisitor<T>(PhantomData<T>);

impl<T> Default for MessageVisitor<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for MessageVisitor<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<T, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for MessageVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// An array.
struct ListVisitor<S>(PhantomData<S>);

impl<S> Default for ListVisitor<S> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, S: DeserializeSeed<'de> + Default> DeserializeSeed<'de> for ListVisitor<S> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Default> Visitor<'de> for ListVisitor<S> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element_seed(S::default())? {
            all.push(one);
        }
        Ok(all)
    }
}

/// What may be `null`, which is as if it were not there.
struct OrNull<S>(S);

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for OrNull<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, an object or an array")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(json).map(Some)
    }
}

/// What a field without fields of its own is made of. What a type has no method for, it does not
/// take.
pub(super) trait Scalar: Sized {
    /// What is expected, as an error says it.
    const EXPECTED: &'static str;

    fn of_integer(_integer: i128) -> Option<Self> {
        None
    }

    fn of_double(_double: f64) -> Option<Self> {
        None
    }

    fn of_text(_text: &str) -> Option<Self> {
        None
    }

    fn of_bool(_truth: bool) -> Option<Self> {
        None
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Scalar for $integer {
            const EXPECTED: &'static str =
                concat!("an integer of type ", stringify!($integer), ", or a text that is one");

            fn of_integer(integer: i128) -> Option<Self> {
                integer.try_into().ok()
            }

            fn of_double(double: f64) -> Option<Self> {
                integer_of(double)?.try_into().ok()
            }

            fn of_text(text: &str) -> Option<Self> {
                let integer = text.parse().ok();
                let integer = integer.or_else(|| integer_of(text.parse().ok()?));
                integer?.try_into().ok()
            }
        }
    )*};
}

integers!(u32, i32, u64, i64);

/// `7.0` and `7e0` are 7.
fn integer_of(double: f64) -> Option<i128> {
    let is_integer = double.fract() == 0.0 && double.abs() <= u64::MAX as f64;
    is_integer.then_some(double as i128)
}

impl Scalar for f64 {
    const EXPECTED: &'static str =
        r#"a number, a text that is one, "NaN", "Infinity" or "-Infinity""#;

    fn of_integer(integer: i128) -> Option<Self> {
        Some(integer as Self)
    }

    fn of_double(double: f64) -> Option<Self> {
        Some(double)
    }

    fn of_text(text: &str) -> Option<Self> {
        match text {
            "NaN" => Some(Self::NAN),
            "Infinity" => Some(Self::INFINITY),
            "-Infinity" => Some(Self::NEG_INFINITY),
            // Rust would take `inf` and `nan` as well.
            text => text.parse().ok().filter(|double: &Self| double.is_finite()),
        }
    }
}

impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";

    fn of_bool(truth: bool) -> Option<Self> {
        Some(truth)
    }
}

impl Scalar for String {
    const EXPECTED: &'static str = "a text";

    fn of_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Scalar for Vec<u8> {
    const EXPECTED: &'static str = "a text in base64";

    fn of_text(text: &str) -> Option<Self> {
        const ANY_PADDING: GeneralPurposeConfig = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        const STANDARD: GeneralPurpose =
            GeneralPurpose::new(&base64::alphabet::STANDARD, ANY_PADDING);
        // The alphabet for URLs is taken as well.
        STANDARD
            .decode(text.replace('-', "+").replace('_', "/"))
            .ok()
    }
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T> Default for ScalarVisitor<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Scalar> DeserializeSeed<'de> for ScalarVisitor<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<T>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<T: Scalar> ScalarVisitor<T> {
    fn of<E: Error>(&self, value: Option<T>, found: Unexpected<'_>) -> Result<Option<T>, E> {
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(E::invalid_value(found, self)),
        }
    }
}

impl<'de, T: Scalar> Visitor<'de> for ScalarVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<Option<T>, E> {
        self.of(T::of_integer(integer.into()), Unexpected::Unsigned(integer))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<Option<T>, E> {
        self.of(T::of_integer(integer.into()), Unexpected::Signed(integer))
    }

    fn visit_f64<E: Error>(self, double: f64) -> Result<Option<T>, E> {
        self.of(T::of_double(double), Unexpected::Float(double))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
        /// An error shows no more of a text.
        const SHOWN_CHARS_MAX: usize = 60;
        let value = T::of_text(text);
        if value.is_some() {
            return Ok(value);
        }
        let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        self.of(value, Unexpected::Str(&shown))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Option<T>, E> {
        self.of(T::of_bool(truth), Unexpected::Bool(truth))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}
