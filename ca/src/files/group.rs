//! Writes the files of many certificates with one sync.
//!
//! A sync of each file flushes the disk each time: milliseconds for each of two files of each of
//! thousands of holders. So a group of files is written into a folder beside their places, the file
//! system that has them is synced once, and then each is renamed to its place. Whenever the machine
//! stops, each place has its old file or the whole new one, as after [`disk::write`].
//!
//! `syncfs` also writes what other programs have not synced yet. That is why a few files are synced
//! one by one. It tells of failed writes since Linux 5.8; older kernels would only log them.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use lizmon_pki::atomic_file;

use super::Access;
use super::disk;
use super::error::CaFileError;

/// Up to so many files, each is synced.
const FEW: usize = 8;

/// The folder where files wait for the sync. No holder's file has this name.
const STAGING: &str = ".lizmon-issuing";

/// A file to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewFile<'a> {
    place: &'a Path,
    bytes: &'a [u8],
    access: Access,
}

impl<'a> NewFile<'a> {
    pub(crate) fn new(place: &'a Path, bytes: &'a [u8], access: Access) -> Self {
        Self {
            place,
            bytes,
            access,
        }
    }
}

/// Writes files into one folder, and replaces existing ones. Each comes to its place after those
/// before it. The caller holds the lock of the ledger: no other process writes a group here.
pub(crate) fn write_all(folder: &Path, files: &[NewFile<'_>]) -> Result<(), CaFileError> {
    let path = folder.join(STAGING);
    remove_staging(&path)?;
    if files.len() <= FEW {
        let write = |file: &NewFile<'_>| disk::write(file.place, file.bytes, file.access);
        return files.iter().try_for_each(write);
    }
    disk::create_folder(&path)?;
    let staging = Staging(path);
    // Opened before the files are written: it is told of every write that fails afterwards.
    let opened = File::open(&staging.0).map_err(CaFileError::io("read", &staging.0))?;
    for file in files {
        stage(&staging, file).map_err(CaFileError::io("write", file.place))?;
    }
    sync_file_system(&opened).map_err(CaFileError::io("write", folder))?;
    for file in files {
        fs::rename(staging.path_of(file), file.place)
            .map_err(CaFileError::io("write", file.place))?;
    }
    atomic_file::sync_folder(folder).map_err(CaFileError::io("write", folder))
}

fn stage(staging: &Staging, file: &NewFile<'_>) -> io::Result<()> {
    let staged = staging.path_of(file);
    let written = atomic_file::create_for(&staged, file.place, file.bytes, file.access)?;
    sync_alone(&written)
}

#[cfg(target_os = "linux")]
fn sync_file_system(of: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(of)?)
}

/// The files were synced one by one.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_of: &File) -> io::Result<()> {
    Ok(())
}

/// The file system is synced after the last file.
#[cfg(target_os = "linux")]
fn sync_alone(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn sync_alone(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// What a process left that was killed. Its keys are of no use.
fn remove_staging(path: &Path) -> Result<(), CaFileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(CaFileError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The folder where files wait. It is removed with what is left in it.
struct Staging(PathBuf);

impl Staging {
    fn path_of(&self, file: &NewFile<'_>) -> PathBuf {
        self.0.join(file.place.file_name().unwrap_or_default())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is removed before the next group.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// So many files in a folder, with their content.
    fn write_numbered(folder: &Path, count: usize, content: &str) -> Result<(), CaFileError> {
        let places: Vec<PathBuf> = (0..count).map(|at| folder.join(at.to_string())).collect();
        let file = |place| NewFile::new(place, content.as_bytes(), Access::Secret);
        let files: Vec<NewFile<'_>> = places.iter().map(|place| file(place)).collect();
        write_all(folder, &files)
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn few_and_many_files_are_written_and_nothing_else_is_left() {
        for many in [0, 1, FEW, FEW + 1, 100] {
            let dir = tempfile::tempdir().unwrap();
            for content in ["old", "new"] {
                write_numbered(dir.path(), many, content).unwrap();
            }
            assert_eq!(count(dir.path()), many);
            for at in 0..many {
                let file = dir.path().join(at.to_string());
                assert_eq!(fs::read_to_string(&file).unwrap(), "new");
                let mode = fs::metadata(&file).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
        }
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(STAGING);
        for many in [FEW, FEW + 1] {
            fs::create_dir(&left).unwrap();
            fs::write(left.join("0"), "a key that was never given out").unwrap();
            fs::write(left.join("other"), "another").unwrap();
            write_numbered(dir.path(), many, "new").unwrap();
            assert_eq!(count(dir.path()), many);
        }
    }

    #[test]
    fn a_link_in_the_way_is_replaced_and_its_target_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("0"), "precious").unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        symlink(&elsewhere, folder.join(STAGING)).unwrap();
        write_numbered(&folder, FEW + 1, "new").unwrap();
        assert_eq!(count(&folder), FEW + 1);
        assert_eq!(count(&elsewhere), 1);
        assert_eq!(fs::read(elsewhere.join("0")).unwrap(), b"precious");
    }

    /// A folder is where the last file belongs.
    #[test]
    fn a_group_that_fails_leaves_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FEW.to_string())).unwrap();
        write_numbered(dir.path(), FEW + 1, "new").unwrap_err();
        assert_eq!(count(dir.path()), FEW + 1);
        assert_eq!(fs::read(dir.path().join("0")).unwrap(), b"new");
    }
}
