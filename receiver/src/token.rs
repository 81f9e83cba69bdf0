//! Access tokens: minted, verified, cached. Pure but for the key file; `now` is an argument.
//!
//! RFC 9068 tokens, signed with EdDSA (RFC 8037), bound to a certificate (RFC 8705 section 3). The
//! library checks the signature; claims are checked here, because the library accepts missing ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use lizmon_mtls::identity::Identity;
use lizmon_pki::atomic_file::Access;
use lizmon_protocol::token::{Claims, Confirmation, Scopes, TYPE};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest token that is verified, in bytes: three times what we mint for the longest names.
const TOKEN_BYTES_MAX: usize = 4096;
/// How many verified tokens are cached: one each for the largest fleet.
const REMEMBERED_MAX: usize = 131_072;
/// The key file in the data folder.
const KEYS_FILE: &str = "token-keys.json";

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// Not a token of ours.
    #[error("{0}")]
    Invalid(&'static str),
    /// It was valid until now.
    #[error("the token has expired")]
    Expired,
}

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
struct StoredKey {
    created: u64,
    pkcs8: String,
}

/// A key in use. The newest one signs, all of them verify.
struct Key {
    kid: String,
    x: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    stored: StoredKey,
}

/// The keys tokens are signed with, oldest first.
struct KeyRing {
    keys: Vec<Key>,
}

impl Key {
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

    fn from_stored(stored: StoredKey) -> Option<Self> {
        let der = URL_SAFE_NO_PAD.decode(&stored.pkcs8).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).ok()?;
        let public = pair.public_key().as_ref();
        let x = URL_SAFE_NO_PAD.encode(public);
        // RFC 7638 section 3: the key's own thumbprint is its name. RFC 8037 section 2 says which
        // members count.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        let encoding = EncodingKey::from_ed_der(&der);
        Some(Self {
            kid,
            decoding: DecodingKey::from_ed_der(public),
            x,
            encoding,
            stored,
        })
    }
}

impl KeyRing {
    fn open(file: &Path) -> Result<Self, TokenKeyError> {
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
        let keys: Option<Vec<Key>> = stored.into_iter().map(Key::from_stored).collect();
        Ok(Self {
            keys: keys.ok_or_else(malformed)?,
        })
    }

    /// The ring as it should be at `now`: a signing key younger than `life`, and no key whose last
    /// token has ended. `None` if nothing has to change.
    fn rotated(
        self: &KeyRing,
        now: u64,
        life: u64,
        ttl: u64,
    ) -> Result<Option<Vec<StoredKey>>, TokenKeyError> {
        let mut stored: Vec<StoredKey> = self.keys.iter().map(|key| key.stored.clone()).collect();
        // Each key signed until the next was made: its last token ends `ttl` after that.
        let ended = stored
            .windows(2)
            .take_while(|pair| pair[1].created.saturating_add(ttl) < now)
            .count();
        stored.drain(..ended);
        let fresh = stored
            .last()
            .is_some_and(|key| now < key.created.saturating_add(life));
        if !fresh {
            stored.push(Key::generate(now)?.stored);
        }
        Ok((ended > 0 || !fresh).then_some(stored))
    }

    fn save(file: &Path, stored: &[StoredKey]) -> Result<(), TokenKeyError> {
        let write =
            || lizmon_pki::atomic_file::write(file, &serde_json::to_vec(stored)?, Access::Secret);
        write().map_err(|source| TokenKeyError::File {
            file: file.to_owned(),
            source,
        })
    }
}

/// A minted token.
pub struct MintedToken {
    /// The token itself.
    pub token: String,
    /// For how many seconds it is valid.
    pub expires_in: u64,
}

/// Mints and verifies tokens.
pub struct Tokens {
    issuer: String,
    audience: String,
    ttl: u64,
    key_life: u64,
    file: PathBuf,
    ring: ArcSwap<KeyRing>,
    remembered: Cache<Box<str>, Arc<Claims>>,
}

impl Tokens {
    /// Loads the keys from the data folder, or makes the first one.
    pub fn open(
        data: &Path,
        issuer: String,
        audience: String,
        ttl: Duration,
        key_life: Duration,
        now: u64,
    ) -> Result<Self, TokenKeyError> {
        let file = data.join(KEYS_FILE);
        let tokens = Self {
            issuer,
            audience,
            ttl: ttl.as_secs().max(1),
            key_life: key_life.as_secs(),
            ring: ArcSwap::from_pointee(KeyRing::open(&file)?),
            file,
            remembered: Cache::new(REMEMBERED_MAX),
        };
        tokens.rotate(now)?;
        Ok(tokens)
    }

    /// Makes a new signing key when the present one is old enough, and removes keys whose last
    /// token has expired. The new key is on disk before it signs.
    pub fn rotate(&self, now: u64) -> Result<(), TokenKeyError> {
        let Some(stored) = self.ring.load().rotated(now, self.key_life, self.ttl)? else {
            return Ok(());
        };
        KeyRing::save(&self.file, &stored)?;
        let keys = stored
            .into_iter()
            .map(Key::from_stored)
            .collect::<Option<Vec<_>>>()
            .ok_or(TokenKeyError::Generate)?;
        tracing::info!(
            keys = keys.len(),
            signing = keys.last().map(|key| key.kid.as_str()),
            "token keys rotated"
        );
        self.ring.store(Arc::new(KeyRing { keys }));
        Ok(())
    }

    /// The issuer (RFC 8414).
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The audience.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// A token for the holder of this certificate, ending no later than the certificate does.
    #[expect(clippy::disallowed_methods, reason = "RFC 9068 wants a unique jti")]
    pub fn mint(
        &self,
        holder: &Identity,
        scope: Scopes,
        now: u64,
    ) -> Result<MintedToken, AccessTokenError> {
        let exp = (now + self.ttl).min(holder.not_after);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: holder.spiffe_id.name.clone(),
            client_id: holder.spiffe_id.clone(),
            scope,
            iat: now,
            nbf: now,
            exp,
            jti: Uuid::new_v4().to_string(),
            cnf: Confirmation {
                x5t_s256: URL_SAFE_NO_PAD.encode(holder.thumbprint),
            },
        };
        let ring = self.ring.load();
        let key = ring
            .keys
            .last()
            .ok_or(AccessTokenError::Invalid("there is no key to sign with"))?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims, &key.encoding)
            .map_err(|_| AccessTokenError::Invalid("the token cannot be signed"))?;
        // We have just signed it: its first use need not verify the signature.
        self.remembered
            .insert(token.as_str().into(), Arc::new(claims));
        Ok(MintedToken {
            token,
            expires_in: exp.saturating_sub(now),
        })
    }

    /// A token's claims, if it is one of ours and valid at `now`. The certificate it is bound to is
    /// not checked here.
    pub fn verify(&self, token: &str, now: u64) -> Result<Arc<Claims>, AccessTokenError> {
        if let Some(claims) = self.remembered.get(token) {
            let checked = self.check(&claims, now);
            if checked == Err(AccessTokenError::Expired) {
                self.remembered.remove(token);
            }
            return checked.map(|()| claims);
        }
        let claims = Arc::new(self.verify_uncached(token, now)?);
        self.remembered.insert(token.into(), claims.clone());
        Ok(claims)
    }

    fn verify_uncached(&self, token: &str, now: u64) -> Result<Claims, AccessTokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AccessTokenError::Invalid("the token is too long"));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| AccessTokenError::Invalid("not a signed JWT of this receiver"))?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(AccessTokenError::Invalid("the token's typ is not at+jwt"));
        }
        // RFC 7515 section 4.1.11: we understand no extension, so every critical one is unknown.
        if header.crit.is_some() {
            return Err(AccessTokenError::Invalid(
                "the token has unknown critical header parameters",
            ));
        }
        let ring = self.ring.load();
        let key = header
            .kid
            .as_deref()
            .and_then(|kid| ring.keys.iter().find(|key| key.kid == kid));
        let key = key.ok_or(AccessTokenError::Invalid(
            "the token is signed with an unknown key",
        ))?;
        let mut signature_alone = Validation::new(Algorithm::EdDSA);
        signature_alone.required_spec_claims.clear();
        signature_alone.validate_exp = false;
        signature_alone.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &signature_alone)
            .map_err(|_| AccessTokenError::Invalid("the token's signature or claims are invalid"))?
            .claims;
        self.check(&claims, now)?;
        Ok(claims)
    }

    fn check(&self, claims: &Claims, now: u64) -> Result<(), AccessTokenError> {
        if claims.iss != self.issuer {
            return Err(AccessTokenError::Invalid(
                "the token is from another issuer",
            ));
        }
        if claims.aud != self.audience {
            return Err(AccessTokenError::Invalid(
                "the token is for another audience",
            ));
        }
        if claims.sub != claims.client_id.name {
            return Err(AccessTokenError::Invalid(
                "the token's sub and client_id differ",
            ));
        }
        if claims.iat > now || claims.nbf > now || claims.exp < claims.iat {
            return Err(AccessTokenError::Invalid("the token is not valid yet"));
        }
        if now >= claims.exp {
            return Err(AccessTokenError::Expired);
        }
        Ok(())
    }

    /// The public keys: RFC 7517 section 5, RFC 8037 section 2.
    pub fn key_set(&self) -> serde_json::Value {
        let ring = self.ring.load();
        let keys: Vec<_> = ring
            .keys
            .iter()
            .map(|key| {
                serde_json::json!({
                    "kty": "OKP", "crv": "Ed25519", "x": key.x, "kid": key.kid, "use": "sig", "alg": "EdDSA",
                })
            })
            .collect();
        serde_json::json!({ "keys": keys })
    }
}

/// Whether the claims are bound to the certificate with this SHA-256.
pub fn is_bound_to(claims: &Claims, thumbprint: &[u8; 32]) -> bool {
    let mut decoded = [0_u8; 33];
    matches!(
        URL_SAFE_NO_PAD.decode_slice(&claims.cnf.x5t_s256, &mut decoded),
        Ok(32)
    ) && decoded[..32] == thumbprint[..]
}

#[cfg(test)]
mod tests;
