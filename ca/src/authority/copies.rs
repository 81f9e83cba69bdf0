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
use crate::audit::{Deed, Event};
use crate::crl::{self, NUMBER_MAX, ON_HOLD, Reason};
use crate::disk;
use crate::enrol::der_of;
use crate::error::Error;
use crate::ledger::{Book, CrlRow, Generation, Place, State, UnknownRevoked};
use crate::profile::rfc3339;
use crate::signer::strip_sign;

/// Who has revoked what a list says that this ledger did not sign.
const BY_LIST: &str = "crl.pem";

impl Authority {
    /// Finds out whether the ledger is a copy of another, which may have gone on signing meanwhile.
    pub(super) fn notice_a_copy(&self, now: u64) -> Result<(), Error> {
        let Some(file) = Place::of(&self.files.ledger) else {
            return Ok(());
        };
        self.ledger.exclusive(|book| {
            let before = book.place()?;
            if before.as_ref().is_some_and(|place| place.file == file) {
                return Ok(());
            }
            let mut copied_at = before.and_then(|place| place.copied_at);
            // A new ledger has no lists yet, and nothing to be beyond of.
            if !book.crls()?.is_empty() {
                let beyond = crl::number_beyond_all(now)?;
                for ca in book.generations()? {
                    book.raise_crl_floor(&ca.entry.serial, beyond)?;
                }
                copied_at = Some(now);
                tracing::warn!(
                    ledger = %self.files.ledger.display(),
                    "this ledger was copied, moved or restored: what was done elsewhere since then it does not know, and \
                     the numbers of its revocation lists go on beyond {beyond}"
                );
            }
            book.put_place(&Place { file, copied_at })
        })
    }

    /// When the ledger was last found to be a copy, if it ever was.
    pub fn copied_at(&self) -> Result<Option<u64>, Error> {
        let place = self.ledger.exclusive(|book| book.place())?;
        Ok(place.and_then(|place| place.copied_at))
    }

    /// Certificates that were revoked and are not in the ledger.
    pub fn unknown_revoked(&self) -> Result<Vec<UnknownRevoked>, Error> {
        self.ledger.exclusive(|book| book.unknown_revoked())
    }

    /// Takes in the lists of `crl.pem` that are ours and newer than the ledger's: then the ledger is older than they are.
    pub(super) fn adopt_lists(
        &self,
        book: &Book<'_>,
        generations: &[Generation],
        now: u64,
    ) -> Result<(), Error> {
        let Some(bytes) = disk::read_if_there(&self.files.crl)? else {
            return Ok(());
        };
        if bytes == trusted_crls(book)?.as_bytes() {
            return Ok(());
        }
        let mut is_damaged = false;
        // What stands beside a damaged part is good.
        for section in sections(&bytes) {
            match section {
                Ok(list) if list.kind == Kind::RevocationList => {
                    self.adopt_list(book, generations, &list.der.into(), now)?;
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

    fn adopt_list(
        &self,
        book: &Book<'_>,
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
        let held = crl_of(book, &row.issuer)?;
        let held = held.map_or((0, 0), |held| (held.number, held.this_update));
        let is_newer = row.number > held.0 || row.this_update > held.1;
        // One of our own has the later date where the clock was ahead when it was signed.
        if !is_newer || book.has_signed(&row)? {
            return Ok(());
        }
        for entry in list.iter_revoked_certificates() {
            self.adopt_revocation(book, ca, entry, now)?;
        }
        tracing::warn!(
            issuer = ca.entry.name,
            number = row.number,
            this_update = rfc3339(row.this_update),
            "crl.pem holds a newer list than the ledger: what it revokes is taken in, and the list is signed again"
        );
        let event = Event {
            deed: Deed::AdoptCrl,
            who: &self.operator,
            details: json!({"issuer": row.issuer, "number": row.number, "next-update": row.next_update}),
        };
        book.note(&event, now)?;
        book.raise_crl_floor(&row.issuer, row.number)?;
        if row.number > held.0 {
            book.put_crl(&row)?;
        }
        book.set_to_sign_again(&row.issuer, true)
    }

    fn adopt_revocation(
        &self,
        book: &Book<'_>,
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
        let known = book
            .find(&serial)?
            .filter(|known| known.issuer == ca.entry.serial);
        let is_known = known.is_some();
        let is_new = match known {
            Some(known) if known.state == State::Revoked => false,
            Some(known) => book.revoke(&known.serial, reason, BY_LIST, since)?,
            None => book.revoke_unknown(&UnknownRevoked {
                serial: serial.clone(),
                issuer: ca.entry.serial.clone(),
                revoked_at: since,
                reason: Some(reason),
                revoked_by: BY_LIST.to_owned(),
            })?,
        };
        if !is_new {
            return Ok(());
        }
        let reason = Reason::from_code(reason).unwrap_or_default();
        book.note(&revoke_event(BY_LIST, &serial, is_known, reason), now)
    }
}

/// A revocation's line. That the ledger does not know the certificate is said in it.
pub(super) fn revoke_event<'a>(
    who: &'a str,
    serial: &str,
    is_known: bool,
    reason: Reason,
) -> Event<'a> {
    Event {
        deed: if is_known {
            Deed::Revoke
        } else {
            Deed::RevokeUnknown
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
) -> Option<CrlRow> {
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok();
    let number = list
        .crl_number()
        .and_then(|number| u64::try_from(number).ok());
    let pem = pem::encode(&pem::Pem::new("X509 CRL", der.to_vec()));
    Some(CrlRow {
        issuer: ca.entry.serial.clone(),
        number: number.filter(|number| *number <= NUMBER_MAX)?,
        this_update: seconds(list.last_update())?,
        next_update: seconds(list.next_update()?)?,
        pem,
    })
}
