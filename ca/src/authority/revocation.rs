//! Ends certificates: in the ledger, on the CRLs of their own issuers, and for join tokens that wait.

use lizmon_protocol::name::{NodeName, Role};
use serde_json::json;

use super::Authority;
use super::copies::revoke_event;
use super::crls::SignedCrl;
use crate::audit::{Deed, Event};
use crate::crl::Reason;
use crate::error::Error;
use crate::ledger::{Book, Entry, Generation, State, UnknownRevoked};
use crate::profile::{Profile, Serial};

/// What a revocation did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocation {
    /// The certificates that it ended: none if all of them were revoked or over before.
    pub ended: Vec<Entry>,
    /// The certificates that it ended and that this ledger does not know, by number.
    pub ended_unknown: Vec<String>,
    /// How many join tokens it withdrew.
    pub tokens_withdrawn: usize,
    /// The CRLs that say so.
    pub crls: Vec<SignedCrl>,
}

impl Authority {
    /// Revokes one certificate and publishes the CRL that says so. Revoking it again changes nothing.
    pub fn revoke(&self, serial: &Serial, reason: Reason, now: u64) -> Result<Revocation, Error> {
        self.unlock()?;
        let serial = serial.to_string();
        let done = self.ledger.exclusive(|book| {
            let Some(entry) = book.find(&serial)? else {
                // In a ledger that was never copied nothing can be missing, so the number is wrong.
                let was_copied = book.place()?.is_some_and(|place| place.copied_at.is_some());
                if !was_copied {
                    return Err(Error::UnknownSerial(serial));
                }
                return self.end_unknown(book, &serial, reason, now);
            };
            if entry.profile == Profile::Root {
                return Err(Error::RootNotRevocable(entry.name));
            }
            let ended = if entry.state == State::Revoked {
                Vec::new()
            } else {
                vec![entry]
            };
            self.end(book, ended, 0, reason, now)
        })?;
        self.publish_crls()?;
        Ok(done)
    }

    /// Revokes every certificate of a holder that has not ended, withdraws its join tokens, and publishes the CRLs that
    /// say so. Nothing is left that could be renewed until a certificate or token is issued anew.
    pub fn revoke_holder(
        &self,
        role: Role,
        name: &NodeName,
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        self.unlock()?;
        let done = self.ledger.exclusive(|book| {
            let tokens_withdrawn = book.withdraw_tokens(role, name, now)?;
            if tokens_withdrawn == 0 && !book.knows(role, name)? {
                return Err(Error::UnknownHolder {
                    role,
                    name: name.to_string(),
                });
            }
            if tokens_withdrawn > 0 {
                let event = Event {
                    deed: Deed::TokenWithdrawn,
                    who: &self.operator,
                    details: json!({"role": role.as_str(), "name": name.as_str(), "count": tokens_withdrawn}),
                };
                book.note(&event, now)?;
            }
            self.end(book, book.live(role, name, now)?, tokens_withdrawn, reason, now)
        })?;
        self.publish_crls()?;
        Ok(done)
    }

    /// Revokes these certificates, those among them that still count, and publishes the CRLs that say so.
    pub(crate) fn end_all(
        &self,
        serials: &[String],
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        self.unlock()?;
        let done = self.ledger.exclusive(|book| {
            let mut ended = Vec::new();
            for serial in serials {
                ended.extend(book.find(serial)?.filter(|entry| entry.is_live(now)));
            }
            self.end(book, ended, 0, reason, now)
        })?;
        self.publish_crls()?;
        Ok(done)
    }

    /// Revokes a certificate that this CA signed and its ledger does not know: somebody has seen it. Revoking it again changes
    /// nothing.
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
            .exclusive(|book| self.end_unknown(book, &serial, reason, now))?;
        self.publish_crls()?;
        Ok(done)
    }

    fn end_unknown(
        &self,
        book: &Book<'_>,
        serial: &str,
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        let generations = book.generations()?;
        let mut done = Revocation::default();
        // Which of them signed it is not known, and a number that nobody has does no harm.
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
            if book.revoke_unknown(&row)? {
                book.note(&revoke_event(&self.operator, serial, false, reason), now)?;
                done.ended_unknown = vec![serial.to_owned()];
                done.crls
                    .extend(self.sign_crl(book, &generations, ca, now)?);
            }
        }
        Ok(done)
    }

    fn end(
        &self,
        book: &Book<'_>,
        ended: Vec<Entry>,
        tokens_withdrawn: usize,
        reason: Reason,
        now: u64,
    ) -> Result<Revocation, Error> {
        for entry in &ended {
            book.revoke(&entry.serial, reason.code(), &self.operator, now)?;
            let event = Event {
                deed: Deed::Revoke,
                who: &self.operator,
                details: json!({
                    "serial": entry.serial,
                    "role": entry.profile.as_str(),
                    "name": entry.name,
                    "reason": reason.as_str(),
                }),
            };
            book.note(&event, now)?;
        }
        let generations = book.generations()?;
        let mut crls = Vec::new();
        // Each on its own issuer's list: that of another generation would say nothing of it. What an issuer signed that is
        // trusted no more, nobody takes anyway.
        for ca in generations.iter().filter(|ca| ca.phase.is_trusted()) {
            if ended.iter().any(|entry| entry.issuer == ca.entry.serial) {
                crls.extend(self.sign_crl(book, &generations, ca, now)?);
            }
        }
        Ok(Revocation {
            ended,
            ended_unknown: Vec::new(),
            tokens_withdrawn,
            crls,
        })
    }
}
