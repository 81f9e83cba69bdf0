//! Enrolment: join tokens, and the first certificate for the bearer of one.
//!
//! ```text
//! join token --enrol--> certificate --renew--> certificate --renew--> …      until revoked or expired
//! ```
//!
//! A token names one holder, is used once, and is stored as a hash. The decision is made from the
//! ledger, in the transaction that records the new certificate: once a revocation has returned,
//! nothing issued before it can enrol or renew. Holders get no file here, and their key never was
//! here.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use lizmon_protocol::enrol::{JoinToken, SECRET_BYTES};
use lizmon_protocol::name::{Attributes, NodeName, Role, SpiffeId};
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::ca::Authority;
use super::error::{Error, IssueError};
use super::issuance::{Enrolled, IssuanceError, JoinTokenError};
use super::issue::record_issued;
use super::lifetimes::{LEAF_LIFETIME, TOKEN_TTL_MAX};
use crate::ledger::audit::{AuditAction, AuditEvent};
use crate::ledger::{Entry, JoinTokenRecord, LedgerTx, issued_by_token};
use crate::pki::{
    BACKDATE_SECS, DAY_SECS, Profile, ProfileError, San, check_sans, csr, fill_random,
};

/// How long an expired token is stored, so that the log can say why it is refused.
const TOKEN_RETENTION_SECS: u64 = 30 * DAY_SECS;
impl Authority {
    /// Creates a join token: its bearer gets one certificate as `role` `name`, until `ttl` from
    /// now. A receiver's certificate has these DNS names and addresses, a node's these tags, a
    /// reader's these limits: the bearer cannot choose any. Who could join as a CA could impersonate `liz-ca`, so nobody can.
    pub fn make_join_token(
        &self,
        role: Role,
        name: &NodeName,
        sans: &[San],
        attributes: &Attributes,
        ttl: Duration,
        now: u64,
    ) -> Result<JoinToken, Error> {
        if role == Role::Ca {
            return Err(IssueError::RoleCannotJoin(role).into());
        }
        check_sans(role, sans)?;
        attributes.check(role).map_err(ProfileError::from)?;
        if ttl.is_zero() || ttl > TOKEN_TTL_MAX {
            return Err(IssueError::JoinTokenTtl(ttl.as_secs()).into());
        }
        let mut secret = [0; SECRET_BYTES];
        fill_random(&mut secret)?;
        let token = JoinToken::new(name.clone(), secret);
        // A ttl below a second lasts for the current second.
        let expires = now.saturating_add(ttl.as_secs().max(1));
        let hash = hash_of(token.as_str());
        let row = JoinTokenRecord {
            role,
            name: name.clone(),
            sans: sans.to_vec(),
            attributes: attributes.clone(),
            created: now,
            expires,
            used: None,
            created_by: self.operator.clone(),
            hash,
        };
        self.check_names(role, std::slice::from_ref(name))?;
        self.transaction(|tx| {
            tx.delete_tokens(now.saturating_sub(TOKEN_RETENTION_SECS))?;
            tx.add_token(&row)?;
            let event = AuditEvent {
                action: AuditAction::TokenMade,
                who: &self.operator,
                details: token_details(&row),
            };
            Ok(tx.record(&event, now)?)
        })?;
        Ok(token)
    }

    /// The roots and issuing CAs that are trusted or published: RFC 7030 section 4.1.
    pub fn ca_certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let trusted = self.generations()?;
        trusted
            .iter()
            .filter(|ca| ca.phase.is_trusted())
            .map(|ca| Ok(ca.entry.der()?))
            .collect()
    }

    /// An error if nothing can be issued at `now`.
    pub(crate) fn check_ready(&self, now: u64) -> Result<(), Error> {
        self.unlock()?;
        self.leaf_validity(LEAF_LIFETIME, now)?;
        self.ledger.transaction(|_| Ok(()))
    }

    /// Issues to the bearer of a join token. While the token lasts, the same token with the same
    /// key gives the same certificate again: the first answer may have been lost.
    pub fn enrol(
        &self,
        name: &NodeName,
        token: &str,
        request_der: &[u8],
        now: u64,
    ) -> Result<Enrolled, IssuanceError> {
        let key = csr::public_key(request_der)?;
        let key_hash = digest(&SHA256, &key.subject_public_key_info());
        let hash = hash_of(token);
        self.transaction(|tx| {
            let row = match find_token(tx, name, &hash, now)? {
                Ok(row) => row,
                Err(error) => return Ok(Err(error)),
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

    /// An error if the token is refused, whatever request comes with it.
    pub(crate) fn check_token(
        &self,
        name: &NodeName,
        token: &str,
        now: u64,
    ) -> Result<(), IssuanceError> {
        let hash = hash_of(token);
        let found = self
            .ledger
            .transaction(|tx| find_token(tx, name, &hash, now))?;
        found.map(drop).map_err(IssuanceError::Token)
    }

    fn use_token(
        &self,
        tx: &LedgerTx<'_>,
        row: &JoinTokenRecord,
        key: &SubjectPublicKeyInfo,
        key_hash: &[u8],
        now: u64,
    ) -> Result<Enrolled, Error> {
        let id = self.id(row.role, row.name.clone());
        let signed = self.sign_leaf(&id, &row.sans, &row.attributes, LEAF_LIFETIME, key, now)?;
        let issued_by = issued_by_token(&row.short_id(), &row.created_by);
        let entry = signed.entry(&id, &issued_by, now);
        record_issued(tx, &id, &entry, Some(&row.short_id()))?;
        tx.mark_token_used(&row.hash, key_hash, signed.serial.as_bytes(), now)?;
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

    /// The holder of a leaf.
    pub(super) fn holder(&self, entry: &Entry) -> Option<SpiffeId> {
        match entry.profile {
            Profile::Leaf(role) => Some(self.id(role, entry.name.parse().ok()?)),
            Profile::Root | Profile::Issuing => None,
        }
    }
}

/// What the audit log says of a new token.
fn token_details(row: &JoinTokenRecord) -> Value {
    let mut details = json!({
        "role": row.role.as_str(), "name": row.name.as_str(), "token": row.short_id(), "expires": row.expires,
    });
    if !row.sans.is_empty() {
        let sans = row.sans.iter().map(ToString::to_string);
        details["sans"] = sans.collect();
    }
    if !row.attributes.is_empty() {
        details["attributes"] = row.attributes.texts().collect();
    }
    details
}

fn hash_of(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// The token of this name with this hash, unless it has expired. All hashes are compared, in
/// constant time.
fn find_token(
    tx: &LedgerTx<'_>,
    name: &NodeName,
    hash: &[u8; 32],
    now: u64,
) -> Result<Result<JoinTokenRecord, JoinTokenError>, Error> {
    let found = tx.tokens(name)?.into_iter().fold(None, |found, row| {
        let same = verify_slices_are_equal(&row.hash, hash).is_ok();
        if same { Some(row) } else { found }
    });
    Ok(match found {
        None => Err(JoinTokenError::Unknown),
        Some(row) if now >= row.expires => Err(JoinTokenError::Ended),
        // It was created while the clock was ahead, and would last until that time comes again.
        Some(row) if row.created > now.saturating_add(BACKDATE_SECS) => Err(JoinTokenError::Ended),
        Some(row) => Ok(row),
    })
}
