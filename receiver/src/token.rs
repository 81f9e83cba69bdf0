//! Access tokens: minted, verified, cached. Pure but for the key file; `now` is an argument.
//!
//! RFC 9068 tokens, signed with EdDSA (RFC 8037), bound to a certificate (RFC 8705 section 3). The
//! library checks the signature; claims are checked here, because the library accepts missing ones.
//!
//! Receivers that share a store have an issuer in common and keys of their own. Each honours the
//! tokens of the others, by the keys in [`Tokens::set_foreign`].

mod foreign;
mod key_ring;
mod last_token;
mod public_key;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use lizmon_mtls::identity::Identity;
use lizmon_pki::CLOCK_SKEW_SECS_MAX;
use lizmon_protocol::token::{Claims, Confirmation, Scopes, TYPE};
use quick_cache::sync::Cache;
use uuid::Uuid;

pub use self::foreign::ForeignTokenKey;
pub use self::key_ring::TokenKeyError;
use self::key_ring::{KeyRing, TokenKey};
pub use self::last_token::LastToken;
pub use self::public_key::TokenPublicKey;

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
    foreign: ArcSwap<Vec<ForeignTokenKey>>,
    remembered: Cache<Box<str>, VerifiedToken>,
}

/// What a verified token says, and whose key signed it.
#[derive(Clone)]
struct VerifiedToken {
    claims: Arc<Claims>,
    /// The name of the key; `None` if it is our own.
    foreign: Option<Arc<str>>,
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
            foreign: ArcSwap::default(),
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
            .map(TokenKey::from_stored)
            .collect::<Option<Vec<_>>>()
            .ok_or(TokenKeyError::Generate)?;
        tracing::info!(
            keys = keys.len(),
            newest = keys.last().map(|key| key.public.kid()),
            "token keys rotated"
        );
        self.ring.store(Arc::new(KeyRing { keys }));
        Ok(())
    }

    /// Replaces the keys of other receivers. A token that one of them signed is honoured for as
    /// long as its key is among these, whether it was verified before or not.
    pub fn set_foreign(&self, keys: Vec<ForeignTokenKey>) {
        self.foreign.store(Arc::new(keys));
    }

    /// The key that signs at `now`.
    pub fn signing_key(&self, now: u64) -> Option<TokenPublicKey> {
        let ring = self.ring.load();
        ring.signing(now).map(|key| key.public.clone())
    }

    /// Our keys, oldest first: those that verify, and the one that signs next.
    pub fn own_keys(&self) -> Vec<TokenPublicKey> {
        let ring = self.ring.load();
        ring.keys.iter().map(|key| key.public.clone()).collect()
    }

    /// How long a token is valid at most: seconds.
    pub fn ttl(&self) -> u64 {
        self.ttl
    }

    /// The signature of the key `kid` over a message that cannot be a token.
    pub fn sign(&self, kid: &str, message: &[u8]) -> Option<Vec<u8>> {
        let ring = self.ring.load();
        ring.keys
            .iter()
            .find(|key| key.public.kid() == kid)?
            .sign(message)
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
            .signing(now)
            .ok_or(AccessTokenError::Invalid("there is no key to sign with"))?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.public.kid().to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &key.encoding)
            .map_err(|_| AccessTokenError::Invalid("the token cannot be signed"))?;
        // We have just signed it: its first use need not verify the signature.
        let verified = VerifiedToken {
            claims: Arc::new(claims),
            foreign: None,
        };
        self.remembered.insert(token.as_str().into(), verified);
        Ok(MintedToken {
            token,
            expires_in: exp.saturating_sub(now),
        })
    }

    /// A token's claims, if it is one of ours, or of another receiver that is honoured, and valid
    /// at `now`. The certificate it is bound to is not checked here.
    pub fn verify(&self, token: &str, now: u64) -> Result<Arc<Claims>, AccessTokenError> {
        Ok(self.verified(token, now)?.claims)
    }

    fn verified(&self, token: &str, now: u64) -> Result<VerifiedToken, AccessTokenError> {
        if let Some(verified) = self.remembered.get(token) {
            let checked = self.check(&verified, now);
            if checked == Err(AccessTokenError::Expired) {
                self.remembered.remove(token);
            }
            return checked.map(|()| verified);
        }
        let verified = self.verify_uncached(token, now)?;
        self.remembered.insert(token.into(), verified.clone());
        Ok(verified)
    }

    fn verify_uncached(&self, token: &str, now: u64) -> Result<VerifiedToken, AccessTokenError> {
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
        let (key, foreign) = self
            .verifying_key(header.kid.as_deref().unwrap_or_default(), now)
            .ok_or(AccessTokenError::Invalid(
                "the token is signed with an unknown key",
            ))?;
        let mut signature_alone = Validation::new(Algorithm::EdDSA);
        signature_alone.required_spec_claims.clear();
        signature_alone.validate_exp = false;
        signature_alone.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &signature_alone)
            .map_err(|_| AccessTokenError::Invalid("the token's signature or claims are invalid"))?
            .claims;
        let verified = VerifiedToken {
            claims: Arc::new(claims),
            foreign,
        };
        self.check(&verified, now)?;
        Ok(verified)
    }

    /// The key of this name, and the name again if it is another receiver's.
    fn verifying_key(&self, kid: &str, now: u64) -> Option<(DecodingKey, Option<Arc<str>>)> {
        let ring = self.ring.load();
        if let Some(key) = ring.keys.iter().find(|key| key.public.kid() == kid) {
            return Some((key.decoding.clone(), None));
        }
        let foreign = self.foreign.load();
        let key = foreign.iter().find(|key| key.is(kid, now))?;
        Some((key.decoding.clone(), Some(kid.into())))
    }

    fn check(&self, token: &VerifiedToken, now: u64) -> Result<(), AccessTokenError> {
        let claims = &*token.claims;
        let Some(kid) = &token.foreign else {
            return self.check_claims(claims, now);
        };
        if !self.foreign.load().iter().any(|key| key.is(kid, now)) {
            return Err(AccessTokenError::Invalid(
                "the receiver that signed the token is not trusted any more",
            ));
        }
        // The clocks of two receivers differ, and a client may bring a token at once.
        let issued = claims.iat.max(claims.nbf);
        self.check_claims(
            claims,
            now.max(issued.min(now.saturating_add(CLOCK_SKEW_SECS_MAX))),
        )
    }

    fn check_claims(&self, claims: &Claims, now: u64) -> Result<(), AccessTokenError> {
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

    /// The public keys that verify tokens of this issuer: RFC 7517 section 5, RFC 8037 section 2.
    pub fn key_set(&self) -> serde_json::Value {
        let (ring, foreign) = (self.ring.load(), self.foreign.load());
        let own = ring.keys.iter().map(|key| &key.public);
        let keys: Vec<_> = own
            .chain(foreign.iter().map(|key| &key.public))
            .map(|key| {
                serde_json::json!({
                    "kty": "OKP", "crv": "Ed25519", "x": key.x(), "kid": key.kid(), "use": "sig", "alg": "EdDSA",
                })
            })
            .collect();
        serde_json::json!({ "keys": keys })
    }
}

/// Whether the claims are bound to the certificate with this SHA-256.
pub fn is_bound_to(claims: &Claims, thumbprint: &[u8; 32]) -> bool {
    let mut encoded = [0_u8; 43];
    let length = URL_SAFE_NO_PAD.encode_slice(thumbprint, &mut encoded);
    length == Ok(encoded.len()) && claims.cnf.x5t_s256.as_bytes() == encoded
}

#[cfg(test)]
mod tests;
