//! The lifetime of a kept token.

use std::fmt;
use std::sync::Arc;

use lizmon_protocol::token::TokenResponse;

/// A token is renewed when a fifth of its lifetime is left, but at most this long before it
/// expires.
const RENEW_AHEAD_SECS_MAX: u64 = 60;

/// A token and its lifetime by the local clock. The server's clock may differ.
#[derive(Clone)]
pub(crate) struct KeptToken {
    text: Arc<str>,
    asked_at: u64,
    life_secs: u64,
}

/// Whether a kept token can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Use it.
    Fresh,
    /// Use it if no new token can be had.
    Aging,
    /// Do not use it.
    Ended,
}

impl KeptToken {
    /// `asked_at` is the time before the request was sent, so the round trip counts against the
    /// lifetime.
    pub(crate) fn new(response: TokenResponse, asked_at: u64) -> Self {
        Self {
            text: response.access_token.into(),
            asked_at,
            life_secs: response.expires_in,
        }
    }

    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// If the clock was set back, the age of the token is unknown. It then counts as aging.
    pub(crate) fn freshness(&self, now: u64) -> Freshness {
        let ahead = (self.life_secs / 5).min(RENEW_AHEAD_SECS_MAX);
        match now.checked_sub(self.asked_at) {
            None => Freshness::Aging,
            Some(age) if age < self.life_secs - ahead => Freshness::Fresh,
            Some(age) if age < self.life_secs => Freshness::Aging,
            Some(_) => Freshness::Ended,
        }
    }
}

impl fmt::Debug for KeptToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptToken")
            .field("text", &"…")
            .field("asked_at", &self.asked_at)
            .field("life_secs", &self.life_secs)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Freshness::{Aging, Ended, Fresh};

    fn kept(asked_at: u64, expires_in: u64) -> KeptToken {
        let response = TokenResponse {
            access_token: "secret".into(),
            token_type: "Bearer".into(),
            expires_in,
            scope: lizmon_protocol::token::Scopes::default(),
        };
        KeptToken::new(response, asked_at)
    }

    #[test]
    fn freshness() {
        let cases = [
            (300, 1000, Fresh),
            (300, 1239, Fresh),
            (300, 1240, Aging),
            (300, 1299, Aging),
            (300, 1300, Ended),
            (300, 999, Aging),
            (86_400, 1000 + 86_400 - 61, Fresh),
            (86_400, 1000 + 86_400 - 60, Aging),
            (10, 1007, Fresh),
            (10, 1008, Aging),
            (1, 1000, Fresh),
            (1, 1001, Ended),
            (0, 1000, Ended),
        ];
        for (life, now, expected) in cases {
            assert_eq!(
                kept(1000, life).freshness(now),
                expected,
                "{life} s, at {now}"
            );
        }
    }

    #[test]
    fn a_token_is_not_in_debug() {
        assert!(!format!("{:?}", kept(0, 1)).contains("secret"));
    }
}
