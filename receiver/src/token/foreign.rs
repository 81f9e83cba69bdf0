//! Token keys of other receivers.

use std::fmt;

use jsonwebtoken::DecodingKey;

use super::public_key::TokenPublicKey;

/// The token key of another receiver whose tokens are honoured here.
#[derive(Clone)]
pub struct ForeignTokenKey {
    pub(super) public: TokenPublicKey,
    pub(super) decoding: DecodingKey,
    /// The last second in which it is honoured: epoch seconds.
    until: u64,
}

impl ForeignTokenKey {
    /// A key that is honoured until the end of this second.
    pub fn new(public: TokenPublicKey, until: u64) -> Self {
        let decoding = DecodingKey::from_ed_der(public.bytes());
        Self {
            public,
            decoding,
            until,
        }
    }

    /// Whether this is the key of that name, and honoured at `now`.
    pub(super) fn is(&self, kid: &str, now: u64) -> bool {
        now <= self.until && self.public.kid() == kid
    }
}

impl fmt::Debug for ForeignTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} until {}", self.public, self.until)
    }
}
