//! The value of an attribute, and the text that it is in a label.
//! <https://opentelemetry.io/docs/specs/otel/common/#anyvalue-representation-for-non-otlp-protocols>

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::{Message, Oneof};
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number};

use super::json;

/// An attribute.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::scalar")]
    pub key: String,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    #[serde(deserialize_with = "json::message")]
    pub value: Option<AnyValue>,
}

/// What an attribute says.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Nothing, or something of one of the types.
    #[prost(oneof = "TypedValue", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<TypedValue>,
}

/// It has one of these types.
#[derive(Clone, PartialEq, Oneof)]
pub enum TypedValue {
    /// A text.
    #[prost(string, tag = "1")]
    Text(String),
    /// True or false.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// An integer.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// Any number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// Many values.
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    /// Values by name.
    #[prost(message, tag = "6")]
    Map(KeyValueList),
    /// Bytes.
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

/// Many values.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ArrayValue {
    /// In their order.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::messages")]
    pub values: Vec<AnyValue>,
}

/// Values by name.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KeyValueList {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::messages")]
    pub values: Vec<KeyValue>,
}

impl AnyValue {
    /// The text that it is in a label: nothing is empty, what is no text is JSON.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.value {
            None => Cow::Borrowed(""),
            Some(TypedValue::Text(text)) => Cow::Borrowed(text),
            Some(_) => match self.in_json() {
                serde_json::Value::String(text) => Cow::Owned(text),
                other => Cow::Owned(other.to_string()),
            },
        }
    }

    /// As deep as it was decoded: both encodings have a limit.
    fn in_json(&self) -> serde_json::Value {
        let of = |value: &Option<Self>| {
            value
                .as_ref()
                .map_or(serde_json::Value::Null, Self::in_json)
        };
        match &self.value {
            None => serde_json::Value::Null,
            Some(TypedValue::Text(text)) => text.as_str().into(),
            Some(TypedValue::Bool(truth)) => (*truth).into(),
            Some(TypedValue::Int(integer)) => (*integer).into(),
            Some(TypedValue::Double(double)) => match Number::from_f64(*double) {
                Some(number) => number.into(),
                None if double.is_nan() => "NaN".into(),
                None if *double > 0.0 => "Infinity".into(),
                None => "-Infinity".into(),
            },
            Some(TypedValue::Array(array)) => array.values.iter().map(Self::in_json).collect(),
            Some(TypedValue::Map(map)) => {
                let pairs = map.values.iter();
                let pairs = pairs.map(|pair| (pair.key.clone(), of(&pair.value)));
                pairs.collect::<Map<_, _>>().into()
            }
            Some(TypedValue::Bytes(bytes)) => BASE64.encode(bytes).into(),
        }
    }
}

/// In JSON it is an object with one of these.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Choice {
    #[serde(alias = "string_value")]
    StringValue,
    #[serde(alias = "bool_value")]
    BoolValue,
    #[serde(alias = "int_value")]
    IntValue,
    #[serde(alias = "double_value")]
    DoubleValue,
    #[serde(alias = "array_value")]
    ArrayValue,
    #[serde(alias = "kvlist_value")]
    KvlistValue,
    #[serde(alias = "bytes_value")]
    BytesValue,
    #[serde(other)]
    Unknown,
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(AnyValueVisitor)
    }
}

struct AnyValueVisitor;

impl<'de> Visitor<'de> for AnyValueVisitor {
    type Value = AnyValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue, A::Error> {
        let mut value = None;
        while let Some(choice) = map.next_key()? {
            let next = match choice {
                Choice::StringValue => map
                    .next_value::<json::Optional<_>>()?
                    .0
                    .map(TypedValue::Text),
                Choice::BoolValue => map
                    .next_value::<json::Optional<_>>()?
                    .0
                    .map(TypedValue::Bool),
                Choice::IntValue => map
                    .next_value::<json::Optional<_>>()?
                    .0
                    .map(TypedValue::Int),
                Choice::DoubleValue => map
                    .next_value::<json::Optional<_>>()?
                    .0
                    .map(TypedValue::Double),
                Choice::BytesValue => map
                    .next_value::<json::Optional<_>>()?
                    .0
                    .map(TypedValue::Bytes),
                Choice::ArrayValue => map
                    .next_value::<json::OptionalMessage<_>>()?
                    .0
                    .map(TypedValue::Array),
                Choice::KvlistValue => map
                    .next_value::<json::OptionalMessage<_>>()?
                    .0
                    .map(TypedValue::Map),
                Choice::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            if value.is_some() && next.is_some() {
                return Err(A::Error::custom("a value has one type, and this has two"));
            }
            value = value.or(next);
        }
        Ok(AnyValue { value })
    }
}
