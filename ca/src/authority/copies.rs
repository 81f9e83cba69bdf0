//! A ledger that was copied, restored or left behind: what it does not know must not be undone.
//!
//! ```text
//! ledger.db is another file than before --> it is a copy: the numbers of lists go on beyond all that others may have used
//! crl.pem holds a newer list of ours ----> taken into the ledger, with what it revokes, before anything is signed or written
//! ```

use lizmon_pki::pem::{Kind, sections};
use rustls_pki_types::CertificateRevocationListDer;
use serde_json::json;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::revocation_list::RevokedCertificate;

use super::Authority;
use super::crls::{crl_of, trusted_crls};
use crate::audit::{AuditAction, AuditEvent};
use crate::crl::{self, NUMBER_MAX, ON_HOLD, Reason};
use crate::disk;
use crate::enrol::der_of;
use crate::error::Error;
use crate::ledger::{CertState, CrlRecord, Generation, LedgerOrigin, LedgerTx, UnknownRevoked};
use crate::profile::rfc3339;
use crate::signer::strip_sign;

/// Who has revoked what a list says that this ledger did not sign.
const ADOPTED_FROM_CRL: &str = "crl.pem";

impl Authority {
    /// Finds out whether the ledger is a copy of another, which may have gone on signing meanwhile.
    pub(super) fn detect_copy(&self, now: u64) -> Result<(), Error> {
        let Some(file) = LedgerOrigin::of(&self.files.ledger) else {
            return Ok(());
        };
        self.ledger.transaction(|tx| {
            let before = tx.origin()?;
            if before.as_ref().is_some_and(|place| place.file == file) {
                return Ok(());
            }
            let mut copied_at = before.and_then(|place| place.copied_at);
            // A new ledger has no lists yet, and nothing to be beyond of.
            if !tx.crls()?.is_empty() {
                let beyond = crl::unused_number(now)?;
                for ca in tx.generations()? {
                    tx.raise_crl_floor(&ca.entry.serial, beyond)?;
                }
                copied_at = Some(now);
                tracing::warn!(
                    ledger = %self.files.ledger.display(),
                    "this ledger was copied, moved or restored: what was done elsewhere since then it does not know, and \
                     the numbers of its revocation lists go on beyond {beyond}"
                );
            }
            tx.set_origin(&LedgerOrigin { file, copied_at })
        })
    }

    /// When the ledger was last found to be a copy, if it ever was.
    pub fn copied_at(&self) -> Result<Option<u64>, Error> {
        let place = self.ledger.transaction(|tx| tx.origin())?;
        Ok(place.and_then(|place| place.copied_at))
    }

    /// Certificates that were revoked and are not in the ledger.
    pub fn unknown_revoked(&self) -> Result<Vec<UnknownRevoked>, Error> {
        self.ledger.transaction(|tx| tx.unknown_revoked())
    }

    /// Takes in the lists of `crl.pem` that are ours and newer than the ledger's: then the ledger is older than they are.
    pub(super) fn adopt_crls(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        now: u64,
    ) -> Result<(), Error> {
        let Some(bytes) = disk::read_if_there(&self.files.crl)? else {
            return Ok(());
        };
        if bytes == trusted_crls(tx)?.as_bytes() {
            return Ok(());
        }
        let mut is_damaged = false;
        // What stands beside a damaged part is good.
        for section in sections(&bytes) {
            match section {
                Ok(list) if list.kind == Kind::RevocationList => {
                    self.adopt_crl(tx, generations, &list.der.into(), now)?;
                }
                Ok(_) => (),
                Err(_) => is_damaged = true,
            }
        }
        if is_damaged {
            tracing::warn!(file = %self.files.crl.display(), "it is damaged, and written anew from the ledger");
        }
        Ok(())
    }

    fn adopt_crl(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        der: &CertificateRevocationListDer<'_>,
        now: u64,
    ) -> Result<(), Error> {
        let Ok((_, list)) = CertificateRevocationList::from_der(der) else {
            return Ok(());
        };
        let Some(ca) = signer_of(generations, &list) else {
            return Ok(());
        };
        let Some(row) = row_of(ca, der, &list) else {
            return Ok(());
        };
        let held = crl_of(tx, &row.issuer)?;
        let held = held.map_or((0, 0), |held| (held.number, held.this_update));
        let is_newer = row.number > held.0 || row.this_update > held.1;
        // One of our own has the later date where the clock was ahead when it was signed.
        if !is_newer || tx.has_logged_crl(&row)? {
            return Ok(());
        }
        for entry in list.iter_revoked_certificates() {
            self.adopt_revocation(tx, ca, entry, now)?;
        }
        tracing::warn!(
            issuer = ca.entry.name,
            number = row.number,
            this_update = rfc3339(row.this_update),
            "crl.pem holds a newer list than the ledger: what it revokes is taken in, and the list is signed again"
        );
        let event = AuditEvent {
            deed: AuditAction::AdoptCrl,
            who: &self.operator,
            details: json!({"issuer": row.issuer, "number": row.number, "next-update": row.next_update}),
        };
        tx.record(&event, now)?;
        tx.raise_crl_floor(&row.issuer, row.number)?;
        if row.number > held.0 {
            tx.put_crl(&row)?;
        }
        tx.set_needs_resigning(&row.issuer, true)
    }

    fn adopt_revocation(
        &self,
        tx: &LedgerTx<'_>,
        ca: &Generation,
        entry: &RevokedCertificate<'_>,
        now: u64,
    ) -> Result<(), Error> {
        let serial = hex::encode(strip_sign(entry.raw_serial()));
        let reason = entry.reason_code().map_or(0, |(_, reason)| reason.0);
        let since = u64::try_from(entry.revocation_date.timestamp()).map_or(now, |at| at.min(now));
        // A CA that is on hold is one of a rotation, which is another matter.
        if reason == ON_HOLD {
            return Ok(());
        }
        let known = tx
            .find(&serial)?
            .filter(|known| known.issuer == ca.entry.serial);
        let is_known = known.is_some();
        let is_new = match known {
            Some(known) if known.state == CertState::Revoked => false,
            Some(known) => tx.revoke(&known.serial, reason, ADOPTED_FROM_CRL, since)?,
            None => tx.revoke_unknown(&UnknownRevoked {
                serial: serial.clone(),
                issuer: ca.entry.serial.clone(),
                revoked_at: since,
                reason: Some(reason),
                revoked_by: ADOPTED_FROM_CRL.to_owned(),
            })?,
        };
        if !is_new {
            return Ok(());
        }
        let reason = Reason::from_code(reason).unwrap_or_default();
        tx.record(
            &revoke_event(ADOPTED_FROM_CRL, &serial, is_known, reason),
            now,
        )
    }
}

/// A revocation's line. That the ledger does not know the certificate is said in it.
pub(super) fn revoke_event<'a>(
    who: &'a str,
    serial: &str,
    is_known: bool,
    reason: Reason,
) -> AuditEvent<'a> {
    AuditEvent {
        deed: if is_known {
            AuditAction::Revoke
        } else {
            AuditAction::RevokeUnknown
        },
        who,
        details: json!({"serial": serial, "reason": reason.as_str()}),
    }
}

/// Which CA of ours has signed a list.
fn signer_of<'a>(
    generations: &'a [Generation],
    list: &CertificateRevocationList<'_>,
) -> Option<&'a Generation> {
    generations.iter().find(|ca| {
        let Ok(der) = der_of(&ca.entry) else {
            return false;
        };
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
            return false;
        };
        certificate.subject().as_raw() == list.issuer().as_raw()
            && list.verify_signature(certificate.public_key()).is_ok()
    })
}

/// `None` where its number or its dates are none that we would write.
fn row_of(
    ca: &Generation,
    der: &CertificateRevocationListDer<'_>,
    list: &CertificateRevocationList<'_>,
) -> Option<CrlRecord> {
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok();
    let number = list
        .crl_number()
        .and_then(|number| u64::try_from(number).ok());
    let pem = pem::encode(&pem::Pem::new("X509 CRL", der.to_vec()));
    Some(CrlRecord {
        issuer: ca.entry.serial.clone(),
        number: number.filter(|number| *number <= NUMBER_MAX)?,
        this_update: seconds(list.last_update())?,
        next_update: seconds(list.next_update()?)?,
        pem,
    })
}
