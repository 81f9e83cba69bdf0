//! Names and identities.

mod attributes;
mod spiffe_id;
mod tag_filter;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::attributes::{
    AttributeError, Attributes, HOST_PATTERNS_MAX, HostPattern, TAG_PART_BYTES_MAX, TAGS_MAX, Tag,
};
pub use self::spiffe_id::{Role, SpiffeId, TrustDomain};
pub use self::tag_filter::TagFilter;

/// The maximum length of a node name in bytes, all of which are ASCII.
pub const NODE_NAME_BYTES_MAX: usize = 200;
/// The maximum length of a label in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 128;
/// The maximum length of the name of a series that comes by a protocol whose series have labels of their
/// own, in bytes of UTF-8.
pub const SERIES_NAME_BYTES_MAX: usize = 1_024;
/// The maximum length of a trust domain in bytes: SPIFFE ID specification, section 2.1.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// The default trust domain of a certificate authority.
pub const DEFAULT_TRUST_DOMAIN: &str = "lizmon.internal";
/// The prefix of a summary's name. A label must not start with it.
pub const SUMMARY_PREFIX: &str = "summary:";

/// Why a name was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a node name.
    #[error(
        "`{0}` is not a node name: 1 to {NODE_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -, the first a letter or digit"
    )]
    Node(String),
    /// Not a trust domain.
    #[error(
        "`{0}` is not a trust domain: lower-case letters, digits and - in parts joined by dots"
    )]
    TrustDomain(String),
    /// Not a role.
    #[error(
        "`{0}` is not a role: node, reader, operator, receiver, ca, summarizer, proxy or gateway"
    )]
    Role(String),
    /// Not a SPIFFE ID of lizmon.
    #[error("`{0}` is not an identity: spiffe://TRUST-DOMAIN/ROLE/NAME")]
    SpiffeId(String),
    /// An empty label.
    #[error("a label has 1 to {LABEL_BYTES_MAX} bytes, this one has none")]
    LabelEmpty,
    /// A label that is too long.
    #[error("a label has 1 to {bytes_max} bytes, this one has {bytes}")]
    LabelTooLong {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// A label with an invisible character.
    #[error("a label is printable text, this one has U+{0:04X}")]
    LabelUnprintable(u32),
    /// A label with the prefix of a summary's name.
    #[error("a label does not start with `{SUMMARY_PREFIX}`")]
    LabelReserved,
}

/// The name of a node or of any other certificate holder. Names are compared byte for byte.
///
/// ```
/// use lizmon_protocol::name::NodeName;
/// assert!("web-1.example".parse::<NodeName>().is_ok());
/// assert!("../web".parse::<NodeName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Box<str>);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let allowed =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let good = (1..=NODE_NAME_BYTES_MAX).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(allowed);
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Node(excerpt(text)))
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.into()
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one measured quantity on a host: `cpu`, `net:eth0:rx`, `disk:/`.
///
/// It borrows from a request's body while the request is handled, and is owned where it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label<'a>(Cow<'a, str>);

impl<'a> Label<'a> {
    /// Validates text as a label.
    ///
    /// ```
    /// use lizmon_protocol::name::Label;
    /// assert_eq!(Label::new("disk:/").unwrap().as_str(), "disk:/");
    /// assert!(Label::new("summary:x").is_err());
    /// ```
    pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, NameError> {
        Self::of_at_most(text.into(), LABEL_BYTES_MAX)
    }

    /// The same for the name of a series that another protocol brings, such as
    /// `up{job="node"}`: it may be longer.
    pub fn of_series(text: impl Into<Cow<'a, str>>) -> Result<Self, NameError> {
        Self::of_at_most(text.into(), SERIES_NAME_BYTES_MAX)
    }

    fn of_at_most(text: Cow<'a, str>, bytes_max: usize) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::LabelEmpty);
        }
        if text.len() > bytes_max {
            return Err(NameError::LabelTooLong {
                bytes: text.len(),
                bytes_max,
            });
        }
        // Nearly all are of ASCII alone, which takes a tenth of the time.
        let hidden = || text.chars().find(|c| !is_printable(*c));
        if !is_printable_ascii(&text)
            && let Some(hidden) = hidden()
        {
            return Err(NameError::LabelUnprintable(u32::from(hidden)));
        }
        if text.starts_with(SUMMARY_PREFIX) {
            return Err(NameError::LabelReserved);
        }
        Ok(Self(text))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A copy that owns its text.
    pub fn into_owned(self) -> Label<'static> {
        Label(Cow::Owned(self.0.into_owned()))
    }
}

impl FromStr for Label<'static> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Label::new(text.to_owned())
    }
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a label may have this character: not a control character, and not one that hides or
/// reorders its neighbours on a screen. The joiners U+200C and U+200D are valid, because some
/// scripts need them.
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{e000}'..='\u{f8ff}'
                | '\u{fdd0}'..='\u{fdef}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{fffe}'..='\u{ffff}'
                | '\u{e0000}'..='\u{10ffff}'
        )
}

/// Whether all of a text is of the characters of ASCII that are seen, and blanks.
pub fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// A shortened copy of rejected text that is safe to print on a terminal.
fn excerpt(text: &str) -> String {
    const CHARS_SHOWN: usize = 80;
    let mut shown: String = text
        .chars()
        .take(CHARS_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(CHARS_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names() {
        let long_enough = "a".repeat(NODE_NAME_BYTES_MAX);
        let too_long = "a".repeat(NODE_NAME_BYTES_MAX + 1);
        let cases = [
            ("web1", true),
            ("9", true),
            ("A.b_c-D", true),
            ("a..b", true),
            (long_enough.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            (".", false),
            ("..", false),
            ("-a", false),
            ("_a", false),
            ("a/b", false),
            ("a b", false),
            ("a\0", false),
            ("a\n", false),
            ("ä", false),
            ("a%2e", false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<NodeName>().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn labels() {
        let long_enough = "é".repeat(LABEL_BYTES_MAX / 2);
        let too_long = "a".repeat(LABEL_BYTES_MAX + 1);
        let cases = [
            ("cpu", true),
            ("disk:/", true),
            ("net:eth0:rx", true),
            ("Temperatur außen", true),
            ("👩\u{200d}🔧", true),
            (long_enough.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("a\nb", false),
            ("a\u{7f}", false),
            ("a\u{85}", false),
            ("a\u{202e}b", false),
            ("a\u{feff}", false),
            ("summary:by-minute:cpu", false),
            ("Summary:", true),
        ];
        for (text, good) in cases {
            assert_eq!(Label::new(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn refused_text_is_shown_short_and_harmless() {
        let error = format!("\u{1b}[31m{}", "x".repeat(500))
            .parse::<NodeName>()
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 300, "{error}");
    }
}
