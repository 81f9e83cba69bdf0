//! The public half of a token key: an OKP JWK (RFC 8037 section 2) and its name.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An Ed25519 public key that verifies tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenPublicKey {
    bytes: [u8; 32],
    x: String,
    kid: String,
}

impl TokenPublicKey {
    /// The key with these bytes: RFC 8032 section 5.1.5.
    pub fn new(bytes: [u8; 32]) -> Self {
        let x = URL_SAFE_NO_PAD.encode(bytes);
        // RFC 7638 section 3: the key's own thumbprint is its name. RFC 8037 section 2 says which
        // members count.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Self { bytes, x, kid }
    }

    /// The key with this `x`.
    pub fn from_x(x: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(x).ok()?;
        Some(Self::new(bytes.try_into().ok()?))
    }

    /// The bytes of the key.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The same in base64url, as in a JWK.
    pub fn x(&self) -> &str {
        &self.x
    }

    /// The name of the key: its thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl fmt::Debug for TokenPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token key {}", self.kid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.3.
    #[test]
    fn a_key_is_called_by_its_thumbprint() {
        let key = TokenPublicKey::from_x("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        for x in ["", "11qYAYKxCrfVS_7TyWQHOg", "?"] {
            assert_eq!(TokenPublicKey::from_x(x), None, "{x}");
        }
    }
}
