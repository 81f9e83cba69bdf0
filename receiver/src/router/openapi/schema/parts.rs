//! What schemas are made of.

use std::fmt::Debug;
use std::str::FromStr;

use lizmon_protocol::sample::SAFE_INTEGER_MAX;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, Type};

/// A schema with a name.
pub(in super::super) struct NamedSchema {
    pub(in super::super) name: &'static str,
    pub(in super::super) schema: Schema,
    /// What such a value may be, by a word.
    pub(in super::super) examples: Vec<(&'static str, Value)>,
}

impl NamedSchema {
    pub(super) fn new(name: &'static str, schema: impl Into<Schema>) -> Self {
        Self {
            name,
            schema: schema.into(),
            examples: Vec::new(),
        }
    }

    /// The same with one more example.
    pub(super) fn example(mut self, word: &'static str, value: &impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.examples.push((word, value));
        self
    }
}

/// The schema with this name.
pub(in super::super) fn named(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

pub(in super::super) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// One of these texts.
pub(in super::super) fn one_of(texts: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    text().enum_values(Some(texts))
}

/// A whole number that programs in any language have room for: from 0 to 2^53-1.
pub(in super::super) fn count() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_usize))
        .maximum(Some(SAFE_INTEGER_MAX as usize))
}

/// A whole number without a limit.
pub(in super::super) fn any_count() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_usize))
}

/// Whole seconds since 1970 UTC.
pub(in super::super) fn epoch() -> ObjectBuilder {
    count().description(Some("Whole seconds since 1970 UTC"))
}

pub(super) fn number() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number)
}

pub(super) fn boolean() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean)
}

/// The same, or null.
pub(super) fn or_null(schema: ObjectBuilder, of: Type) -> ObjectBuilder {
    schema.schema_type(SchemaType::from_iter([of, Type::Null]))
}

pub(super) fn list(items: impl Into<RefOr<Schema>>) -> ArrayBuilder {
    let items: RefOr<Schema> = items.into();
    ArrayBuilder::new().items(items)
}

/// `[from, to]`, both of this kind.
pub(super) fn pair(of: ObjectBuilder) -> ArrayBuilder {
    list(of).min_items(Some(2)).max_items(Some(2))
}

/// An object whose keys are not known before, with values of this kind.
pub(super) fn map(values: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    object().additional_properties(Some(AdditionalProperties::RefOr(values.into())))
}

pub(super) fn object() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object)
}

/// A constant of an example.
#[expect(
    clippy::expect_used,
    reason = "examples are constants, and a test makes all of them"
)]
pub(super) fn parsed<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("an example is valid")
}

pub(super) trait Keys {
    /// A key that is always there.
    fn has(self, key: &str, schema: impl Into<RefOr<Schema>>) -> Self;
    /// A key that may be left out.
    fn may_have(self, key: &str, schema: impl Into<RefOr<Schema>>) -> Self;
    fn says(self, description: &str) -> Self;
}

impl Keys for ObjectBuilder {
    fn has(self, key: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.property(key, schema).required(key)
    }

    fn may_have(self, key: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.property(key, schema)
    }

    fn says(self, description: &str) -> Self {
        self.description(Some(description))
    }
}
