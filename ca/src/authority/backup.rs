//! A backup: a consistent copy of the CA that is a CA itself.

use std::path::Path;

use zeroize::Zeroizing;

use super::ca::Authority;
use super::error::Error;
use crate::files::{Access, CaFileError, CaFiles, Rollback, disk};

impl Authority {
    /// Copies the CA's own files into a new folder, which can be opened as a CA. Nothing is signed
    /// meanwhile. Keys are copied as they are, encrypted or not; a key that is kept elsewhere is
    /// not copied. Neither are leaves: their certificates are in the ledger, and their keys belong
    /// to their holders.
    pub fn backup(&self, folder: &Path) -> Result<(), Error> {
        if disk::is_present(folder) {
            return Err(CaFileError::AlreadyExists(folder.to_owned()).into());
        }
        self.transaction(|tx| {
            let mut rollback = Rollback::default();
            rollback.add(folder.to_owned());
            rollback.add(folder.join("generations"));
            disk::create_folder(folder)?;
            let mut copy = |from: &Path, to: &Path, access| match disk::read_if_there(from)? {
                Some(bytes) => {
                    rollback.add(to.to_owned());
                    disk::write(to, &Zeroizing::new(bytes), access)
                }
                None => Ok(()),
            };
            let there = CaFiles::new(folder);
            for (from, to, access) in [
                (
                    &self.files.root_certificate,
                    &there.root_certificate,
                    Access::Public,
                ),
                (&self.files.root_key, &there.root_key, Access::Secret),
                (
                    &self.files.issuing_certificate,
                    &there.issuing_certificate,
                    Access::Public,
                ),
                (&self.files.issuing_key, &there.issuing_key, Access::Secret),
                (&self.files.crl, &there.crl, Access::Public),
            ] {
                copy(from, to, access)?;
            }
            if disk::is_present(&self.files.generations) {
                disk::create_folder(&there.generations)?;
                for ca in tx.generations()? {
                    let from = self.files.generation_key(&ca.entry.serial);
                    let to = there.generation_key(&ca.entry.serial);
                    copy(&from, &to, Access::Secret)?;
                }
            }
            // Created with mode 0600 before SQLite writes into it.
            disk::create_secret(&there.ledger).map_err(CaFileError::io("create", &there.ledger))?;
            rollback.add(there.ledger.clone());
            self.ledger.copy_to(&there.ledger)?;
            rollback.disarm();
            Ok(())
        })
    }
}
