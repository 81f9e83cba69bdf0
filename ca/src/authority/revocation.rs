//! Revokes certificates in the ledger and on the CRLs of their issuers, and withdraws join tokens.

use lizmon_protocol::name::{NodeName, Role};
use serde_json::json;

use super::ca::Authority;
use super::copies::revoke_event;
use super::crls::SignedCrl;
use super::error::{Error, RevokeError};
use crate::ledger::audit::{AuditAction, AuditEvent};
use crate::ledger::{CertState, Entry, Generation, LedgerTx, UnknownRevoked};
use crate::pki::{Profile, Reason, Serial};

/// The result of a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocation {
    /// The certificates that it revoked: none if all were revoked or expired before.
    pub revoked: Vec<Entry>,
    /// The serial numbers that it revoked and that this ledger does not know.
    pub revoked_unknown: Vec<String>,
    /// How many join tokens it withdrew.
    pub tokens_withdrawn: usize,
    /// The CRLs that list them.
    pub crls: Vec<SignedCrl>,
}

impl Authority {
    /// Revokes one certificate and publishes the CRL. Revoking it again changes nothing.
    pub fn revoke(&self, serial: &Serial, reason: Reason, now: u64) -> Result<Revocation, Error> {
        self.unlock()?;
        let serial = serial.to_string();
        let done = self.transaction(|tx| {
            let Some(entry) = tx.find(&serial)? else {
                // A ledger that was never copied is complete, so the serial number is wrong.
                let was_copied = tx
                    .origin()?
                    .is_some_and(|origin| origin.copied_at.is_some());
                if !was_copied {
                    return Err(RevokeError::UnknownSerial(serial).into());
                }
                return self.revoke_unknown_serial(tx, &serial, reason, now);
            };
            if entry.profile == Profile::Root {
                return Err(RevokeError::RootNotRevocable(entry.name).into());
            }
            let revoked = if entry.state == CertState::Revoked {
                Vec::new()
            } else {
                vec![entry]
            };
            self.revoke_entries(tx, revoked, 0, reason, now)
        })?;
        self.publish_crls()?;
        Ok(done)
    }

    /// Revokes every unexpired certificate of a holder, withdraws its join tokens, and publishes
    /// the CRLs. The holder cannot renew until a new certificate or token is issued to it.
    pub fn revoke_holder(
        &self,
        role: Role,
        name: &NodeName,
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        self.unlock()?;
        let done = self.transaction(|tx| {
            let tokens_withdrawn = tx.withdraw_tokens(role, name, now)?;
            if tokens_withdrawn == 0 && !tx.has_issued_to(role, name)? {
                let name = name.to_string();
                return Err(RevokeError::UnknownHolder { role, name }.into());
            }
            if tokens_withdrawn > 0 {
                let event = AuditEvent {
                    action: AuditAction::TokenWithdrawn,
                    who: &self.operator,
                    details: json!({"role": role.as_str(), "name": name.as_str(), "count": tokens_withdrawn}),
                };
                tx.record(&event, now)?;
            }
            self.revoke_entries(tx, tx.live_certificates(role, name, now)?, tokens_withdrawn, reason, now)
        })?;
        self.publish_crls()?;
        Ok(done)
    }

    /// Revokes those of these certificates that are still valid, and publishes the CRLs.
    pub(crate) fn revoke_all(
        &self,
        serials: &[String],
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        self.unlock()?;
        let done = self.transaction(|tx| {
            let mut revoked = Vec::new();
            for serial in serials {
                revoked.extend(tx.find(serial)?.filter(|entry| entry.is_live(now)));
            }
            self.revoke_entries(tx, revoked, 0, reason, now)
        })?;
        self.publish_crls()?;
        Ok(done)
    }

    /// Revokes a certificate that this CA signed, that a receiver has seen, and that is not in the
    /// ledger. Revoking it again changes nothing.
    pub fn revoke_unknown(
        &self,
        serial: &Serial,
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        self.unlock()?;
        let serial = serial.to_string();
        let done = self
            .ledger
            .transaction(|tx| self.revoke_unknown_serial(tx, &serial, reason, now))?;
        self.publish_crls()?;
        Ok(done)
    }

    fn revoke_unknown_serial(
        &self,
        tx: &LedgerTx<'_>,
        serial: &str,
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        let generations = tx.generations()?;
        let mut done = Revocation::default();
        // Which of them signed it is unknown; a serial number that no certificate has does no harm.
        let signs_leaves =
            |ca: &&Generation| ca.phase.is_trusted() && ca.entry.profile == Profile::Issuing;
        for ca in generations.iter().filter(signs_leaves) {
            let row = UnknownRevoked {
                serial: serial.to_owned(),
                issuer: ca.entry.serial.clone(),
                revoked_at: now,
                reason: Some(reason.code()),
                revoked_by: self.operator.clone(),
            };
            if tx.revoke_unknown(&row)? {
                tx.record(&revoke_event(&self.operator, serial, false, reason), now)?;
                done.revoked_unknown = vec![serial.to_owned()];
                done.crls.extend(self.sign_crl(tx, &generations, ca, now)?);
            }
        }
        Ok(done)
    }

    fn revoke_entries(
        &self,
        tx: &LedgerTx<'_>,
        revoked: Vec<Entry>,
        tokens_withdrawn: usize,
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        for entry in &revoked {
            tx.revoke(&entry.serial, reason.code(), &self.operator, now)?;
            let event = AuditEvent {
                action: AuditAction::Revoke,
                who: &self.operator,
                details: json!({
                    "serial": entry.serial,
                    "role": entry.profile.as_str(),
                    "name": entry.name,
                    "reason": reason.as_str(),
                }),
            };
            tx.record(&event, now)?;
        }
        let generations = tx.generations()?;
        let mut crls = Vec::new();
        // Each on its own issuer's CRL: that of another generation does not cover it. Certificates
        // of an issuer that is no longer trusted are refused anyway.
        for ca in generations.iter().filter(|ca| ca.phase.is_trusted()) {
            if revoked.iter().any(|entry| entry.issuer == ca.entry.serial) {
                crls.extend(self.sign_crl(tx, &generations, ca, now)?);
            }
        }
        Ok(Revocation {
            revoked,
            revoked_unknown: Vec::new(),
            tokens_withdrawn,
            crls,
        })
    }
}
