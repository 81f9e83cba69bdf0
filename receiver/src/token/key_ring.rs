//! The keys that tokens are signed with, and their file.

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use lizmon_pki::atomic_file::Access;
use serde::{Deserialize, Serialize};

use super::public_key::TokenPublicKey;

/// Why token keys cannot be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The key file cannot be read or written.
    #[error("{file}: the token keys cannot be read or written", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The key file does not hold token keys.
    #[error("{file}: not token keys; move the file away to start with a new key", file = file.display())]
    Malformed {
        /// Which file.
        file: PathBuf,
    },
    /// The system's randomness failed.
    #[error("no key could be generated")]
    Generate,
}

/// A key as it is stored in `token-keys.json`, mode 0600.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredKey {
    created: u64,
    pub(super) pkcs8: String,
}

/// A key in use. The newest one signs, all of them verify.
pub(super) struct TokenKey {
    pub(super) public: TokenPublicKey,
    pub(super) encoding: EncodingKey,
    pub(super) decoding: DecodingKey,
    pair: Ed25519KeyPair,
    pub(super) stored: StoredKey,
}

/// How long a new key is published before it signs: seconds. Receivers that share a store read each
/// other's keys more often than that, and so no client brings them a token of an unknown one.
const PUBLISHED_BEFORE_SECS: u64 = 2;

/// The keys tokens are signed with, oldest first.
pub(super) struct KeyRing {
    pub(super) keys: Vec<TokenKey>,
}

impl TokenKey {
    fn generate(created: u64) -> Result<Self, TokenKeyError> {
        let document = Ed25519KeyPair::generate()
            .and_then(|pair| pair.to_pkcs8().map_err(|_| aws_lc_rs::error::Unspecified));
        let document = document.map_err(|_| TokenKeyError::Generate)?;
        let stored = StoredKey {
            created,
            pkcs8: URL_SAFE_NO_PAD.encode(document.as_ref()),
        };
        Self::from_stored(stored).ok_or(TokenKeyError::Generate)
    }

    pub(super) fn from_stored(stored: StoredKey) -> Option<Self> {
        let der = URL_SAFE_NO_PAD.decode(&stored.pkcs8).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).ok()?;
        let public = TokenPublicKey::new(pair.public_key().as_ref().try_into().ok()?);
        Some(Self {
            decoding: DecodingKey::from_ed_der(public.bytes()),
            encoding: EncodingKey::from_ed_der(&der),
            public,
            pair,
            stored,
        })
    }

    /// The signature over a message that is no token. `None` if it could be one: a token's
    /// signature is over base64url and a dot alone (RFC 7515 section 5.1).
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let is_of_jws = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if message.iter().all(is_of_jws) {
            return None;
        }
        let signature = self.pair.try_sign(message).ok()?;
        Some(signature.as_ref().to_vec())
    }
}

impl KeyRing {
    pub(super) fn open(file: &Path) -> Result<Self, TokenKeyError> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { keys: Vec::new() });
            }
            Err(source) => {
                return Err(TokenKeyError::File {
                    file: file.to_owned(),
                    source,
                });
            }
        };
        let malformed = || TokenKeyError::Malformed {
            file: file.to_owned(),
        };
        let stored: Vec<StoredKey> = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
        let keys: Option<Vec<TokenKey>> = stored.into_iter().map(TokenKey::from_stored).collect();
        Ok(Self {
            keys: keys.ok_or_else(malformed)?,
        })
    }

    /// The key that signs at `now`: the newest that others know, or else the newest.
    pub(super) fn signing(&self, now: u64) -> Option<&TokenKey> {
        let is_known =
            |key: &&TokenKey| key.stored.created.saturating_add(PUBLISHED_BEFORE_SECS) <= now;
        let known = self.keys.iter().rev().find(is_known);
        known.or_else(|| self.keys.last())
    }

    /// The ring as it should be at `now`: a signing key younger than `life`, and no key whose last
    /// token has ended. `None` if nothing has to change.
    pub(super) fn rotated(
        self: &KeyRing,
        now: u64,
        life: u64,
        ttl: u64,
    ) -> Result<Option<Vec<StoredKey>>, TokenKeyError> {
        let mut stored: Vec<StoredKey> = self.keys.iter().map(|key| key.stored.clone()).collect();
        // Each key signed until the next was known: its last token ends `ttl` after that.
        let last = ttl.saturating_add(PUBLISHED_BEFORE_SECS);
        let ended = stored
            .windows(2)
            .take_while(|pair| pair[1].created.saturating_add(last) < now)
            .count();
        stored.drain(..ended);
        let fresh = stored
            .last()
            .is_some_and(|key| now < key.created.saturating_add(life));
        if !fresh {
            stored.push(TokenKey::generate(now)?.stored);
        }
        Ok((ended > 0 || !fresh).then_some(stored))
    }

    pub(super) fn save(file: &Path, stored: &[StoredKey]) -> Result<(), TokenKeyError> {
        let write =
            || lizmon_pki::atomic_file::write(file, &serde_json::to_vec(stored)?, Access::Secret);
        write().map_err(|source| TokenKeyError::File {
            file: file.to_owned(),
            source,
        })
    }
}
