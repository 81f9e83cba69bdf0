//! Files and folders on disk. Each write is atomic and synced ([`lizmon_pki::atomic_file`]), and
//! secret files are readable by their owner alone. Nothing is written through a folder that is a
//! symbolic link.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

pub use lizmon_pki::atomic_file::Access;

use super::error::CaFileError;

/// Writes `bytes` to `path` and replaces an existing file in one step.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), CaFileError> {
    if path.file_name().is_none() {
        return Err(CaFileError::NotAFolder(path.to_owned()));
    }
    lizmon_pki::atomic_file::write(path, bytes, access).map_err(CaFileError::io("write", path))
}

/// Creates an empty secret file. Fails if the path exists, even as a dangling link: the process
/// that succeeds owns the folder.
pub fn create_secret(path: &Path) -> std::io::Result<()> {
    create_new(path)?.sync_all()
}

/// Creates a folder with mode 0700, or leaves an existing folder as it is. A symbolic link is
/// refused.
pub fn create_folder(path: &Path) -> Result<(), CaFileError> {
    match fs::create_dir(path) {
        Ok(()) => restrict_folder(path).map_err(CaFileError::io("create", path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path) {
                Ok(found) if found.is_dir() => Ok(()),
                _ => Err(CaFileError::NotAFolder(path.to_owned())),
            }
        }
        Err(source) => Err(CaFileError::io("create", path)(source)),
    }
}

/// Creates the folder that the user named, with its parents. Here a symbolic link is the user's own
/// choice. From an existing folder the write permission of others is removed, which many umasks
/// give them.
pub(crate) fn create_certs_folder(path: &Path) -> Result<(), CaFileError> {
    if path.is_dir() {
        return close_folder(path).map_err(CaFileError::io("write", path));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(CaFileError::io("create", parent))?;
    }
    create_folder(path)
}

/// The content of a file, `None` if it does not exist.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, CaFileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaFileError::io("read", path)(source)),
    }
}

/// The content of a file that has to exist.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CaFileError> {
    read_if_there(path)?.ok_or_else(|| CaFileError::Missing(path.to_owned()))
}

/// Deletes a file.
pub(crate) fn remove(path: &Path) -> Result<(), CaFileError> {
    fs::remove_file(path).map_err(CaFileError::io("remove", path))
}

/// Whether the path exists, even as a dangling link.
pub(crate) fn is_present(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// An error if we are not permitted to see whether a file exists.
pub(crate) fn refuse_if_hidden(path: &Path) -> Result<(), CaFileError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(CaFileError::io("read", path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether it is an existing file of zero bytes.
pub(crate) fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0)
}

/// Whether a file belongs to another user than the one who runs this program.
#[cfg(unix)]
fn is_owned_by_other(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(path).map(|file| file.uid());
    owner.is_ok_and(|owner| owner != rustix::process::geteuid().as_raw())
}

/// An error if others can read or write a secret file. The mode of a pipe or device is ignored.
pub(crate) fn refuse_if_shared(path: &Path) -> Result<(), CaFileError> {
    refuse_mode(path, 0o077, "600", fs::Metadata::is_file)
}

/// An error if others can write into a folder, for instance to replace a key.
pub(crate) fn refuse_if_others_can_write(folder: &Path) -> Result<(), CaFileError> {
    refuse_mode(folder, 0o022, "go-w", fs::Metadata::is_dir)
}

#[cfg(unix)]
fn refuse_mode(
    path: &Path,
    bits: u32,
    wanted: &'static str,
    concerns: fn(&fs::Metadata) -> bool,
) -> Result<(), CaFileError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).map_err(CaFileError::io("read", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if concerns(&metadata) && mode & bits != 0 {
        return Err(CaFileError::Exposed {
            path: path.to_owned(),
            mode,
            wanted,
            is_foreign: is_owned_by_other(path),
        });
    }
    Ok(())
}

/// Other systems have no modes.
#[cfg(not(unix))]
fn refuse_mode(
    _path: &Path,
    _bits: u32,
    _wanted: &'static str,
    _concerns: fn(&fs::Metadata) -> bool,
) -> Result<(), CaFileError> {
    Ok(())
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
    // A umask can only remove bits; this restores the owner's.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// On other systems a file inherits the access rules of its folder.
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
    fn existing_paths_are_refused() {
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
}
