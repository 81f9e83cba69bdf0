//! Which holders the next step of a rotation would leave behind.

use std::collections::{BTreeMap, HashSet};

use super::stage::{PendingHolder, Stage, in_phase, serials};
use crate::authority::error::Error;
use crate::ledger::{Entry, Generation, LedgerTx, Phase};
use crate::pki::{CaKind, Profile, sans_of};

/// How long a program takes at most to load replaced files: it checks them every 10 s.
const RELOAD_SECS_MAX: u64 = 15;

/// The holders that the next step would leave behind.
pub(super) fn waiting(
    tx: &LedgerTx<'_>,
    generations: &[Generation],
    stage: Stage,
    rotated: Option<CaKind>,
    now: u64,
) -> Result<Vec<PendingHolder>, Error> {
    match (stage, rotated) {
        (Stage::InUse, _) => holders_of(tx, generations, Phase::Old, now),
        // A new root comes with each renewal: a holder that has not renewed since may not know it.
        (Stage::Published, Some(CaKind::Root)) => {
            let next = serials(in_phase(generations, Phase::Next));
            let entries = tx.entries()?;
            // In the order of issue, which also tells apart what happened in one second.
            let before = entries
                .iter()
                .take_while(|entry| !next.contains(&entry.serial));
            let before: HashSet<&str> = before.map(|entry| entry.serial.as_str()).collect();
            holders(tx, now, |leaf| before.contains(leaf.serial.as_str()))
        }
        _ => Ok(Vec::new()),
    }
}

/// The holders whose newest certificate was signed by an issuing CA in this phase.
pub(super) fn holders_of(
    tx: &LedgerTx<'_>,
    generations: &[Generation],
    phase: Phase,
    now: u64,
) -> Result<Vec<PendingHolder>, Error> {
    let issuers = serials(in_phase(generations, phase));
    holders(tx, now, |leaf| issuers.contains(&leaf.issuer))
}

/// The holders whose newest valid certificate matches.
fn holders(
    tx: &LedgerTx<'_>,
    now: u64,
    matches: impl Fn(&Entry) -> bool,
) -> Result<Vec<PendingHolder>, Error> {
    let mut newest = BTreeMap::new();
    for entry in tx.entries()?.into_iter().filter(|entry| entry.is_live(now)) {
        if let Profile::Leaf(role) = entry.profile {
            newest.insert((role.as_str(), entry.name.clone()), (role, entry));
        }
    }
    let found = newest.into_values().filter(|(_, entry)| matches(entry));
    found
        .map(|(role, entry)| {
            // A holder that enrolled with a token, or has renewed before, renews in the last third
            // of the lifetime.
            let renews = entry.renews_automatically();
            let life = entry.not_after.saturating_sub(entry.not_before);
            Ok(PendingHolder {
                role,
                not_after: entry.not_after,
                renews_by: renews.then(|| entry.not_before + life / 4 * 3),
                sans: sans_of(&entry.der()?).unwrap_or_default(),
                name: entry.name,
            })
        })
        .collect()
}

/// When every holder that got a certificate of the new CA has loaded it. Until then it may still
/// show the one of the old CA.
pub(super) fn retire_from(
    tx: &LedgerTx<'_>,
    generations: &[Generation],
    stage: Stage,
    now: u64,
) -> Result<Option<u64>, Error> {
    if stage != Stage::InUse {
        return Ok(None);
    }
    let old = serials(in_phase(generations, Phase::Old));
    let (mut replaced, mut newest) = (HashSet::new(), None);
    let live = tx.entries()?.into_iter();
    for entry in live.filter(|entry| entry.is_live(now)) {
        let holder = (entry.profile, entry.name);
        if old.contains(&entry.issuer) {
            replaced.insert(holder);
        } else if replaced.contains(&holder) {
            newest = newest.max(Some(entry.issued_at));
        }
    }
    Ok(newest.map(|issued| issued + RELOAD_SECS_MAX))
}
