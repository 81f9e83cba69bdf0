//! Validity periods, and times as certificates hold them.

pub use lizmon_pki::credentials::Validity;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;

/// How far before now a certificate or CRL starts: the clocks of a fleet differ a little.
pub const BACKDATE_SECS: u64 = lizmon_pki::CLOCK_SKEW_SECS_MAX;
/// Default lifetime of a leaf from `lizctl`.
pub const LEAF_LIFETIME_SECS: u64 = 90 * DAY_SECS;
/// Seconds in a day.
pub const DAY_SECS: u64 = 86_400;
/// Shortest lifetime that can be requested.
pub const LIFETIME_SECS_MIN: u64 = 60;
/// Longest lifetime that can be requested: 100 years.
pub const LIFETIME_SECS_MAX: u64 = 36_525 * DAY_SECS;

/// The validity period of a new certificate: from [`BACKDATE_SECS`] before `now` to `lifetime_secs`
/// after it, cut to the issuer's own period.
pub(crate) fn validity_from(
    now: u64,
    lifetime_secs: u64,
    issuer: Option<Validity>,
) -> Result<Validity, ValidityError> {
    if !(LIFETIME_SECS_MIN..=LIFETIME_SECS_MAX).contains(&lifetime_secs) {
        return Err(ValidityError::Lifetime(lifetime_secs));
    }
    let (not_before, not_after) = (
        now.saturating_sub(BACKDATE_SECS),
        now.checked_add(lifetime_secs)
            .ok_or(ValidityError::Clock(now))?,
    );
    Ok(match issuer {
        None => Validity {
            not_before,
            not_after,
        },
        Some(issuer) => Validity {
            not_before: not_before.max(issuer.not_before),
            not_after: not_after.min(issuer.not_after),
        },
    })
}

/// Why a validity period cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// Too short or too long.
    #[error("a lifetime of {0} s is out of range: give at least a minute and at most 100 years")]
    Lifetime(u64),
    /// A time that no certificate can hold.
    #[error("a certificate cannot hold the time {0} s since 1970: set the clock")]
    Clock(u64),
}

/// The validity period that a certificate states.
pub(crate) fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    Validity {
        not_before: seconds(certificate.validity().not_before),
        not_after: seconds(certificate.validity().not_after),
    }
}

/// Epoch seconds as rcgen wants them.
pub(crate) fn date(epoch: u64) -> Result<OffsetDateTime, ValidityError> {
    i64::try_from(epoch)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(ValidityError::Clock(epoch))
}

pub(crate) use lizmon_pki::date::rfc3339;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validities_stay_within_the_issuers() {
        const NOW: u64 = 1_800_000_000;
        let issuer = Validity {
            not_before: NOW - 100,
            not_after: NOW + 1000,
        };
        let cases = [
            (60, None, Some((NOW - BACKDATE_SECS, NOW + 60))),
            (60, Some(issuer), Some((NOW - 100, NOW + 60))),
            (1000, Some(issuer), Some((NOW - 100, NOW + 1000))),
            (1001, Some(issuer), Some((NOW - 100, NOW + 1000))),
            (59, None, None),
            (0, None, None),
            (
                LIFETIME_SECS_MAX,
                None,
                Some((NOW - 300, NOW + LIFETIME_SECS_MAX)),
            ),
            (LIFETIME_SECS_MAX + 1, None, None),
        ];
        for (lifetime, issuer, expected) in cases {
            let got = validity_from(NOW, lifetime, issuer).ok();
            assert_eq!(
                got.map(|v| (v.not_before, v.not_after)),
                expected,
                "{lifetime}"
            );
        }
    }
}
