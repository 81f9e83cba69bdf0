//! Revocation lists at the front door: which must be there, and why one that was handed in is not taken.

use lizmon_pki::CLOCK_SKEW_SECS_MAX;
use lizmon_pki::authority::Authority;
use lizmon_pki::date::rfc3339;
use lizmon_pki::held::{self, Added};
use rustls_pki_types::CertificateDer;

pub use lizmon_pki::list::{
    CrlNumber, CrlStatus, HELD_SECS, LONG_BEFORE_SECS, RevocationList, UnusableCrl,
};

/// Why a list that was handed in is not taken, or not taken alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlRefused {
    /// Nobody whom we trust signed it.
    #[error("the list of {0} is not signed by an authority that is trusted here")]
    NotSigned(String),
    /// It is not newer than the one in force, nor the very same.
    #[error(
        "the list of {issuer} has {number}, {held} is in force: sign a new one with a higher number{}",
        if *.is_beside { ". Until that comes both hold, for number and date do not agree on which is newer" } else { "" }
    )]
    NotNewer {
        /// Whose list.
        issuer: String,
        /// The number of the one that was handed in.
        number: String,
        /// The highest number in force.
        held: String,
        /// Whether it was taken beside that one.
        is_beside: bool,
    },
    /// It has ended already, or has not begun.
    #[error("the list of {0} is not in force now: sign a new one, and look at both clocks")]
    NotNow(String),
}

/// What a reader of logs wants to know of lists.
pub fn in_words(lists: &[CrlStatus]) -> String {
    let words = lists.iter().map(|list| {
        let number = list.number.as_ref();
        let number =
            number.map_or_else(|| "without a number".to_owned(), |n| format!("number {n}"));
        let (from, to) = (rfc3339(list.this_update), rfc3339(list.next_update));
        format!("{} {number} from {from} to {to}", list.issuer)
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Adds a list that was handed in to those in force, if it may be; what is said of it goes by what was in force before.
///
/// `authorities` have been verified to be what they say; see [`lizmon_pki::authority::verified`].
pub fn take(
    in_force: &mut Vec<RevocationList>,
    mut list: RevocationList,
    authorities: &[Authority],
    now: u64,
) -> Result<Added, CrlRefused> {
    let issuer = list.status().issuer.clone();
    // Who hands in all lists of a CA must not fail for one that is here already, and that nobody can sign anew.
    if in_force.iter().any(|held| held.der() == list.der()) {
        return Ok(Added::Same);
    }
    list.find_signer(authorities);
    let Some(signer) = list.signer().cloned() else {
        return Err(CrlRefused::NotSigned(issuer));
    };
    let highest = in_force
        .iter()
        .filter(|held| held.signer() == Some(&signer) && held.issuer_name() == list.issuer_name())
        .max_by_key(|held| held.status().number.clone());
    let held = highest.map(|held| held.status().numbered());
    let not_newer = |is_beside| CrlRefused::NotNewer {
        issuer: issuer.clone(),
        number: list.status().numbered(),
        held: held.clone().unwrap_or_default(),
        is_beside,
    };
    if held::would_be(in_force, &list) == Added::Older {
        return Err(not_newer(false));
    }
    let status = list.status();
    if status.next_update < now || status.this_update > now + CLOCK_SKEW_SECS_MAX {
        return Err(CrlRefused::NotNow(issuer.clone()));
    }
    // A number that was used before is refused even where nothing is lost by it: the CA is to sign a higher one.
    let is_reused = in_force.iter().any(|held| {
        let (held_status, key) = (held.status(), held.signer());
        let dates = |status: &CrlStatus| (status.this_update, status.next_update);
        key == Some(&signer)
            && held.issuer_name() == list.issuer_name()
            && held_status.number.is_some()
            && held_status.number == status.number
            && dates(held_status) != dates(status)
    });
    let beside = not_newer(true);
    match held::add(in_force, list) {
        Added::Newer if !is_reused => Ok(Added::Newer),
        Added::Newer | Added::Beside => Err(beside),
        added => Ok(added),
    }
}

/// Marks the lists that must not end: the roots', and those of the authorities of our own chain. Of the others those are
/// thrown away that ended [`HELD_SECS`] ago: without a list nobody of that authority is let in.
pub(crate) fn require(
    lists: &mut Vec<RevocationList>,
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: u64,
) {
    let needed = issuers(chain.iter().chain(roots));
    held::mark(lists, |list| {
        list.signer().is_some() && needed.iter().any(|name| **name == *list.issuer_name())
    });
    let is_needed = |list: &RevocationList| needed.iter().any(|name| **name == *list.issuer_name());
    lists.retain(|list| is_needed(list) || !list.status().has_long_ended(now));
}

/// The authorities whose lists are missing: of the roots, and of those who signed our own chain.
pub(crate) fn missing(
    lists: &[RevocationList],
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> Vec<String> {
    let of_root = |root: &Authority| {
        !lists.iter().any(|list| {
            list.issuer_name() == &*root.name && list.signer().is_some_and(|key| *key == root.key)
        })
    };
    let roots = roots.iter().filter_map(Authority::read);
    let mut missing: Vec<String> = roots
        .filter(of_root)
        .map(|root| root.subject.clone())
        .collect();
    for authority in chain.iter().filter_map(Authority::read) {
        let has_one = |list: &RevocationList| {
            list.signer().is_some() && *list.issuer_name() == *authority.issuer_name
        };
        if !lists.iter().any(has_one) && !missing.contains(&authority.issuer) {
            missing.push(authority.issuer);
        }
    }
    missing
}

/// The names of those who signed these, as lists bear them.
fn issuers<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'a>>) -> Vec<Box<[u8]>> {
    certificates
        .filter_map(Authority::read)
        .map(|authority| authority.issuer_name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_words() {
        let list = CrlStatus {
            issuer: "CN=root".to_owned(),
            number: None,
            this_update: 1_465_001_814,
            next_update: 1_465_005_414,
            is_required: true,
            is_beside: false,
        };
        assert_eq!(in_words(&[]), "");
        assert_eq!(
            in_words(&[list.clone(), list]),
            "CN=root without a number from 2016-06-04T00:56:54Z to 2016-06-04T01:56:54Z; CN=root without a number from 2016-06-04T00:56:54Z to 2016-06-04T01:56:54Z"
        );
    }
}
