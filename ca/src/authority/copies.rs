//! A ledger that was copied or restored: what it does not know must not be undone.
//!
//! ```text
//! ledger.db is another file than before --> it is a copy: CRL numbers continue above all that others may have used
//! crl.pem holds a newer CRL of ours ------> adopted into the ledger, with what it revokes, before anything is signed
//! ```

use lizmon_pki::pem::{PemKind, sections};
use rustls_pki_types::CertificateRevocationListDer;
use serde_json::json;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::revocation_list::RevokedCertificate;

use super::ca::Authority;
use super::crl_file::{crl_of, trusted_crls};
use super::error::Error;
use crate::files::disk;
use crate::ledger::audit::{AuditAction, AuditEvent};
use crate::ledger::{CertState, Generation, LedgerOrigin, LedgerTx, UnknownRevoked};
use crate::pki::crl::{self, CrlRecord, NUMBER_MAX, ON_HOLD};
use crate::pki::{Reason, rfc3339, strip_sign};

/// Who has revoked a certificate that only an adopted CRL revokes.
const ADOPTED_FROM_CRL: &str = "crl.pem";

impl Authority {
    /// Detects whether the ledger is a copy of another one, which may have continued to sign.
    pub(super) fn detect_copy(&self, now: u64) -> Result<(), Error> {
        let Some(file) = LedgerOrigin::of(&self.files.ledger) else {
            return Ok(());
        };
        self.transaction(|tx| {
            let before = tx.origin()?;
            if before.as_ref().is_some_and(|origin| origin.file == file) {
                return Ok(());
            }
            let mut copied_at = before.and_then(|origin| origin.copied_at);
            // A new ledger has no CRLs yet.
            if !tx.crls()?.is_empty() {
                let beyond = crl::unused_number(now)?;
                for ca in tx.generations()? {
                    tx.raise_crl_floor(&ca.entry.serial, beyond)?;
                }
                copied_at = Some(now);
                tracing::warn!(
                    ledger = %self.files.ledger.display(),
                    "this ledger was copied, moved or restored: it does not know what was done elsewhere since, and its CRL numbers continue above {beyond}"
                );
            }
            Ok(tx.set_origin(&LedgerOrigin { file, copied_at })?)
        })
    }

    /// When the ledger was last found to be a copy, if it ever was.
    pub fn copied_at(&self) -> Result<Option<u64>, Error> {
        let origin = self.ledger.transaction(|tx| tx.origin())?;
        Ok(origin.and_then(|origin| origin.copied_at))
    }

    /// Certificates that were revoked and are not in the ledger.
    pub fn unknown_revoked(&self) -> Result<Vec<UnknownRevoked>, Error> {
        Ok(self.ledger.transaction(|tx| tx.unknown_revoked())?)
    }

    /// Adopts the CRLs in `crl.pem` that are ours and newer than the ledger's: the ledger is then
    /// outdated.
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
        // A damaged section does not affect the others.
        for section in sections(&bytes) {
            match section {
                Ok(list) if list.kind == PemKind::Crl => {
                    self.adopt_crl(tx, generations, &list.der.into(), now)?;
                }
                Ok(_) => (),
                Err(_) => is_damaged = true,
            }
        }
        if is_damaged {
            tracing::warn!(file = %self.files.crl.display(), "crl.pem is damaged: writing it again from the ledger");
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
        // A CRL of our own has the later date if the clock was ahead when it was signed.
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
            "crl.pem holds a newer CRL than the ledger: adopted what it revokes, and the CRL is signed again"
        );
        let event = AuditEvent {
            action: AuditAction::AdoptCrl,
            who: &self.operator,
            details: json!({"issuer": row.issuer, "number": row.number, "next-update": row.next_update}),
        };
        tx.record(&event, now)?;
        tx.raise_crl_floor(&row.issuer, row.number)?;
        if row.number > held.0 {
            tx.put_crl(&row)?;
        }
        Ok(tx.set_needs_resigning(&row.issuer, true)?)
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
        // Only a rotation puts a CA on hold.
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
        let reason = Reason::from_code(reason).unwrap_or_else(|| {
            tracing::warn!(
                serial,
                code = reason,
                "unsupported reason code in an adopted CRL: recorded in the audit log as unspecified"
            );
            Reason::Unspecified
        });
        let event = revoke_event(ADOPTED_FROM_CRL, &serial, is_known, reason);
        Ok(tx.record(&event, now)?)
    }
}

/// The audit event of a revocation. It says whether the ledger knows the certificate.
pub(super) fn revoke_event<'a>(
    who: &'a str,
    serial: &str,
    is_known: bool,
    reason: Reason,
) -> AuditEvent<'a> {
    AuditEvent {
        action: if is_known {
            AuditAction::Revoke
        } else {
            AuditAction::RevokeUnknown
        },
        who,
        details: json!({"serial": serial, "reason": reason.as_str()}),
    }
}

/// The generation that signed a CRL.
fn signer_of<'a>(
    generations: &'a [Generation],
    list: &CertificateRevocationList<'_>,
) -> Option<&'a Generation> {
    generations.iter().find(|ca| {
        let Ok(der) = ca.entry.der() else {
            return false;
        };
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
            return false;
        };
        certificate.subject().as_raw() == list.issuer().as_raw()
            && list.verify_signature(certificate.public_key()).is_ok()
    })
}

/// `None` if its number or dates are not ones that we would write.
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
