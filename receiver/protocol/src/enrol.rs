//! Enrolment: the routes of RFC 7030 that `liz-ca` has, and the join token.

use std::fmt;
use std::str::FromStr;

use crate::name::NodeName;

/// The start of `liz-ca`'s response for an unknown route. A client that expected a receiver detects
/// the CA by it.
pub const NOT_FOUND: &str = "this is liz-ca, which has no such route";
/// The CA's certificates, without authentication: RFC 7030 section 4.1.
pub const CACERTS: &str = "/.well-known/est/cacerts";
/// The first certificate, with a join token: RFC 7030 section 4.2.1.
pub const SIMPLE_ENROLL: &str = "/.well-known/est/simpleenroll";
/// The next certificate, with the current one: RFC 7030 section 4.2.2.
pub const SIMPLE_REENROLL: &str = "/.well-known/est/simplereenroll";
/// The current CRLs in PEM, without authentication.
pub const CRL: &str = "/crl";
/// RFC 7030 section 4.2.1.
pub const MEDIA_TYPE_REQUEST: &str = "application/pkcs10";
/// RFC 7030 section 4.1.3.
pub const MEDIA_TYPE_CERTIFICATES: &str = "application/pkcs7-mime; smime-type=certs-only";

/// The number of random bytes in a join token.
pub const SECRET_BYTES: usize = 32;

/// A join token, `NAME.SECRET`. It allows its bearer one certificate for NAME, once. SECRET is 64
/// lower-case hex digits.
///
/// It does not implement `Display`, and its `Debug` omits the secret, so that the secret does not
/// get into a log.
///
/// ```
/// use lizmon_protocol::enrol::JoinToken;
/// let token = JoinToken::new("web1.example".parse().unwrap(), [7; 32]);
/// let again: JoinToken = token.as_str().parse().unwrap();
/// assert_eq!(again.name().as_str(), "web1.example");
/// assert!(!format!("{token:?}").contains("0707"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    name: NodeName,
    text: Box<str>,
}

/// The text is not a valid join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: it is the name, a dot and 64 hex digits, as lizctl join-token printed it"
)]
pub struct MalformedJoinToken;

impl JoinToken {
    /// A token with these random bytes.
    pub fn new(name: NodeName, secret: [u8; SECRET_BYTES]) -> Self {
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{name}.{secret}").into();
        Self { name, text }
    }

    /// The node name that the token is for.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The whole token, which is a secret.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for JoinToken {
    type Err = MalformedJoinToken;

    fn from_str(text: &str) -> Result<Self, MalformedJoinToken> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let (name, secret) = text.rsplit_once('.').ok_or(MalformedJoinToken)?;
        if secret.len() != 2 * SECRET_BYTES || !secret.bytes().all(is_hex) {
            return Err(MalformedJoinToken);
        }
        Ok(Self {
            name: name.parse().map_err(|_| MalformedJoinToken)?,
            text: text.into(),
        })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_tokens() {
        let secret = "0123456789abcdef".repeat(4);
        let cases = [
            (format!("web1.{secret}"), Some("web1")),
            (format!("web1.example.{secret}"), Some("web1.example")),
            (format!("a..{secret}"), Some("a.")),
            (secret.clone(), None),
            (format!(".{secret}"), None),
            (format!("web1.{}", &secret[1..]), None),
            (format!("web1.{secret}0"), None),
            (format!("web1.{}", secret.to_uppercase()), None),
            (format!("web1.{secret}\n"), None),
            (format!("we b1.{secret}"), None),
            (format!("web1.{}é", &secret[2..]), None),
            (String::new(), None),
        ];
        for (text, name) in cases {
            let got = text.parse::<JoinToken>();
            assert_eq!(got.as_ref().ok().map(|t| t.name().as_str()), name, "{text}");
            if let Ok(token) = got {
                assert_eq!(token.as_str(), text);
            }
        }
    }
}
