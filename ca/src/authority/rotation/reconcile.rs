//! Makes the CA's files follow the ledger.

use zeroize::Zeroizing;

use super::stage::{current, current_key};
use crate::authority::crl_file::write_crls;
use crate::authority::error::Error;
use crate::files::{Access, CaFiles, disk};
use crate::ledger::{Generation, LedgerTx, Phase};
use crate::pki::Profile;

/// Makes the CA's files follow the ledger, under its lock. It may be interrupted and repeated at
/// any point.
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
    Ok(tx.set_reconcile_pending(false)?)
}

/// Puts the key of the current CA in its place. The key that was there has a copy in
/// `generations/`, made before the ledger changed.
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
        return Ok(disk::remove(&comes)?);
    }
    // The current root's key is offline: another root's key must not remain in its place.
    let others = generations.iter().filter(|ca| ca.entry.profile == profile);
    for other in others {
        let copy = disk::read_if_there(&files.generation_key(&other.entry.serial))?;
        if there.is_some() && copy.map(Zeroizing::new) == there {
            return Ok(disk::remove(place)?);
        }
    }
    Ok(())
}

/// No root without its CRL: CRLs are written first if a root is added, and last if one is removed.
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
    let write_roots = || -> Result<(), Error> {
        Ok(disk::write(
            &files.root_certificate,
            roots.as_bytes(),
            Access::Public,
        )?)
    };
    if generations.iter().any(goes) {
        write_roots()?;
        write_crls(files, tx)
    } else {
        write_crls(files, tx)?;
        write_roots()
    }
}

/// Deletes the keys of CAs that will never sign again.
fn drop_keys(files: &CaFiles, generations: &[Generation]) -> Result<(), Error> {
    for ca in generations.iter().filter(|ca| ca.phase == Phase::Gone) {
        let key = files.generation_key(&ca.entry.serial);
        if disk::is_present(&key) {
            disk::remove(&key)?;
        }
    }
    // Fails, as it should, while a key is in it.
    let _ = std::fs::remove_dir(&files.generations);
    Ok(())
}
