//! Who a certificate identifies: a role and a name in a trust domain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DEFAULT_TRUST_DOMAIN, NameError, NodeName, TRUST_DOMAIN_BYTES_MAX, excerpt};

/// The lower-case, dotted name that all identities of one certificate authority share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self(DEFAULT_TRUST_DOMAIN.into())
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let part_is_good = |part: &str| {
            (1..=63).contains(&part.len())
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let good = text.len() <= TRUST_DOMAIN_BYTES_MAX && text.split('.').all(part_is_good);
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::TrustDomain(excerpt(text)))
        }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.into()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The role of a certificate's holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reports its own samples.
    Node,
    /// Reads summaries.
    Reader,
    /// Reads, and changes what the receiver trusts.
    Operator,
    /// A server that receives samples.
    Receiver,
    /// A server that enrols nodes and renews certificates.
    Ca,
    /// Summarizes shards of a store that receivers share; a client of the store and of liz-ca.
    Summarizer,
    /// Ends its clients' TLS connections and passes their certificates on to a receiver.
    Proxy,
    /// Reports samples of the hosts that its certificate names.
    Gateway,
}

impl Role {
    /// All roles, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Node,
        Self::Reader,
        Self::Operator,
        Self::Receiver,
        Self::Ca,
        Self::Summarizer,
        Self::Proxy,
        Self::Gateway,
    ];

    /// The role as text in a SPIFFE ID.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Receiver => "receiver",
            Self::Ca => "ca",
            Self::Summarizer => "summarizer",
            Self::Proxy => "proxy",
            Self::Gateway => "gateway",
        }
    }

    /// Whether a certificate of this role is valid for a TLS server.
    pub fn is_server(self) -> bool {
        matches!(self, Self::Receiver | Self::Ca)
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NameError::Role(excerpt(text)))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity in a certificate: `spiffe://TRUST-DOMAIN/ROLE/NAME`. Nothing else in a certificate
/// identifies its holder.
///
/// ```
/// use lizmon_protocol::name::{Role, SpiffeId};
/// let id: SpiffeId = "spiffe://lizmon.internal/node/web1".parse().unwrap();
/// assert_eq!((id.role, id.name.as_str()), (Role::Node, "web1"));
/// assert_eq!(id.to_string(), "spiffe://lizmon.internal/node/web1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The role.
    pub role: Role,
    /// The name.
    pub name: NodeName,
}

impl FromStr for SpiffeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let mut parts = text.strip_prefix("spiffe://")?.split('/');
            let trust_domain = parts.next()?.parse().ok()?;
            let role = parts.next()?.parse().ok()?;
            let name = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(Self {
                trust_domain,
                role,
                name,
            })
        };
        parse().ok_or_else(|| NameError::SpiffeId(excerpt(text)))
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/{}/{}",
            self.trust_domain, self.role, self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_domains() {
        let cases = [
            ("lizmon.internal", true),
            ("a", true),
            ("xn--bcher-kva.example", true),
            ("", false),
            ("a..b", false),
            (".a", false),
            ("a.", false),
            ("-a.b", false),
            ("A.b", false),
            ("a_b", false),
            ("a/b", false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<TrustDomain>().is_ok(), good, "{text:?}");
        }
        assert_eq!(TrustDomain::default(), "lizmon.internal".parse().unwrap());
    }

    #[test]
    fn spiffe_ids() {
        for role in Role::ALL {
            let text = format!("spiffe://a.example/{role}/web1");
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
        let refused = [
            "spiffe://a.example/node/web1/",
            "spiffe://a.example/node/web1/x",
            "spiffe://a.example//web1",
            "spiffe://a.example/node/",
            "spiffe://a.example/node",
            "spiffe://a.example/Node/web1",
            "spiffe://a.example/root/web1",
            "spiffe://A.example/node/web1",
            "spiffe://a.example:443/node/web1",
            "spiffe://u@a.example/node/web1",
            "SPIFFE://a.example/node/web1",
            "https://a.example/node/web1",
            "spiffe://a.example/node/web1?x",
            "spiffe://a.example/node/web1#x",
            "spiffe://a.example/node/web%31",
            "",
        ];
        for text in refused {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
    }
}
