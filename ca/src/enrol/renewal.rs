//! The next certificate, for who shows the current one; and the end of those that nobody needs any more.
//!
//! ```text
//!   C --renew--> D                  C is good until D was shown to us, and OVERLAP more
//!     `-renew--> D'                 D was never shown and is older than OVERLAP: a leftover, which ends too
//! ```
//!
//! Who renews and crashes before the new certificate is on disk has the old one still, however long it was away: only
//! the successor's own use ends it. Lists are signed for many at a time, see [`Authority::revoke_superseded`].

use std::time::Duration;

use lizmon_mtls::identity::{Identity, thumbprint};
use lizmon_protocol::name::SpiffeId;
use rcgen::SubjectPublicKeyInfo;
use rusqlite::OptionalExtension;

use super::{
    Enrolled, IssuanceError, LEAF_LIFETIME, der_of, is_enrolled_by_token, sans_of, unreadable,
};
use crate::authority::{Authority, Revocation, record_issued};
use crate::crl::Reason;
use crate::error::Error;
use crate::key;
use crate::ledger::{CertState, Entry, LedgerTx, Phase, seconds, sql};
use crate::profile::{LEAF_LIFETIME_SECS, LIFETIME_SECS_MAX, LIFETIME_SECS_MIN, San};
use crate::signer::strip_sign;

/// How long a certificate is good after its successor was first used, and how long a renewal may wait to be used before
/// it counts as a leftover. Longer than anything that is under way with the old one, and as long as the longest pause of a
/// client that tries again.
pub const OVERLAP: Duration = Duration::from_secs(3600);
/// How often those are ended that were replaced. Each time signs a list, and receivers fetch one each ten minutes.
pub const SUPERSEDED_INTERVAL: Duration = Duration::from_secs(600);
/// Certificates by renewal that one holder may have beside the one it shows: two attempts whose answers were lost, and
/// one more. Without a bound each would be a certificate for somebody else to use.
pub const RENEWED_VALID_MAX: usize = 3;

/// How many renewals are looked back along: of those that were all cut short.
const CHAIN_MAX: usize = 64;

/// Why a certificate does not renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    /// It is not this CA's.
    #[error("this CA has not issued the certificate")]
    Unknown,
    /// It is revoked, or one that it follows is.
    #[error("the certificate, or one that it renews, is revoked")]
    Revoked,
    /// It has ended, or no certificate of this CA has begun.
    #[error("the certificate is not good at this time")]
    NotValidNow,
    /// There are enough already.
    #[error(
        "{valid} certificates that this holder was given by renewal are valid beside this one: use the newest of them, \
         or ask again in {} s", .wait.as_secs()
    )]
    TooMany {
        /// How many.
        valid: usize,
        /// When to ask again.
        wait: Duration,
    },
}

impl Authority {
    /// Issues to the holder of `current`, a certificate that was shown with its key and judged by the front door: as the
    /// same holder, under the same names. The ledger has the last word on whether it still counts. Asked again for the same
    /// key, it gives what it gave: the answer may have been lost.
    pub fn renew(
        &self,
        current: &Identity,
        request_der: &[u8],
        now: u64,
    ) -> Result<Enrolled, IssuanceError> {
        let key = key::from_request(request_der)?;
        let serial = serial_of(current);
        Ok(self.ledger().transaction(|tx| {
            let Some(old) = tx.find(&serial)? else {
                return Ok(Err(RenewalError::Unknown));
            };
            let der = der_of(&old)?;
            // Another CA's certificate may bear any number.
            let same = thumbprint(&der) == current.thumbprint;
            let Some(id) = self
                .holder(&old)
                .filter(|id| same && *id == current.spiffe_id)
            else {
                return Ok(Err(RenewalError::Unknown));
            };
            if tx.is_chain_revoked(&serial)? {
                return Ok(Err(RenewalError::Revoked));
            }
            // One that was issued while our clock was ahead is ours all the same; not so where the clock is behind us all.
            if now > old.not_after || now < self.issuing_validity().not_before {
                return Ok(Err(RenewalError::NotValidNow));
            }
            tx.record_first_use(&serial, now)?;
            let key_sha256 = key::fingerprint(&key);
            let sans = sans_of(&der).ok_or_else(unreadable)?;
            if let Some(given) = previously_issued(tx, &id, &old, &sans, &key_sha256, now)? {
                return Enrolled::new(id, &given, true).map(Ok);
            }
            if let Err(flaw) = refuse_too_many(tx, &id, &old, now)? {
                return Ok(Err(flaw));
            }
            self.sign_next(tx, id, &old, &sans, &key, now).map(Ok)
        })??)
    }

    fn sign_next(
        &self,
        tx: &LedgerTx<'_>,
        id: SpiffeId,
        old: &Entry,
        sans: &[San],
        key: &SubjectPublicKeyInfo,
        now: u64,
    ) -> Result<Enrolled, Error> {
        let signed = self.sign_leaf(&id, sans, next_lifetime(tx, old)?, key, now)?;
        let entry = Entry {
            renews: Some(old.serial.clone()),
            ..signed.entry(&id, &id.to_string(), now)
        };
        record_issued(tx, &id, &entry, None)?;
        Enrolled::new(id, &entry, false)
    }

    /// Notes that somebody has shown this certificate with its key: it is in use.
    pub fn record_use(&self, shown: &Identity, now: u64) -> Result<(), Error> {
        self.ledger()
            .transaction(|tx| tx.record_first_use(&serial_of(shown), now))
    }

    /// The certificates that were shown to us, by serial, and when first: epoch seconds.
    pub fn first_uses(&self) -> Result<Vec<(String, u64)>, Error> {
        self.ledger().transaction(|tx| tx.first_uses())
    }

    /// Revokes, as superseded, what a renewal has replaced and what of renewals was never used. One transaction and one list
    /// a CA for all of them: a fleet of 100,000 replaces one each four seconds, and no list could be signed for each.
    pub fn revoke_superseded(&self, now: u64) -> Result<Revocation, Error> {
        let over = self.ledger().transaction(|tx| tx.superseded(now))?;
        if over.is_empty() {
            return Ok(Revocation::default());
        }
        self.revoke_all(&over, Reason::Superseded, now)
    }
}

/// How long a certificate lives that follows this one: as long as this was to live, so that who was given 90 days is not
/// one who has to renew each week. Where its issuer's end cut it short, the one before says it.
fn next_lifetime(tx: &LedgerTx<'_>, old: &Entry) -> Result<Duration, Error> {
    let mut entry = old.clone();
    for _ in 0..CHAIN_MAX {
        let issuer = tx.find(&entry.issuer)?;
        let is_cut = issuer.is_none_or(|issuer| entry.not_after >= issuer.not_after);
        if !is_cut {
            let secs = entry.not_after.saturating_sub(entry.issued_at);
            return Ok(Duration::from_secs(
                secs.clamp(LIFETIME_SECS_MIN, LIFETIME_SECS_MAX),
            ));
        }
        let before = entry.renews.as_deref().map(|serial| tx.find(serial));
        match before.transpose()?.flatten() {
            Some(before) => entry = before,
            None => break,
        }
    }
    Ok(match is_enrolled_by_token(&entry) {
        true => LEAF_LIFETIME,
        false => Duration::from_secs(LEAF_LIFETIME_SECS),
    })
}

fn serial_of(identity: &Identity) -> String {
    hex::encode(strip_sign(&identity.serial))
}

/// What a renewal gave this holder for the same key and the same names, whichever of its certificates it showed; and where it
/// keeps its key, `old` itself, if that was just given. Not what is itself due for renewal, begins only in the future, or will
/// never renew.
fn previously_issued(
    tx: &LedgerTx<'_>,
    id: &SpiffeId,
    old: &Entry,
    sans: &[San],
    key_sha256: &str,
    now: u64,
) -> Result<Option<Entry>, Error> {
    let is_fresh = |entry: &Entry| {
        let life = entry.not_after.saturating_sub(entry.not_before);
        entry.is_live(now) && (entry.not_before..entry.not_before + life / 3 * 2).contains(&now)
    };
    let generations = tx.generations()?;
    let is_by_current = |entry: &Entry| {
        generations
            .iter()
            .any(|ca| ca.phase == Phase::Current && ca.entry.serial == entry.issuer)
    };
    let is_just_given = now < old.issued_at.saturating_add(OVERLAP.as_secs());
    // In the order they were issued: what came before `old` is no answer to whoever has that.
    let mut given = tx.live_certificates(id.role, &id.name, now)?;
    let since = given.iter().position(|entry| entry.serial == old.serial);
    given.drain(..since.unwrap_or(0));
    given.retain(|entry| {
        entry.renews.is_some()
            && entry.key_sha256 == key_sha256
            && (entry.serial != old.serial || is_just_given)
            && is_fresh(entry)
            && is_by_current(entry)
    });
    for entry in given.into_iter().rev() {
        let has_names = sans_of(&der_of(&entry)?).is_some_and(|found| found == sans);
        if has_names && !tx.is_chain_revoked(&entry.serial)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn refuse_too_many(
    tx: &LedgerTx<'_>,
    id: &SpiffeId,
    shown: &Entry,
    now: u64,
) -> Result<Result<(), RenewalError>, Error> {
    let counts = |entry: &&Entry| entry.renews.is_some() && entry.serial != shown.serial;
    let live = tx.live_certificates(id.role, &id.name, now)?;
    let valid: Vec<&Entry> = live.iter().filter(counts).collect();
    if valid.len() < RENEWED_VALID_MAX {
        return Ok(Ok(()));
    }
    // Until one of them can be a leftover, and is ended.
    let left = |entry: &&Entry| {
        let over = entry.issued_at.saturating_add(OVERLAP.as_secs());
        over.saturating_sub(now).min(OVERLAP.as_secs())
    };
    let wait = Duration::from_secs(valid.iter().map(left).min().unwrap_or(0));
    Ok(Err(RenewalError::TooMany {
        valid: valid.len(),
        wait: wait + SUPERSEDED_INTERVAL,
    }))
}

/// Leaves that are over at ?1 although they have not ended, ?2 being so long before that it was time enough. Times later
/// than ?1 were written while the clock was ahead, and are over too.
const SUPERSEDED: &str = "
    old.state = 'valid' AND old.not_after >= ?1 AND old.profile NOT IN ('root', 'issuing') AND (
        EXISTS (SELECT 1 FROM certificate AS next JOIN seen USING (serial)
                WHERE next.renews = old.serial AND (seen.at <= ?2 OR seen.at > ?1))
        OR (old.renews IS NOT NULL AND (old.issued_at <= ?2 OR old.issued_at > ?1)
            AND NOT EXISTS (SELECT 1 FROM seen WHERE seen.serial = old.serial)
            AND EXISTS (SELECT 1 FROM certificate AS beside LEFT JOIN seen USING (serial)
                        WHERE beside.renews = old.renews AND beside.serial <> old.serial
                          AND (beside.rowid > old.rowid OR seen.at IS NOT NULL))))";

impl LedgerTx<'_> {
    /// Whether this certificate or one that it follows is revoked. A thief of a key may have renewed before the
    /// revocation: what came of that renews no more either. One that was replaced in good order spoils nothing.
    fn is_chain_revoked(&self, serial: &str) -> Result<bool, Error> {
        let found: Option<i64> = self.run(|t| {
            t.prepare_cached(
                "WITH RECURSIVE line (serial) AS (
                     VALUES (?1)
                     UNION
                     SELECT certificate.renews FROM certificate JOIN line USING (serial) WHERE renews IS NOT NULL
                 )
                 SELECT 1 FROM certificate JOIN line USING (serial)
                 WHERE state = ?2 AND (serial = ?1 OR coalesce(revoked_reason, 0) <> ?3) LIMIT 1",
            )?
            .query_row(
                (serial, CertState::Revoked.as_str(), Reason::Superseded.code()),
                |row| row.get(0),
            )
            .optional()
        })?;
        Ok(found.is_some())
    }

    fn record_first_use(&self, serial: &str, now: u64) -> Result<(), Error> {
        self.run(|t| {
            t.prepare_cached(
                "INSERT OR IGNORE INTO seen (serial, at) SELECT serial, ?2 FROM certificate WHERE serial = ?1",
            )?
            .execute((serial, sql(now)))
        })?;
        Ok(())
    }

    fn first_uses(&self) -> Result<Vec<(String, u64)>, Error> {
        self.run(|t| {
            t.prepare_cached("SELECT serial, at FROM seen")?
                .query_map([], |row| Ok((row.get(0)?, seconds(row, 1)?)))?
                .collect()
        })
    }

    fn superseded(&self, now: u64) -> Result<Vec<String>, Error> {
        self.run(|t| {
            t.prepare_cached(&format!(
                "SELECT serial FROM certificate AS old WHERE {SUPERSEDED} ORDER BY rowid"
            ))?
            .query_map(
                (sql(now), sql(now.saturating_sub(OVERLAP.as_secs()))),
                |row| row.get(0),
            )?
            .collect()
        })
    }
}
