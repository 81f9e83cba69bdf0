//! Signs the CRLs of every trusted CA, with the keys wherever they are.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::ca::Authority;
use super::crl_file::{crl_of, write_crls};
use super::error::Error;
use crate::files::{CaFileError, disk};
use crate::ledger::audit::{AuditAction, AuditEvent};
use crate::ledger::{CertState, Generation, LedgerTx, Phase};
use crate::pki::crl::{self, CRL_DAYS, RevokedEntry};
use crate::pki::{CaCertificate, DAY_SECS, Profile, Reason, Signer, Validity};

/// A CRL that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCrl {
    /// Common name of the CA that signed it.
    pub issuer: String,
    /// RFC 5280 section 5.2.3: only rises.
    pub number: u64,
    /// When the next one is due at the latest: epoch seconds.
    pub next_update: u64,
}

impl Authority {
    /// Signs CRLs again that are past half their life or end too early; a root's only if its key is
    /// here.
    pub(crate) fn refresh_crls(&self, now: u64) -> Result<(), Error> {
        self.ledger
            .transaction(|tx| self.adopt_crls(tx, &tx.generations()?, now))?;
        if self.crls_are_due(now)? {
            // Not under the lock: a passphrase may have to be typed.
            self.unlock()?;
            self.sign_due(now)?;
        }
        self.publish_crls()
    }

    /// Whether a CRL whose key is here has to be signed again.
    pub fn crls_are_due(&self, now: u64) -> Result<bool, Error> {
        self.transaction(|tx| {
            let generations = tx.generations()?;
            Ok(!self.due(tx, &generations, now)?.is_empty())
        })
    }

    /// Signs the CRL of every trusted CA whose key is here, due or not. Numbers continue from
    /// `above`, or from the last one if that is higher: a receiver may hold a CRL that this CA no
    /// longer knows.
    pub fn sign_crls(&self, above: Option<u64>, now: u64) -> Result<Vec<SignedCrl>, Error> {
        self.unlock()?;
        let signed = self.transaction(|tx| {
            let generations = tx.generations()?;
            let mut signed = Vec::new();
            for ca in generations.iter().filter(|ca| ca.phase.is_trusted()) {
                let signer = match self.signer_of(&generations, ca) {
                    Err(error) if error.is_missing_key() => continue,
                    signer => signer?,
                };
                signed.extend(self.sign_crl_above(tx, &generations, &signer, above, now)?);
            }
            Ok(signed)
        })?;
        self.publish_crls()?;
        Ok(signed)
    }

    /// Sets the validity of the issuing CAs' CRLs in days, from the next one on. Make it long where
    /// nothing signs them automatically.
    pub fn set_crl_days(&self, days: u32) -> Result<(), Error> {
        Ok(self.ledger.transaction(|tx| tx.set_crl_days(days))?)
    }

    /// When the issuing CA's current CRL ends: epoch seconds.
    pub fn crls_end(&self) -> Result<Option<u64>, Error> {
        let end = |tx: &LedgerTx<'_>| crl_of(tx, &self.issuing.serial);
        let current = self.ledger.transaction(|tx| end(tx))?;
        Ok(current.map(|crl| crl.next_update))
    }

    fn sign_due(&self, now: u64) -> Result<(), Error> {
        self.transaction(|tx| {
            let generations = tx.generations()?;
            for ca in self.due(tx, &generations, now)? {
                match self.sign_crl(tx, &generations, ca, now) {
                    // A rotation must be finishable after the old CA's key was lost.
                    Err(error) if error.is_missing_key() => {}
                    done => drop(done?),
                }
            }
            Ok(())
        })
    }

    /// The trusted CAs whose CRL has to be signed again and whose key is here.
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

    /// Signs the next CRL of a CA; `None` if the CA has expired: its last CRL remains.
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

    /// The same with a key that is loaded.
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
            // A root's CRL is valid to the end of the CAs below it, so that its key can be offline
            // until then.
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
                "signing a CRL again that was signed while the clock was ahead: receivers enforce both until the new one has the later date"
            );
        }
        let last = current.as_ref().map_or(0, |crl| crl.number);
        let beyond = above.map_or_else(|| tx.crl_floor(&ca.serial), Ok)?;
        let row = crl::sign(signer, last.max(beyond), &revoked, validity, now)?;
        tx.put_crl(&row)?;
        tx.set_needs_resigning(&ca.serial, false)?;
        let event = AuditEvent {
            action: AuditAction::SignCrl,
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

    /// Writes `crl.pem` if it differs from the ledger; under the lock, so that an older one never
    /// wins.
    pub(super) fn publish_crls(&self) -> Result<(), Error> {
        self.ledger.transaction(|tx| write_crls(&self.files, tx))
    }

    /// A CA with its key, wherever the key is.
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
                Err(error) => last = Some(error.into()),
            }
        }
        // A key that does not match says more than a missing one.
        Err(last.unwrap_or_else(|| match ca.entry.profile {
            Profile::Root => Error::RootKeyMissing(self.files.root_key.clone()),
            _ => CaFileError::Missing(self.files.generation_key(&ca.entry.serial)).into(),
        }))
    }

    /// Where a CA's key may be. The file named on the command line may hold the key of any root.
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

/// The issuing CAs below a root that are no longer trusted: on hold while they can be reinstated,
/// then revoked for good.
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

/// The latest end of the trusted issuing CAs that a root signed; `None` for an issuing CA.
fn last_issuing_end(generations: &[Generation], root: &str) -> Option<u64> {
    generations
        .iter()
        .filter(|ca| ca.entry.profile == Profile::Issuing && ca.phase.is_trusted())
        .filter(|ca| ca.entry.issuer == root)
        .map(|ca| ca.entry.not_after)
        .max()
}
