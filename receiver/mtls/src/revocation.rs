//! CRL rules of the server: which CRLs are required, and why an uploaded CRL is rejected.

use lizmon_pki::CLOCK_SKEW_SECS_MAX;
use lizmon_pki::authority::AuthorityCertificate;
use lizmon_pki::crls_in_force::{self, CrlAddition};
use lizmon_pki::date::rfc3339;
use rustls_pki_types::CertificateDer;

pub use lizmon_pki::crl::{
    CRL_EXPIRY_WARNING_SECS, CRL_RETENTION_SECS, Crl, CrlNumber, CrlStatus, UnusableCrl,
};

/// Why an uploaded CRL is rejected, or does not replace the one in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlRefused {
    /// No trusted authority signed it.
    #[error("the CRL of {0} is not signed by a CA that is trusted here")]
    NotSigned(String),
    /// It is neither newer than the CRL in force nor identical to it.
    #[error(
        "the CRL of {issuer} has {number}, {held} is in force: sign a new one with a higher number{}",
        if *.is_concurrent { ". Until then both are in force, because number and date disagree on which is newer" } else { "" }
    )]
    NotNewer {
        /// The issuer of the CRL.
        issuer: String,
        /// The number of the uploaded CRL.
        number: String,
        /// The highest number in force.
        held: String,
        /// Whether it is now in force together with that one.
        is_concurrent: bool,
    },
    /// It has expired, or is not valid yet.
    #[error("the CRL of {0} is not valid at this time: sign a new one, and compare the clocks")]
    NotNow(String),
}

/// A summary of CRLs for logs.
pub fn in_words(crls: &[CrlStatus]) -> String {
    let words = crls.iter().map(|crl| {
        let number = crl.number.as_ref();
        let number =
            number.map_or_else(|| "without a number".to_owned(), |n| format!("number {n}"));
        let (from, to) = (rfc3339(crl.this_update), rfc3339(crl.next_update));
        format!("{} {number} from {from} to {to}", crl.issuer)
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Adds an uploaded CRL to those in force if it passes all checks. Errors refer to the CRLs that
/// were in force before.
///
/// `authorities` must be verified; see [`lizmon_pki::authority::verified`].
pub fn take(
    in_force: &mut Vec<Crl>,
    mut crl: Crl,
    authorities: &[AuthorityCertificate],
    now: u64,
) -> Result<CrlAddition, CrlRefused> {
    let issuer = crl.status().issuer.clone();
    // An upload of all CRLs of a CA must not fail because of one that is in force already and that
    // cannot be signed again.
    if in_force.iter().any(|held| held.der() == crl.der()) {
        return Ok(CrlAddition::Same);
    }
    crl.find_signer(authorities);
    let Some(signer) = crl.signer().cloned() else {
        return Err(CrlRefused::NotSigned(issuer));
    };
    let highest = in_force
        .iter()
        .filter(|held| held.signer() == Some(&signer) && held.issuer_name() == crl.issuer_name())
        .max_by_key(|held| held.status().number.clone());
    let held = highest.map(|held| held.status().numbered());
    let not_newer = |is_concurrent| CrlRefused::NotNewer {
        issuer: issuer.clone(),
        number: crl.status().numbered(),
        held: held.clone().unwrap_or_default(),
        is_concurrent,
    };
    if crls_in_force::classify(in_force, &crl) == CrlAddition::Older {
        return Err(not_newer(false));
    }
    let status = crl.status();
    if status.next_update < now || status.this_update > now + CLOCK_SKEW_SECS_MAX {
        return Err(CrlRefused::NotNow(issuer.clone()));
    }
    // A reused number is rejected even if no revocation is lost: the CA must sign a CRL with a
    // higher number.
    let is_reused = in_force.iter().any(|held| {
        let (held_status, key) = (held.status(), held.signer());
        let dates = |status: &CrlStatus| (status.this_update, status.next_update);
        key == Some(&signer)
            && held.issuer_name() == crl.issuer_name()
            && held_status.number.is_some()
            && held_status.number == status.number
            && dates(held_status) != dates(status)
    });
    let beside = not_newer(true);
    match crls_in_force::add(in_force, crl) {
        CrlAddition::Newer if !is_reused => Ok(CrlAddition::Newer),
        CrlAddition::Newer | CrlAddition::Beside => Err(beside),
        added => Ok(added),
    }
}

/// Marks the required CRLs: those of the roots and of the authorities in our own chain. Drops any
/// other CRL that expired [`CRL_RETENTION_SECS`] ago. Without a CRL, all certificates of that
/// authority are rejected.
pub(crate) fn require(
    crls: &mut Vec<Crl>,
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: u64,
) {
    let needed = issuers(chain.iter().chain(roots));
    crls_in_force::mark(crls, |crl| {
        crl.signer().is_some() && needed.iter().any(|name| **name == *crl.issuer_name())
    });
    let is_needed = |crl: &Crl| needed.iter().any(|name| **name == *crl.issuer_name());
    crls.retain(|crl| is_needed(crl) || !crl.status().is_past_retention(now));
}

/// The authorities whose CRLs are missing: the roots, and the issuers in our own chain.
pub(crate) fn missing(
    crls: &[Crl],
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> Vec<String> {
    let of_root = |root: &AuthorityCertificate| {
        !crls.iter().any(|crl| {
            crl.issuer_name() == &*root.name && crl.signer().is_some_and(|key| *key == root.key)
        })
    };
    let roots = roots.iter().filter_map(AuthorityCertificate::read);
    let mut missing: Vec<String> = roots
        .filter(of_root)
        .map(|root| root.subject.clone())
        .collect();
    for authority in chain.iter().filter_map(AuthorityCertificate::read) {
        let has_one =
            |crl: &Crl| crl.signer().is_some() && *crl.issuer_name() == *authority.issuer_name;
        if !crls.iter().any(has_one) && !missing.contains(&authority.issuer) {
            missing.push(authority.issuer);
        }
    }
    missing
}

/// The issuer names of these certificates, as encoded in CRLs.
fn issuers<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'a>>) -> Vec<Box<[u8]>> {
    certificates
        .filter_map(AuthorityCertificate::read)
        .map(|authority| authority.issuer_name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crl_errors_are_explained() {
        let crl = CrlStatus {
            issuer: "CN=root".to_owned(),
            number: None,
            this_update: 1_465_001_814,
            next_update: 1_465_005_414,
            is_required: true,
            is_concurrent: false,
        };
        assert_eq!(in_words(&[]), "");
        assert_eq!(
            in_words(&[crl.clone(), crl]),
            "CN=root without a number from 2016-06-04T00:56:54Z to 2016-06-04T01:56:54Z; CN=root without a number from 2016-06-04T00:56:54Z to 2016-06-04T01:56:54Z"
        );
    }
}
