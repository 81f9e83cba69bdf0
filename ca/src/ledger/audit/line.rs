//! The lines of the audit log, and their hashes.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

/// What was done. No line contains a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// A CA was created.
    Init,
    /// A certificate was issued by an administrator.
    Issue,
    /// A certificate was issued to the holder of another.
    Renew,
    /// A certificate was revoked.
    Revoke,
    /// A certificate that the ledger does not know was revoked.
    RevokeUnknown,
    /// A CRL was signed.
    SignCrl,
    /// A CRL of another copy of this ledger was found and taken over.
    AdoptCrl,
    /// A step of a CA rotation.
    Rotate,
    /// A join token was created.
    TokenMade,
    /// A certificate was issued for a join token.
    TokenUsed,
    /// An unused join token was withdrawn.
    TokenWithdrawn,
}

impl AuditAction {
    /// As the log stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
            Self::RevokeUnknown => "revoke-unknown",
            Self::SignCrl => "sign-crl",
            Self::AdoptCrl => "adopt-crl",
            Self::Rotate => "rotate",
            Self::TokenMade => "token-made",
            Self::TokenUsed => "token-used",
            Self::TokenWithdrawn => "token-withdrawn",
        }
    }
}

/// An event to be logged.
#[derive(Debug, Clone)]
pub struct AuditEvent<'a> {
    /// What was done.
    pub action: AuditAction,
    /// By whom: an operating-system user, or the identity of a certificate.
    pub who: &'a str,
    /// A JSON object. The certificates it is about are under `serial`.
    pub details: Value,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// From 1, without a gap.
    pub number: u64,
    /// Epoch seconds.
    pub time: u64,
    /// By whom.
    pub who: String,
    /// What was done.
    pub what: String,
    /// A JSON object, byte for byte as it was hashed.
    pub details: String,
    /// The hash of the line before.
    pub previous: Vec<u8>,
    /// This line's.
    pub hash: Vec<u8>,
}

impl AuditLine {
    /// The line that follows `last`.
    pub(crate) fn after(last: Option<&Self>, event: &AuditEvent<'_>, now: u64) -> Self {
        let mut line = Self {
            number: last.map_or(1, |last| last.number + 1),
            time: now,
            who: event.who.to_owned(),
            what: event.action.as_str().to_owned(),
            details: event.details.to_string(),
            previous: last.map_or_else(|| vec![0; HASH_BYTES], |last| last.hash.clone()),
            hash: Vec::new(),
        };
        line.hash = line.computed_hash().to_vec();
        line
    }

    pub(super) fn computed_hash(&self) -> [u8; HASH_BYTES] {
        let mut context = Context::new(&SHA256);
        context.update(b"lizmon-audit-1");
        context.update(&self.number.to_be_bytes());
        context.update(&self.time.to_be_bytes());
        for text in [&self.who, &self.what, &self.details] {
            // SQLite holds no text of 4 GiB.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            context.update(&length.to_be_bytes());
            context.update(text.as_bytes());
        }
        context.update(&self.previous);
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

pub(super) const HASH_BYTES: usize = 32;

/// A line's number and hash. Kept outside the ledger, it later proves that no line up to it was
/// changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// The line.
    pub number: u64,
    /// Its hash.
    pub hash: Vec<u8>,
}

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, hex::encode(&self.hash))
    }
}

/// Text that is not an [`AuditHead`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not NUMBER:HASH as verify-audit prints it")]
pub struct AuditHeadError;

impl FromStr for AuditHead {
    type Err = AuditHeadError;

    fn from_str(text: &str) -> Result<Self, AuditHeadError> {
        let (number, hash) = text.split_once(':').ok_or(AuditHeadError)?;
        let hash = hex::decode(hash).map_err(|_| AuditHeadError)?;
        if hash.len() != HASH_BYTES {
            return Err(AuditHeadError);
        }
        let number = number.parse().map_err(|_| AuditHeadError)?;
        Ok(Self { number, hash })
    }
}
