//! The access token's claims (RFC 9068, bound to a certificate by RFC 8705) and the token
//! endpoint's responses (RFC 6749).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{NodeName, Role, SpiffeId};

/// The token's `typ`: RFC 9068 section 2.1.
pub const TYPE: &str = "at+jwt";
/// The only supported grant: RFC 6749 section 4.4.
pub const GRANT_CLIENT_CREDENTIALS: &str = "client_credentials";

/// A permission in a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Send samples of the host that the token names.
    MetricsWrite,
    /// Read the summaries of every host.
    MetricsRead,
    /// Change what the receiver trusts.
    Admin,
}

impl Scope {
    /// All scopes, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::MetricsWrite, Self::MetricsRead, Self::Admin];

    /// The scope as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MetricsWrite => "metrics:write",
            Self::MetricsRead => "metrics:read",
            Self::Admin => "admin",
        }
    }
}

/// A set of scopes. As text they are separated by single spaces: RFC 6749 section 3.3.
///
/// ```
/// use lizmon_protocol::token::{Scope, Scopes};
/// let scopes: Scopes = "metrics:read admin".parse().unwrap();
/// assert!(scopes.contains(Scope::Admin) && !scopes.contains(Scope::MetricsWrite));
/// assert_eq!(scopes.to_string(), "metrics:read admin");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scopes {
    bits: u8,
}

/// An unknown scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope: metrics:write, metrics:read and admin exist, joined by single spaces")]
pub struct UnknownScope;

impl Scopes {
    /// The scopes that a role may have. Roles that are not clients of the receiver have none.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Node | Role::Gateway => Self::from_iter([Scope::MetricsWrite]),
            Role::Reader => Self::from_iter([Scope::MetricsRead]),
            Role::Operator => Self::from_iter([Scope::MetricsRead, Scope::Admin]),
            Role::Receiver | Role::Ca | Role::Summarizer | Role::Proxy => Self::default(),
        }
    }

    /// Whether the set contains this scope.
    pub fn contains(self, scope: Scope) -> bool {
        self.bits & (1 << scope as u8) != 0
    }

    /// Whether the set contains all scopes of `other`.
    pub fn contains_all(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// An iterator over the scopes.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self {
            bits: scopes
                .into_iter()
                .fold(0, |bits, scope| bits | 1 << scope as u8),
        }
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split(' ')
            .map(|word| {
                Scope::ALL
                    .into_iter()
                    .find(|scope| scope.as_str() == word)
                    .ok_or(UnknownScope)
            })
            .collect()
    }
}

impl TryFrom<String> for Scopes {
    type Error = UnknownScope;

    fn try_from(text: String) -> Result<Self, UnknownScope> {
        text.parse()
    }
}

impl From<Scopes> for String {
    fn from(scopes: Scopes) -> Self {
        scopes.to_string()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in self.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{}", scope.as_str())?;
        }
        Ok(())
    }
}

/// The claims of a token. Each claim is required, must occur once, and must have exactly this type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer: one URL.
    pub iss: String,
    /// The audience: one URL.
    pub aud: String,
    /// The name of the holder.
    pub sub: NodeName,
    /// The SPIFFE ID of the holder.
    pub client_id: SpiffeId,
    /// The scopes.
    pub scope: Scopes,
    /// The time of issue: epoch seconds.
    pub iat: u64,
    /// The first second in which the token is valid: epoch seconds.
    pub nbf: u64,
    /// The second from which the token is expired: epoch seconds.
    pub exp: u64,
    /// The unique ID of the token.
    pub jti: String,
    /// The certificate that the token is bound to.
    pub cnf: Confirmation,
}

/// RFC 8705 section 3.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The SHA-256 of the certificate's DER, base64url without padding.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: String,
}

/// RFC 6749 section 5.1.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The token.
    pub access_token: String,
    /// Always `Bearer`. RFC 8705 binds the token by a claim, not by its type.
    pub token_type: String,
    /// The lifetime in seconds.
    pub expires_in: u64,
    /// The scopes of the token.
    pub scope: Scopes,
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("access_token", &"…")
            .field("expires_in", &self.expires_in)
            .field("scope", &self.scope)
            .finish()
    }
}

/// RFC 6749 section 5.2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenError {
    /// The registered error code.
    pub error: String,
    /// What happened and what to do, for a human reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        assert_eq!(Scopes::of(Role::Operator).to_string(), "metrics:read admin");
        for role in [Role::Receiver, Role::Ca, Role::Summarizer, Role::Proxy] {
            assert!(Scopes::of(role).is_empty(), "{role}");
        }
        for text in [
            "",
            " ",
            "metrics:read ",
            " admin",
            "metrics:read  admin",
            "Admin",
            "root",
            "metrics:read\tadmin",
        ] {
            assert!(text.parse::<Scopes>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn golden_claims() {
        let golden = concat!(
            r#"{"iss":"https://localhost:8443","aud":"https://localhost:8443","sub":"web1","#,
            r#""client_id":"spiffe://lizmon.internal/node/web1","scope":"metrics:write","iat":1465001814,"nbf":1465001814,"#,
            r#""exp":1465002114,"jti":"x","cnf":{"x5t#S256":"y"}}"#
        );
        let claims: Claims = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&claims).unwrap(), golden);
        for claim in [
            "iss",
            "aud",
            "sub",
            "client_id",
            "scope",
            "iat",
            "nbf",
            "exp",
            "jti",
            "cnf",
        ] {
            let mut map: serde_json::Map<_, _> = serde_json::from_str(golden).unwrap();
            let value = map.remove(claim).unwrap();
            assert!(
                serde_json::from_value::<Claims>(map.clone().into()).is_err(),
                "without {claim}"
            );
            map.insert(claim.to_owned(), serde_json::json!([value]));
            assert!(
                serde_json::from_value::<Claims>(map.into()).is_err(),
                "{claim} as an array"
            );
        }
        let twice = golden.replacen('{', r#"{"iss":"https://evil.example","#, 1);
        assert!(serde_json::from_str::<Claims>(&twice).is_err());
    }

    #[test]
    fn a_token_is_not_in_debug() {
        let response = TokenResponse {
            access_token: "secret".into(),
            token_type: "Bearer".into(),
            expires_in: 300,
            scope: Scopes::of(Role::Node),
        };
        assert!(!format!("{response:?}").contains("secret"));
    }
}
