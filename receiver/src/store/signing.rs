//! Who may append to a journal that others can write to: the receivers, by their signatures.

use std::fmt::Debug;
use std::sync::Arc;

/// A receiver's key, as others check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKey {
    /// Its name: what a group says it was signed with.
    pub id: String,
    /// The public key, in a form that shows whose it is.
    pub statement: String,
}

/// Signs what a receiver appends.
pub trait GroupSigner: Debug + Send + Sync {
    /// The present key, for the store with this identifier; none if others would not trust it.
    fn key(&self, store: &str) -> Option<PublishedKey>;

    /// The signature of this key over a message; none if the key is gone.
    fn sign(&self, key: &str, message: &[u8]) -> Option<Vec<u8>>;
}

/// Why a group is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum GroupRefusal {
    /// No key of that name is published.
    #[error("it is signed with a key that is not published")]
    UnknownKey,
    /// What was published is not a trusted receiver's key.
    #[error("its key is not a trusted receiver's")]
    UntrustedKey,
    /// The signature is not over this group in this place.
    #[error("its signature is not valid here")]
    BadSignature,
    /// It has not the form of an entry.
    #[error("it is not an entry that lizmon writes")]
    Malformed,
}

impl GroupRefusal {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::UnknownKey,
        Self::UntrustedKey,
        Self::BadSignature,
        Self::Malformed,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::UntrustedKey => "untrusted_key",
            Self::BadSignature => "bad_signature",
            Self::Malformed => "malformed",
        }
    }
}

/// Checks what others appended.
pub trait GroupVerifier: Debug + Send + Sync {
    /// Whether a key that was published like this in the store with this identifier is a trusted
    /// receiver's.
    fn trusts(&self, store: &str, key: &PublishedKey) -> bool;

    /// Whether a message has a signature of such a key.
    fn verify(
        &self,
        store: &str,
        key: &PublishedKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), GroupRefusal>;
}

/// How groups are signed and checked in a store that others can write to.
#[derive(Debug, Clone)]
pub struct GroupKeys {
    /// Signs what this process appends; none for one that appends nothing.
    pub signer: Option<Arc<dyn GroupSigner>>,
    /// Checks what is read.
    pub verifier: Arc<dyn GroupVerifier>,
}
