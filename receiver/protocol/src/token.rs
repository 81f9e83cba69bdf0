//! The access token's claims (RFC 9068, bound to a certificate by RFC 8705) and the token endpoint's answers (RFC 6749).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{NodeName, Role, SpiffeId};

/// The token's `typ`: RFC 9068 section 2.1.
pub const TYPE: &str = "at+jwt";
/// The one grant there is: RFC 6749 section 4.4.
pub const GRANT_CLIENT_CREDENTIALS: &str = "client_credentials";

/// Something a token lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Send samples of the host the token names.
    MetricsWrite,
    /// Read every host's summaries.
    MetricsRead,
    /// Change what the receiver trusts.
    Admin,
}

impl Scope {
    /// Every scope, in the order they are documented.
    pub const ALL: [Self; 3] = [Self::MetricsWrite, Self::MetricsRead, Self::Admin];

    /// The scope as it stands in a token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MetricsWrite => "metrics:write",
            Self::MetricsRead => "metrics:read",
            Self::Admin => "admin",
        }
    }
}

/// Several scopes, as RFC 6749 section 3.3 writes them: joined by single spaces.
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

/// A scope nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope: metrics:write, metrics:read and admin exist, joined by single spaces")]
pub struct UnknownScope;

impl Scopes {
    /// What a role may be given; none for roles that are no clients of the receiver.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Node => Self::from_iter([Scope::MetricsWrite]),
            Role::Reader => Self::from_iter([Scope::MetricsRead]),
            Role::Operator => Self::from_iter([Scope::MetricsRead, Scope::Admin]),
            Role::Receiver | Role::Ca => Self::default(),
        }
    }

    /// Whether this scope is among them.
    pub fn contains(self, scope: Scope) -> bool {
        self.bits & (1 << scope as u8) != 0
    }

    /// Whether all of `other` is among them.
    pub fn contains_all(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The scopes one by one.
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

/// What a token says. Every claim must be there, once, in exactly this shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who minted it: one URL.
    pub iss: String,
    /// Who it is for: one URL.
    pub aud: String,
    /// The name of its holder.
    pub sub: NodeName,
    /// The whole identity of its holder.
    pub client_id: SpiffeId,
    /// What it allows.
    pub scope: Scopes,
    /// Minted at: epoch seconds.
    pub iat: u64,
    /// Not good before: epoch seconds.
    pub nbf: u64,
    /// Not good from this second on: epoch seconds.
    pub exp: u64,
    /// Its own name, unlike any other's.
    pub jti: String,
    /// The certificate it is bound to.
    pub cnf: Confirmation,
}

/// RFC 8705 section 3.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// SHA-256 of the certificate's DER, base64url without padding.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: String,
}

/// RFC 6749 section 5.1.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The token.
    pub access_token: String,
    /// Always `Bearer`: RFC 8705 binds it by its claims, not by its type.
    pub token_type: String,
    /// For how many seconds it is good.
    pub expires_in: u64,
    /// What it allows.
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
    /// The registered word for it.
    pub error: String,
    /// What happened and what to do, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        assert_eq!(Scopes::of(Role::Operator).to_string(), "metrics:read admin");
        assert!(Scopes::of(Role::Receiver).is_empty());
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
