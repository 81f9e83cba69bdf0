//! Opens the file: to work with it, or only to read it where nothing can be written.
//!
//! SQLite in WAL mode writes beside the file even to read it. On a medium that is read-only or full, and as a user who may
//! not write there, a copy is read instead; where no copy can be made either, the file itself, as one that nobody changes.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tempfile::TempDir;

use super::{BUSY_TIMEOUT, Ledger, LedgerFailure, failed};
use crate::error::Error;

/// How often a copy is begun again because somebody wrote meanwhile.
const COPIES_MAX: usize = 10;
/// Where copies are made, if not in the folder for temporary files: in memory.
const MEMORY: &str = "/dev/shm";
/// NO_MUTEX: the mutex is ours. NOFOLLOW concerns every part of the path, so links before it are resolved first.
const TO_WRITE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW);
const TO_READ: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_URI);

/// How a ledger is read that cannot be written.
#[derive(Debug)]
pub(super) enum ReadOnlyMode {
    /// From a copy, which goes when it is closed.
    Copy(#[expect(dead_code, reason = "kept for as long as the copy is read")] TempDir),
    /// In its place, as a file that does not change.
    InPlace,
}

impl Ledger {
    /// Opens an existing file and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Self::open_at(path, path, None)
    }

    /// Opens an existing file of which nothing is to be changed, wherever it is.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, Error> {
        let temporary = std::env::temp_dir();
        let mut last = None;
        for folder in [temporary.as_path(), Path::new(MEMORY)] {
            match copy_into(path, folder) {
                Ok((folder, copy)) => {
                    return Self::open_at(path, &copy, Some(ReadOnlyMode::Copy(folder)));
                }
                Err(error) => last = last.or(Some(error)),
            }
        }
        let waits = fs::metadata(sibling(path, "-wal")).is_ok_and(|log| log.len() > 0);
        match last {
            // Without what waits in the log it would be an older one.
            Some(source) if waits => Err(Error::io("read", path)(source)),
            _ => Self::open_at(path, path, Some(ReadOnlyMode::InPlace)),
        }
    }

    fn open_at(path: &Path, file: &Path, reading: Option<ReadOnlyMode>) -> Result<Self, Error> {
        // SQLite would take an empty file for a new database.
        let metadata = fs::metadata(file).map_err(Error::io("read", path))?;
        let is_new = metadata.len() == 0;
        let connection = connect(file, reading.as_ref()).map_err(|error| match error {
            Connecting::File(error) => error,
            Connecting::Sqlite(error) => failed(path, error),
        })?;
        let ledger = Self {
            path: path.to_owned(),
            file: file.to_owned(),
            connection: Mutex::new(connection),
            reading,
        };
        match (&ledger.reading, is_new) {
            (None, _) => ledger.migrate()?,
            (Some(_), true) => {
                return Err(Error::BadFile {
                    path: path.to_owned(),
                    why: "it is empty",
                });
            }
            (Some(ReadOnlyMode::Copy(_)), false) => {
                ledger.migrate()?;
                ledger.pragma("query_only", true)?;
            }
            (Some(ReadOnlyMode::InPlace), false) => {}
        }
        Ok(ledger)
    }

    /// Copies the whole ledger into a new file, as it is while `exclusive` is held by the caller.
    pub(crate) fn copy_to(&self, place: &Path) -> Result<(), Error> {
        // A connection of its own: VACUUM INTO reads, and cannot run in the transaction that holds the lock.
        let connection = match connect(&self.file, self.reading.as_ref()) {
            Ok(connection) => connection,
            Err(Connecting::File(error)) => return Err(error),
            Err(Connecting::Sqlite(error)) => return Err(self.failed(error)),
        };
        let name = place.to_string_lossy();
        connection
            .execute("VACUUM INTO ?1", [name])
            .map_err(|error| failed(place, error))?;
        Ok(())
    }

    /// Reads every page, and holds every index against its table.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let found: String = self.transaction(|tx| {
            tx.run(|t| t.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))
        })?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(Error::Ledger {
                path: self.path.clone(),
                source: LedgerFailure::Damaged,
            }),
        }
    }

    /// Whether nothing can be changed.
    pub(crate) fn is_read_only(&self) -> bool {
        self.reading.is_some()
    }

    pub(super) fn behavior(&self) -> TransactionBehavior {
        match self.reading {
            None => TransactionBehavior::Immediate,
            Some(_) => TransactionBehavior::Deferred,
        }
    }

    fn pragma(&self, name: &str, value: bool) -> Result<(), Error> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        connection
            .pragma_update(None, name, value)
            .map_err(|error| self.failed(error))
    }
}

enum Connecting {
    File(Error),
    Sqlite(rusqlite::Error),
}

fn connect(file: &Path, reading: Option<&ReadOnlyMode>) -> Result<Connection, Connecting> {
    let file = resolve(file).map_err(Connecting::File)?;
    let connected = match reading {
        Some(ReadOnlyMode::InPlace) => Connection::open_with_flags(immutable_uri(&file), TO_READ),
        _ => Connection::open_with_flags(file, TO_WRITE).and_then(|connection| {
            prepare(&connection)?;
            Ok(connection)
        }),
    };
    connected.map_err(Connecting::Sqlite)
}

/// The URI of a file of which SQLite may take for granted that nobody changes it.
fn immutable_uri(file: &Path) -> String {
    let path: String = file
        .to_string_lossy()
        .chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3f".to_owned(),
            '#' => "%23".to_owned(),
            other => other.to_string(),
        })
        .collect();
    format!("file:{path}?immutable=1")
}

/// Copies the file with the log beside it, both as they were at one moment.
fn copy_into(path: &Path, folder: &Path) -> io::Result<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new()
        .prefix("lizmon-")
        .tempdir_in(folder)?;
    let copy = folder.path().join("ledger.db");
    let log = sibling(path, "-wal");
    for _ in 0..COPIES_MAX {
        let before = (stamp(path)?, stamp(&log).ok());
        fs::write(&copy, fs::read(path)?)?;
        match fs::read(&log) {
            Ok(bytes) => fs::write(sibling(&copy, "-wal"), bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if before == (stamp(path)?, stamp(&log).ok()) {
            return Ok((folder, copy));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "somebody writes it all the time",
    ))
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn stamp(path: &Path) -> io::Result<(u64, Option<SystemTime>)> {
    let metadata: Metadata = fs::metadata(path)?;
    Ok((metadata.len(), metadata.modified().ok()))
}

fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::NotAFolder(path.to_owned()));
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let folder = fs::canonicalize(folder).map_err(Error::io("read", folder))?;
    Ok(folder.join(name))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A certificate that left must be in the ledger after a power cut too.
    connection.pragma_update(None, "synchronous", "FULL")
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::name::Role;

    use super::*;
    use crate::ledger::Entry;
    use crate::profile::Profile;

    fn serials(ledger: &Ledger) -> Vec<String> {
        let entries = ledger.transaction(|tx| tx.entries()).unwrap();
        entries.into_iter().map(|entry| entry.serial).collect()
    }

    fn add(ledger: &Ledger, serial: &str) -> Result<(), Error> {
        let entry = Entry::for_test(serial, Profile::Leaf(Role::Node));
        ledger.transaction(|tx| tx.add(&entry))
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn reading_writes_nothing_and_misses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        crate::disk::create_secret(&path).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        add(&ledger, "01").unwrap();
        // What was written last waits in the log.
        assert!(fs::metadata(sibling(&path, "-wal")).unwrap().len() > 0);
        let reading = Ledger::open_read_only(&path).unwrap();
        assert_eq!(serials(&reading), ["01"]);
        assert!(reading.is_read_only() && add(&reading, "02").is_err());
        // While it is read it can be written; and the other way round.
        add(&ledger, "02").unwrap();
        assert_eq!(serials(&reading), ["01"]);
        drop((ledger, reading));

        assert_eq!(names(dir.path()), ["ledger.db"]);
        for reading in [
            Ledger::open_read_only(&path).unwrap(),
            Ledger::open_at(&path, &path, Some(ReadOnlyMode::InPlace)).unwrap(),
        ] {
            assert_eq!(serials(&reading), ["01", "02"]);
            let copy = dir.path().join("copy.db");
            reading.copy_to(&copy).unwrap();
            fs::remove_file(&copy).unwrap();
            assert!(add(&reading, "03").is_err());
            drop(reading);
            assert_eq!(names(dir.path()), ["ledger.db"]);
        }
    }

    #[test]
    fn a_file_that_is_no_ledger_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        crate::disk::create_secret(&path).unwrap();
        drop(Ledger::open(&path).unwrap());
        let good = fs::read(&path).unwrap();
        let mut damaged = good.clone();
        for byte in &mut damaged[4096..] {
            *byte = 0x5a;
        }
        let cases: [(&[u8], &str); 4] = [
            (b"", "empty"),
            (b"hello", "no ledger"),
            (&damaged, "damaged"),
            (&good[..4096], "damaged"),
        ];
        for (bytes, expected) in cases {
            fs::write(&path, bytes).unwrap();
            let opened = Ledger::open_read_only(&path)
                .and_then(|ledger| ledger.transaction(|tx| tx.entries()));
            let error = opened.unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let words = format!("{error}: {}", source.unwrap_or_default());
            assert!(
                words.contains(expected) && words.contains("ledger.db"),
                "{words}"
            );
        }
    }
}
