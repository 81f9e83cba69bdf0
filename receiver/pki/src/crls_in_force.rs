//! Which CRLs are in force: one for each authority and part, and more where they do not agree on which is newer.
//!
//! ```text
//!  newer by number and date ──> takes its place      older by both ──> passed over
//!  anything else            ──> both are in force: what either revokes is revoked
//! ```
//!
//! CRLs are compared with those of the same key alone: whoever signs in the name of an authority with another key replaces
//! nothing. Of two CRLs without numbers none is ever newer by number; there one goes when later ones revoke all that it
//! does, as does one beside a later one of its number. So each that is held revokes something that no other one does, and there are no more than the CA has revoked.

use crate::crl::Crl;

/// What became of a CRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlAddition {
    /// The very same is in force.
    Same,
    /// It is in force, and nothing beside it.
    Newer,
    /// It is in force beside others, which it is neither newer nor older than.
    Beside,
    /// One that is newer by number and date is in force.
    Older,
}

/// What would become of a CRL: whether it is newer, that only [`add`] knows.
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

/// Adds a CRL to those in force.
pub fn add(held: &mut Vec<Crl>, crl: Crl) -> CrlAddition {
    add_among(held, crl, is_pair)
}

/// The same where nobody knows yet who signed what: for whoever has all CRLs from one who is trusted with that.
pub fn add_unverified(held: &mut Vec<Crl>, crl: Crl) -> CrlAddition {
    add_among(held, crl, Crl::is_of_same_scope)
}

/// Whether two CRLs are to be compared.
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

/// Marks each CRL that a later one is in force beside, and of the others those that must not end.
pub fn mark(held: &mut [Crl], is_needed: impl Fn(&Crl) -> bool) {
    for at in 0..held.len() {
        let is_concurrent = (0..held.len())
            .any(|other| is_later(held, at, other) && is_pair(&held[at], &held[other]));
        let is_required = !is_concurrent && is_needed(&held[at]);
        let status = held[at].status_mut();
        (status.is_concurrent, status.is_required) = (is_concurrent, is_required);
    }
}

/// Whether the second is later than the first. Of CRLs of one second the one that came later.
fn is_later(held: &[Crl], one: usize, other: usize) -> bool {
    let when = |at: usize| (held[at].status().this_update, at);
    when(other) > when(one)
}

/// Drops CRLs whose place another one takes without a loss: a later one of the same number that revokes all that it does,
/// or, where it has no number, later ones that do together.
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
