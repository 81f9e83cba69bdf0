//! Renewal: the next certificate for the holder of the current one, and the revocation of those
//! that are replaced.
//!
//! ```text
//!   C --renew--> D                  C remains valid until D was shown to liz-ca, and OVERLAP longer
//!     `-renew--> D'                 D was never shown and is older than OVERLAP: abandoned, and revoked too
//! ```
//!
//! A client that crashes before the new certificate is on disk still has the old one, however long
//! it was down: only the use of the successor ends it. CRLs are signed for many at a time, see
//! [`Authority::revoke_superseded`].

use std::time::Duration;

use lizmon_mtls::identity::{Identity, thumbprint};
use lizmon_pki::identity::Leaf;
use lizmon_protocol::name::{Attributes, SpiffeId};
use rcgen::SubjectPublicKeyInfo;

use super::ca::Authority;
use super::error::Error;
use super::issuance::{Enrolled, IssuanceError, RenewalError};
use super::issue::record_issued;
use super::lifetimes::{LEAF_LIFETIME, OVERLAP, RENEWED_VALID_MAX, SUPERSEDED_INTERVAL};
use super::revocation::Revocation;
use crate::files::CaFileError;
use crate::ledger::{Entry, LedgerTx, Phase};
use crate::pki::{
    LEAF_LIFETIME_SECS, LIFETIME_SECS_MAX, LIFETIME_SECS_MIN, Reason, San, csr, key, sans_of,
    strip_sign,
};

const UNREADABLE: &str = "a certificate in it cannot be read";

/// How many renewals that were cut short are followed back to find the intended lifetime.
const CHAIN_MAX: usize = 64;

impl Authority {
    /// Issues to the holder of `current`, which was shown with its key and accepted by the TLS
    /// acceptor: the same holder, with the same names. The ledger decides whether it is still
    /// valid. A repeated request for the same key gets the same certificate: the first answer may
    /// have been lost.
    pub fn renew(
        &self,
        current: &Identity,
        request_der: &[u8],
        now: u64,
    ) -> Result<Enrolled, IssuanceError> {
        let key = csr::public_key(request_der)?;
        let serial = serial_of(current);
        Ok(self.transaction(|tx| {
            let Some(old) = tx.find(&serial)? else {
                return Ok(Err(RenewalError::Unknown));
            };
            let der = old.der()?;
            // A certificate of another CA may have any serial number.
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
            // A certificate that was issued while our clock was ahead renews; with a clock before
            // the CA's own start nothing does.
            if now > old.not_after || now < self.issuing_validity().not_before {
                return Ok(Err(RenewalError::NotValidNow));
            }
            tx.record_first_use(&serial, now)?;
            let key_sha256 = key::fingerprint(&key);
            let names = names_of(&der)
                .ok_or_else(|| CaFileError::invalid(&self.files.ledger, UNREADABLE))?;
            if let Some(given) = previously_issued(tx, &id, &old, &names, &key_sha256, now)? {
                return Enrolled::new(id, &given, true).map(Ok);
            }
            if let Err(error) = refuse_too_many(tx, &id, &old, now)? {
                return Ok(Err(error));
            }
            self.sign_next(tx, id, &old, &names, &key, now).map(Ok)
        })??)
    }

    fn sign_next(
        &self,
        tx: &LedgerTx<'_>,
        id: SpiffeId,
        old: &Entry,
        (sans, attributes): &Names,
        key: &SubjectPublicKeyInfo,
        now: u64,
    ) -> Result<Enrolled, Error> {
        let lifetime = next_lifetime(tx, old)?;
        let signed = self.sign_leaf(&id, sans, attributes, lifetime, key, now)?;
        let entry = Entry {
            renews: Some(old.serial.clone()),
            ..signed.entry(&id, &id.to_string(), now)
        };
        record_issued(tx, &id, &entry, None)?;
        Enrolled::new(id, &entry, false)
    }

    /// Records that this certificate was shown with its key, and so is in use.
    pub fn record_use(&self, shown: &Identity, now: u64) -> Result<(), Error> {
        let serial = serial_of(shown);
        Ok(self
            .ledger
            .transaction(|tx| tx.record_first_use(&serial, now))?)
    }

    /// The certificates that were shown to `liz-ca`, by serial, and when first: epoch seconds.
    pub fn first_uses(&self) -> Result<Vec<(String, u64)>, Error> {
        Ok(self.ledger.transaction(|tx| tx.first_uses())?)
    }

    /// Revokes, as superseded, the certificates that a renewal has replaced, and abandoned
    /// renewals. All in one transaction and with one CRL for each CA: a fleet of 100,000 replaces a
    /// certificate every four seconds, too often to sign a CRL for each.
    pub fn revoke_superseded(&self, now: u64) -> Result<Revocation, Error> {
        let over = self
            .ledger
            .transaction(|tx| tx.superseded(now, now.saturating_sub(OVERLAP.as_secs())))?;
        if over.is_empty() {
            return Ok(Revocation::default());
        }
        self.revoke_all(&over, Reason::Superseded, now)
    }
}

/// The lifetime of the renewal of a certificate: as long as that one was meant to live, so that a
/// holder who was given 90 days does not have to renew every week. If the end of the issuer cut it
/// short, its predecessor decides.
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
    Ok(match entry.is_enrolled_by_token() {
        true => LEAF_LIFETIME,
        false => Duration::from_secs(LEAF_LIFETIME_SECS),
    })
}

/// Everything in a certificate that a renewal takes over, beside the identity.
type Names = (Vec<San>, Attributes);

fn names_of(der: &[u8]) -> Option<Names> {
    Some((sans_of(der)?, Leaf::read(der).ok()?.attributes))
}

fn serial_of(identity: &Identity) -> String {
    hex::encode(strip_sign(&identity.serial))
}

/// The certificate that a renewal already gave this holder for the same key and names, whichever
/// certificate it showed then. It is `old` itself if the holder keeps its key and `old` was just
/// issued. A certificate that is due for renewal, begins in the future or can never renew does not
/// count.
fn previously_issued(
    tx: &LedgerTx<'_>,
    id: &SpiffeId,
    old: &Entry,
    names: &Names,
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
    // In the order of issue: certificates before `old` are no answer to its holder.
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
        let has_names = names_of(&entry.der()?).as_ref() == Some(names);
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
    // Until one of them counts as abandoned, and is revoked.
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
