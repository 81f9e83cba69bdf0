//! The set of CRLs in force: one for each authority and scope, or several if number and date do not
//! agree on which one is newer.
//!
//! ```text
//!  newer by number and date ──> replaces the old CRL
//!  older by number and date ──> is ignored
//!  anything else            ──> both are in force: a certificate that either revokes is revoked
//! ```
//!
//! Only CRLs that are signed by the same key are compared. A CRL in the name of an authority that
//! another key signed replaces nothing. A CRL without a number is never newer by number. It is
//! dropped when later CRLs revoke everything that it revokes. The same applies to a CRL beside a
//! later one with the same number. So each CRL in the set revokes a certificate that no other one
//! revokes, and the size of the set is limited by the number of revoked certificates.

use crate::crl::Crl;

/// The result of adding a CRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlAddition {
    /// The same CRL is already in force.
    Same,
    /// The CRL is in force, alone.
    Newer,
    /// The CRL is in force beside others. It is neither newer nor older than they are.
    Beside,
    /// A CRL that is newer by number and date is already in force.
    Older,
}

/// What [`add`] would return for this CRL, without adding it. `Newer` may turn into `Beside` in
/// [`add`].
pub fn classify(held: &[Crl], crl: &Crl) -> CrlAddition {
    classify_among(held, crl, is_pair)
}

fn classify_among(held: &[Crl], crl: &Crl, is_pair: IsPair) -> CrlAddition {
    if held.iter().any(|held| held.der() == crl.der()) {
        CrlAddition::Same
    } else if held
        .iter()
        .any(|held| is_pair(held, crl) && held.status().is_newer_than(crl.status()))
    {
        CrlAddition::Older
    } else {
        CrlAddition::Newer
    }
}

/// Adds a CRL to the set.
pub fn add(held: &mut Vec<Crl>, crl: Crl) -> CrlAddition {
    add_among(held, crl, is_pair)
}

/// Like [`add`], but compares CRLs without their signers, which are not known yet. For a client
/// that gets all CRLs from a CA that it trusts.
pub fn add_unverified(held: &mut Vec<Crl>, crl: Crl) -> CrlAddition {
    add_among(held, crl, Crl::is_of_same_scope)
}

/// Whether two CRLs are compared with each other.
type IsPair = fn(&Crl, &Crl) -> bool;

fn add_among(held: &mut Vec<Crl>, crl: Crl, is_pair: IsPair) -> CrlAddition {
    match classify_among(held, &crl, is_pair) {
        CrlAddition::Newer => (),
        other => return other,
    }
    held.retain(|held| !is_pair(held, &crl) || !crl.status().is_newer_than(held.status()));
    let der = crl.der().clone();
    held.push(crl);
    drop_covered(held, is_pair);
    let added = held.iter().find(|held| *held.der() == der);
    let is_one_of_several = added.is_none_or(|added| {
        held.iter()
            .any(|other| other.der() != added.der() && is_pair(added, other))
    });
    match is_one_of_several {
        true => CrlAddition::Beside,
        false => CrlAddition::Newer,
    }
}

/// Sets `is_concurrent` on each CRL that has a later one beside it, and `is_required` on those of
/// the others that must not expire.
pub fn mark(held: &mut [Crl], is_needed: impl Fn(&Crl) -> bool) {
    for at in 0..held.len() {
        let is_concurrent = (0..held.len())
            .any(|other| is_later(held, at, other) && is_pair(&held[at], &held[other]));
        let is_required = !is_concurrent && is_needed(&held[at]);
        let status = held[at].status_mut();
        (status.is_concurrent, status.is_required) = (is_concurrent, is_required);
    }
}

/// Whether `other` is later than `one`. If the dates are equal, the one that was added later.
fn is_later(held: &[Crl], one: usize, other: usize) -> bool {
    let when = |at: usize| (held[at].status().this_update, at);
    when(other) > when(one)
}

/// Drops each CRL that is covered by a later one of the same number. A CRL without a number is
/// dropped if the later ones together cover it.
fn drop_covered(held: &mut Vec<Crl>, is_pair: IsPair) {
    let mut at = 0;
    while at < held.len() {
        let one = &held[at];
        let number = &one.status().number;
        let later: Vec<&Crl> = (0..held.len())
            .filter(|other| is_later(held, at, *other) && is_pair(&held[at], &held[*other]))
            .map(|other| &held[other])
            .filter(|other| number.is_none() || other.status().number == *number)
            .collect();
        if !later.is_empty() && one.is_covered_by(&later) {
            held.remove(at);
        } else {
            at += 1;
        }
    }
}

fn is_pair(one: &Crl, other: &Crl) -> bool {
    one.is_of_same_scope(other) && one.signer().is_some() && one.signer() == other.signer()
}
