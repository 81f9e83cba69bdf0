//! Commands for a store: check it, back it up while the receiver runs, restore a backup.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lizmon_pki::atomic_file::Access;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::super::damage::Damage;
use super::super::error::StoreError;
use super::connection::{connect_read_only, with_cure};
use super::error::{EmbeddedError, is_damage};
use super::files;
use super::integrity::structure;
use super::read::{self, ScanMode};
use super::schema::{self, DatabaseKind, SchemaVersion};
use super::wal::Wal;

/// CRLs that were pushed or fetched: a restored store must have them as well.
const CRLS: &str = "crl.pem";
/// The file that describes a backup.
const MANIFEST: &str = "backup.json";

/// What a check found.
#[derive(Debug)]
pub struct CheckReport {
    /// The database.
    pub file: PathBuf,
    /// How many hosts, intervals and groups of the journal it holds.
    pub hosts: usize,
    /// Intervals of their series.
    pub intervals: usize,
    /// Groups of the journal that are not committed yet.
    pub groups: usize,
    /// What is wrong with it now.
    pub damage: Vec<Damage>,
    /// Damage of earlier times: what is lost, in a store that was recovered.
    pub known: Vec<Damage>,
    /// Databases that were set aside.
    pub aside: Vec<PathBuf>,
}

/// The description of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupManifest {
    /// The store's identifier.
    pub store: String,
    /// When it was made: epoch seconds.
    pub made_at: u64,
    /// How many hosts are in it.
    pub hosts: usize,
}

/// Why a backup or a restore was not done.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder exists already.
    #[error("{place} already exists: choose another folder", place = place.display())]
    Taken {
        /// Which.
        place: PathBuf,
    },
    /// The folder holds no backup.
    #[error("{folder} holds no backup: there is no {file} in it", folder = folder.display())]
    NoBackup {
        /// Which folder.
        folder: PathBuf,
        /// What is missing.
        file: &'static str,
    },
    /// The folder holds no store.
    #[error("{file}: there is no store here; name its folder with --data", file = file.display())]
    NoStore {
        /// Which file is missing.
        file: PathBuf,
    },
    /// A damaged database is not copied, nor put in the place of another.
    #[error("{file} is damaged: {what}; {cure}", file = file.display())]
    Damaged {
        /// Which database.
        file: PathBuf,
        /// The first thing that is wrong.
        what: String,
        /// What to do.
        cure: &'static str,
    },
    /// A file.
    #[error("{file}: {what}", file = file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// Why it could not.
        source: io::Error,
    },
}

impl From<EmbeddedError> for BackupError {
    fn from(error: EmbeddedError) -> Self {
        Self::Store(error.into())
    }
}

/// Reads all of the store in `folder` and changes nothing. A receiver may be running on it.
pub fn check(folder: &Path, now: u64) -> Result<CheckReport, BackupError> {
    let file = files::database(folder);
    if fs::symlink_metadata(&file).is_err() {
        return Err(BackupError::NoStore { file });
    }
    // A running receiver writes to the WAL while it is read: then only what SQLite reads counts.
    let alone = files::is_unlocked(folder);
    let log = match alone {
        true => Wal::open(&file).map_err(failed(&file, "the WAL cannot be read"))?,
        false => None,
    };
    let mut found = inspect(&file, now)?;
    let of_log = log.and_then(|log| log.fault());
    found
        .damage
        .extend(of_log.map(|fault| Damage::of_store(now, fault)));
    found.aside = files::all_aside(folder);
    Ok(found)
}

/// Copies the store in `folder` to the new folder `to`, as it is at one moment. A receiver may be
/// running on it.
pub fn backup(folder: &Path, to: &Path, now: u64) -> Result<BackupManifest, BackupError> {
    let found = check(folder, now)?;
    if let Some(damage) = found.damage.first() {
        return Err(BackupError::Damaged {
            file: found.file,
            what: damage.to_string(),
            cure: "start the receiver, which keeps what can be read, then make the backup",
        });
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Taken {
            place: to.to_owned(),
        });
    }
    files::make_folder(to)?;
    let copy = files::database(to);
    let made = fill(folder, &found.file, to, &copy, now);
    if made.is_err() {
        // An incomplete backup is worthless.
        let _left = fs::remove_dir_all(to);
    }
    made
}

fn fill(
    folder: &Path,
    file: &Path,
    to: &Path,
    copy: &Path,
    now: u64,
) -> Result<BackupManifest, BackupError> {
    let store = |error: rusqlite::Error| with_cure(error.into(), file);
    let database = connect_read_only(file).map_err(store)?;
    files::private(copy, fs::OpenOptions::new().create(true).append(true))
        .map_err(failed(copy, "cannot be created"))?;
    database
        .execute("VACUUM INTO ?1", params![copy.to_string_lossy()])
        .map_err(|error| with_cure(error.into(), copy))?;
    files::sync(copy).map_err(failed(copy, "cannot be synced"))?;
    let copied = inspect(copy, now)?;
    if let Some(damage) = copied.damage.first() {
        return Err(BackupError::Damaged {
            file: copy.to_owned(),
            what: damage.to_string(),
            cure: "try again, or elsewhere",
        });
    }
    copy_crls(folder, to)?;
    let manifest = BackupManifest {
        store: store_id(copy)?,
        made_at: now,
        hosts: copied.hosts,
    };
    let json = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other);
    let path = to.join(MANIFEST);
    json.and_then(|json| lizmon_pki::atomic_file::write(&path, &json, Access::Secret))
        .map_err(failed(&path, "cannot be written"))?;
    Ok(manifest)
}

/// What a restore did.
#[derive(Debug)]
pub struct RestoreReport {
    /// The backup's description; none if it was made by hand.
    pub manifest: Option<BackupManifest>,
    /// How many hosts are in it.
    pub hosts: usize,
    /// Where the old store is now.
    pub aside: Option<PathBuf>,
}

/// Puts the backup in `from` in the place of the store in `folder`, which is set aside. No receiver
/// may be running on it.
pub fn restore(from: &Path, folder: &Path, now: u64) -> Result<RestoreReport, BackupError> {
    let backup = files::database(from);
    if fs::symlink_metadata(&backup).is_err() {
        return Err(BackupError::NoBackup {
            folder: from.to_owned(),
            file: files::FILE,
        });
    }
    let found = inspect(&backup, now)?;
    if let Some(damage) = found.damage.first() {
        return Err(BackupError::Damaged {
            file: backup,
            what: damage.to_string(),
            cure: "take another backup",
        });
    }
    let manifest = fs::read(from.join(MANIFEST))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    files::make_folder(folder)?;
    let _lock = files::lock(folder)?;
    files::finish_replacing(folder)?;
    let new = files::new_database(folder);
    copy_private(&backup, &new)?;
    let file = files::database(folder);
    let was_there = fs::symlink_metadata(&file).is_ok();
    let aside = files::set_aside(folder, "replaced")?;
    files::rename_all(&new, &file)?;
    files::mark(folder, &store_id(&file)?)?;
    // Never over newer ones: what they revoke would be accepted again.
    if fs::symlink_metadata(folder.join(CRLS)).is_err() {
        copy_crls(from, folder)?;
    }
    Ok(RestoreReport {
        manifest,
        hosts: found.hosts,
        aside: was_there.then_some(aside),
    })
}

/// Reads all of one database.
fn inspect(file: &Path, now: u64) -> Result<CheckReport, BackupError> {
    let failed = |error: rusqlite::Error| BackupError::from(with_cure(error.into(), file));
    let mut found = CheckReport {
        file: file.to_owned(),
        hosts: 0,
        intervals: 0,
        groups: 0,
        damage: Vec::new(),
        known: Vec::new(),
        aside: Vec::new(),
    };
    let database = connect_read_only(file).map_err(failed)?;
    match schema::kind_of(&database) {
        Ok(DatabaseKind::Ours) => (),
        // Some of a version before are upgraded when they are opened.
        Ok(DatabaseKind::OtherVersion(_)) if SchemaVersion::of(&database).is_upgraded() => (),
        Ok(DatabaseKind::OtherVersion(version)) => {
            return Err(BackupError::from(EmbeddedError::Version {
                file: file.to_owned(),
                found: version,
                known: schema::VERSION,
            }));
        }
        Ok(DatabaseKind::Foreign) => {
            return Err(BackupError::from(EmbeddedError::Foreign {
                file: file.to_owned(),
            }));
        }
        Ok(DatabaseKind::Empty) => found.damage.push(Damage::of_store(now, "it is empty")),
        Ok(DatabaseKind::Damaged) => found
            .damage
            .push(Damage::of_store(now, "its version is damaged")),
        Err(error) if is_damage(&error) => {
            found.damage.push(Damage::of_store(now, error.to_string()));
        }
        Err(error) => return Err(failed(error)),
    }
    let structure = structure(&database, "integrity_check").map_err(failed)?;
    found
        .damage
        .extend(structure.map(|words| Damage::of_store(now, words)));
    // In one transaction: the receiver goes on writing.
    let _snapshot = database.unchecked_transaction().map_err(failed)?;
    let mut groups = 0;
    let reading = read::everything(&database, ScanMode::Fast, now, &mut |_, _, _| groups += 1);
    let hosts = &reading.snapshot.hosts;
    found.hosts = hosts.len();
    let series = hosts.iter().flat_map(|host| &host.series);
    let intervals = series.map(|stored| stored.series.intervals().count());
    found.intervals = intervals.sum();
    found.groups = groups;
    found.damage.extend(reading.damage);
    let of_history = read::history(&database, ScanMode::Fast, now, &mut |_| ());
    found.damage.extend(of_history);
    found.known = reading.known;
    Ok(found)
}

fn store_id(file: &Path) -> Result<String, EmbeddedError> {
    let database = connect_read_only(file)?;
    Ok(
        database.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| {
            row.get(0)
        })?,
    )
}

fn copy_crls(from: &Path, to: &Path) -> Result<(), BackupError> {
    let (from, to) = (from.join(CRLS), to.join(CRLS));
    match fs::read(&from) {
        Ok(lists) => lizmon_pki::atomic_file::write(&to, &lists, Access::Public)
            .map_err(failed(&to, "cannot be written")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(&from, "cannot be read")(error)),
    }
}

fn copy_private(from: &Path, to: &Path) -> Result<(), BackupError> {
    files::remove_all(to);
    let copied = files::private(to, fs::OpenOptions::new().create(true).append(true))
        .and_then(|_| fs::copy(from, to))
        .and_then(|_| files::set_private(to))
        .and_then(|()| files::sync(to));
    copied.map_err(failed(to, "cannot be created"))
}

fn failed(file: &Path, what: &'static str) -> impl Fn(io::Error) -> BackupError {
    let file = file.to_owned();
    move |source| BackupError::File {
        file: file.clone(),
        what,
        source,
    }
}
