//! The open file, and a transaction on it.
//!
//! SQLite in WAL mode lets several processes hold the file open. A process that signs or writes
//! certificate files holds the write lock (an immediate transaction) meanwhile; others wait up to
//! [`BUSY_TIMEOUT`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::error::{BUSY_TIMEOUT, LedgerError, LedgerFailure, failed};
use super::read_only::{self, ReadOnlyMode};
use super::schema;
use crate::files::CaFileError;

/// NO_MUTEX: we have our own mutex. NOFOLLOW applies to every part of the path, so links in the
/// folder's path are resolved first.
const TO_WRITE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW);
const TO_READ: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_URI);

/// The open ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The path as the user knows it.
    path: PathBuf,
    /// The file that is open: a copy where the original cannot be written.
    file: PathBuf,
    connection: Mutex<Connection>,
    read_only: Option<ReadOnlyMode>,
}

impl Ledger {
    /// Opens an existing file. An empty one gets the schema.
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        Self::open_at(path, path, None)
    }

    /// Opens an existing file to read it, whatever medium it is on.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, LedgerError> {
        match read_only::copy(path) {
            Ok((folder, copy)) => Self::open_at(path, &copy, Some(ReadOnlyMode::Copy(folder))),
            // Without the log it would be an older ledger.
            Err(source) if read_only::has_log(path) => {
                Err(CaFileError::io("read", path)(source).into())
            }
            Err(_) => Self::open_at(path, path, Some(ReadOnlyMode::InPlace)),
        }
    }

    fn open_at(
        path: &Path,
        file: &Path,
        read_only: Option<ReadOnlyMode>,
    ) -> Result<Self, LedgerError> {
        // SQLite would take an empty file for a new database.
        let metadata = fs::metadata(file).map_err(CaFileError::io("read", path))?;
        let is_new = metadata.len() == 0;
        let connection = connect(file, read_only.as_ref()).map_err(|error| match error {
            Connecting::File(error) => error.into(),
            Connecting::Sqlite(error) => failed(path, error),
        })?;
        let ledger = Self {
            path: path.to_owned(),
            file: file.to_owned(),
            connection: Mutex::new(connection),
            read_only,
        };
        if ledger.is_read_only() && is_new {
            return Err(CaFileError::invalid(path, "it is empty").into());
        }
        ledger.check_version()?;
        if let Some(ReadOnlyMode::Copy(_)) = ledger.read_only {
            ledger.pragma("query_only", true)?;
        }
        Ok(ledger)
    }

    /// Copies the whole ledger into a new file. The caller holds a transaction, so nothing changes
    /// meanwhile.
    pub(crate) fn copy_to(&self, place: &Path) -> Result<(), LedgerError> {
        // A connection of its own: VACUUM INTO reads, and cannot run in the transaction that holds
        // the lock.
        let connection = match connect(&self.file, self.read_only.as_ref()) {
            Ok(connection) => connection,
            Err(Connecting::File(error)) => return Err(error.into()),
            Err(Connecting::Sqlite(error)) => return Err(self.failed(error)),
        };
        let name = place.to_string_lossy();
        connection
            .execute("VACUUM INTO ?1", [name])
            .map_err(|error| failed(place, error))?;
        Ok(())
    }

    /// Reads every page, and compares every index with its table.
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        let found: String = self.transaction(|tx| {
            tx.run(|t| t.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))
        })?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(LedgerError::Database {
                path: self.path.clone(),
                source: LedgerFailure::Damaged,
            }),
        }
    }

    /// Whether nothing can be changed.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.is_some()
    }

    pub(super) fn behavior(&self) -> TransactionBehavior {
        match self.read_only {
            None => TransactionBehavior::Immediate,
            Some(_) => TransactionBehavior::Deferred,
        }
    }

    fn pragma(&self, name: &str, value: bool) -> Result<(), LedgerError> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connection
            .pragma_update(None, name, value)
            .map_err(|error| self.failed(error))
    }

    /// Runs `work` with the write lock held, and commits if it succeeds.
    pub(crate) fn transaction<T, E: From<LedgerError>>(
        &self,
        work: impl FnOnce(&LedgerTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let transaction = connection
            .transaction_with_behavior(self.behavior())
            .map_err(|source| self.failed(source))?;
        let tx = LedgerTx {
            ledger: self,
            transaction,
        };
        let done = work(&tx)?;
        tx.transaction
            .commit()
            .map_err(|source| self.failed(source))?;
        Ok(done)
    }

    fn check_version(&self) -> Result<(), LedgerError> {
        self.transaction(|tx| match tx.run(schema::create_if_new)? {
            schema::VERSION if self.is_read_only() => Ok(()),
            schema::VERSION => tx.run(schema::complete),
            found => Err(LedgerError::UnsupportedVersion {
                path: self.path.clone(),
                found,
                known: schema::VERSION,
            }),
        })
    }

    fn failed(&self, error: rusqlite::Error) -> LedgerError {
        failed(&self.path, error)
    }
}

/// A transaction on the ledger, with the write lock held.
pub(crate) struct LedgerTx<'a> {
    ledger: &'a Ledger,
    transaction: Transaction<'a>,
}

impl LedgerTx<'_> {
    /// Runs a statement in this transaction.
    pub(super) fn run<T>(
        &self,
        query: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        query(&self.transaction).map_err(|source| self.ledger.failed(source))
    }
}

enum Connecting {
    File(CaFileError),
    Sqlite(rusqlite::Error),
}

fn connect(file: &Path, read_only: Option<&ReadOnlyMode>) -> Result<Connection, Connecting> {
    let file = resolve(file).map_err(Connecting::File)?;
    let connected = match read_only {
        Some(ReadOnlyMode::InPlace) => {
            Connection::open_with_flags(read_only::immutable_uri(&file), TO_READ)
        }
        _ => Connection::open_with_flags(file, TO_WRITE).and_then(|connection| {
            prepare(&connection)?;
            Ok(connection)
        }),
    };
    connected.map_err(Connecting::Sqlite)
}

fn resolve(path: &Path) -> Result<PathBuf, CaFileError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(CaFileError::NotAFolder(path.to_owned()));
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let folder = fs::canonicalize(folder).map_err(CaFileError::io("read", folder))?;
    Ok(folder.join(name))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A certificate that was given out must be in the ledger after a power cut too.
    connection.pragma_update(None, "synchronous", "FULL")
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::name::Role;

    use super::*;
    use crate::ledger::audit::{AuditAction, AuditEvent};
    use crate::ledger::record::Entry;
    use crate::pki::{Profile, Reason};

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        crate::files::disk::create_secret(&path).unwrap();
        (dir, path)
    }

    fn entry(serial: &str, name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            ..Entry::for_test(serial, Profile::Leaf(Role::Node))
        }
    }

    #[test]
    fn a_ledger_of_a_newer_program_is_left_alone() {
        let (_dir, path) = file();
        drop(Ledger::open(&path).unwrap());
        let newer = schema::VERSION + 1;
        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", newer).unwrap();
        drop(raw);
        match Ledger::open(&path) {
            Err(LedgerError::UnsupportedVersion { found, known, .. }) => {
                assert_eq!((found, known), (newer, newer - 1));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn opening_again_changes_nothing() {
        let (_dir, path) = file();
        let all = |ledger: &Ledger| ledger.transaction(|tx| tx.entries()).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        ledger
            .transaction(|tx| tx.add(&entry("01", "web1")))
            .unwrap();
        let before = all(&ledger);
        assert_eq!(before, [entry("01", "web1")]);
        drop(ledger);
        assert_eq!(all(&Ledger::open(&path).unwrap()), before);
    }

    /// These tables came later than the others of their version.
    #[test]
    fn a_ledger_without_a_later_table_gets_it() {
        for table in ["join_token_san", "join_token_attribute"] {
            let (_dir, path) = file();
            drop(Ledger::open(&path).unwrap());
            let raw = Connection::open(&path).unwrap();
            raw.execute_batch(&format!("DROP TABLE {table}")).unwrap();
            drop(raw);
            let rows = |ledger: &Ledger| {
                let count = format!("SELECT count(*) FROM {table}");
                let count = |t: &Transaction<'_>| t.query_row(&count, [], |row| row.get(0));
                ledger.transaction(|tx| tx.run::<u32>(count))
            };
            assert!(rows(&Ledger::open_read_only(&path).unwrap()).is_err());
            assert_eq!(rows(&Ledger::open(&path).unwrap()).unwrap(), 0);
        }
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let (_dir, path) = file();
        let ledger = Ledger::open(&path).unwrap();
        let failed: Result<(), LedgerError> = ledger.transaction(|tx| {
            tx.add(&entry("01", "web1"))?;
            Err(CaFileError::NotAFolder(path.clone()).into())
        });
        assert!(failed.is_err());
        assert_eq!(ledger.transaction(|tx| tx.entries()).unwrap(), []);
        let twice = ledger.transaction(|tx| {
            tx.add(&entry("01", "web1"))?;
            tx.add(&entry("01", "web2"))
        });
        assert!(
            matches!(twice, Err(LedgerError::Database { .. })),
            "one serial twice"
        );
        assert_eq!(ledger.transaction(|tx| tx.entries()).unwrap(), []);
    }

    #[test]
    fn revoked_certificates_are_listed_until_their_end() {
        let (_dir, path) = file();
        let ledger = Ledger::open(&path).unwrap();
        let serials = |ended_before| {
            let rows = ledger
                .transaction(|tx| tx.revoked("ca", ended_before, 900))
                .unwrap();
            rows.into_iter().map(|row| row.serial).collect::<Vec<_>>()
        };
        ledger
            .transaction(|tx| {
                tx.add(&entry("01", "web1"))?;
                tx.add(&entry("02", "web2"))?;
                for (serial, not_after) in [("04", 899), ("05", 900)] {
                    tx.add(&Entry {
                        not_after,
                        ..entry(serial, serial)
                    })?;
                    assert!(tx.revoke(serial, Reason::Superseded.code(), "test", 70)?);
                }
                assert!(tx.revoke("01", 1, "test", 50)?);
                assert!(!tx.revoke("01", 4, "test", 60)?, "once is enough");
                assert!(!tx.revoke("03", 1, "test", 50)?, "not issued");
                Ok::<_, LedgerError>(())
            })
            .unwrap();
        assert_eq!(serials(1000), ["01"]);
        // What was only replaced leaves the CRL sooner.
        assert_eq!(serials(800), ["01", "05"]);
        assert_eq!(serials(1001), [""; 0]);
        let other = ledger
            .transaction(|tx| tx.revoked("another", 0, 0))
            .unwrap();
        assert_eq!(other, []);
    }

    #[test]
    fn the_audit_log_is_only_appended_to() {
        let (_dir, path) = file();
        let ledger = Ledger::open(&path).unwrap();
        let event = AuditEvent {
            action: AuditAction::Init,
            who: "test",
            details: serde_json::json!({}),
        };
        ledger
            .transaction(|tx| {
                tx.record(&event, 1)?;
                tx.record(&event, 2)
            })
            .unwrap();
        let lines = ledger.transaction(|tx| tx.lines()).unwrap();
        assert_eq!(lines.len(), 2);
        drop(ledger);
        // As with the sqlite3 shell.
        let raw = Connection::open(&path).unwrap();
        for statement in [
            "UPDATE audit SET who = 'nobody'",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE number = 2",
            "INSERT OR REPLACE INTO audit VALUES (1, 1, 'x', 'x', '{}', x'', x'')",
            "INSERT INTO audit VALUES (4, 1, 'x', 'x', '{}', x'', x'')",
            "INSERT INTO audit VALUES (-1, 1, 'x', 'x', '{}', x'', x'')",
        ] {
            assert!(raw.execute_batch(statement).is_err(), "{statement}");
        }
        drop(raw);
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.transaction(|tx| tx.lines()).unwrap(), lines);
    }

    fn serials(ledger: &Ledger) -> Vec<String> {
        let entries = ledger.transaction(|tx| tx.entries()).unwrap();
        entries.into_iter().map(|entry| entry.serial).collect()
    }

    fn add(ledger: &Ledger, serial: &str) -> Result<(), LedgerError> {
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
        crate::files::disk::create_secret(&path).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        add(&ledger, "01").unwrap();
        // What was written last waits in the log.
        assert!(
            fs::metadata(read_only::sibling(&path, "-wal"))
                .unwrap()
                .len()
                > 0
        );
        let read_only = Ledger::open_read_only(&path).unwrap();
        assert_eq!(serials(&read_only), ["01"]);
        assert!(read_only.is_read_only() && add(&read_only, "02").is_err());
        // While it is read it can be written; and the other way round.
        add(&ledger, "02").unwrap();
        assert_eq!(serials(&read_only), ["01"]);
        drop((ledger, read_only));

        assert_eq!(names(dir.path()), ["ledger.db"]);
        for read_only in [
            Ledger::open_read_only(&path).unwrap(),
            Ledger::open_at(&path, &path, Some(ReadOnlyMode::InPlace)).unwrap(),
        ] {
            assert_eq!(serials(&read_only), ["01", "02"]);
            let copy = dir.path().join("copy.db");
            read_only.copy_to(&copy).unwrap();
            fs::remove_file(&copy).unwrap();
            assert!(add(&read_only, "03").is_err());
            drop(read_only);
            assert_eq!(names(dir.path()), ["ledger.db"]);
        }
    }

    #[test]
    fn a_file_that_is_no_ledger_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        crate::files::disk::create_secret(&path).unwrap();
        drop(Ledger::open(&path).unwrap());
        let good = fs::read(&path).unwrap();
        let mut damaged = good.clone();
        for byte in &mut damaged[4096..] {
            *byte = 0x5a;
        }
        let cases: [(&[u8], &str); 4] = [
            (b"", "empty"),
            (b"hello", "not a ledger"),
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
