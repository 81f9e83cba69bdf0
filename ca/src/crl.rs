//! Certificate revocation lists: when one is signed again, and with what in it.
//!
//! The issuing CA's lives [`CRL_DAYS`], or as long as was chosen, and is signed again past half its life. The root's runs to the
//! issuing CA's end, so that its key may be away. `certs/crl.pem` is a copy of what the ledger holds: one current
//! CRL per trusted CA, the root's first.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use crate::error::Error;
use crate::ledger::{CrlRecord, RevokedEntry};
use crate::profile::{BACKDATE_SECS, DAY_SECS, Serial, Validity, date};
use crate::signer::Signer;

/// How many days the issuing CA's CRL lives unless somebody chose otherwise.
pub const CRL_DAYS: u32 = 30;
/// The same in seconds.
pub const CRL_LIFETIME_SECS: u64 = CRL_DAYS as u64 * DAY_SECS;
/// How long a revoked certificate stays on the CRL after its own end. RFC 5280 section 3.3 wants it on one CRL past
/// that end; a verifier with a slow clock wants a little more.
const LISTED_PAST_END_SECS: u64 = 2 * DAY_SECS;
/// See [`number_beyond_all`].
const NUMBER_RANDOM_BITS: u32 = 20;
/// In 270,000 years.
const NUMBER_SECS_MAX: u64 = NUMBER_MAX >> (NUMBER_RANDOM_BITS + 1);
/// What the ledger can hold. RFC 5280 would allow 20 bytes.
pub(crate) const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// `certificateHold`, the one reason that can be lifted: for a CA that is retired and could come back, never for a leaf.
pub(crate) const ON_HOLD: u8 = 6;

/// Why a certificate is revoked, RFC 5280 section 5.3.1. The reasons that fit a leaf or an issuing CA of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// Nobody said.
    #[default]
    Unspecified,
    /// Someone else has the key.
    KeyCompromise,
    /// Another certificate took its place.
    Superseded,
    /// The host is gone.
    CessationOfOperation,
    /// It may no longer do this.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// As it is written on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    /// The reason with this number, if it is one of ours.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The number in the CRL.
    pub(crate) fn code(self) -> u8 {
        self.encoded() as u8
    }

    fn encoded(self) -> RevocationReason {
        match self {
            Self::Unspecified => RevocationReason::Unspecified,
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not one of [`Reason::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such reason: unspecified, key-compromise, superseded, cessation-of-operation or privilege-withdrawn"
)]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or(UnknownReason)
    }
}

/// Whether a CRL is past half its life or dated in the future, or there is none.
pub(crate) fn is_due(current: Option<&CrlRecord>, ca: Validity, now: u64) -> bool {
    current.is_none_or(|crl| {
        let life = crl.next_update.saturating_sub(crl.this_update);
        now.saturating_sub(crl.this_update) > life / 2 || is_ahead(crl, ca, now)
    })
}

/// Whether a CRL was signed while the clock was ahead of `now`: receivers refuse it until then, so it is signed again.
/// Each CRL is dated [`BACKDATE_SECS`] before its signing, which is what clocks may differ by. One that begins with a CA
/// that has not begun itself could not be dated any better.
pub(crate) fn is_ahead(crl: &CrlRecord, ca: Validity, now: u64) -> bool {
    crl.this_update > now.max(ca.not_before)
}

/// From when until when a CRL that is signed now is current; `None` if that is over already.
pub(crate) fn validity(ca: Validity, lifetime_secs: u64, now: u64) -> Option<Validity> {
    let validity = Validity {
        not_before: now.saturating_sub(BACKDATE_SECS).max(ca.not_before),
        not_after: now.saturating_add(lifetime_secs).min(ca.not_after),
    };
    (now < validity.not_after && validity.not_before < validity.not_after).then_some(validity)
}

/// A number that no CRL had which this CA signed before `now`, wherever it was: each rises by one from the last, or from
/// one like this, and no CA signs a million a second. What is random in it keeps two copies apart that are taken into use
/// in the same second.
pub(crate) fn unused_number(now: u64) -> Result<u64, Error> {
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::Random)?;
    let random = u64::from(u32::from_be_bytes(random)) % (1 << NUMBER_RANDOM_BITS);
    Ok(now.min(NUMBER_SECS_MAX) << NUMBER_RANDOM_BITS | random)
}

/// Signs the CRL whose number follows `last`. It names what is `revoked`.
pub(crate) fn sign(
    signer: &Signer,
    last: u64,
    revoked: &[RevokedEntry],
    validity: Validity,
    now: u64,
) -> Result<CrlRecord, Error> {
    let number = last + 1;
    if number > NUMBER_MAX {
        return Err(Error::CrlNumbersUsedUp(
            signer.certificate().common_name.clone(),
        ));
    }
    let params = CertificateRevocationListParams {
        this_update: date(validity.not_before)?,
        next_update: date(validity.not_after)?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .iter()
            .map(|row| named(row, now))
            .collect::<Result<_, _>>()?,
        // The identifier that stands in the CA's certificate, however that was derived.
        key_identifier_method: KeyIdMethod::PreSpecified(signer.certificate().key_id.clone()),
    };
    let crl = signer.sign_crl(&params)?;
    Ok(CrlRecord {
        issuer: signer.certificate().serial.clone(),
        number,
        this_update: validity.not_before,
        next_update: validity.not_after,
        pem: crl.pem()?,
    })
}

/// Earliest end of a revoked certificate that still has to be named.
pub(crate) fn oldest_listed_end(lifetime_secs: u64, now: u64) -> u64 {
    now.saturating_sub(LISTED_PAST_END_SECS + lifetime_secs.max(CRL_LIFETIME_SECS))
}

/// The same of what was only replaced by a renewal: there may be one of each holder in a fleet, and a list is signed for
/// them many times a day.
pub(crate) fn oldest_listed_superseded_end(now: u64) -> u64 {
    now.saturating_sub(DAY_SECS)
}

/// What was revoked while the clock was ahead is revoked now, and not some day.
fn named(row: &RevokedEntry, now: u64) -> Result<RevokedCertParams, Error> {
    let reason = match row.reason {
        Some(ON_HOLD) => Some(RevocationReason::CertificateHold),
        code => code.and_then(Reason::from_code).map(Reason::encoded),
    };
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(row.serial.parse::<Serial>()?.as_bytes()),
        revocation_time: date(row.revoked_at.min(now))?,
        reason_code: reason,
        invalidity_date: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_crl_is_due_past_half_its_life_and_where_it_is_dated_in_the_future() {
        let ca = |not_before| Validity {
            not_before,
            not_after: NOW + 1000,
        };
        let crl = |this_update, next_update| CrlRecord {
            issuer: String::new(),
            number: 1,
            this_update,
            next_update,
            pem: String::new(),
        };
        let cases = [
            (None, true),
            (Some(crl(NOW, NOW + 100)), false),
            (Some(crl(NOW - 50, NOW + 50)), false),
            (Some(crl(NOW - 51, NOW + 50)), true),
            (Some(crl(NOW - 100, NOW - 1)), true),
            // The clock was set back.
            (Some(crl(NOW + 1, NOW + 100)), true),
            (Some(crl(NOW + 100 * DAY_SECS, NOW + 130 * DAY_SECS)), true),
        ];
        for (current, due) in cases {
            let found = is_due(current.as_ref(), ca(NOW - 1000), NOW);
            assert_eq!(found, due, "{current:?}");
        }
        // Signed again it would begin no earlier: nothing would be gained, again and again.
        let with_its_ca = crl(NOW + 10, NOW + 100);
        assert!(!is_due(Some(&with_its_ca), ca(NOW + 10), NOW));
        assert!(is_due(Some(&with_its_ca), ca(NOW + 9), NOW));
    }

    #[test]
    fn a_crl_stays_within_its_ca() {
        let ca = Validity {
            not_before: NOW - 100,
            not_after: NOW + 1000,
        };
        let cases = [
            (NOW, Some((NOW - 100, NOW + 500))),
            (NOW + 400, Some((NOW + 100, NOW + 900))),
            (NOW + 900, Some((NOW + 600, NOW + 1000))),
            (NOW + 999, Some((NOW + 699, NOW + 1000))),
            (NOW + 1000, None),
            (NOW + 5000, None),
        ];
        for (now, expected) in cases {
            let got = validity(ca, 500, now).map(|v| (v.not_before, v.not_after));
            assert_eq!(got, expected, "{now}");
        }
    }

    #[test]
    fn reasons_are_read_as_they_are_written() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert_eq!("certificate-hold".parse::<Reason>(), Err(UnknownReason));
    }
}
