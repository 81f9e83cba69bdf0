//! What a person does with a store: look whether it is whole, copy it while the receiver runs, put a copy in its place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lizmon_pki::atomic_file::Access;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::super::StoreError;
use super::super::damage::Damage;
use super::read::{self, How};
use super::schema::{self, Whose};
use super::wal::Log;
use super::{files, with_cure};

/// Lists that were handed in: a restored store must not need them handed in again.
const LISTS: &str = "crl.pem";
/// Says what a backup is of, and of when.
const LABEL: &str = "backup.json";

/// What a look at a store found.
#[derive(Debug)]
pub struct Found {
    /// The database.
    pub file: PathBuf,
    /// How many hosts, intervals and groups of the journal it holds.
    pub hosts: usize,
    /// Intervals of their series.
    pub intervals: usize,
    /// Groups of the journal that are to be counted yet.
    pub groups: usize,
    /// What is wrong with it now.
    pub damage: Vec<Damage>,
    /// What was found before: it is lost, and the store was mended.
    pub known: Vec<Damage>,
    /// Databases that were set aside.
    pub aside: Vec<PathBuf>,
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The store's own name.
    pub store: String,
    /// When it was made: epoch seconds.
    pub made_at: u64,
    /// How many hosts are in it.
    pub hosts: usize,
}

/// Why a backup or a restore was not done.
#[derive(Debug, thiserror::Error)]
pub enum CareError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A place that is taken.
    #[error("{place} is there already: name a folder that is not", place = place.display())]
    Taken {
        /// Which.
        place: PathBuf,
    },
    /// No backup.
    #[error("{folder} holds no backup: there is no {file} in it", folder = folder.display())]
    NoBackup {
        /// Which folder.
        folder: PathBuf,
        /// What is missing.
        file: &'static str,
    },
    /// No store.
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

/// Reads all of the store in `folder` and changes nothing. A receiver may be running on it.
pub fn check(folder: &Path, now: u64) -> Result<Found, CareError> {
    let file = files::database(folder);
    if fs::symlink_metadata(&file).is_err() {
        return Err(CareError::NoStore { file });
    }
    // Whoever runs writes to the log while it is read: then the database's own reading is what counts.
    let alone = files::is_unlocked(folder);
    let log = match alone {
        true => Log::open(&file).map_err(failed(&file, "what is written ahead cannot be read"))?,
        false => None,
    };
    let mut found = look(&file, now)?;
    let of_log = log.and_then(|log| log.fault());
    found
        .damage
        .extend(of_log.map(|fault| Damage::of_store(now, fault)));
    found.aside = files::all_aside(folder);
    Ok(found)
}

/// Copies the store in `folder` to the new folder `to`, as it is at one moment. A receiver may be running on it.
pub fn backup(folder: &Path, to: &Path, now: u64) -> Result<Label, CareError> {
    let found = check(folder, now)?;
    if let Some(damage) = found.damage.first() {
        return Err(CareError::Damaged {
            file: found.file,
            what: damage.to_string(),
            cure: "start the receiver, which keeps what can be read, then make the backup",
        });
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(CareError::Taken {
            place: to.to_owned(),
        });
    }
    files::make_folder(to)?;
    let copy = files::database(to);
    let made = fill(folder, &found.file, to, &copy, now);
    if made.is_err() {
        // Half a backup is none.
        let _left = fs::remove_dir_all(to);
    }
    made
}

fn fill(folder: &Path, file: &Path, to: &Path, copy: &Path, now: u64) -> Result<Label, CareError> {
    let store = |error: rusqlite::Error| with_cure(StoreError::Database(error), file);
    let database = read::to_read(file).map_err(store)?;
    files::private(copy, fs::OpenOptions::new().create(true).append(true))
        .map_err(failed(copy, "cannot be made"))?;
    database
        .execute("VACUUM INTO ?1", params![copy.to_string_lossy()])
        .map_err(|error| with_cure(StoreError::Database(error), copy))?;
    files::sync(copy).map_err(failed(copy, "cannot be synced"))?;
    let copied = look(copy, now)?;
    if let Some(damage) = copied.damage.first() {
        return Err(CareError::Damaged {
            file: copy.to_owned(),
            what: damage.to_string(),
            cure: "try again, or elsewhere",
        });
    }
    copy_lists(folder, to)?;
    let label = Label {
        store: id_of(copy)?,
        made_at: now,
        hosts: copied.hosts,
    };
    let json = serde_json::to_vec_pretty(&label).map_err(io::Error::other);
    let path = to.join(LABEL);
    json.and_then(|json| lizmon_pki::atomic_file::write(&path, &json, Access::Secret))
        .map_err(failed(&path, "cannot be written"))?;
    Ok(label)
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// What the backup says of itself; none if somebody made it by hand.
    pub label: Option<Label>,
    /// How many hosts are in it.
    pub hosts: usize,
    /// Where what was there before is now.
    pub aside: Option<PathBuf>,
}

/// Puts the backup in `from` in the place of the store in `folder`, which is set aside. No receiver may be running on it.
pub fn restore(from: &Path, folder: &Path, now: u64) -> Result<Restored, CareError> {
    let backup = files::database(from);
    if fs::symlink_metadata(&backup).is_err() {
        return Err(CareError::NoBackup {
            folder: from.to_owned(),
            file: files::FILE,
        });
    }
    let found = look(&backup, now)?;
    if let Some(damage) = found.damage.first() {
        return Err(CareError::Damaged {
            file: backup,
            what: damage.to_string(),
            cure: "take another backup",
        });
    }
    let label = fs::read(from.join(LABEL))
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
    files::mark(folder, &id_of(&file)?)?;
    // Never over newer ones: what they revoke would be let in again.
    if fs::symlink_metadata(folder.join(LISTS)).is_err() {
        copy_lists(from, folder)?;
    }
    Ok(Restored {
        label,
        hosts: found.hosts,
        aside: was_there.then_some(aside),
    })
}

/// Reads all of one database.
fn look(file: &Path, now: u64) -> Result<Found, CareError> {
    let failed = |error| CareError::Store(with_cure(StoreError::Database(error), file));
    let mut found = Found {
        file: file.to_owned(),
        hosts: 0,
        intervals: 0,
        groups: 0,
        damage: Vec::new(),
        known: Vec::new(),
        aside: Vec::new(),
    };
    let database = read::to_read(file).map_err(failed)?;
    match schema::whose(&database) {
        Ok(Whose::Ours) => (),
        Ok(Whose::OfVersion(version)) => {
            return Err(CareError::Store(StoreError::Version {
                file: file.to_owned(),
                found: version,
                known: schema::VERSION,
            }));
        }
        Ok(Whose::Foreign) => {
            return Err(CareError::Store(StoreError::Foreign {
                file: file.to_owned(),
            }));
        }
        Ok(Whose::Nobodys) => found.damage.push(Damage::of_store(now, "it is empty")),
        Ok(Whose::Damaged) => found
            .damage
            .push(Damage::of_store(now, "its version is damaged")),
        Err(error) if read::is_damage(&error) => {
            found.damage.push(Damage::of_store(now, error.to_string()));
        }
        Err(error) => return Err(failed(error)),
    }
    let structure = read::structure(&database, "integrity_check").map_err(failed)?;
    found
        .damage
        .extend(structure.map(|words| Damage::of_store(now, words)));
    // In one transaction: the receiver goes on writing.
    let _snapshot = database.unchecked_transaction().map_err(failed)?;
    let mut groups = 0;
    let reading = read::everything(&database, How::Once, now, &mut |_, _| groups += 1);
    let hosts = &reading.state.hosts;
    found.hosts = hosts.len();
    found.intervals = hosts.iter().map(|host| host.buckets.len()).sum();
    found.groups = groups;
    found.damage.extend(reading.damage);
    found.known = reading.known;
    Ok(found)
}

fn id_of(file: &Path) -> Result<String, StoreError> {
    let database = read::to_read(file)?;
    Ok(
        database.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| {
            row.get(0)
        })?,
    )
}

fn copy_lists(from: &Path, to: &Path) -> Result<(), CareError> {
    let (from, to) = (from.join(LISTS), to.join(LISTS));
    match fs::read(&from) {
        Ok(lists) => lizmon_pki::atomic_file::write(&to, &lists, Access::Public)
            .map_err(failed(&to, "cannot be written")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(&from, "cannot be read")(error)),
    }
}

fn copy_private(from: &Path, to: &Path) -> Result<(), CareError> {
    files::remove_all(to);
    let copied = files::private(to, fs::OpenOptions::new().create(true).append(true))
        .and_then(|_| fs::copy(from, to))
        .and_then(|_| files::set_private(to))
        .and_then(|()| files::sync(to));
    copied.map_err(failed(to, "cannot be made"))
}

fn failed(file: &Path, what: &'static str) -> impl Fn(io::Error) -> CareError {
    let file = file.to_owned();
    move |source| CareError::File {
        file: file.clone(),
        what,
        source,
    }
}
