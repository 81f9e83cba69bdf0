//! Replaces a CA by a backup, after checks on both. The replaced files are kept.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ca::Authority;
use super::error::{Error, RestoreError};
use super::open::Current;
use crate::files::{Access, CaFileError, CaFiles, disk};
use crate::ledger::Ledger;
use crate::ledger::audit::AuditHead;
use crate::pki::{Keyring, Signer, Unlock, is_encrypted, rfc3339};

/// The result of a restore.
#[derive(Debug)]
pub struct RestoreOutcome {
    /// The restored CA, open.
    pub authority: Authority,
    /// The folder with the replaced files, if there were any.
    pub aside: Option<PathBuf>,
    /// The newest line of its audit log.
    pub head: Option<AuditHead>,
    /// When that line was written: epoch seconds.
    pub last_recorded: u64,
}

impl Authority {
    /// Restores `copy`, which [`Self::backup`] made, into `certs`. Nothing is changed if the copy
    /// is damaged, or if `certs` holds a CA with newer records, unless `force` is set. The
    /// certificates of leaves in `certs` stay.
    ///
    /// The `crl.pem` in `certs` stays too: the CA adopts what it revokes.
    pub fn restore(
        copy: &Path,
        certs: &Path,
        unlock: Unlock,
        force: bool,
        now: u64,
    ) -> Result<RestoreOutcome, Error> {
        let from = CaFiles::new(copy);
        let checked = Self::check_copy(copy, &from)?;
        let files = CaFiles::new(certs);
        let lines = checked.audit_log()?;
        let (last, first) = (lines.last(), lines.first());
        if !force {
            refuse_to_lose_records(&files, lines.len(), first.map(|line| &line.hash))?;
        }
        let head = last.map(|line| AuditHead {
            number: line.number,
            hash: line.hash.clone(),
        });
        let last_recorded = last.map_or(0, |line| line.time);
        disk::create_certs_folder(certs)?;
        let aside = move_aside(certs, &files, &from, now)?;
        put(&from, &files, &checked)?;
        Ok(RestoreOutcome {
            authority: Self::open_with(certs, unlock, now)?,
            aside,
            head,
            last_recorded,
        })
    }

    /// An error unless a folder holds a complete CA: its files belong together, ledger and log are
    /// intact.
    fn check_copy(copy: &Path, from: &CaFiles) -> Result<Self, Error> {
        if !Self::exists(copy) {
            return Err(Error::NotFound(copy.to_owned()));
        }
        if let Some(missing) = from.essential().into_iter().find(|path| !path.exists()) {
            return Err(CaFileError::Missing(missing.clone()).into());
        }
        let checked = Self::load_read_only(copy, Unlock::default())?;
        checked.ledger.check()?;
        checked.verify_audit(None)?;
        let current = Current::read(from, &checked.generations()?)?;
        let key = Zeroizing::new(disk::read(&from.issuing_key)?);
        if !is_encrypted(&key) {
            let key = Keyring::new(Unlock::default()).read(&from.issuing_key)?;
            Signer::new(current.issuing, &from.issuing_key, key)?;
        }
        Ok(checked)
    }
}

/// An error if the folder holds a CA with records that the copy does not have. A ledger that cannot
/// be read is no obstacle: that is what a backup is for.
fn refuse_to_lose_records(
    files: &CaFiles,
    lines_of_copy: usize,
    first_of_copy: Option<&Vec<u8>>,
) -> Result<(), Error> {
    if !files.ledger.exists() || disk::is_empty(&files.ledger) {
        return Ok(());
    }
    let there = Ledger::open_read_only(&files.ledger)
        .and_then(|ledger| ledger.transaction(|tx| tx.lines()));
    let Ok(there) = there else {
        return Ok(());
    };
    let is_same_ca = there.first().map(|line| &line.hash) == first_of_copy;
    let Some(last) = there.last() else {
        return Ok(());
    };
    if !is_same_ca {
        return Err(RestoreError::OtherCa(files.ledger.clone()).into());
    }
    if there.len() > lines_of_copy {
        return Err(RestoreError::WouldLoseRecords {
            path: files.ledger.clone(),
            lines: there.len() - lines_of_copy,
            last: rfc3339(last.time),
        }
        .into());
    }
    Ok(())
}

/// Moves the files that would be replaced into a new folder; the root's key only if the copy has
/// one.
fn move_aside(
    certs: &Path,
    files: &CaFiles,
    from: &CaFiles,
    now: u64,
) -> Result<Option<PathBuf>, Error> {
    let mut goes = vec![
        files.root_certificate.clone(),
        files.issuing_certificate.clone(),
        files.issuing_key.clone(),
        files.generations.clone(),
        files.ledger.clone(),
        certs.join("ledger.db-wal"),
        certs.join("ledger.db-shm"),
    ];
    if from.root_key.exists() {
        goes.push(files.root_key.clone());
    }
    goes.retain(|path| disk::is_present(path));
    if goes.is_empty() {
        return Ok(None);
    }
    let stamp = rfc3339(now).replace(':', "");
    let mut names = (1..).map(|at| match at {
        1 => certs.join(format!("replaced-{stamp}")),
        at => certs.join(format!("replaced-{stamp}-{at}")),
    });
    let aside = names.find(|path| !disk::is_present(path));
    let aside = aside.ok_or_else(|| CaFileError::AlreadyExists(certs.to_owned()))?;
    disk::create_folder(&aside)?;
    if let Some(crl) = disk::read_if_there(&files.crl)? {
        disk::write(&aside.join("crl.pem"), &crl, Access::Public)?;
    }
    for path in goes {
        let Some(name) = path.file_name() else {
            continue;
        };
        std::fs::rename(&path, aside.join(name)).map_err(CaFileError::io("move", &path))?;
    }
    Ok(Some(aside))
}

/// Copies the files of the backup. The ledger comes last: without it there is no CA, so an
/// interrupted restore can be repeated.
fn put(from: &CaFiles, files: &CaFiles, checked: &Authority) -> Result<(), Error> {
    let copy = |from: &Path, to: &Path, access| match disk::read_if_there(from)? {
        Some(bytes) => disk::write(to, &Zeroizing::new(bytes), access),
        None => Ok(()),
    };
    let (public, secret) = (Access::Public, Access::Secret);
    copy(&from.root_certificate, &files.root_certificate, public)?;
    copy(&from.root_key, &files.root_key, secret)?;
    copy(
        &from.issuing_certificate,
        &files.issuing_certificate,
        public,
    )?;
    copy(&from.issuing_key, &files.issuing_key, secret)?;
    if !files.crl.exists() {
        copy(&from.crl, &files.crl, public)?;
    }
    if from.generations.exists() {
        disk::create_folder(&files.generations)?;
        for ca in checked.generations()? {
            let serial = &ca.entry.serial;
            copy(
                &from.generation_key(serial),
                &files.generation_key(serial),
                secret,
            )?;
        }
    }
    let half = files.ledger.with_extension("db.new");
    if disk::is_present(&half) {
        disk::remove(&half)?;
    }
    disk::create_secret(&half).map_err(CaFileError::io("create", &half))?;
    checked.ledger.copy_to(&half)?;
    std::fs::rename(&half, &files.ledger).map_err(CaFileError::io("write", &files.ledger))?;
    Ok(())
}
