//! The schemas of what is sent and answered. Those with a name have examples, which are values of
//! the types that the handlers use: a test compares their keys with the schema's.

use std::sync::LazyLock;

use serde_json::Value;

mod otlp;
mod parts;
mod reading;
mod samples;
mod trust;

use self::parts::NamedSchema;
pub(super) use self::parts::{any_count, count, epoch, named, one_of, text};
pub(super) use self::samples::{HOST, NOW, PRODUCER};

static SCHEMAS: LazyLock<Vec<NamedSchema>> = LazyLock::new(|| {
    let all = [samples::all(), otlp::all(), reading::all(), trust::all()];
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::openapi::Schema;

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
