//! A key statement: a receiver's token key, signed by its certificate's key for one store.
//!
//! The payload is a set of claims: `sub` is the receiver's SPIFFE ID, `aud` the store's identifier,
//! `iat` when it was signed, and `cnf` has the key (RFC 7800 section 3.2). As a statement it is
//! described in [`Trust::sign_statement`]. It says the same however often it is signed, and nothing
//! but a cache knows it by its bytes; so it is no matter that an ECDSA signature can be rewritten.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use lizmon_mtls::trust::{StatementError, StatementRefusal, Trust};
use lizmon_protocol::name::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::token::TokenPublicKey;

/// The value of `typ`.
pub(super) const TYPE: &str = "lizmon-key+jwt";

/// Why a published key is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// It is not signed by a trusted receiver.
    #[error(transparent)]
    Statement(#[from] StatementRefusal),
    /// The claims are not those of a key statement.
    #[error("it does not say whose key it is")]
    Claims,
    /// It is about another receiver than the one that signed it.
    #[error("it is signed by `{0}`, for another receiver")]
    OtherReceiver(SpiffeId),
    /// It is for another store.
    #[error("it is for another store")]
    OtherStore,
    /// The date is outside the certificate's validity.
    #[error("it was signed when its certificate was not valid")]
    Date,
    /// Not an Ed25519 key.
    #[error("its key is no Ed25519 key")]
    Key,
    /// The key's name is not its thumbprint, or not the name that it is published under.
    #[error("its key has another name")]
    KeyName,
}

/// A receiver's token key, as a trusted certificate stands for it.
pub struct KeyStatement {
    /// Whose key it is.
    pub receiver: SpiffeId,
    /// The key.
    pub key: TokenPublicKey,
    /// The last second in which it is trusted, unless its certificate is revoked: epoch seconds.
    pub until: u64,
    parsed: ParsedPublicKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyClaims {
    sub: SpiffeId,
    aud: String,
    iat: u64,
    cnf: KeyConfirmation,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyConfirmation {
    jwk: Jwk,
}

/// RFC 8037 section 2.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    kid: String,
}

/// Signs a statement about our own key.
pub(super) fn sign(
    trust: &Trust,
    store: &str,
    key: &TokenPublicKey,
    now: u64,
) -> Result<String, StatementError> {
    let claims = KeyClaims {
        sub: trust.own().spiffe_id.clone(),
        aud: store.to_owned(),
        iat: now,
        cnf: KeyConfirmation {
            jwk: Jwk {
                kty: "OKP".to_owned(),
                crv: "Ed25519".to_owned(),
                x: key.x().to_owned(),
                kid: key.kid().to_owned(),
            },
        },
    };
    let claims = serde_json::to_vec(&claims).unwrap_or_default();
    trust.sign_statement(TYPE, &claims)
}

impl KeyStatement {
    /// Verifies a statement that was found in the store with this identifier.
    pub(super) fn verify(
        trust: &Trust,
        store: &str,
        statement: &str,
        now: u64,
    ) -> Result<Self, KeyRefusal> {
        let verified = trust.verify_statement(TYPE, statement, now)?;
        let claims: KeyClaims =
            serde_json::from_slice(&verified.payload).map_err(|_| KeyRefusal::Claims)?;
        let signer = verified.signer;
        if claims.sub != signer.spiffe_id {
            return Err(KeyRefusal::OtherReceiver(signer.spiffe_id));
        }
        if claims.aud != store {
            return Err(KeyRefusal::OtherStore);
        }
        if !(signer.not_before..=signer.not_after).contains(&claims.iat) {
            return Err(KeyRefusal::Date);
        }
        let jwk = claims.cnf.jwk;
        if (jwk.kty.as_str(), jwk.crv.as_str()) != ("OKP", "Ed25519") {
            return Err(KeyRefusal::Key);
        }
        let key = TokenPublicKey::from_x(&jwk.x).ok_or(KeyRefusal::Key)?;
        if jwk.kid != key.kid() {
            return Err(KeyRefusal::KeyName);
        }
        let parsed = ParsedPublicKey::new(&ED25519, key.bytes()).map_err(|_| KeyRefusal::Key)?;
        Ok(Self {
            receiver: claims.sub,
            key,
            until: verified.until,
            parsed,
        })
    }

    /// Whether this key signed the message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}
