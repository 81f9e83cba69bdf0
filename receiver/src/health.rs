//! Warnings for an operator: shown by health checks and logged.

use lizmon_mtls::revocation::CrlStatus;
use lizmon_mtls::trust::{LoadedCertificate, Trust, TrustWarning};
use lizmon_pki::date::rfc3339;

/// By which rules trust is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPolicy {
    /// How long past its end a CRL is accepted: seconds.
    pub crl_grace: u64,
    /// Whether CRLs are fetched: then the file of CRLs is only used at the start.
    pub fetches_crls: bool,
}

impl HealthPolicy {
    /// Every warning.
    pub fn warnings(self, trust: &Trust, now: u64) -> Vec<String> {
        let crls = trust.crls().iter();
        let crls = crls.filter_map(|crl| self.of_crl(crl, now));
        let trust_warnings = self.trust_warnings(trust).map(ToString::to_string);
        let loaded = trust.loaded();
        let ends = loaded.filter_map(|loaded| of_authority(&loaded, now));
        crls.chain(trust_warnings)
            .chain(of_own(trust, now))
            .chain(ends)
            .collect()
    }

    /// What the files hold that is not in use.
    pub fn trust_warnings(self, trust: &Trust) -> impl Iterator<Item = &TrustWarning> {
        let trust_warnings = trust.warnings().iter();
        trust_warnings.filter(move |warning| !(self.fetches_crls && warning.is_older_crl))
    }

    /// The expired CRL because of which every request is refused.
    pub fn refused_for(self, trust: &Trust, now: u64) -> Option<CrlStatus> {
        let mut crls = trust.crls().iter();
        crls.find(|crl| crl.is_required && now > self.refuses_after(crl))
            .cloned()
    }

    fn refuses_after(self, crl: &CrlStatus) -> u64 {
        crl.next_update.saturating_add(self.crl_grace)
    }

    fn of_crl(self, crl: &CrlStatus, now: u64) -> Option<String> {
        if !crl.is_required || !crl.is_due(now) {
            return None;
        }
        let (issuer, end) = (&crl.issuer, rfc3339(crl.next_update));
        let last = rfc3339(self.refuses_after(crl));
        let cure =
            "any lizctl command on the CA's folder, with the issuer's key there, signs a new one";
        Some(if now > self.refuses_after(crl) {
            format!(
                "the CRL of {issuer} has expired: EXPIRED, refusing everyone since {last}: {cure}"
            )
        } else if now > crl.next_update {
            format!(
                "the CRL of {issuer} has expired on {end}: everyone is refused from {last} on: {cure}"
            )
        } else {
            format!(
                "the CRL of {issuer} is past half its life: it ends on {end}, and everyone is refused from {last} on: {cure}"
            )
        })
    }
}

fn of_own(trust: &Trust, now: u64) -> Option<String> {
    let own = trust.own();
    own.is_late(now).then(|| match now > own.not_after {
        true => "the server certificate has expired".to_owned(),
        false => "the server certificate expires soon, and was not renewed".to_owned(),
    })
}

fn of_authority(loaded: &LoadedCertificate, now: u64) -> Option<String> {
    if !loaded.is_expiring_authority(now) {
        return None;
    }
    let (subject, end) = (&loaded.subject, rfc3339(loaded.not_after));
    let has_expired = now > loaded.not_after;
    Some(match (loaded.part, has_expired) {
        ("root", true) => format!(
            "the root {subject} is EXPIRED since {end}: what it signed is refused by other programs, and ends with it: see `lizctl rotate root --next`"
        ),
        ("root", false) => format!(
            "the root {subject} ends on {end}, and what it signed with it: replace it in time, with `lizctl rotate root --next`"
        ),
        (_, true) => format!(
            "the issuing CA {subject} is EXPIRED since {end}: every client below it is refused, see `lizctl rotate issuing --next`"
        ),
        (_, false) => format!(
            "the issuing CA {subject} ends on {end}, and every client below it is refused then: replace it in time, with `lizctl rotate issuing --next`"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    #[test]
    fn authorities_that_end() {
        let ends = |part, life: u64, left: i64| {
            let not_after = NOW.saturating_add_signed(left);
            let loaded = LoadedCertificate {
                part,
                subject: "CN=ca".to_owned(),
                not_before: not_after - life,
                not_after,
            };
            of_authority(&loaded, NOW).unwrap_or_default()
        };
        let days = |days: i64| days * DAY as i64;
        // What it is, for how many days it lives, how many are left, and what is said.
        let cases = [
            ("root", 3650, days(91), ""),
            ("root", 3650, days(89), "ends on 2027-04-14T08:00:00Z"),
            ("root", 3650, days(0), "ends on"),
            (
                "root",
                3650,
                -1,
                "the root CN=ca is EXPIRED since 2027-01-15T07:59:59Z",
            ),
            ("issuing", 365, days(91), ""),
            ("issuing", 365, days(89), "`lizctl rotate issuing --next`"),
            ("issuing", 30, days(11), ""),
            (
                "issuing",
                30,
                days(9),
                "every client below it is refused then",
            ),
            ("issuing", 30, days(-2), "EXPIRED since"),
            ("own", 90, days(1), ""),
        ];
        for (part, life, left, expected) in cases {
            let said = ends(part, life * DAY, left);
            let fits = said.contains(expected) && said.is_empty() == expected.is_empty();
            assert!(fits, "{part} {life} {left}: {said}");
        }
    }

    #[test]
    fn an_expiring_crl_names_the_day_of_refusal() {
        let judge = HealthPolicy {
            crl_grace: 3 * DAY,
            fetches_crls: false,
        };
        let crl = |is_required| CrlStatus {
            issuer: "CN=ca".to_owned(),
            number: None,
            this_update: NOW,
            next_update: NOW + 30 * DAY,
            is_required,
            is_concurrent: false,
        };
        // After how many days, and what is said of a CRL that is required.
        let cases = [
            (14, ""),
            (
                16,
                "ends on 2027-02-14T08:00:00Z, and everyone is refused from 2027-02-17T08:00:00Z on",
            ),
            (
                31,
                "has expired on 2027-02-14T08:00:00Z: everyone is refused from 2027-02-17T08:00:00Z on",
            ),
            (34, "EXPIRED, refusing everyone since 2027-02-17T08:00:00Z"),
        ];
        for (days, expected) in cases {
            let said = |is_required| judge.of_crl(&crl(is_required), NOW + days * DAY);
            let required = said(true).unwrap_or_default();
            let fits = required.contains(expected) && required.is_empty() == expected.is_empty();
            assert!(fits, "{days}: {required}");
            assert_eq!(said(false), None, "{days}");
        }
    }
}
