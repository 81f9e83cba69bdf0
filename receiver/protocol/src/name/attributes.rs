//! What a certificate says beside the identity: the tags of a node, or the hosts that a reader may
//! read, or a gateway write for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{NODE_NAME_BYTES_MAX, Role, excerpt};

/// The maximum length of a tag's key, and of its value, in bytes.
pub const TAG_PART_BYTES_MAX: usize = 63;
/// The maximum number of tags in a certificate.
pub const TAGS_MAX: usize = 32;
/// The maximum number of host patterns in a certificate.
pub const HOST_PATTERNS_MAX: usize = 64;

/// Why attributes were rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Not a tag.
    #[error(
        "`{0}` is not a tag: KEY=VALUE, a key of a-z 0-9 . _ - and a value of A-Z a-z 0-9 . _ -, each of 1 to \
         {TAG_PART_BYTES_MAX}, the first a letter or digit"
    )]
    Tag(String),
    /// Not a pattern of node names.
    #[error(
        "`{0}` is not a pattern of hosts: 1 to {NODE_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ - * ?, where * is any text and \
         ? any character"
    )]
    HostPattern(String),
    /// More than fit.
    #[error("{0} tags are too many: at most {TAGS_MAX}")]
    TooManyTags(usize),
    /// More than fit.
    #[error("{0} patterns of hosts are too many: at most {HOST_PATTERNS_MAX}")]
    TooManyHostPatterns(usize),
    /// A node that would have two values of one key.
    #[error("the tag `{0}` is given twice: a node has one value of each")]
    TagTwice(String),
    /// The role has none.
    #[error("a {0} gets no tags and no patterns of hosts: leave them out")]
    Unwanted(Role),
    /// A gateway without them could write for no host.
    #[error(
        "a gateway needs patterns of the hosts that it may write for: name them, or * for every host"
    )]
    PatternsMissing,
    /// A node's name is what it is.
    #[error("a node gets no patterns of hosts: leave them out")]
    PatternsUnwanted,
}

/// A tag: `env=prod`. Compared exactly.
///
/// ```
/// use lizmon_protocol::name::Tag;
/// let tag: Tag = "env=prod".parse().unwrap();
/// assert_eq!((tag.key(), tag.to_string()), ("env", "env=prod".to_owned()));
/// assert!("env".parse::<Tag>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag {
    text: Box<str>,
    key_bytes: u8,
}

impl Tag {
    /// The part before the `=`.
    pub fn key(&self) -> &str {
        &self.text[..usize::from(self.key_bytes)]
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Tag {
    type Err = AttributeError;

    fn from_str(text: &str) -> Result<Self, AttributeError> {
        let is_mark = |byte: u8| matches!(byte, b'.' | b'_' | b'-');
        let in_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let in_value = |byte: u8| byte.is_ascii_alphanumeric();
        let is_good = |part: &str, is_letter: &dyn Fn(u8) -> bool| {
            let first = part.bytes().next();
            part.len() <= TAG_PART_BYTES_MAX
                && first.is_some_and(is_letter)
                && part.bytes().all(|byte| is_letter(byte) || is_mark(byte))
        };
        match text.split_once('=') {
            Some((key, value)) if is_good(key, &in_key) && is_good(value, &in_value) => Ok(Self {
                text: text.into(),
                key_bytes: key.len() as u8,
            }),
            _ => Err(AttributeError::Tag(excerpt(text))),
        }
    }
}

impl TryFrom<String> for Tag {
    type Error = AttributeError;

    fn try_from(text: String) -> Result<Self, AttributeError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.text.into()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A pattern of node names: `web*`.
///
/// ```
/// use lizmon_protocol::name::HostPattern;
/// assert!("web*.example".parse::<HostPattern>().is_ok());
/// assert!("web/*".parse::<HostPattern>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern(Box<str>);

impl HostPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPattern {
    type Err = AttributeError;

    fn from_str(text: &str) -> Result<Self, AttributeError> {
        let is_allowed = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'*' | b'?')
        };
        if (1..=NODE_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(AttributeError::HostPattern(excerpt(text)))
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The attributes of a certificate. A node's tags are its own. A reader's tags and patterns say
/// which hosts it may read; all if there are none. Those of a gateway say which hosts it may write
/// for, and it has a pattern at least.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Sorted.
    pub tags: BTreeSet<Tag>,
    /// Sorted.
    pub hosts: BTreeSet<HostPattern>,
}

impl Attributes {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.hosts.is_empty()
    }

    /// Whether a holder in this role may have these.
    pub fn check(&self, role: Role) -> Result<(), AttributeError> {
        if self.tags.len() > TAGS_MAX {
            return Err(AttributeError::TooManyTags(self.tags.len()));
        }
        if self.hosts.len() > HOST_PATTERNS_MAX {
            return Err(AttributeError::TooManyHostPatterns(self.hosts.len()));
        }
        match role {
            Role::Reader => Ok(()),
            Role::Gateway if self.hosts.is_empty() => Err(AttributeError::PatternsMissing),
            Role::Gateway => Ok(()),
            Role::Node if !self.hosts.is_empty() => Err(AttributeError::PatternsUnwanted),
            Role::Node => {
                let tags = self.tags.iter().zip(self.tags.iter().skip(1));
                let twice = tags.map(|(one, next)| (one.key(), next.key()));
                match twice.into_iter().find(|(one, next)| one == next) {
                    Some((key, _)) => Err(AttributeError::TagTwice(key.to_owned())),
                    None => Ok(()),
                }
            }
            _ if self.is_empty() => Ok(()),
            role => Err(AttributeError::Unwanted(role)),
        }
    }

    /// Each as text: a tag has a `=`, a pattern has none.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let hosts = self.hosts.iter().map(HostPattern::as_str);
        hosts.chain(self.tags.iter().map(Tag::as_str))
    }

    /// Reads what [`texts`](Self::texts) gave.
    pub fn of_texts<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, AttributeError> {
        let mut attributes = Self::default();
        for text in texts {
            if text.contains('=') {
                attributes.tags.insert(text.parse()?);
            } else {
                attributes.hosts.insert(text.parse()?);
            }
        }
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_patterns_have_a_form() {
        let long = "a".repeat(TAG_PART_BYTES_MAX);
        let too_long = "a".repeat(TAG_PART_BYTES_MAX + 1);
        for (text, good) in [
            ("env=prod", true),
            ("a.b_c-1=V2.0_x-y", true),
            (&*format!("{long}={long}"), true),
            (&*format!("{too_long}=a"), false),
            (&*format!("a={too_long}"), false),
            ("env=", false),
            ("=prod", false),
            ("env", false),
            ("Env=prod", false),
            ("env=a=b", false),
            ("env=pro d", false),
            ("env=\u{202e}", false),
            ("-env=prod", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Tag>().is_ok(), good, "{text:?}");
        }
        let name = "w".repeat(NODE_NAME_BYTES_MAX);
        for (text, good) in [
            ("web*", true),
            ("*", true),
            ("web-?.example", true),
            (&*name, true),
            (&*format!("{name}*"), false),
            ("", false),
            ("web[12]", false),
            ("a b", false),
            ("a=b", false),
        ] {
            assert_eq!(text.parse::<HostPattern>().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn who_may_have_what() {
        let of = |texts: &[&str]| Attributes::of_texts(texts.iter().copied()).unwrap();
        let tags = |count: usize| {
            let texts: Vec<_> = (0..count).map(|at| format!("k{at}=v")).collect();
            Attributes::of_texts(texts.iter().map(String::as_str)).unwrap()
        };
        let patterns = |count: usize| {
            let texts: Vec<_> = (0..count).map(|at| format!("h{at}*")).collect();
            Attributes::of_texts(texts.iter().map(String::as_str)).unwrap()
        };
        for (role, attributes, good) in [
            (Role::Node, of(&[]), true),
            (Role::Node, of(&["env=prod", "team=web"]), true),
            (Role::Node, of(&["env=prod", "env=test"]), false),
            (Role::Node, of(&["web*"]), false),
            (Role::Node, tags(TAGS_MAX), true),
            (Role::Node, tags(TAGS_MAX + 1), false),
            (Role::Reader, of(&["env=prod", "env=test", "web*"]), true),
            (Role::Reader, patterns(HOST_PATTERNS_MAX), true),
            (Role::Reader, patterns(HOST_PATTERNS_MAX + 1), false),
            (Role::Gateway, of(&["web*"]), true),
            (Role::Gateway, of(&["*", "env=prod", "env=test"]), true),
            (Role::Gateway, of(&[]), false),
            (Role::Gateway, of(&["env=prod"]), false),
            (Role::Gateway, patterns(HOST_PATTERNS_MAX + 1), false),
            (Role::Operator, of(&[]), true),
            (Role::Operator, of(&["env=prod"]), false),
            (Role::Receiver, of(&["web*"]), false),
            (Role::Summarizer, of(&["env=prod"]), false),
        ] {
            assert_eq!(
                attributes.check(role).is_ok(),
                good,
                "{role} {attributes:?}"
            );
        }
        let mixed = of(&["web*", "env=prod", "db?"]);
        assert_eq!(Attributes::of_texts(mixed.texts()).unwrap(), mixed);
    }
}
