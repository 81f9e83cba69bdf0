//! Enrolment: a certificate for whoever brings a join token, and the next one for whoever brings the current one.
//!
//! ```text
//! join token --enrol--> certificate --renew--> certificate --renew--> …      until it is revoked, or has ended
//! ```
//!
//! A token names one holder, is used once, and is kept as a hash. What decides stands in the ledger and is read in the
//! transaction that enters the new certificate: once a revocation has returned, nothing that came before it enrols or
//! renews. Holders get no file here; their key never was here.

mod renewal;

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use lizmon_pki::pem;
use lizmon_protocol::enrol::{JoinToken, SECRET_BYTES};
use lizmon_protocol::name::{NodeName, Role, SpiffeId};
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rusqlite::Row;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::audit::{AuditAction, AuditEvent};
use crate::authority::{Authority, record_issued};
use crate::error::Error;
use crate::est::CsrFormatError;
use crate::key::{self, CsrError};
use crate::ledger::{Entry, LedgerTx, seconds, sql};
use crate::profile::{BACKDATE_SECS, DAY_SECS, Profile, San};

pub use self::renewal::{OVERLAP, RENEWED_VALID_MAX, RenewalError, SUPERSEDED_INTERVAL};

/// How long a join token can be used unless told otherwise.
pub const TOKEN_TTL: Duration = Duration::from_secs(10 * 60);
/// How long one can be asked for. Longer, and it is a password in a file.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(7 * DAY_SECS);
/// How long a certificate lives that was given for a join token, and each that follows it.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(7 * DAY_SECS);
/// How long an ended token is remembered, so that a refusal can still say why in the log.
const TOKEN_RETENTION_SECS: u64 = 30 * DAY_SECS;
/// How the ledger says that a join token let a holder in.
const TOKEN_PREFIX: &str = "join token ";
/// Hex digits of a token's hash in the ledger's and the log's words. They tell tokens apart, and are no use to anyone.
const TOKEN_ID_CHARS: usize = 8;

/// A certificate that was asked for over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Who it speaks for.
    pub spiffe_id: SpiffeId,
    /// Its number, lower-case hex.
    pub serial: String,
    /// Its last second.
    pub not_after: u64,
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// Whether it was issued before, to a request whose answer was lost.
    pub again: bool,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssuanceError {
    /// There is no signing request.
    #[error(transparent)]
    Body(#[from] CsrFormatError),
    /// The signing request is not taken.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// The join token is not taken. Strangers are not told why: [`JoinTokenError`] is for the log.
    #[error("the join token is not good for this name")]
    Token(#[source] JoinTokenError),
    /// The current certificate does not renew.
    #[error(transparent)]
    Renewal(#[from] RenewalError),
    /// The CA could not.
    #[error(transparent)]
    Ca(#[from] Error),
}

/// What is wrong with a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// No such token for this name.
    #[error("no such token was made for this name")]
    Unknown,
    /// Too late, or withdrawn by a revocation.
    #[error("it has ended, or was withdrawn by a revocation")]
    Ended,
    /// Somebody else has used it.
    #[error("it was used before, with another key")]
    Used,
    /// What it was used for is not good any more.
    #[error("the certificate it was used for is revoked or has ended")]
    CertificateEnded,
}

impl Authority {
    /// Makes a join token: lets its bearer have one certificate as `role` `name`, until `ttl` from now.
    pub fn make_join_token(
        &self,
        role: Role,
        name: &NodeName,
        ttl: Duration,
        now: u64,
    ) -> Result<JoinToken, Error> {
        if role.is_server() {
            return Err(Error::JoinRole(role));
        }
        if ttl.is_zero() || ttl > TOKEN_TTL_MAX {
            return Err(Error::JoinTtl(ttl.as_secs()));
        }
        let mut secret = [0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| Error::Random)?;
        let token = JoinToken::new(name.clone(), secret);
        // A ttl of less than a second still has the second it was made in.
        let expires = now.saturating_add(ttl.as_secs().max(1));
        let hash = hash_of(token.as_str());
        let row = TokenRow {
            role,
            name: name.clone(),
            created: now,
            expires,
            used: None,
            created_by: self.operator().to_owned(),
            hash,
        };
        self.check_names(role, std::slice::from_ref(name))?;
        self.ledger().transaction(|tx| {
            tx.forget_tokens(now.saturating_sub(TOKEN_RETENTION_SECS))?;
            tx.add_token(&row)?;
            let event = AuditEvent {
                deed: AuditAction::TokenMade,
                who: self.operator(),
                details: json!({"role": role.as_str(), "name": name.as_str(), "token": row.short_id(), "expires": expires}),
            };
            tx.record(&event, now)
        })?;
        Ok(token)
    }

    /// Roots and issuing CAs that are trusted now, or will be next: RFC 7030 section 4.1.
    pub fn ca_certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let trusted = self.generations()?;
        trusted
            .iter()
            .filter(|ca| ca.phase.is_trusted())
            .map(|ca| der_of(&ca.entry))
            .collect()
    }

    /// Whether anything could be issued at `now`.
    pub(crate) fn check_ready(&self, now: u64) -> Result<(), Error> {
        self.unlock()?;
        self.leaf_validity(LEAF_LIFETIME, now)?;
        self.ledger().transaction(|_| Ok(()))
    }

    /// Issues to the bearer of a join token. The same token with the same key, while it lasts, gives the same certificate
    /// again: the answer may have been lost.
    pub fn enrol(
        &self,
        name: &NodeName,
        token: &str,
        request_der: &[u8],
        now: u64,
    ) -> Result<Enrolled, IssuanceError> {
        let key = key::from_request(request_der)?;
        let key_hash = digest(&SHA256, &key.subject_public_key_info());
        let hash = hash_of(token);
        self.ledger()
            .transaction(|tx| {
                let row = match find_token(tx, name, &hash, now)? {
                    Ok(row) => row,
                    Err(flaw) => return Ok(Err(flaw)),
                };
                match &row.used {
                    None => self
                        .use_token(tx, &row, &key, key_hash.as_ref(), now)
                        .map(Ok),
                    Some(used) if used.key != key_hash.as_ref() => Ok(Err(JoinTokenError::Used)),
                    Some(used) => self.already_issued(tx, &used.serial, now),
                }
            })?
            .map_err(IssuanceError::Token)
    }

    /// Whether there is any use in looking at what a stranger has sent.
    pub(crate) fn check_token(
        &self,
        name: &NodeName,
        token: &str,
        now: u64,
    ) -> Result<(), IssuanceError> {
        let hash = hash_of(token);
        let found = self
            .ledger()
            .transaction(|tx| find_token(tx, name, &hash, now))?;
        found.map(drop).map_err(IssuanceError::Token)
    }

    fn use_token(
        &self,
        tx: &LedgerTx<'_>,
        row: &TokenRow,
        key: &SubjectPublicKeyInfo,
        key_hash: &[u8],
        now: u64,
    ) -> Result<Enrolled, Error> {
        let id = self.id(row.role, row.name.clone());
        let signed = self.sign_leaf(&id, &[], LEAF_LIFETIME, key, now)?;
        let issued_by = format!("{TOKEN_PREFIX}{} of {}", row.short_id(), row.created_by);
        let entry = signed.entry(&id, &issued_by, now);
        record_issued(tx, &id, &entry, Some(&row.short_id()))?;
        tx.mark_used(&row.hash, key_hash, signed.serial.as_bytes(), now)?;
        Enrolled::new(id, &entry, false)
    }

    fn already_issued(
        &self,
        tx: &LedgerTx<'_>,
        serial: &str,
        now: u64,
    ) -> Result<Result<Enrolled, JoinTokenError>, Error> {
        let entry = tx.find(serial)?;
        let Some(entry) = entry.filter(|entry| entry.is_live(now)) else {
            return Ok(Err(JoinTokenError::CertificateEnded));
        };
        let Some(id) = self.holder(&entry) else {
            return Ok(Err(JoinTokenError::CertificateEnded));
        };
        Enrolled::new(id, &entry, true).map(Ok)
    }

    /// Whose a leaf's entry is.
    fn holder(&self, entry: &Entry) -> Option<SpiffeId> {
        match entry.profile {
            Profile::Leaf(role) => Some(self.id(role, entry.name.parse().ok()?)),
            Profile::Root | Profile::Issuing => None,
        }
    }
}

impl Enrolled {
    fn new(spiffe_id: SpiffeId, entry: &Entry, again: bool) -> Result<Self, Error> {
        Ok(Self {
            spiffe_id,
            serial: entry.serial.clone(),
            not_after: entry.not_after,
            der: der_of(entry)?,
            again,
        })
    }
}

/// Whether a join token let its holder in.
pub(crate) fn is_enrolled_by_token(entry: &Entry) -> bool {
    entry.issued_by.starts_with(TOKEN_PREFIX)
}

pub(crate) fn der_of(entry: &Entry) -> Result<CertificateDer<'static>, Error> {
    let found = pem::certificates(entry.pem.as_bytes()).map_err(|_| unreadable())?;
    found.into_iter().next().ok_or_else(unreadable)
}

fn unreadable() -> Error {
    Error::BadFile {
        path: "ledger.db".into(),
        why: "a certificate in it cannot be read",
    }
}

/// The DNS names and addresses of a certificate that we issued.
pub(crate) fn sans_of(der: &[u8]) -> Option<Vec<San>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let sans = names.value.general_names.iter().filter_map(|name| {
        Some(match name {
            GeneralName::DNSName(name) => Ok(San::Dns((*name).to_owned())),
            GeneralName::IPAddress(bytes) => address(bytes).map(San::Ip).ok_or(()),
            GeneralName::URI(_) => return None,
            _ => Err(()),
        })
    });
    sans.collect::<Result<_, _>>().ok()
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(Into::into);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(Into::into))
        .ok()
}

fn hash_of(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// Of this name's tokens the one with this hash, if it has not ended. Every hash is compared, and each to its end.
fn find_token(
    tx: &LedgerTx<'_>,
    name: &NodeName,
    hash: &[u8; 32],
    now: u64,
) -> Result<Result<TokenRow, JoinTokenError>, Error> {
    let found = tx.tokens(name)?.into_iter().fold(None, |found, row| {
        let same = verify_slices_are_equal(&row.hash, hash).is_ok();
        if same { Some(row) } else { found }
    });
    Ok(match found {
        None => Err(JoinTokenError::Unknown),
        Some(row) if now >= row.expires => Err(JoinTokenError::Ended),
        // Made while the clock was ahead, it would be good until that time comes again.
        Some(row) if row.created > now.saturating_add(BACKDATE_SECS) => Err(JoinTokenError::Ended),
        Some(row) => Ok(row),
    })
}

fn short_id(hash: [u8; 32]) -> String {
    let mut short_id = hex::encode(hash);
    short_id.truncate(TOKEN_ID_CHARS);
    short_id
}

/// A join token as the ledger has it.
struct TokenRow {
    hash: [u8; 32],
    role: Role,
    name: NodeName,
    created: u64,
    expires: u64,
    used: Option<Used>,
    created_by: String,
}

struct Used {
    key: Vec<u8>,
    serial: String,
}

impl TokenRow {
    fn short_id(&self) -> String {
        short_id(self.hash)
    }

    fn read(row: &Row<'_>, name: &NodeName) -> rusqlite::Result<Self> {
        let role: String = row.get(1)?;
        let (key, serial): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(3)?, row.get(4)?);
        Ok(Self {
            hash: row.get(0)?,
            role: role.parse().map_err(rusqlite::types::FromSqlError::other)?,
            name: name.clone(),
            expires: seconds(row, 2)?,
            used: key.zip(serial).map(|(key, serial)| Used {
                key,
                serial: hex::encode(serial),
            }),
            created_by: row.get(5)?,
            created: seconds(row, 6)?,
        })
    }
}

impl LedgerTx<'_> {
    fn add_token(&self, row: &TokenRow) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "INSERT INTO join_token (hash, role, name, created, expires, created_by)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (
                    row.hash,
                    row.role.as_str(),
                    row.name.as_str(),
                    sql(row.created),
                    sql(row.expires),
                    &row.created_by,
                ),
            )
        })?;
        Ok(())
    }

    /// Every token for this name, as whatever it may join.
    fn tokens(&self, name: &NodeName) -> Result<Vec<TokenRow>, Error> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT hash, role, expires, used_key, certificate_serial, created_by, created
                 FROM join_token WHERE role IN ('node', 'reader', 'operator') AND name = ?1",
            )?
            .query_map([name.as_str()], |row| TokenRow::read(row, name))?
            .collect()
        })
    }

    fn mark_used(&self, hash: &[u8; 32], key: &[u8], serial: &[u8], now: u64) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "UPDATE join_token SET used_at = ?2, used_key = ?3, certificate_serial = ?4 WHERE hash = ?1",
                (hash, sql(now), key, serial),
            )
        })?;
        Ok(())
    }

    /// The mark of every token that is remembered, and whether it was used.
    pub(crate) fn token_ids(&self) -> Result<Vec<(String, bool)>, Error> {
        self.run(|t| {
            t.prepare_cached("SELECT hash, used_key IS NOT NULL FROM join_token")?
                .query_map([], |row| Ok((short_id(row.get(0)?), row.get(1)?)))?
                .collect()
        })
    }

    fn forget_tokens(&self, ended_before: u64) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "DELETE FROM join_token WHERE expires < ?1",
                [sql(ended_before)],
            )
        })?;
        Ok(())
    }
}
