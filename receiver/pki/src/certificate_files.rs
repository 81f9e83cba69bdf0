//! Replaces a certificate and its key on disk as a pair. A crash at any point leaves a usable pair.
//!
//! ```text
//! 1. write KEY.new, CERT.new    2. rename KEY.new to KEY    3. rename CERT.new to CERT
//! ```
//!
//! Before step 2 the old pair is in place, after step 3 the new one. In between, the key is new and
//! the certificate is old. [`CertificateFiles::finish_install`] detects that the two do not match
//! but that CERT.new does, and performs step 3. Every program calls it before it loads a pair.
//!
//! If certificate and key are in one file, that file is replaced in one step. The other contents of
//! a file are kept.

mod path_relation;
mod pem_parts;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::sign::CertifiedKey;

use self::path_relation::{PathRelation, folder_of};
use self::pem_parts::{NewPair, PemParts, with_pair};
pub use self::pem_parts::{access, with_certificates};
use crate::atomic_file::{self, Access};
use crate::pem;
use crate::provider::provider;

/// The paths of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate chain: PEM, leaf first.
    pub cert: PathBuf,
    /// The private key: PKCS #8, PEM.
    pub key: PathBuf,
}

/// A file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct FileError {
    /// The operation that failed.
    pub action: &'static str,
    /// The path of the file.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

/// Two parts share one file, so that writing one would overwrite the other.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` and `{}` are one file: for renewal {what}",
    one.display(),
    other.display()
)]
pub struct SharedFile {
    one: PathBuf,
    other: PathBuf,
    what: &'static str,
}

impl CertificateFiles {
    /// Replaces both parts, each in its file. Their directories must be writable.
    pub fn install(&self, chain_pem: &str, key_pem: &str) -> Result<(), FileError> {
        let _until_done = lock_folder(&self.key);
        let pair = NewPair { chain_pem, key_pem };
        let old_cert = read_own(&self.cert)?;
        if PathRelation::of(&self.cert, &self.key) == PathRelation::Same {
            let both = with_pair(&old_cert, pair, PemParts::Both);
            write_whole(&self.cert, &both, Access::Secret)?;
            self.drop_waiting_key();
            return Ok(());
        }
        let cert = with_pair(&old_cert, pair, PemParts::Chain);
        let key = with_pair(&read_own(&self.key)?, pair, PemParts::Key);
        let staged_key = (&key[..], Access::Secret);
        write_for(&self.staged_key(), &self.key, staged_key)?;
        write_for(&self.staged_cert(), &self.cert, (&cert, access(&cert)))?;
        rename(&self.staged_key(), &self.key)?;
        match rename(&self.staged_cert(), &self.cert) {
            // Another program has loaded the pair and finished the replacement.
            Err(_) if read_if_there(&self.cert)?.as_deref() == Some(&cert[..]) => Ok(()),
            done => done,
        }
    }

    /// Checks that each part can be replaced without losing another. `ca` is the file of roots.
    /// Call it before requesting a certificate.
    pub fn check_apart(&self, ca: &Path) -> Result<(), SharedFile> {
        let shared = |one: &Path, other: &Path, what| SharedFile {
            one: one.to_owned(),
            other: other.to_owned(),
            what,
        };
        if PathRelation::of(&self.cert, &self.key) == PathRelation::Linked {
            let what = "give certificate and key the same path, or a file each";
            return Err(shared(&self.cert, &self.key, what));
        }
        for part in [&self.cert, &self.key] {
            if PathRelation::of(part, ca) != PathRelation::Apart {
                let what = "the CA certificates need a separate file";
                return Err(shared(part, ca, what));
            }
        }
        Ok(())
    }

    /// Checks that both parts can be replaced. Call it before requesting a certificate, so that
    /// none is issued that cannot be stored.
    pub fn check_writable(&self) -> Result<(), FileError> {
        check_replaceable(&self.cert)?;
        check_replaceable(&self.key)
    }

    /// Writes a key that has no certificate yet to KEY.new, so that it is not lost before the
    /// certificate arrives.
    pub fn stage_key(&self, key_pem: &str) -> Result<(), FileError> {
        let key = (key_pem.as_bytes(), Access::Secret);
        write_for(&self.staged_key(), &self.key, key)
    }

    /// Finishes an [`install`](Self::install) that a crash interrupted. Returns whether there was
    /// one.
    pub fn finish_install(&self) -> Result<bool, FileError> {
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

    /// The staged key that has no certificate yet, if there is one.
    pub fn waiting_key(&self) -> Result<Option<String>, FileError> {
        let bytes = read_if_there(&self.staged_key())?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// The installed key, if there is one.
    pub fn installed_key(&self) -> Result<Option<String>, FileError> {
        let bytes = read_if_there(&self.key)?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Deletes the staged key.
    pub fn drop_waiting_key(&self) {
        // Best effort: a key without a certificate is harmless.
        let _gone_or_not = fs::remove_file(self.staged_key());
    }

    fn staged_cert(&self) -> PathBuf {
        staged(&self.cert)
    }

    fn staged_key(&self) -> PathBuf {
        staged(&self.key)
    }
}

/// Locks the directory against other programs that replace a pair in it, for example `lizctl renew`
/// and a monitor. Without the lock their pairs could mix. Continues without a lock if the system
/// does not support it.
fn lock_folder(path: &Path) -> Option<fs::File> {
    let folder = fs::File::open(folder_of(path)).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Whether this key belongs to the first certificate of the chain.
fn fit(cert_pem: &[u8], key_pem: &[u8]) -> bool {
    let chain = pem::certificates(cert_pem).ok();
    let key = pem::private_key(key_pem).ok();
    chain
        .zip(key)
        .is_some_and(|(chain, key)| CertifiedKey::from_der(chain, key, &provider()).is_ok())
}

/// Checks that a file can be written to this path.
pub fn check_replaceable(path: &Path) -> Result<(), FileError> {
    atomic_file::check_replaceable(path).map_err(failed("replace", path))
}

/// Writes a file atomically.
pub fn write_whole(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    atomic_file::write(path, bytes, access).map_err(failed("write", path))
}

/// Like [`write_whole`], for a file that will replace `place`.
fn write_for(path: &Path, place: &Path, what: (&[u8], Access)) -> Result<(), FileError> {
    let (bytes, access) = what;
    atomic_file::write_for(path, place, bytes, access).map_err(failed("write", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    atomic_file::rename(from, to).map_err(failed("replace", to))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError {
        action,
        path,
        source,
    }
}

/// Reads a regular file. Returns nothing if the file does not exist or is a symbolic link: a link
/// is replaced and not followed, because its target may belong to another user.
fn read_own(path: &Path) -> Result<Vec<u8>, FileError> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let read = is_file.then(|| read_if_there(path)).transpose()?;
    Ok(read.flatten().unwrap_or_default())
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
    use crate::testing::Pki;

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

        fn pair(&self) -> CertificateFiles {
            CertificateFiles {
                cert: self.dir.path().join("web1.crt"),
                key: self.dir.path().join("web1.key"),
            }
        }

        /// The pair that is loaded after `finish_install`: `old`, `new`, or nothing usable.
        fn settled(&self) -> &'static str {
            let pair = self.pair();
            pair.finish_install().unwrap();
            assert!(!pair.finish_install().unwrap(), "once is enough");
            let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
            let found = (read(&pair.cert), read(&pair.key));
            match found {
                found if found == self.old => "old",
                found if found == self.new => "new",
                _ => "nothing",
            }
        }
    }

    /// Simulates a crash after each step of an install.
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
            // The next install succeeds.
            pair.install(&disk.new.0, &disk.new.1).unwrap();
            assert_eq!(disk.settled(), "new");
        }
    }

    /// For example, a user runs `lizctl renew` while the monitor renews.
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

    /// Regression test: the certificate overwrote the key in the same file, and the file became
    /// readable for everyone.
    #[test]
    fn a_file_that_holds_both_holds_both_afterwards() {
        let disk = Disk::new();
        let (old, new) = (&disk.old, &disk.new);
        let shapes = [
            format!("{}{}", old.0, old.1),
            format!("{}{}", old.1, old.0),
            format!("# web1\n{}\n{}# end\n", old.0, old.1),
            format!("{}{}", old.0, old.1).replace('\n', "\r\n"),
            format!("{}{}", old.0, old.1).trim_end().to_owned(),
        ];
        for both in shapes {
            let path = disk.dir.path().join("web1.pem");
            fs::write(&path, &both).unwrap();
            let (cert, key) = (path.clone(), disk.dir.path().join("./web1.pem"));
            let pair = CertificateFiles { cert, key };
            pair.check_apart(&disk.dir.path().join("root.crt")).unwrap();
            pair.install(&new.0, &new.1).unwrap();
            let found = fs::read(&path).unwrap();
            assert!(fit(&found, &found), "{both}");
            let text = String::from_utf8(found).unwrap();
            assert!(
                text.contains(new.0.trim()) && text.contains(new.1.trim()),
                "{text}"
            );
            assert!(!text.contains(old.1.trim()), "{text}");
            assert_eq!(text.contains("# web1"), both.contains("# web1"));
            assert_eq!(fs::read_dir(disk.dir.path()).unwrap().count(), 1);
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
        }
    }

    /// Certificate and key have files of their own. The certificate file may also hold the key, for
    /// another program, and the key file the chain.
    #[test]
    fn what_else_a_file_holds_is_kept() {
        let disk = Disk::new();
        let (pair, old, new) = (disk.pair(), &disk.old, &disk.new);
        fs::write(&pair.cert, format!("# web1\n{}{}", old.0, old.1)).unwrap();
        fs::write(&pair.key, format!("# secret\n{}{}", old.1, old.0)).unwrap();
        pair.install(&new.0, &new.1).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&pair.cert), format!("# web1\n{}{}", new.0, new.1));
        assert_eq!(read(&pair.key), format!("# secret\n{}{}", new.1, new.0));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&pair.cert).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "it holds a key");
        }
    }

    #[cfg(unix)]
    #[test]
    fn parts_that_would_be_written_over_each_other_are_refused() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(at(name), name).unwrap();
        }
        symlink("a", at("link-to-a")).unwrap();
        fs::hard_link(at("a"), at("a-again")).unwrap();
        symlink(".", at("folder")).unwrap();
        let check = |cert: &str, key: &str, ca: &str, is_good: bool| {
            let pair = CertificateFiles {
                cert: at(cert),
                key: at(key),
            };
            let got = pair.check_apart(&at(ca));
            assert_eq!(got.is_ok(), is_good, "{cert} {key} {ca}: {got:?}");
        };
        check("a", "b", "c", true);
        check("a", "a", "c", true);
        check("a", "folder/a", "c", true);
        check("a", "new", "none", true);
        check("new", "new", "c", true);
        check("a", "link-to-a", "c", false);
        check("a", "a-again", "c", false);
        check("a", "b", "a", false);
        check("a", "b", "link-to-a", false);
        check("a", "b", "folder/a", false);
        check("a", "b", "b", false);
        check("a", "a", "a", false);
        check("new", "b", "new", false);
    }

    #[test]
    fn what_does_not_fit_is_left_alone() {
        let disk = Disk::new();
        let pair = disk.pair();
        pair.install(&disk.old.0, &disk.old.1).unwrap();
        // A staged certificate that matches nothing: the user has replaced the pair in the
        // meantime.
        fs::write(pair.staged_cert(), &disk.new.0).unwrap();
        assert_eq!(disk.settled(), "old");
        fs::write(pair.staged_cert(), "no certificate").unwrap();
        fs::write(&pair.key, &disk.new.1).unwrap();
        assert_eq!(disk.settled(), "nothing");
    }

    /// As root this test changes owners. As any other user all files have the same owner, and the
    /// test still passes.
    #[cfg(unix)]
    #[test]
    fn files_belong_to_whom_the_old_ones_or_the_folder_belonged() {
        use std::os::unix::fs::{MetadataExt, chown};
        const OTHER_USER: u32 = 54_321;
        let disk = Disk::new();
        let (pair, folder) = (disk.pair(), disk.dir.path());
        let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid()));
        let _only_root_can = chown(folder, Some(OTHER_USER), Some(OTHER_USER));
        let of_folder = owner(folder).unwrap();
        pair.install(&disk.old.0, &disk.old.1).unwrap();
        assert_eq!(owner(&pair.key).unwrap(), of_folder);
        let _only_root_can = chown(&pair.key, Some(OTHER_USER + 1), None);
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
