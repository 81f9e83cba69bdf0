//! CRLs of every CA that is trusted, signed by their own keys wherever those are.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::Authority;
use crate::audit::{AuditAction, AuditEvent};
use crate::crl::{self, CRL_DAYS, Reason};
use crate::disk::{self, Access};
use crate::error::Error;
use crate::layout::CaFiles;
use crate::ledger::{CertState, CrlRecord, Generation, LedgerTx, Phase, RevokedEntry};
use crate::profile::{DAY_SECS, Profile, Validity};
use crate::signer::{CaCertificate, Signer};

/// A CRL that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCrl {
    /// Common name of the CA.
    pub issuer: String,
    /// RFC 5280 section 5.2.3: only rises.
    pub number: u64,
    /// By when the next one has to be there: epoch seconds.
    pub next_update: u64,
}

impl Authority {
    /// Signs CRLs again that are past half their life, or end too early; a root's only where its key is.
    pub(crate) fn refresh_crls(&self, now: u64) -> Result<(), Error> {
        self.ledger
            .transaction(|tx| self.adopt_crls(tx, &tx.generations()?, now))?;
        if self.crls_are_due(now)? {
            // Whoever has to type a passphrase must not hold the ledger meanwhile.
            self.unlock()?;
            self.sign_due(now)?;
        }
        self.publish_crls()
    }

    /// Whether a list has to be signed again whose key is here.
    pub fn crls_are_due(&self, now: u64) -> Result<bool, Error> {
        self.ledger.transaction(|tx| {
            let generations = tx.generations()?;
            Ok(!self.due(tx, &generations, now)?.is_empty())
        })
    }

    /// Signs the list of every trusted CA whose key is here, due or not. Numbers go on from `above`, or from the last where
    /// that is higher: who says so knows what receivers hold that this CA has forgotten.
    pub fn sign_crls(&self, above: Option<u64>, now: u64) -> Result<Vec<SignedCrl>, Error> {
        self.unlock()?;
        let signed = self.ledger.transaction(|tx| {
            let generations = tx.generations()?;
            let mut signed = Vec::new();
            for ca in generations.iter().filter(|ca| ca.phase.is_trusted()) {
                let signer = match self.signer_of(&generations, ca) {
                    Err(Error::RootKeyAway(_) | Error::FileMissing(_)) => continue,
                    signer => signer?,
                };
                signed.extend(self.sign_crl_above(tx, &generations, &signer, above, now)?);
            }
            Ok(signed)
        })?;
        self.publish_crls()?;
        Ok(signed)
    }

    /// Lets the issuing CAs' lists live so many days from the next one on: long, where nobody is there to sign them.
    pub fn set_crl_days(&self, days: u32) -> Result<(), Error> {
        self.ledger.transaction(|tx| tx.set_crl_days(days))
    }

    /// By when somebody has to have signed the issuing CA's list again: epoch seconds.
    pub fn crls_end(&self) -> Result<Option<u64>, Error> {
        let end = |tx: &LedgerTx<'_>| crl_of(tx, &self.issuing.serial);
        let current = self.ledger.transaction(|tx| end(tx))?;
        Ok(current.map(|crl| crl.next_update))
    }

    fn sign_due(&self, now: u64) -> Result<(), Error> {
        self.ledger.transaction(|tx| {
            let generations = tx.generations()?;
            for ca in self.due(tx, &generations, now)? {
                match self.sign_crl(tx, &generations, ca, now) {
                    // Who lost the key of a CA that goes out of use must still be able to finish that.
                    Err(Error::RootKeyAway(_) | Error::FileMissing(_)) => {}
                    done => drop(done?),
                }
            }
            Ok(())
        })
    }

    /// The trusted CAs whose list has to be signed again, and whose key is not away.
    fn due<'a>(
        &self,
        tx: &LedgerTx<'_>,
        generations: &'a [Generation],
        now: u64,
    ) -> Result<Vec<&'a Generation>, Error> {
        let mut due = Vec::new();
        for ca in generations.iter().filter(|ca| ca.phase.is_trusted()) {
            let has_key = ca.entry.serial == self.issuing.serial
                || self
                    .key_paths(ca)
                    .iter()
                    .any(|place| disk::is_present(place));
            if has_key && is_due(tx, generations, ca, now)? {
                due.push(ca);
            }
        }
        Ok(due)
    }

    /// Signs the next CRL of a CA; `None` if that has ended: its last CRL stays what it is.
    pub(super) fn sign_crl(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        ca: &Generation,
        now: u64,
    ) -> Result<Option<SignedCrl>, Error> {
        let signer = self.signer_of(generations, ca)?;
        self.sign_crl_with(tx, generations, &signer, now)
    }

    /// The same, where the key is at hand.
    pub(super) fn sign_crl_with(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        signer: &Signer,
        now: u64,
    ) -> Result<Option<SignedCrl>, Error> {
        self.sign_crl_above(tx, generations, signer, None, now)
    }

    fn sign_crl_above(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        signer: &Signer,
        above: Option<u64>,
        now: u64,
    ) -> Result<Option<SignedCrl>, Error> {
        self.adopt_crls(tx, generations, now)?;
        let ca = signer.certificate();
        let chosen_secs = u64::from(tx.crl_days()?.unwrap_or(CRL_DAYS)) * DAY_SECS;
        let lifetime_secs = match last_issuing_end(generations, &ca.serial) {
            // A root's CRL runs to the end of what it has to speak for, so that its key can be away until then.
            Some(end) => end.saturating_sub(now),
            None => chosen_secs,
        };
        let Some(validity) = crl::validity(ca.validity, lifetime_secs, now) else {
            return Ok(None);
        };
        let mut revoked = tx.revoked(
            &ca.serial,
            crl::oldest_listed_end(chosen_secs, now),
            crl::oldest_listed_superseded_end(now),
        )?;
        revoked.extend(tx.unknown_revoked_by(&ca.serial)?);
        revoked.extend(untrusted(generations, &ca.serial));
        let current = crl_of(tx, &ca.serial)?;
        if current
            .as_ref()
            .is_some_and(|crl| crl::is_ahead(crl, ca.validity, now))
        {
            tracing::warn!(
                issuer = ca.common_name,
                "the revocation list was signed while the clock was ahead, and is signed again: receivers hold to both until this one's date is the later"
            );
        }
        let last = current.as_ref().map_or(0, |crl| crl.number);
        let beyond = above.map_or_else(|| tx.crl_floor(&ca.serial), Ok)?;
        let row = crl::sign(signer, last.max(beyond), &revoked, validity, now)?;
        tx.put_crl(&row)?;
        tx.set_needs_resigning(&ca.serial, false)?;
        let event = AuditEvent {
            deed: AuditAction::SignCrl,
            who: &self.operator,
            details: json!({
                "issuer": row.issuer,
                "number": row.number,
                "revoked": revoked.len(),
                "next-update": row.next_update,
            }),
        };
        tx.record(&event, now)?;
        Ok(Some(SignedCrl {
            issuer: ca.common_name.clone(),
            number: row.number,
            next_update: row.next_update,
        }))
    }

    /// Brings `crl.pem` to what the ledger holds for the CAs that are trusted: under the lock, so that an older one
    /// never wins.
    pub(super) fn publish_crls(&self) -> Result<(), Error> {
        self.ledger.transaction(|tx| write_crls(&self.files, tx))
    }

    /// A CA with its key, wherever that is.
    pub(super) fn signer_of(
        &self,
        generations: &[Generation],
        ca: &Generation,
    ) -> Result<Arc<Signer>, Error> {
        if ca.entry.serial == self.issuing.serial {
            return self.signer();
        }
        let path = &self.files.ledger;
        let read = |generation: &Generation, parent: Option<&CaCertificate>| {
            CaCertificate::from_pem(path, generation.entry.pem.as_bytes(), parent)
        };
        let parent = match ca.entry.profile {
            Profile::Root => None,
            _ => generations
                .iter()
                .find(|root| root.entry.serial == ca.entry.issuer)
                .map(|root| read(root, None))
                .transpose()?,
        };
        let certificate = read(ca, parent.as_ref())?;
        let places = self.key_paths(ca);
        let mut last = None;
        for place in places.iter().filter(|place| disk::is_present(place)) {
            match Signer::new(certificate.clone(), place, self.keyring.read(place)?) {
                Ok(signer) => return Ok(Arc::new(signer)),
                Err(error) => last = Some(error),
            }
        }
        // A key that does not fit says more than one that is nowhere.
        Err(last.unwrap_or_else(|| match ca.entry.profile {
            Profile::Root => Error::RootKeyAway(self.files.root_key.clone()),
            _ => Error::FileMissing(self.files.generation_key(&ca.entry.serial)),
        }))
    }

    /// Where a CA's key may be. The one that was named on the command line may be that of any root.
    fn key_paths(&self, ca: &Generation) -> Vec<PathBuf> {
        let own = match (ca.entry.profile, ca.phase) {
            (Profile::Root, Phase::Current) => self.files.root_key.clone(),
            _ => self.files.generation_key(&ca.entry.serial),
        };
        let named = self.keyring.unlock().root_key.clone();
        let named = named.filter(|_| ca.entry.profile == Profile::Root);
        named.into_iter().chain([own]).collect()
    }
}

/// Brings `crl.pem` to what the ledger holds.
pub(super) fn write_crls(files: &CaFiles, tx: &LedgerTx<'_>) -> Result<(), Error> {
    let current = trusted_crls(tx)?;
    if disk::read_if_there(&files.crl)?.as_deref() == Some(current.as_bytes()) {
        return Ok(());
    }
    disk::write(&files.crl, current.as_bytes(), Access::Public)
}

/// The issuing CAs below a root that are not trusted any more: on hold while that can be taken back, for good after.
fn untrusted(generations: &[Generation], root: &str) -> impl Iterator<Item = RevokedEntry> {
    let below = move |ca: &&Generation| {
        let is_issuing = ca.entry.profile == Profile::Issuing && ca.entry.issuer == root;
        is_issuing && ca.entry.state == CertState::Valid
    };
    generations.iter().filter(below).filter_map(|ca| {
        let reason = match ca.phase {
            Phase::Retired => crl::ON_HOLD,
            Phase::Gone => Reason::Superseded.code(),
            _ => return None,
        };
        Some(RevokedEntry {
            serial: ca.entry.serial.clone(),
            revoked_at: ca.since,
            reason: Some(reason),
        })
    })
}

fn is_due(
    tx: &LedgerTx<'_>,
    generations: &[Generation],
    ca: &Generation,
    now: u64,
) -> Result<bool, Error> {
    let current = crl_of(tx, &ca.entry.serial)?;
    let wanted = last_issuing_end(generations, &ca.entry.serial);
    let wanted = wanted.map(|end| end.min(ca.entry.not_after));
    let ends_early = wanted
        .is_some_and(|end| end > now && current.as_ref().is_none_or(|crl| crl.next_update < end));
    let validity = Validity {
        not_before: ca.entry.not_before,
        not_after: ca.entry.not_after,
    };
    Ok(ends_early
        || tx.needs_resigning(&ca.entry.serial)?
        || crl::is_due(current.as_ref(), validity, now))
}

/// The last end of the issuing CAs that a root signed and that are trusted; `None` for an issuing CA.
fn last_issuing_end(generations: &[Generation], root: &str) -> Option<u64> {
    generations
        .iter()
        .filter(|ca| ca.entry.profile == Profile::Issuing && ca.phase.is_trusted())
        .filter(|ca| ca.entry.issuer == root)
        .map(|ca| ca.entry.not_after)
        .max()
}

/// One CRL for each trusted CA, roots first.
pub(super) fn trusted_crls(tx: &LedgerTx<'_>) -> Result<String, Error> {
    let generations = tx.generations()?;
    let crls = tx.crls()?;
    let mut pem = String::new();
    for profile in [Profile::Root, Profile::Issuing] {
        for ca in &generations {
            let trusted = ca.entry.profile == profile && ca.phase.is_trusted();
            let of_this = |crl: &&CrlRecord| trusted && crl.issuer == ca.entry.serial;
            pem.extend(crls.iter().find(of_this).map(|crl| crl.pem.as_str()));
        }
    }
    Ok(pem)
}

pub(super) fn crl_of(tx: &LedgerTx<'_>, issuer: &str) -> Result<Option<CrlRecord>, Error> {
    Ok(tx.crls()?.into_iter().find(|crl| crl.issuer == issuer))
}
