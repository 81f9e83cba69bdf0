//! The files of a data folder: names, permissions, which belong together, and where databases are
//! set aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lizmon_pki::atomic_file::Access;
use uuid::Uuid;

use super::error::EmbeddedError;

/// The database.
pub(super) const FILE: &str = "lizmon.db";
/// Suffix of the WAL.
pub(super) const WAL: &str = "-wal";
/// SQLite's companions of a file: the file itself first.
const COMPANIONS: [&str; 3] = ["", WAL, "-shm"];
/// A new database that is to replace another; complete once the old one has been moved away.
const NEW: &str = "lizmon.db.new";
/// Holds the store's identifier, so that a missing database is noticed.
pub(super) const MARKER: &str = "lizmon.id";
/// Says that a copy into the folder is not complete. It is there before anything else, and goes
/// last.
const COPYING: &str = "lizmon.copying";
const LOCK: &str = "lock";
/// How often, and after which time, a folder that is locked is tried again: half a second in all.
const LOCK_ATTEMPTS: u32 = 25;
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How many databases that were set aside are kept, the newest as 1.
const ASIDE_MAX: usize = 3;

/// The database of a folder.
pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The path of a new database.
pub(super) fn new_database(folder: &Path) -> PathBuf {
    folder.join(NEW)
}

pub(super) fn with(file: &Path, companion: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(companion);
    name.into()
}

/// Creates the folder with mode 0700.
pub(super) fn make_folder(folder: &Path) -> Result<(), EmbeddedError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(folder)
        .map_err(failed(folder, "cannot make the data folder"))
}

/// Locks the folder for as long as the file is open. A process that was killed may need a moment to
/// end, and between fork and exec a child has its parent's files.
#[expect(clippy::disallowed_methods, reason = "paces attempts")]
pub(super) fn lock(folder: &Path) -> Result<File, EmbeddedError> {
    let path = folder.join(LOCK);
    let what = "cannot lock the data folder";
    let file = private(&path, OpenOptions::new().create(true).append(true))
        .map_err(failed(&path, what))?;
    let mut attempts = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if attempts < LOCK_ATTEMPTS => {
                attempts += 1;
                std::thread::sleep(LOCK_AGAIN_AFTER);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(EmbeddedError::Locked {
                    folder: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(&path, what)(source)),
        }
    }
}

/// Opens a file; if that creates it, with mode 0600.
pub(super) fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

/// Makes errors about this file.
pub(super) fn failed(file: &Path, what: &'static str) -> impl Fn(io::Error) -> EmbeddedError {
    let file = file.to_owned();
    move |source| EmbeddedError::Folder {
        file: file.clone(),
        what,
        source,
    }
}

/// The identifier of the folder's store; none if the file holds something else.
pub(super) fn marked(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(MARKER)).ok()?;
    Some(Uuid::parse_str(text.trim()).ok()?.to_string())
}

/// Writes the identifier of the folder's store.
pub(super) fn mark(folder: &Path, id: &str) -> Result<(), EmbeddedError> {
    let path = folder.join(MARKER);
    if marked(folder).as_deref() == Some(id) {
        return Ok(());
    }
    lizmon_pki::atomic_file::write(&path, format!("{id}\n").as_bytes(), Access::Secret)
        .map_err(failed(&path, "cannot write the identifier of the store"))
}

/// Whether there was a store here, even if the identifier cannot be read.
pub(super) fn was_marked(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(MARKER)).is_ok()
}

/// Whether there is a store here, or was one.
pub(super) fn is_there(folder: &Path) -> bool {
    was_marked(folder) || fs::symlink_metadata(database(folder)).is_ok()
}

/// Removes the identifier: there is no store here.
pub(super) fn unmark(folder: &Path) -> Result<(), EmbeddedError> {
    let path = folder.join(MARKER);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(&path, "cannot be removed")(error))
        }
        _ => Ok(()),
    }
}

/// An error if a copy into this folder is not complete.
pub(super) fn refuse_incomplete(folder: &Path) -> Result<(), EmbeddedError> {
    let file = folder.join(COPYING);
    match fs::symlink_metadata(&file) {
        Ok(_) => Err(EmbeddedError::CopyIncomplete { file }),
        Err(_) => Ok(()),
    }
}

/// Marks a folder that a copy is to fill.
pub(super) fn mark_incomplete(folder: &Path) -> Result<(), EmbeddedError> {
    let path = folder.join(COPYING);
    let text = b"a copy into this folder is not complete\n";
    lizmon_pki::atomic_file::write(&path, text, Access::Secret)
        .map_err(failed(&path, "cannot be written"))
}

/// The copy is complete.
pub(super) fn mark_complete(folder: &Path) -> Result<(), EmbeddedError> {
    let path = folder.join(COPYING);
    let removed = fs::remove_file(&path).and_then(|()| sync(folder));
    removed.map_err(failed(&path, "cannot be removed"))
}

/// Completes a replacement that a crash interrupted.
pub(super) fn finish_replacing(folder: &Path) -> Result<(), EmbeddedError> {
    let (file, new) = (database(folder), new_database(folder));
    // The old one is moved away only after the new one is whole.
    if new.exists() && fs::symlink_metadata(&file).is_err() {
        // A WAL that is left of the old one would be taken for the new one's.
        remove_all(&file);
        return rename_all(&new, &file);
    }
    remove_all(&new);
    Ok(())
}

/// Replaces the database by the new one, for this reason. Returns where the old one is set aside.
pub(super) fn replace(folder: &Path, why: &str) -> Result<PathBuf, EmbeddedError> {
    let (file, new) = (database(folder), new_database(folder));
    let aside = set_aside(folder, why)?;
    rename_all(&new, &file)?;
    Ok(aside)
}

/// Sets the database aside for inspection; the oldest one that was set aside is removed.
pub(super) fn set_aside(folder: &Path, why: &str) -> Result<PathBuf, EmbeddedError> {
    let place = |number: usize| folder.join(format!("{FILE}.{why}-{number}"));
    if place(1).exists() {
        remove_all(&place(ASIDE_MAX));
        for number in (1..ASIDE_MAX).rev() {
            rename_all(&place(number), &place(number + 1))?;
        }
    }
    rename_all(&database(folder), &place(1))?;
    Ok(place(1))
}

/// The databases that were set aside, as paths.
pub(super) fn all_aside(folder: &Path) -> Vec<PathBuf> {
    ["damaged", "replaced"]
        .into_iter()
        .flat_map(|why| (1..=ASIDE_MAX).map(move |number| format!("{FILE}.{why}-{number}")))
        .map(|name| folder.join(name))
        .filter(|path| path.exists())
        .collect()
}

/// Renames a database with its companions, durably.
pub(super) fn rename_all(from: &Path, to: &Path) -> Result<(), EmbeddedError> {
    for companion in COMPANIONS {
        match fs::rename(with(from, companion), with(to, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(from, "cannot be moved")(error));
            }
            _ => (),
        }
    }
    let folder = to.parent().unwrap_or(to);
    sync(folder).map_err(failed(folder, "cannot be synced"))
}

/// Syncs a file or a folder.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_all(),
        // Elsewhere a folder cannot be opened, and need not be synced.
        Err(_) if cfg!(not(unix)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a database with its companions.
pub(super) fn remove_all(file: &Path) {
    for companion in COMPANIONS {
        // A file that cannot be removed causes an error when its name is used.
        let _gone = fs::remove_file(with(file, companion));
    }
}

/// Identifies a file, as far as the system can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

#[cfg(unix)]
pub(super) fn file_id(file: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(file).ok()?;
    Some(FileId(found.dev(), found.ino()))
}

#[cfg(not(unix))]
pub(super) fn file_id(file: &Path) -> Option<FileId> {
    fs::metadata(file).ok().map(|_| FileId(0, 0))
}

/// How much of the disk is left for this user.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether no process uses the folder, as far as that is known without locking it.
pub(super) fn is_unlocked(folder: &Path) -> bool {
    // A lock file that cannot be opened may be in use.
    OpenOptions::new()
        .append(true)
        .open(folder.join(LOCK))
        .is_ok_and(|file| file.try_lock_shared().is_ok())
}

/// Sets mode 0600: a copy has the mode of its original.
#[cfg(unix)]
pub(super) fn set_private(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
pub(super) fn set_private(_file: &Path) -> io::Result<()> {
    Ok(())
}
