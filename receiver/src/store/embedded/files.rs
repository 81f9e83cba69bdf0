//! The files of a data folder: their names, who may read them, which go together, and where what is damaged is set aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use lizmon_pki::atomic_file::Access;
use uuid::Uuid;

use super::error::EmbeddedError;

/// The database.
pub(super) const FILE: &str = "lizmon.db";
/// What is appended to its name where it is written ahead.
pub(super) const WAL: &str = "-wal";
/// SQLite's companions of a file: the file itself first.
const COMPANIONS: [&str; 3] = ["", WAL, "-shm"];
/// Made in the place of a damaged one; whole once the old one has gone.
const NEW: &str = "lizmon.db.new";
/// Says which store is in the folder, so that a database that is gone is missed.
pub(super) const MARKER: &str = "lizmon.id";
const LOCK: &str = "lock";
/// So many that are set aside are kept, the newest as 1.
const ASIDE_MAX: usize = 3;

/// The database of a folder.
pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Where a new one is made.
pub(super) fn new_database(folder: &Path) -> PathBuf {
    folder.join(NEW)
}

pub(super) fn with(file: &Path, companion: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(companion);
    name.into()
}

/// Makes the folder, its owner's alone.
pub(super) fn make_folder(folder: &Path) -> Result<(), EmbeddedError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(folder)
        .map_err(failed(folder, "cannot make the data folder"))
}

/// Locks the folder for as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File, EmbeddedError> {
    let path = folder.join(LOCK);
    let what = "cannot lock the data folder";
    let file = private(&path, OpenOptions::new().create(true).append(true))
        .map_err(failed(&path, what))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::Locked {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(&path, what)(source)),
    }
}

/// Opens a file that, if it is made now, is its owner's alone.
pub(super) fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

/// An error of this file.
pub(super) fn failed(file: &Path, what: &'static str) -> impl Fn(io::Error) -> EmbeddedError {
    let file = file.to_owned();
    move |source| EmbeddedError::Folder {
        file: file.clone(),
        what,
        source,
    }
}

/// Which store the folder says it holds. What is no identifier is none.
pub(super) fn marked(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(MARKER)).ok()?;
    Some(Uuid::parse_str(text.trim()).ok()?.to_string())
}

/// Says which store the folder holds, for the time when its database is gone.
pub(super) fn mark(folder: &Path, id: &str) -> Result<(), EmbeddedError> {
    let path = folder.join(MARKER);
    if marked(folder).as_deref() == Some(id) {
        return Ok(());
    }
    lizmon_pki::atomic_file::write(&path, format!("{id}\n").as_bytes(), Access::Secret)
        .map_err(failed(&path, "cannot say which store this is"))
}

/// Whether there was a store here: a file that only the second start makes unreadable is one, too.
pub(super) fn was_marked(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(MARKER)).is_ok()
}

/// Ends a replacement that a crash cut short.
pub(super) fn finish_replacing(folder: &Path) -> Result<(), EmbeddedError> {
    let (file, new) = (database(folder), new_database(folder));
    // The old one is moved away only after the new one is whole.
    if new.exists() && fs::symlink_metadata(&file).is_err() {
        // A log that is left of the old one would be taken for the new one's.
        remove_all(&file);
        return rename_all(&new, &file);
    }
    remove_all(&new);
    Ok(())
}

/// Puts the new database in the place of the old one, which is set aside under the name that is given back.
pub(super) fn replace(folder: &Path) -> Result<PathBuf, EmbeddedError> {
    let (file, new) = (database(folder), new_database(folder));
    let aside = set_aside(folder, "damaged")?;
    rename_all(&new, &file)?;
    Ok(aside)
}

/// Moves the database out of the way, for whoever wants to know what happened; of older ones the oldest goes.
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

/// Renames a database with its companions, for good.
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
        // What is not there need not go; what cannot be removed shows when its name is used.
        let _gone = fs::remove_file(with(file, companion));
    }
}

/// Which file a name stands for, as far as the system tells.
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

/// ScanMode much of the disk is left for this user.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether no process has the folder, as far as that can be told without taking it.
pub(super) fn is_unlocked(folder: &Path) -> bool {
    // What cannot be opened to be locked may well be somebody's.
    OpenOptions::new()
        .append(true)
        .open(folder.join(LOCK))
        .is_ok_and(|file| file.try_lock_shared().is_ok())
}

/// Makes a copy its owner's alone: a copy takes over who may read it.
#[cfg(unix)]
pub(super) fn set_private(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
pub(super) fn set_private(_file: &Path) -> io::Result<()> {
    Ok(())
}
