//! What a machine is: facts that its monitor reports once a day.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;

use crate::name::is_printable;

/// The largest body: what a monitor knows of its machine takes a tenth of it.
pub const FACTS_BYTES_MAX: usize = 4 << 10;
/// Most facts of a host.
pub const FACTS_MAX: usize = 64;
/// The longest key of a fact, in bytes.
pub const FACT_KEY_BYTES_MAX: usize = 64;
/// The longest text of a fact, in bytes.
pub const FACT_TEXT_BYTES_MAX: usize = 256;

/// One fact: text, or a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Fact {
    /// At most [`FACT_TEXT_BYTES_MAX`] bytes that can be printed.
    Text(String),
    /// A number of JSON.
    Number(Number),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Facts by their keys, which are in kebab-case: `memory-bytes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Facts(BTreeMap<String, Fact>);

/// Why something is not the facts of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// It is not a JSON object, or has a key twice.
    #[error("{0}")]
    Malformed(String),
    /// One of them is not a fact.
    #[error("`{key}`: {fault}")]
    Fact {
        /// Its key, shortened.
        key: String,
        /// What is wrong.
        fault: FactFault,
    },
    /// There are too many.
    #[error("a host has at most {FACTS_MAX} facts")]
    TooMany,
}

/// What is wrong with a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FactFault {
    /// The key.
    #[error("a key is 1 to {FACT_KEY_BYTES_MAX} of a-z 0-9 -, the first a letter")]
    Key,
    /// The kind of its value.
    #[error("a fact is a text or a number")]
    Kind,
    /// Its text.
    #[error("a text has at most {FACT_TEXT_BYTES_MAX} bytes, all printable")]
    Text,
}

impl Facts {
    /// Parses a JSON object.
    ///
    /// ```
    /// use lizmon_protocol::facts::Facts;
    /// let facts = Facts::parse(br#"{"kernel":"6.12.1","cores":8}"#).unwrap();
    /// assert_eq!(facts.get("cores").unwrap().to_string(), "8");
    /// assert!(Facts::parse(br#"{"cores":null}"#).is_err());
    /// ```
    pub fn parse(json: &[u8]) -> Result<Self, FactsError> {
        let malformed = |error: serde_json::Error| FactsError::Malformed(error.to_string());
        let Pairs(pairs) = serde_json::from_slice(json).map_err(malformed)?;
        let mut facts = Self::default();
        for (key, value) in pairs {
            facts.insert(key, value)?;
        }
        Ok(facts)
    }

    /// Adds a text. What cannot be printed of it, and what is too long, is left out.
    pub fn add_text(&mut self, key: &'static str, text: &str) {
        let mut text: String = text.trim().chars().filter(|c| is_printable(*c)).collect();
        text.truncate(text.floor_char_boundary(FACT_TEXT_BYTES_MAX));
        if !text.is_empty() {
            self.0.insert(key.to_owned(), Fact::Text(text));
        }
    }

    /// Adds a number.
    pub fn add_number(&mut self, key: &'static str, number: u64) {
        self.0.insert(key.to_owned(), Fact::Number(number.into()));
    }

    /// The fact of this key.
    pub fn get(&self, key: &str) -> Option<&Fact> {
        self.0.get(key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.0.iter().map(|(key, fact)| (key.as_str(), fact))
    }

    /// The same facts without this one.
    pub fn without(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    fn insert(&mut self, key: String, value: serde_json::Value) -> Result<(), FactsError> {
        let is_key = key.starts_with(|c: char| c.is_ascii_lowercase())
            && key.len() <= FACT_KEY_BYTES_MAX
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let is_text =
            |text: &str| text.len() <= FACT_TEXT_BYTES_MAX && text.chars().all(is_printable);
        let fact = match value {
            _ if !is_key => Err(FactFault::Key),
            serde_json::Value::String(text) if is_text(&text) => Ok(Fact::Text(text)),
            serde_json::Value::String(_) => Err(FactFault::Text),
            serde_json::Value::Number(number) => Ok(Fact::Number(number)),
            _ => Err(FactFault::Kind),
        };
        let fact = fact.map_err(|fault| FactsError::Fact {
            key: key
                .chars()
                .take(FACT_KEY_BYTES_MAX)
                .flat_map(char::escape_debug)
                .collect(),
            fault,
        })?;
        if self.0.len() >= FACTS_MAX {
            return Err(FactsError::TooMany);
        }
        self.0.insert(key, fact);
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Pairs(pairs) = Pairs::deserialize(deserializer)?;
        let mut facts = Self::default();
        for (key, value) in pairs {
            facts.insert(key, value).map_err(D::Error::custom)?;
        }
        Ok(facts)
    }
}

/// An object in the order of its keys, each of which is there once.
struct Pairs(BTreeMap<String, serde_json::Value>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of facts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
                    let shown = key.escape_debug().to_string();
                    if pairs.insert(key, value).is_some() {
                        return Err(A::Error::custom(format!("`{shown}` is there twice")));
                    }
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let golden = r#"{"architecture":"x86_64","cores":2,"os":"Debian GNU/Linux 13 (trixie)"}"#;
        let facts = Facts::parse(golden.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&facts).unwrap(), golden);
        let again: Facts = serde_json::from_str(golden).unwrap();
        assert_eq!(again, facts);
        let mut made = Facts::default();
        made.add_text("architecture", "x86_64");
        made.add_number("cores", 2);
        made.add_text("os", " Debian\u{202e} GNU/Linux\n 13 (trixie)\t");
        made.add_text("none", "\u{7}");
        assert_eq!(made, facts);
    }

    #[test]
    fn an_error_names_the_key() {
        let long_key = format!(r#"{{"{}":1}}"#, "k".repeat(FACT_KEY_BYTES_MAX + 1));
        let long_text = format!(r#"{{"os":"{}"}}"#, "x".repeat(FACT_TEXT_BYTES_MAX + 1));
        let many: Vec<_> = (0..=FACTS_MAX).map(|n| format!(r#""k{n}":1"#)).collect();
        let many = format!("{{{}}}", many.join(","));
        let cases = [
            (r#"{"os":null}"#, "`os`: a fact is a text or a number"),
            (r#"{"os":true}"#, "`os`: a fact is"),
            (r#"{"os":["a"]}"#, "`os`: a fact is"),
            (r#"{"os":{"a":1}}"#, "`os`: a fact is"),
            (r#"{"os":"a\u0000b"}"#, "`os`: a text has"),
            (r#"{"os":"a\u202eb"}"#, "`os`: a text has"),
            (&long_text, "`os`: a text has"),
            (&long_key, "kkk`: a key is"),
            (r#"{"OS":"x"}"#, "`OS`: a key is"),
            (r#"{"":"x"}"#, "``: a key is"),
            (r#"{"1st":"x"}"#, "`1st`: a key is"),
            (r#"{"a\nb":"x"}"#, "`a\\nb`: a key is"),
            (r#"{"os":"x","os":"y"}"#, "`os` is there twice"),
            (&many, "at most 64 facts"),
            ("[]", "an object of facts"),
            ("\"x\"", "an object of facts"),
            ("{", "EOF"),
            ("", "EOF"),
        ];
        for (json, part) in cases {
            let error = Facts::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
        assert_eq!(Facts::parse(b"{}"), Ok(Facts::default()));
    }
}
