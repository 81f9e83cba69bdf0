//! CRLs: when one is signed again, and what it contains.
//!
//! The issuing CA's CRL is valid for [`CRL_DAYS`] unless configured otherwise, and is signed again
//! past half of that. The root's CRL is valid to the issuing CA's end, so that the root's key can
//! be kept offline. `certs/crl.pem` is a copy of what the ledger holds: one current CRL per trusted
//! CA, the root's first.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use super::random::{RandomError, fill_random};
use super::serial::{Serial, SerialError};
use super::signer::{SignError, Signer};
use super::validity::{BACKDATE_SECS, DAY_SECS, Validity, ValidityError, date};

/// Default validity of the issuing CA's CRL, in days.
pub const CRL_DAYS: u32 = 30;
/// The same in seconds.
pub const CRL_LIFETIME_SECS: u64 = CRL_DAYS as u64 * DAY_SECS;
/// How long a revoked certificate stays on the CRL after its own end. RFC 5280 section 3.3 requires
/// it on one CRL past that end; a verifier with a slow clock needs a little more.
const LISTED_PAST_END_SECS: u64 = 2 * DAY_SECS;
/// See [`unused_number`].
const NUMBER_RANDOM_BITS: u32 = 20;
/// In 270,000 years.
const NUMBER_SECS_MAX: u64 = NUMBER_MAX >> (NUMBER_RANDOM_BITS + 1);
/// The largest number that the ledger can hold. RFC 5280 allows 20 bytes.
pub(crate) const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// `certificateHold`, the only reason that can be lifted. It is used for a retired CA that can be
/// reinstated, never for a leaf.
pub(crate) const ON_HOLD: u8 = 6;

/// Why a certificate is revoked: the reasons of RFC 5280 section 5.3.1 that apply to a leaf or an
/// issuing CA of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// No reason was given.
    #[default]
    Unspecified,
    /// The private key was exposed.
    KeyCompromise,
    /// Another certificate has replaced it.
    Superseded,
    /// The host no longer exists.
    CessationOfOperation,
    /// The holder is no longer authorized.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Every reason, by number.
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

/// A CRL as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrlRecord {
    /// Serial of the CA that signed it.
    pub(crate) issuer: String,
    pub(crate) number: u64,
    pub(crate) this_update: u64,
    pub(crate) next_update: u64,
    pub(crate) pem: String,
}

/// One entry of a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevokedEntry {
    pub(crate) serial: String,
    pub(crate) revoked_at: u64,
    pub(crate) reason: Option<u8>,
}

/// Why a CRL was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// The last CRL has the highest possible number.
    #[error(
        "a CRL of `{0}` has the highest supported number: replace that CA with `lizctl rotate`"
    )]
    NumbersExhausted(String),
    /// A serial number in the ledger is malformed.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// A date cannot be encoded.
    #[error(transparent)]
    Validity(#[from] ValidityError),
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Whether a CRL has to be signed: there is none, or it is past half its life or dated in the
/// future.
pub(crate) fn is_due(current: Option<&CrlRecord>, ca: Validity, now: u64) -> bool {
    current.is_none_or(|crl| {
        let life = crl.next_update.saturating_sub(crl.this_update);
        now.saturating_sub(crl.this_update) > life / 2 || is_ahead(crl, ca, now)
    })
}

/// Whether a CRL was signed while the clock was ahead of `now`. Receivers refuse it until its date,
/// so it is signed again. Each CRL is dated [`BACKDATE_SECS`] before its signing, the difference of
/// clocks that is allowed for. A CRL of a CA that is not valid yet cannot be dated earlier.
pub(crate) fn is_ahead(crl: &CrlRecord, ca: Validity, now: u64) -> bool {
    crl.this_update > now.max(ca.not_before)
}

/// The validity of a CRL that is signed now; `None` if it would have ended already.
pub(crate) fn validity(ca: Validity, lifetime_secs: u64, now: u64) -> Option<Validity> {
    let validity = Validity {
        not_before: now.saturating_sub(BACKDATE_SECS).max(ca.not_before),
        not_after: now.saturating_add(lifetime_secs).min(ca.not_after),
    };
    (now < validity.not_after && validity.not_before < validity.not_after).then_some(validity)
}

/// A number above that of every CRL which any copy of this CA signed before `now`. Numbers rise by
/// one from the last, or from a number like this one, and no CA signs a million CRLs a second. The
/// random part keeps apart two copies that are put into use in the same second.
pub(crate) fn unused_number(now: u64) -> Result<u64, RandomError> {
    let mut random = [0; 4];
    fill_random(&mut random)?;
    let random = u64::from(u32::from_be_bytes(random)) % (1 << NUMBER_RANDOM_BITS);
    Ok(now.min(NUMBER_SECS_MAX) << NUMBER_RANDOM_BITS | random)
}

/// Signs the CRL whose number follows `last`, with the entries in `revoked`.
pub(crate) fn sign(
    signer: &Signer,
    last: u64,
    revoked: &[RevokedEntry],
    validity: Validity,
    now: u64,
) -> Result<CrlRecord, CrlError> {
    let number = last + 1;
    if number > NUMBER_MAX {
        return Err(CrlError::NumbersExhausted(
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
            .map(|row| to_params(row, now))
            .collect::<Result<_, _>>()?,
        // The identifier in the CA's certificate, however it was derived.
        key_identifier_method: KeyIdMethod::PreSpecified(signer.certificate().key_id.clone()),
    };
    let crl = signer.sign_crl(&params)?;
    Ok(CrlRecord {
        issuer: signer.certificate().serial.clone(),
        number,
        this_update: validity.not_before,
        next_update: validity.not_after,
        pem: crl.pem().map_err(SignError::from)?,
    })
}

/// The earliest end of a revoked certificate that still has to be listed.
pub(crate) fn oldest_listed_end(lifetime_secs: u64, now: u64) -> u64 {
    now.saturating_sub(LISTED_PAST_END_SECS + lifetime_secs.max(CRL_LIFETIME_SECS))
}

/// The same for a certificate that was only replaced by a renewal. A fleet may have one for each
/// holder, and CRLs are signed for them many times a day.
pub(crate) fn oldest_listed_superseded_end(now: u64) -> u64 {
    now.saturating_sub(DAY_SECS)
}

/// A revocation date in the future, from a clock that was ahead, becomes `now`.
fn to_params(row: &RevokedEntry, now: u64) -> Result<RevokedCertParams, CrlError> {
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
        // A new CRL would begin no earlier, so it must not be signed again and again.
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
