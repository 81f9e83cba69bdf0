//! Certificate and key on disk: replaced as a pair, which a crash at any moment leaves usable.
//!
//! ```text
//! 1. write KEY.new, CERT.new    2. rename KEY.new to KEY    3. rename CERT.new to CERT
//! ```
//!
//! Before 2 the old pair stands; after 3 the new one. In between the key is new and the certificate old: [`Pair::settle`]
//! sees that they do not fit, that CERT.new does, and does step 3. Every program of ours that loads a pair settles first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use lizmon_durable::Access;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::credentials::provider;

/// Where a certificate and its key stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// PEM, the leaf first.
    pub cert: PathBuf,
    /// PKCS #8 PEM.
    pub key: PathBuf,
}

/// A file that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

impl Pair {
    /// Replaces both. Their folders must be writable.
    pub fn install(&self, chain_pem: &str, key_pem: &str) -> Result<(), FileError> {
        let _until_done = lock_folder(&self.key);
        self.stage_key(key_pem)?;
        let cert = (chain_pem.as_bytes(), Access::Public);
        write_for(&self.staged_cert(), &self.cert, cert)?;
        rename(&self.staged_key(), &self.key)?;
        match rename(&self.staged_cert(), &self.cert) {
            // Another program that loads the pair has just settled it for us.
            Err(_) if read_if_there(&self.cert)?.as_deref() == Some(chain_pem.as_bytes()) => Ok(()),
            done => done,
        }
    }

    /// Whether both could be replaced. To be asked before a certificate is: one that cannot be kept is issued for nothing.
    pub(crate) fn check_writable(&self) -> Result<(), FileError> {
        check_replaceable(&self.cert)?;
        check_replaceable(&self.key)
    }

    /// Writes a key that has no certificate yet to KEY.new: it must not be lost before its certificate comes.
    pub(crate) fn stage_key(&self, key_pem: &str) -> Result<(), FileError> {
        let key = (key_pem.as_bytes(), Access::Secret);
        write_for(&self.staged_key(), &self.key, key)
    }

    /// Finishes an [`install`](Self::install) that a crash cut short. Says whether there was anything to do.
    pub fn settle(&self) -> Result<bool, FileError> {
        let Some(staged) = read_if_there(&self.staged_cert())? else {
            return Ok(false);
        };
        let Some(key) = read_if_there(&self.key)? else {
            return Ok(false);
        };
        let cert = read_if_there(&self.cert)?.unwrap_or_default();
        if fit(&cert, &key) || !fit(&staged, &key) {
            return Ok(false);
        }
        rename(&self.staged_cert(), &self.cert).map(|()| true)
    }

    /// The key that waits for its certificate, if one does.
    pub(crate) fn waiting_key(&self) -> Result<Option<String>, FileError> {
        let bytes = read_if_there(&self.staged_key())?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// The key that is in its place, if one is.
    pub(crate) fn installed_key(&self) -> Result<Option<String>, FileError> {
        let bytes = read_if_there(&self.key)?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Forgets the key that waits.
    pub(crate) fn drop_waiting_key(&self) {
        // Best effort: a key without a certificate is nobody's.
        let _gone_or_not = fs::remove_file(self.staged_key());
    }

    fn staged_cert(&self) -> PathBuf {
        staged(&self.cert)
    }

    fn staged_key(&self) -> PathBuf {
        staged(&self.key)
    }
}

/// Waits for others who replace pairs in the same folder, `lizctl renew` beside a monitor for instance: the two would take each
/// other's halves. Where the system has no such locks, all goes on without.
fn lock_folder(path: &Path) -> Option<fs::File> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::File::open(folder.unwrap_or(Path::new("."))).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Whether this is the key of the first of these certificates.
fn fit(cert_pem: &[u8], key_pem: &[u8]) -> bool {
    let chain: Option<Vec<_>> = CertificateDer::pem_slice_iter(cert_pem)
        .map(Result::ok)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key_pem).ok();
    chain
        .filter(|chain| !chain.is_empty())
        .zip(key)
        .is_some_and(|(chain, key)| CertifiedKey::from_der(chain, key, &provider()).is_ok())
}

/// Whether a file could be put in this place.
pub(super) fn check_replaceable(path: &Path) -> Result<(), FileError> {
    lizmon_durable::check_replaceable(path).map_err(failed("replace", path))
}

/// Writes a file: it is whole or as it was.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    lizmon_durable::write(path, bytes, access).map_err(failed("write", path))
}

/// The same for a file that is to take the place of another.
fn write_for(path: &Path, place: &Path, what: (&[u8], Access)) -> Result<(), FileError> {
    let (bytes, access) = what;
    lizmon_durable::write_for(path, place, bytes, access).map_err(failed("write", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    lizmon_durable::rename(from, to).map_err(failed("replace", to))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError {
        action,
        path,
        source,
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::Pki;

    const NODE: &[&str] = &["spiffe://lizmon.internal/node/web1"];

    struct Disk {
        dir: tempfile::TempDir,
        old: (String, String),
        new: (String, String),
    }

    impl Disk {
        fn new() -> Self {
            let pki = Pki::new("root");
            let made = || {
                let leaf = pki.issue(NODE);
                (leaf.certificate.pem(), leaf.key.serialize_pem())
            };
            Self {
                dir: tempfile::tempdir().unwrap(),
                old: made(),
                new: made(),
            }
        }

        fn pair(&self) -> Pair {
            Pair {
                cert: self.dir.path().join("web1.crt"),
                key: self.dir.path().join("web1.key"),
            }
        }

        /// What a load finds after settling: `old`, `new`, or nothing usable.
        fn settled(&self) -> &'static str {
            let pair = self.pair();
            pair.settle().unwrap();
            assert!(!pair.settle().unwrap(), "once is enough");
            let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
            let found = (read(&pair.cert), read(&pair.key));
            match found {
                found if found == self.old => "old",
                found if found == self.new => "new",
                _ => "nothing",
            }
        }
    }

    /// Every prefix of an install's steps, as a crash would leave it.
    #[test]
    fn a_crash_at_any_step_leaves_a_usable_pair() {
        for (steps, expected) in [(0, "old"), (1, "old"), (2, "old"), (3, "new"), (4, "new")] {
            let disk = Disk::new();
            let pair = disk.pair();
            pair.install(&disk.old.0, &disk.old.1).unwrap();
            let install: [&dyn Fn(); 4] = [
                &|| pair.stage_key(&disk.new.1).unwrap(),
                &|| fs::write(pair.staged_cert(), &disk.new.0).unwrap(),
                &|| rename(&pair.staged_key(), &pair.key).unwrap(),
                &|| rename(&pair.staged_cert(), &pair.cert).unwrap(),
            ];
            install[..steps].iter().for_each(|step| step());
            assert_eq!(disk.settled(), expected, "after {steps} steps");
            // And the next install goes through.
            pair.install(&disk.new.0, &disk.new.1).unwrap();
            assert_eq!(disk.settled(), "new");
        }
    }

    /// As a person with `lizctl renew` beside a monitor that renews by itself.
    #[test]
    fn pairs_that_are_replaced_at_the_same_time_do_not_mix() {
        const ROUNDS: usize = 50;
        let disk = Disk::new();
        let pair = disk.pair();
        std::thread::scope(|threads| {
            for (cert, key) in [&disk.old, &disk.new] {
                let pair = &pair;
                threads.spawn(move || {
                    for _ in 0..ROUNDS {
                        pair.install(cert, key).unwrap();
                    }
                });
            }
        });
        assert_ne!(disk.settled(), "nothing");
        let left = fs::read_dir(disk.dir.path()).unwrap().count();
        assert_eq!(left, 2, "certificate and key, and nothing that waits");
    }

    #[test]
    fn what_does_not_fit_is_left_alone() {
        let disk = Disk::new();
        let pair = disk.pair();
        pair.install(&disk.old.0, &disk.old.1).unwrap();
        // A leftover that fits nothing: the user has replaced the pair since.
        fs::write(pair.staged_cert(), &disk.new.0).unwrap();
        assert_eq!(disk.settled(), "old");
        fs::write(pair.staged_cert(), "no certificate").unwrap();
        fs::write(&pair.key, &disk.new.1).unwrap();
        assert_eq!(disk.settled(), "nothing");
    }

    /// Run by root, this gives files away; run by anybody else, whose everything is, it says the same.
    #[cfg(unix)]
    #[test]
    fn files_belong_to_whom_the_old_ones_or_the_folder_belonged() {
        use std::os::unix::fs::{MetadataExt, chown};
        const SOMEBODY: u32 = 54_321;
        let disk = Disk::new();
        let (pair, folder) = (disk.pair(), disk.dir.path());
        let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid()));
        let _only_root_can = chown(folder, Some(SOMEBODY), Some(SOMEBODY));
        let of_folder = owner(folder).unwrap();
        pair.install(&disk.old.0, &disk.old.1).unwrap();
        assert_eq!(owner(&pair.key).unwrap(), of_folder);
        let _only_root_can = chown(&pair.key, Some(SOMEBODY + 1), None);
        let of_key = owner(&pair.key).unwrap();
        pair.install(&disk.new.0, &disk.new.1).unwrap();
        assert_eq!(owner(&pair.key).unwrap(), of_key);
        assert_eq!(owner(&pair.cert).unwrap(), of_folder);
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_their_owners_and_links_are_not_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let disk = Disk::new();
        let (pair, victim) = (disk.pair(), disk.dir.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        for path in [
            &pair.key,
            &pair.cert,
            &pair.staged_key(),
            &pair.staged_cert(),
        ] {
            symlink(&victim, path).unwrap();
        }
        pair.install(&disk.new.0, &disk.new.1).unwrap();
        assert_eq!(disk.settled(), "new");
        let metadata = fs::symlink_metadata(&pair.key).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let left = fs::read_dir(disk.dir.path()).unwrap().count();
        assert_eq!(left, 3, "certificate, key and the victim");
    }
}
