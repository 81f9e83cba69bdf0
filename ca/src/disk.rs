//! The CA's files and folders: written whole or not at all ([`lizmon_pki::atomic_file`]), its keys for their owner alone. Where a
//! folder is a symbolic link, nothing is written.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use lizmon_pki::atomic_file::Access;

use crate::error::Error;

/// Writes `bytes` to `path`, replacing what was there in one step.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), Error> {
    if path.file_name().is_none() {
        return Err(Error::NotAFolder(path.to_owned()));
    }
    lizmon_pki::atomic_file::write(path, bytes, access).map_err(Error::io("write", path))
}

/// Creates an empty secret file and fails if anything is there, a dangling link included: the claim on a folder.
pub fn create_secret(path: &Path) -> std::io::Result<()> {
    create_new(path)?.sync_all()
}

/// Makes a folder for its owner alone, or takes the one that is there as it is. A symbolic link is refused.
pub fn create_folder(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Ok(()) => restrict_folder(path).map_err(Error::io("create", path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path) {
                Ok(found) if found.is_dir() => Ok(()),
                _ => Err(Error::NotAFolder(path.to_owned())),
            }
        }
        Err(source) => Err(Error::io("create", path)(source)),
    }
}

/// Makes the folder the user named, with what leads to it. Here a symbolic link is the user's own choice. Where a folder
/// is there, others lose the right to write into it, which many a umask gives them.
pub(crate) fn create_certs_folder(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return close_folder(path).map_err(Error::io("write", path));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    create_folder(path)
}

/// The bytes of a file, `None` if there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("read", path)(source)),
    }
}

/// The bytes of a file that has to be there.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    read_if_there(path)?.ok_or_else(|| Error::FileMissing(path.to_owned()))
}

/// Takes a file away for good.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(Error::io("remove", path))
}

/// Whether anything has this name, a dangling link included.
pub(crate) fn is_present(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// An error if we may not even see whether a file is there.
pub(crate) fn refuse_if_hidden(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(Error::io("read", path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether a file is there and has nothing in it.
pub(crate) fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0)
}

/// Whether a file is another user's than the one who runs this program.
#[cfg(unix)]
pub(crate) fn is_owned_by_other(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(path).map(|file| file.uid());
    owner.is_ok_and(|owner| owner != rustix::process::geteuid().as_raw())
}

/// Elsewhere nobody says.
#[cfg(not(unix))]
pub(crate) fn is_owned_by_other(_path: &Path) -> bool {
    false
}

/// An error if others can read or write a secret file. What is no file, like a pipe, has no mode that says anything.
pub(crate) fn refuse_if_shared(path: &Path) -> Result<(), Error> {
    refuse_mode(path, 0o077, "600", fs::Metadata::is_file)
}

/// An error if others can put files into a folder, their own keys for instance.
pub(crate) fn refuse_if_others_can_write(folder: &Path) -> Result<(), Error> {
    refuse_mode(folder, 0o022, "go-w", fs::Metadata::is_dir)
}

#[cfg(unix)]
fn refuse_mode(
    path: &Path,
    bits: u32,
    wanted: &'static str,
    concerns: fn(&fs::Metadata) -> bool,
) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if concerns(&metadata) && mode & bits != 0 {
        return Err(Error::Shared {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

/// Elsewhere access is no matter of modes.
#[cfg(not(unix))]
fn refuse_mode(
    _path: &Path,
    _bits: u32,
    _wanted: &'static str,
    _concerns: fn(&fs::Metadata) -> bool,
) -> Result<(), Error> {
    Ok(())
}

/// Who runs this program, for the ledger: what the system says, and the name the session goes by.
pub(crate) fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok())
        .unwrap_or_else(|| "unnamed".to_owned());
    #[cfg(unix)]
    let name = format!("{name} (uid {})", rustix::process::getuid().as_raw());
    name
}

/// Files and folders that disappear again unless `keep` is called: what fails leaves nothing behind.
#[derive(Debug, Default)]
pub(crate) struct Rollback(Vec<PathBuf>);

impl Rollback {
    pub(crate) fn add(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    pub(crate) fn disarm(mut self) {
        self.0.clear();
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Best effort: the failure that brought us here is what the user hears of.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

#[cfg(unix)]
fn create_new(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // A umask can only take bits away; this gives the owner's back.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Elsewhere a file has the access of its folder.
#[cfg(not(unix))]
fn create_new(path: &Path) -> std::io::Result<fs::File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
fn restrict_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(unix)]
fn close_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o022 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o022))
}

#[cfg(not(unix))]
fn close_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn restrict_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_claim_and_a_folder_refuse_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink("nowhere", &link).unwrap();
        assert!(create_secret(&link).is_err());
        assert!(create_folder(&link).is_err());
        let file = dir.path().join("file");
        create_secret(&file).unwrap();
        assert!(create_secret(&file).is_err());
        assert!(create_folder(&file).is_err());
        let real = dir.path().join("real");
        create_folder(&real).unwrap();
        create_folder(&real).unwrap();
        assert_eq!(mode(&real), 0o700);
    }

    #[test]
    fn nothing_is_left_of_a_write_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("in-the-way"), "").unwrap();
        write(&place, b"x", Access::Secret).unwrap_err();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_scaffold_takes_its_files_away_unless_kept() {
        let dir = tempfile::tempdir().unwrap();
        for keep in [false, true] {
            let file = dir.path().join(keep.to_string());
            create_secret(&file).unwrap();
            let mut rollback = Rollback::default();
            rollback.add(file.clone());
            rollback.add(dir.path().join("never made"));
            if keep {
                rollback.disarm();
            } else {
                drop(rollback);
            }
            assert_eq!(file.exists(), keep);
        }
    }
}
