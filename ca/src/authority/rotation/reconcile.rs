//! The files follow the ledger.

use std::path::Path;

use zeroize::Zeroizing;

use super::current;
use crate::authority::crls::write_crls;
use crate::disk::{self, Access};
use crate::error::Error;
use crate::layout::CaFiles;
use crate::ledger::{Generation, LedgerTx, Phase};
use crate::profile::Profile;

/// Brings the CA's files to what the ledger says, under its lock. May be cut off and begun again at any point.
pub(in crate::authority) fn reconcile(files: &CaFiles, tx: &LedgerTx<'_>) -> Result<(), Error> {
    if !tx.is_reconcile_pending()? {
        return Ok(());
    }
    let generations = tx.generations()?;
    for profile in [Profile::Root, Profile::Issuing] {
        reconcile_key(files, &generations, profile)?;
    }
    let issuing = current(&generations, Profile::Issuing)?;
    let pem = issuing.entry.pem.as_bytes();
    disk::write(&files.issuing_certificate, pem, Access::Public)?;
    reconcile_trust(files, tx, &generations)?;
    drop_keys(files, &generations)?;
    tx.set_reconcile_pending(false)
}

/// The key of the CA that signs is in its place. What was there has a copy among the generations, made before the
/// ledger changed.
fn reconcile_key(
    files: &CaFiles,
    generations: &[Generation],
    profile: Profile,
) -> Result<(), Error> {
    let place = current_key(files, profile);
    let there = disk::read_if_there(place)?.map(Zeroizing::new);
    let comes = files.generation_key(&current(generations, profile)?.entry.serial);
    if let Some(bytes) = disk::read_if_there(&comes)?.map(Zeroizing::new) {
        if there.as_ref() != Some(&bytes) {
            disk::write(place, &bytes, Access::Secret)?;
        }
        return disk::remove(&comes);
    }
    // The root that signs is offline: another's key must not lie in its place.
    let others = generations.iter().filter(|ca| ca.entry.profile == profile);
    for other in others {
        let copy = disk::read_if_there(&files.generation_key(&other.entry.serial))?;
        if there.is_some() && copy.map(Zeroizing::new) == there {
            return disk::remove(place);
        }
    }
    Ok(())
}

/// No root without its list: lists come first where a root is added, and go last where one is taken away.
fn reconcile_trust(
    files: &CaFiles,
    tx: &LedgerTx<'_>,
    generations: &[Generation],
) -> Result<(), Error> {
    let roots: String = generations
        .iter()
        .filter(|ca| ca.entry.profile == Profile::Root && ca.phase.is_trusted())
        .map(|ca| ca.entry.pem.as_str())
        .collect();
    let held = disk::read_if_there(&files.root_certificate)?.unwrap_or_default();
    let held = String::from_utf8_lossy(&held);
    let goes = |ca: &Generation| !ca.phase.is_trusted() && held.contains(&ca.entry.pem);
    let write_roots = || disk::write(&files.root_certificate, roots.as_bytes(), Access::Public);
    if generations.iter().any(goes) {
        write_roots()?;
        write_crls(files, tx)
    } else {
        write_crls(files, tx)?;
        write_roots()
    }
}

/// Takes away the keys of CAs that will never sign again.
fn drop_keys(files: &CaFiles, generations: &[Generation]) -> Result<(), Error> {
    for ca in generations.iter().filter(|ca| ca.phase == Phase::Gone) {
        let key = files.generation_key(&ca.entry.serial);
        if disk::is_present(&key) {
            disk::remove(&key)?;
        }
    }
    // Fails while a key is in it, and that is right.
    let _ = std::fs::remove_dir(&files.generations);
    Ok(())
}

pub(super) fn current_key(files: &CaFiles, profile: Profile) -> &Path {
    match profile {
        Profile::Root => &files.root_key,
        _ => &files.issuing_key,
    }
}
