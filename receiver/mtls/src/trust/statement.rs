//! Statements: what a receiver signs with its certificate's key for others that trust the same
//! roots.
//!
//! A statement is a JWS in compact form (RFC 7515 section 3.1). Its header has `alg`, `typ` and
//! `x5c` (section 4.1.6), each once, and nothing else: whoever has another member, `crit` or a key
//! or an address of one above all, is refused. The chain in `x5c` is verified like that of a server
//! in a handshake, with revocation, and must be a receiver's. The certificate's key alone decides
//! which algorithm is the right one.
//!
//! The same key signs handshakes. What it signs in TLS 1.3 begins with spaces (RFC 8446 section
//! 4.4.3), and in TLS 1.2 it contains the byte 3 of a named curve (RFC 8422 section 5.4); a JWS has
//! neither. So none of these signatures is one of the others.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lizmon_pki::path::Usage;
use lizmon_protocol::name::Role;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::current::Trust;
use crate::identity::{Identity, not_after};
use crate::jws::JwsPublicKey;
use crate::refusal::PeerRefusal;

/// The size of a statement, in bytes: three times that of one with RSA-4096 keys and an
/// intermediate.
pub const STATEMENT_BYTES_MAX: usize = 16 * 1024;
/// How many certificates are in a statement: a leaf, its issuer, and some above that.
pub const STATEMENT_CERTIFICATES_MAX: usize = 6;

/// A statement that a receiver's certificate stands for.
#[derive(Debug)]
pub struct VerifiedStatement {
    /// The receiver that signed it.
    pub signer: Identity,
    /// The last second for which this verification holds, by the dates of the certificates: epoch
    /// seconds. It also ends with the [`Trust`] that made it.
    pub until: u64,
    /// What was signed.
    pub payload: Vec<u8>,
}

/// Why a statement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementRefusal {
    /// Larger than [`STATEMENT_BYTES_MAX`].
    #[error("it has {0} bytes, more than {STATEMENT_BYTES_MAX}")]
    TooLong(usize),
    /// Not three parts in base64url, or a header with other members than a statement has.
    #[error("it is not a statement of a receiver")]
    Malformed,
    /// It is about something else.
    #[error("its typ is another")]
    OtherType,
    /// No certificate, or more than [`STATEMENT_CERTIFICATES_MAX`].
    #[error("it has {0} certificates, not 1 to {STATEMENT_CERTIFICATES_MAX}")]
    Certificates(usize),
    /// The certificate is not trusted.
    #[error(transparent)]
    Signer(#[from] PeerRefusal),
    /// The certificate is trusted, and not a receiver's.
    #[error("its signer's role is `{0}`")]
    OtherRole(Role),
    /// The algorithm is not that of the certificate's key.
    #[error("its alg is not that of its certificate's key")]
    OtherAlgorithm,
    /// The certificate's key did not sign it.
    #[error("its certificate's key did not sign it")]
    Signature,
}

/// Why a statement cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// A kind of key that has no algorithm here.
    #[error("the certificate's key signs no statements: use a P-256, P-384, Ed25519 or RSA key")]
    KeyKind,
    /// The chain is too long.
    #[error(
        "the certificate file has {0} certificates, and a statement at most \
         {STATEMENT_CERTIFICATES_MAX}: leave out what is not needed up to the root"
    )]
    ChainTooLong(usize),
    /// The certificates are too large.
    #[error("the certificates are too large for a statement of {STATEMENT_BYTES_MAX} bytes")]
    TooLong,
}

/// All members that the header has.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    x5c: Vec<String>,
}

impl Trust {
    /// Our own certificate and its issuers, leaf first.
    pub fn own_chain(&self) -> &[CertificateDer<'static>] {
        &self.parts.own.chain
    }

    /// Signs a payload with our certificate's key.
    pub fn sign_statement(&self, typ: &str, payload: &[u8]) -> Result<String, StatementError> {
        let own = &self.parts.own;
        if own.chain.len() > STATEMENT_CERTIFICATES_MAX {
            return Err(StatementError::ChainTooLong(own.chain.len()));
        }
        let key = JwsPublicKey::of_certificate(self.own_certificate());
        let key = key.ok_or(StatementError::KeyKind)?;
        let header = Header {
            alg: key.algorithm().to_owned(),
            typ: typ.to_owned(),
            x5c: own.chain.iter().map(|der| STANDARD.encode(der)).collect(),
        };
        let header = serde_json::to_vec(&header).map_err(|_| StatementError::KeyKind)?;
        let mut statement = URL_SAFE_NO_PAD.encode(header);
        statement.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut statement);
        let signature = key
            .sign(&own.key, statement.as_bytes())
            .ok_or(StatementError::KeyKind)?;
        statement.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut statement);
        match statement.len() > STATEMENT_BYTES_MAX {
            true => Err(StatementError::TooLong),
            false => Ok(statement),
        }
    }

    /// Verifies a statement of a receiver at `now`.
    pub fn verify_statement(
        &self,
        typ: &str,
        statement: &str,
        now: u64,
    ) -> Result<VerifiedStatement, StatementRefusal> {
        if statement.len() > STATEMENT_BYTES_MAX {
            return Err(StatementRefusal::TooLong(statement.len()));
        }
        let malformed = || StatementRefusal::Malformed;
        let (signed, signature) = statement.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let decoded = |part: &str| {
            let decoded = URL_SAFE_NO_PAD.decode(part);
            decoded.map_err(|_| StatementRefusal::Malformed)
        };
        let (signature, payload) = (decoded(signature)?, decoded(payload)?);
        let header: Header =
            serde_json::from_slice(&decoded(header)?).map_err(|_| StatementRefusal::Malformed)?;
        if header.typ != typ {
            return Err(StatementRefusal::OtherType);
        }
        if !(1..=STATEMENT_CERTIFICATES_MAX).contains(&header.x5c.len()) {
            return Err(StatementRefusal::Certificates(header.x5c.len()));
        }
        let decoded = |text: &String| Some(CertificateDer::from(STANDARD.decode(text).ok()?));
        let chain: Option<Vec<_>> = header.x5c.iter().map(decoded).collect();
        let chain = chain.ok_or_else(malformed)?;
        let (signer, until) = self.verify_receiver(&chain, now)?;
        let key = JwsPublicKey::of_certificate(&chain[0])
            .filter(|key| key.algorithm() == header.alg)
            .ok_or(StatementRefusal::OtherAlgorithm)?;
        if !key.has_signed(signed.as_bytes(), &signature) {
            return Err(StatementRefusal::Signature);
        }
        Ok(VerifiedStatement {
            signer,
            until,
            payload,
        })
    }

    /// Verifies the chain of another receiver as clients would. Gives its identity, and the last
    /// second for which this holds.
    fn verify_receiver(
        &self,
        chain: &[CertificateDer<'static>],
        now: u64,
    ) -> Result<(Identity, u64), StatementRefusal> {
        let signer = self.verifier.verify_as(Usage::Server, chain, now)?;
        if signer.spiffe_id.role != Role::Receiver {
            return Err(StatementRefusal::OtherRole(signer.spiffe_id.role));
        }
        // Those on the path are among these and have not ended, so the path is valid at least until
        // the next of them ends.
        let ends = chain.iter().chain(self.verifier.paths.intermediates());
        let ends = ends.filter_map(|der| not_after(der));
        let until = ends.filter(|end| *end >= now).min().unwrap_or(now);
        Ok((signer, until))
    }
}
