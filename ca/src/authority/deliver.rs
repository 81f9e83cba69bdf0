//! Copies what holders' machines need into a folder.

use std::path::{Path, PathBuf};

use lizmon_pki::pem;
use lizmon_protocol::name::{NodeName, Role};
use rcgen::{KeyPair, PublicKeyData};
use zeroize::Zeroizing;

use super::ca::Authority;
use super::error::Error;
use super::issue::Issued;
use crate::files::{Access, LeafFiles, NewFile, disk, write_all};
use crate::pki::key;

impl Authority {
    /// Copies certificates with the keys that were generated here, the root's certificate and the
    /// CRLs into a folder. Returns the certificates' copies.
    pub fn deliver(&self, issued: &[Issued], folder: &Path) -> Result<Vec<PathBuf>, Error> {
        disk::create_folder(folder)?;
        // Under the lock, so that key and certificate of a name are those of one process.
        self.transaction(|_| {
            let mut copies = Vec::new();
            for (file, name) in [
                (&self.files.root_certificate, "root.crt"),
                (&self.files.crl, "crl.pem"),
            ] {
                copies.push((folder.join(name), read(file)?, Access::Public));
            }
            let mut certificates = Vec::new();
            for one in issued {
                let name = &one.spiffe_id.name;
                if let Some(key) = &one.key_path {
                    let copy = folder.join(format!("{name}.key"));
                    copies.push((copy, read(key)?, Access::Secret));
                }
                // Last: when it is there, everything is.
                let copy = folder.join(format!("{name}.crt"));
                certificates.push(copy.clone());
                copies.push((copy, read(&one.certificate_path)?, Access::Public));
            }
            let files = copies
                .iter()
                .map(|(place, bytes, access)| NewFile::new(place, bytes, *access));
            write_all(folder, &files.collect::<Vec<_>>())?;
            Ok(certificates)
        })
    }
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    Ok(Zeroizing::new(disk::read(file)?))
}

/// Whether a holder has its certificate below `certs`. A key beside it that is another's is what a
/// process left that was killed between the two.
pub fn has_leaf(certs: &Path, role: Role, name: &NodeName) -> Result<bool, Error> {
    let files = LeafFiles::new(certs, role, name);
    let Some(chain) = disk::read_if_there(&files.certificate)? else {
        return Ok(false);
    };
    let Some(key) = disk::read_if_there(&files.key)?.map(Zeroizing::new) else {
        return Ok(true);
    };
    let certified = pem::certificates(&chain)
        .ok()
        .and_then(|chain| key::certified_by(chain.first()?));
    let there = pem::private_key(&key)
        .ok()
        .and_then(|der| KeyPair::try_from(&der).ok())
        .map(|key| key.subject_public_key_info());
    Ok(certified.is_some() && certified == there)
}
