//! Writes keys, certificates and CRLs atomically and durably.
//!
//! The new content goes to a temporary file with a new random name in the same directory
//! (`O_CREAT|O_EXCL`, which does not follow symbolic links). The file is synced and renamed to its
//! final name, then the directory is synced. The rename replaces a symbolic link, and never its
//! target. When root writes a file, it gets the owner of the file that it replaces, or of the
//! directory: the program that reads it may not run as root.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// What a disk has written within some milliseconds.
const PART_BYTES: usize = 512 << 10;

/// The permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only the owner may access it, whatever the umask is: 0600.
    Secret,
    /// Everyone may read it, subject to the umask: 0644.
    Public,
}

/// Writes `bytes` to `path`, and replaces the old file atomically.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    write_for(path, path, bytes, access)
}

/// Like [`write()`], for a file that is renamed to `place` later. It gets the owner of `place`.
pub fn write_for(path: &Path, place: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let file = temporary(path, access)?;
    give_away(file.as_file(), place)?;
    write_in_parts(file.as_file(), bytes)?;
    file.persist(path)?;
    sync_folder(folder_of(path))
}

/// Writes and syncs a file. Who syncs another file meanwhile, as a receiver's journal does for each
/// sample, waits until the disk has one part of a large one, and not all of it.
fn write_in_parts(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while let Some((part, more)) = rest.split_at_checked(PART_BYTES)
        && !more.is_empty()
    {
        file.write_all(part)?;
        file.sync_data()?;
        rest = more;
    }
    file.write_all(rest)?;
    file.sync_all()
}

/// Creates a file that is synced, and renamed to `place`, later. It gets the owner of `place`. Fails
/// if `path` exists, even as a dangling link.
pub fn create_for(path: &Path, place: &Path, bytes: &[u8], access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(
        &mut options,
        match access {
            Access::Secret => 0o600,
            Access::Public => 0o644,
        },
    );
    let mut file = options.open(path)?;
    restore_owners_bits(&file, access)?;
    give_away(&file, place)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Renames a file and syncs the directory.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(folder_of(to))
}

/// Fails if no file can be written to this path.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    temporary(path, Access::Secret).map(drop)
}

/// Creates a temporary file in the same directory. It is deleted unless it is renamed.
fn temporary(path: &Path, access: Access) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".lizmon-").suffix(".tmp");
    #[cfg(unix)]
    if access == Access::Public {
        builder.permissions(mode(0o644));
    }
    let file = builder.tempfile_in(folder_of(path))?;
    restore_owners_bits(file.as_file(), access)?;
    Ok(file)
}

/// The umask can only remove bits of a secret file. This restores the owner's.
#[cfg(unix)]
fn restore_owners_bits(file: &File, access: Access) -> io::Result<()> {
    match access {
        Access::Secret => file.set_permissions(mode(0o600)),
        Access::Public => Ok(()),
    }
}

/// On other platforms a file inherits the access rights of its directory.
#[cfg(not(unix))]
fn restore_owners_bits(_file: &File, _access: Access) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn mode(mode: u32) -> Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// Gives the file the owner of the file at `place`, or of the directory. Without this, a rotation
/// step that ran as root made the key unreadable for `liz-ca`, and a renewal in root's cron job
/// made the key unreadable for the monitor.
#[cfg(unix)]
fn give_away(file: &File, place: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    const ROOT: u32 = 0;
    let ours = file.metadata()?;
    let replaced = fs::symlink_metadata(place)
        .ok()
        .filter(fs::Metadata::is_file);
    let model = replaced.map_or_else(|| fs::metadata(folder_of(place)), Ok)?;
    let (owner, group) = (model.uid(), model.gid());
    if ours.uid() != ROOT || (owner, group) == (ours.uid(), ours.gid()) {
        return Ok(());
    }
    match fchown(file, Some(owner), Some(group)) {
        // In some containers root may not change the owner. The owner then stays as it is.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// On other platforms a file gets the owner of its directory.
#[cfg(not(unix))]
fn give_away(_file: &File, _place: &Path) -> io::Result<()> {
    Ok(())
}

/// A path without a directory is in the current directory.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the names in a directory durable.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other platforms sync no directory.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_link_in_the_way_is_replaced_and_its_target_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for (name, target) in [("live", "victim"), ("dangling", "nowhere")] {
            let link = dir.path().join(name);
            symlink(target, &link).unwrap();
            write(&link, b"new", Access::Secret).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_file(), "{name}");
            assert_eq!(mode_of(&link), 0o600, "{name}");
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(!dir.path().join("nowhere").exists());
    }

    /// The story: a list of 100,000 revoked certificates was written and synced as a whole, and each
    /// sample that came meanwhile waited for all of it, on the same disk.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_large_file_is_written_in_parts() {
        // proc_pid_io(5): the calls of write(2) and the like.
        let writes = || {
            let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
            let count = counts.lines().find_map(|line| line.strip_prefix("syscw: "));
            count.unwrap().parse::<usize>().unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        for (bytes, parts) in [
            (0, 0),
            (1, 1),
            (PART_BYTES - 1, 1),
            (PART_BYTES, 1),
            (PART_BYTES + 1, 2),
            (3 * PART_BYTES, 3),
        ] {
            let content: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8).collect();
            let before = writes();
            write(&file, &content, Access::Public).unwrap();
            assert_eq!(writes() - before, parts, "{bytes}");
            assert_eq!(fs::read(&file).unwrap(), content, "{bytes}");
        }
    }

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        assert!(write(&folder, b"new", Access::Public).is_err());
        assert!(write(&dir.path().join("no/where"), b"new", Access::Public).is_err());
        assert!(check_replaceable(&dir.path().join("no/where")).is_err());
        check_replaceable(&dir.path().join("new")).unwrap();
        assert_eq!(count(dir.path()), 1);
    }

    #[test]
    fn the_mode_is_the_new_files_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        for (access, before, after) in [
            (Access::Secret, 0o666, 0o600),
            (Access::Public, 0o600, 0o644),
        ] {
            fs::write(&file, "old").unwrap();
            fs::set_permissions(&file, mode(before)).unwrap();
            write(&file, b"new", access).unwrap();
            // The umask of the test process may remove the bits of group and others.
            assert_eq!(mode_of(&file) & 0o700, after & 0o700, "{access:?}");
            assert_eq!(mode_of(&file) & !after, 0, "{access:?}");
            assert_eq!(fs::read(&file).unwrap(), b"new");
        }
    }

    /// As root this test changes owners. As any other user all files have the same owner, and the
    /// test still passes.
    #[test]
    fn a_file_belongs_to_whom_the_old_one_or_the_folder_belonged() {
        const OTHER_USER: u32 = 54_321;
        let dir = tempfile::tempdir().unwrap();
        let (file, staged) = (dir.path().join("key"), dir.path().join("key.new"));
        let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid()));
        let _only_root_can = chown(dir.path(), Some(OTHER_USER), Some(OTHER_USER));
        write(&file, b"old", Access::Secret).unwrap();
        assert_eq!(owner(&file).unwrap(), owner(dir.path()).unwrap());
        let _only_root_can = chown(&file, Some(OTHER_USER + 1), None);
        let before = owner(&file).unwrap();
        write(&file, b"new", Access::Secret).unwrap();
        assert_eq!((owner(&file).unwrap(), mode_of(&file)), (before, 0o600));
        write_for(&staged, &file, b"newer", Access::Secret).unwrap();
        rename(&staged, &file).unwrap();
        assert_eq!(owner(&file).unwrap(), before);
        assert_eq!(fs::read(&file).unwrap(), b"newer");
    }
}
