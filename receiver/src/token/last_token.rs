//! The token that a connection's last request had.

use std::sync::{Arc, Mutex, PoisonError};

use lizmon_protocol::token::Claims;

use super::{AccessTokenError, Tokens, VerifiedToken};

/// What an `Authorization` header said when its token was last verified. A client sends the same
/// one for minutes: its signature is not verified again, nor is it looked up among all tokens. Ends
/// with the connection.
#[derive(Default)]
pub struct LastToken(Mutex<Option<(Box<[u8]>, VerifiedToken)>>);

impl LastToken {
    /// The claims of the token in this header, if it is the last one, and they are still good: they
    /// are judged as always. What is wrong with them, [`Self::verify`] says.
    pub fn claims(&self, tokens: &Tokens, authorization: &[u8], now: u64) -> Option<Arc<Claims>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (header, verified) = last.as_ref()?;
        let is_good = **header == *authorization && tokens.check(verified, now).is_ok();
        is_good.then(|| verified.claims.clone())
    }

    /// Verifies the token in this header, and keeps it if it is good.
    pub fn verify(
        &self,
        tokens: &Tokens,
        authorization: &[u8],
        token: &str,
        now: u64,
    ) -> Result<Arc<Claims>, AccessTokenError> {
        let verified = tokens.verified(token, now)?;
        let claims = verified.claims.clone();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((authorization.into(), verified));
        Ok(claims)
    }
}
