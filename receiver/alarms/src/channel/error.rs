//! Why a message was not accepted.

use std::fmt;
use std::time::Duration;

/// Why a message was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct TellError {
    /// Without any secret.
    pub why: String,
    /// Whether it would be refused again.
    pub(super) is_permanent: bool,
    /// When to try again, if that was said.
    pub(super) retry_after: Option<Duration>,
}

impl TellError {
    pub(super) fn passing(why: impl fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            is_permanent: false,
            retry_after: None,
        }
    }
}
