//! The schemas of what is sent and answered. Those with a name have examples, which are values of
//! the types that the handlers use: a test compares their keys with the schema's.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::LazyLock;

use lizmon_protocol::sample::SAFE_INTEGER_MAX;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, Type};

mod reading;
mod samples;
mod trust;

pub(super) use self::samples::{HOST, NOW, PRODUCER};

/// A schema with a name.
pub(super) struct NamedSchema {
    pub(super) name: &'static str,
    pub(super) schema: Schema,
    /// What such a value may be, by a word.
    pub(super) examples: Vec<(&'static str, Value)>,
}

impl NamedSchema {
    fn new(name: &'static str, schema: impl Into<Schema>) -> Self {
        Self {
            name,
            schema: schema.into(),
            examples: Vec::new(),
        }
    }

    /// The same with one more example.
    fn example(mut self, word: &'static str, value: &impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.examples.push((word, value));
        self
    }
}

static SCHEMAS: LazyLock<Vec<NamedSchema>> = LazyLock::new(|| {
    let all = [samples::all(), reading::all(), trust::all()];
    all.into_iter().flatten().collect()
});

/// All schemas that have a name.
pub(super) fn all() -> &'static [NamedSchema] {
    &SCHEMAS
}

/// The examples of the schema with this name.
pub(super) fn examples_of(name: &str) -> &'static [(&'static str, Value)] {
    let found = SCHEMAS.iter().find(|schema| schema.name == name);
    found.map_or(&[], |schema| &schema.examples)
}

/// The schema with this name.
pub(super) fn named(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

pub(super) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// One of these texts.
pub(super) fn one_of(texts: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    text().enum_values(Some(texts))
}

/// A whole number that programs in any language have room for: from 0 to 2^53-1.
pub(super) fn count() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_usize))
        .maximum(Some(SAFE_INTEGER_MAX as usize))
}

/// A whole number without a limit.
pub(super) fn any_count() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_usize))
}

/// Whole seconds since 1970 UTC.
pub(super) fn epoch() -> ObjectBuilder {
    count().description(Some("Whole seconds since 1970 UTC"))
}

fn number() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number)
}

fn boolean() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean)
}

/// The same, or null.
fn or_null(schema: ObjectBuilder, of: Type) -> ObjectBuilder {
    schema.schema_type(SchemaType::from_iter([of, Type::Null]))
}

fn list(items: impl Into<RefOr<Schema>>) -> ArrayBuilder {
    let items: RefOr<Schema> = items.into();
    ArrayBuilder::new().items(items)
}

/// `[from, to]`, both of this kind.
fn pair(of: ObjectBuilder) -> ArrayBuilder {
    list(of).min_items(Some(2)).max_items(Some(2))
}

/// An object whose keys are not known before, with values of this kind.
fn map(values: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    object().additional_properties(Some(AdditionalProperties::RefOr(values.into())))
}

fn object() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object)
}

/// A constant of an example.
#[expect(
    clippy::expect_used,
    reason = "examples are constants, and a test makes all of them"
)]
fn parsed<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("an example is valid")
}

trait Keys {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FORMS: [&str; 2] = ["Listing", "TokenRequest"];

    /// All keys of the examples are in the schema, and the other way round; what is in every example
    /// is required, and nothing else.
    #[test]
    fn an_example_has_the_keys_of_its_schema() {
        let mut compared = 0;
        for NamedSchema {
            name,
            schema,
            examples,
        } in all()
        {
            let Schema::Object(object) = schema else {
                continue;
            };
            // They have no type.
            if object.properties.is_empty() || FORMS.contains(name) {
                continue;
            }
            compared += 1;
            let keys = |(word, value): &(&str, Value)| -> BTreeSet<String> {
                let value = value.as_object();
                let value = value.unwrap_or_else(|| panic!("{name}: {word} is no object"));
                value.keys().cloned().collect()
            };
            let keys: Vec<_> = examples.iter().map(keys).collect();
            let any: BTreeSet<String> = keys.iter().flatten().cloned().collect();
            let in_each = |key: &&String| keys.iter().all(|keys| keys.contains(*key));
            let each: BTreeSet<String> = any.iter().filter(in_each).cloned().collect();
            let properties: BTreeSet<String> = object.properties.keys().cloned().collect();
            let required: BTreeSet<String> = object.required.iter().cloned().collect();
            assert_eq!((any, each), (properties, required), "{name}");
        }
        assert!(compared > 20, "{compared}");
    }
}
