//! `ledger.db`: every certificate ever signed here, and the CRLs with their numbers.
//!
//! SQLite in WAL mode, so several processes may hold it open. Whoever signs or writes certificate files holds its
//! write lock (an immediate transaction) meanwhile; others wait up to [`BUSY_TIMEOUT`]. A certificate is committed
//! here before its file is written: a crash can leave an entry without a file, never a file without an entry.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lizmon_protocol::name::{NodeName, Role};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior};

use crate::audit::Line;
use crate::error::Error;
use crate::profile::Profile;

/// How long a process waits for another that signs.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// `application_id` of the file, "LIZL": `file(1)` and we can tell it from other SQLite files.
const APPLICATION_ID: i32 = 0x4c49_5a4c;

/// What turns schema n into n + 1, from an empty file on. Never edited, only appended to.
///
/// Times are epoch seconds. `state` has no CHECK and CRL entries are kept as they were signed, so that later
/// versions may add states and tables without rewriting a row.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE certificate (
        serial TEXT PRIMARY KEY,            -- lower-case hex
        profile TEXT NOT NULL,              -- root, issuing or a role
        name TEXT NOT NULL,                 -- a CA's common name
        issuer TEXT NOT NULL,               -- serial of the signer; a root's own
        key_sha256 TEXT NOT NULL,           -- of the subject public key info
        not_before INTEGER NOT NULL,
        not_after INTEGER NOT NULL,
        issued_at INTEGER NOT NULL,
        issued_by TEXT NOT NULL,            -- who asked
        state TEXT NOT NULL,                -- valid, revoked
        revoked_at INTEGER,
        revoked_reason INTEGER,             -- RFC 5280 section 5.3.1
        pem TEXT NOT NULL
    ) STRICT;
    CREATE INDEX certificate_name ON certificate (profile, name COLLATE NOCASE);
    CREATE INDEX certificate_end ON certificate (not_after);
    CREATE INDEX certificate_revoked ON certificate (issuer) WHERE state = 'revoked';
    CREATE TABLE crl (
        issuer TEXT PRIMARY KEY,            -- serial of the CA that signs it
        number INTEGER NOT NULL,            -- only rises
        this_update INTEGER NOT NULL,
        next_update INTEGER NOT NULL,
        pem TEXT NOT NULL
    ) STRICT;
",
    // Join tokens, who revoked and what was renewed, and the audit log.
    "
    ALTER TABLE certificate ADD COLUMN revoked_by TEXT;
    ALTER TABLE certificate ADD COLUMN renews TEXT;  -- serial of the certificate that this one follows
    CREATE TABLE join_token (
        hash BLOB PRIMARY KEY,              -- SHA-256; the token itself is nowhere
        role TEXT NOT NULL,
        name TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        used_at INTEGER,
        used_key BLOB,                      -- SHA-256 of the subject public key info
        certificate_serial BLOB,
        created_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX join_token_name ON join_token (role, name);
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY,         -- from 1, without a gap
        time INTEGER NOT NULL,
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        details TEXT NOT NULL,              -- a JSON object
        previous BLOB NOT NULL,             -- hash of the line before; zeros before the first
        hash BLOB NOT NULL                  -- SHA-256, see audit.rs
    ) STRICT;
    -- The number's rule also stops INSERT OR REPLACE, which deletes without asking a DELETE trigger.
    CREATE TRIGGER audit_appends BEFORE INSERT ON audit
        WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM audit)
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
    CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
",
    // The generations of both CAs, and whether their files still have to follow the ledger.
    "
    CREATE TABLE generation (
        serial TEXT PRIMARY KEY REFERENCES certificate (serial),
        phase TEXT NOT NULL,                -- next, current, old, retired, gone
        since INTEGER NOT NULL
    ) STRICT;
    INSERT INTO generation
        SELECT serial, 'current', issued_at FROM certificate WHERE profile IN ('root', 'issuing');
    CREATE TABLE unsettled (files INTEGER PRIMARY KEY CHECK (files = 1)) STRICT;
",
];

/// Whether a certificate still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As issued.
    Valid,
    /// On the CRL until it ends.
    Revoked,
}

impl State {
    /// As it stands in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Revoked => "revoked",
        }
    }
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Lower-case hex.
    pub serial: String,
    /// Which template.
    pub profile: Profile,
    /// The holder's name, or a CA's common name.
    pub name: String,
    /// Serial of the signer.
    pub issuer: String,
    /// SHA-256 of the subject public key info, lower-case hex.
    pub key_sha256: String,
    /// Epoch seconds.
    pub not_before: u64,
    /// Epoch seconds.
    pub not_after: u64,
    /// Epoch seconds.
    pub issued_at: u64,
    /// Who asked.
    pub issued_by: String,
    /// Whether it still counts.
    pub state: State,
    /// Epoch seconds, if it was revoked.
    pub revoked_at: Option<u64>,
    /// Why, if it was revoked: RFC 5280 section 5.3.1.
    pub revoked_reason: Option<u8>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
    /// Serial of the certificate that this one follows, if it is a renewal.
    pub renews: Option<String>,
    /// The certificate.
    pub pem: String,
}

impl Entry {
    /// Whether it counts at `now`: not revoked, not ended.
    pub fn is_live(&self, now: u64) -> bool {
        self.state == State::Valid && now <= self.not_after
    }
}

/// Where a CA's certificate stands in its life. Trusted are the first three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Signs.
    Current,
    /// Will sign.
    Next,
    /// Signed what is still in use.
    Old,
    /// Trusted no more, but could be again: its key is here.
    Retired,
    /// Its key is not kept any more.
    Gone,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Current,
        Self::Next,
        Self::Old,
        Self::Retired,
        Self::Gone,
    ];

    /// As it stands in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Old => "old",
            Self::Retired => "retired",
            Self::Gone => "gone",
        }
    }

    /// Whether certificates below it are good.
    pub fn is_trusted(self) -> bool {
        self <= Self::Old
    }
}

/// One CA's certificate and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The certificate.
    pub entry: Entry,
    /// Where it stands.
    pub phase: Phase,
    /// Since when: epoch seconds.
    pub since: u64,
}

/// The newest CRL of one CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrlRow {
    pub(crate) issuer: String,
    pub(crate) number: u64,
    pub(crate) this_update: u64,
    pub(crate) next_update: u64,
    pub(crate) pem: String,
}

/// One revoked certificate, as a CRL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevokedRow {
    pub(crate) serial: String,
    pub(crate) revoked_at: u64,
    pub(crate) reason: Option<u8>,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Ledger {
    /// Opens an existing file and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Ledger {
            path: path.to_owned(),
            source,
        };
        // NO_MUTEX: the mutex is ours. NOFOLLOW concerns every part of the path, so links before it are resolved first.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(resolve(path)?, flags).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        let ledger = Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        };
        ledger.migrate()?;
        Ok(ledger)
    }

    /// Runs `work` with the write lock held, and commits if it succeeds.
    pub(crate) fn exclusive<T>(
        &self,
        work: impl FnOnce(&Book<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| self.failed(source))?;
        let book = Book {
            ledger: self,
            transaction,
        };
        let done = work(&book)?;
        book.transaction
            .commit()
            .map_err(|source| self.failed(source))?;
        Ok(done)
    }

    fn migrate(&self) -> Result<(), Error> {
        self.exclusive(|book| {
            let found: u32 =
                book.run(|t| t.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
            let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
            if found > known {
                return Err(Error::LedgerTooNew {
                    path: self.path.clone(),
                    found,
                    known,
                });
            }
            for step in &MIGRATIONS[found as usize..] {
                book.run(|t| t.execute_batch(step))?;
            }
            if found < known {
                book.run(|t| t.pragma_update(None, "application_id", APPLICATION_ID))?;
                book.run(|t| t.pragma_update(None, "user_version", known))?;
            }
            Ok(())
        })
    }

    fn failed(&self, source: rusqlite::Error) -> Error {
        Error::Ledger {
            path: self.path.clone(),
            source,
        }
    }
}

/// The ledger with its write lock held.
pub(crate) struct Book<'a> {
    ledger: &'a Ledger,
    transaction: Transaction<'a>,
}

impl Book<'_> {
    /// Another spelling of this name that was issued in this role.
    pub(crate) fn case_twin(&self, role: Role, name: &NodeName) -> Result<Option<String>, Error> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT name FROM certificate
                 WHERE profile = ?1 AND name = ?2 COLLATE NOCASE AND name <> ?2 COLLATE BINARY LIMIT 1",
            )?
            .query_row((role.as_str(), name.as_str()), |row| row.get(0))
            .optional()
        })
    }

    /// Every live certificate of a holder.
    pub(crate) fn live(&self, role: Role, name: &NodeName, now: u64) -> Result<Vec<Entry>, Error> {
        let values = [role.as_str().to_owned(), name.to_string()];
        let mut entries = self.entries_where("profile = ?1 AND name = ?2", values)?;
        entries.retain(|entry| entry.is_live(now));
        Ok(entries)
    }

    /// Whether anything was ever issued to a holder.
    pub(crate) fn knows(&self, role: Role, name: &NodeName) -> Result<bool, Error> {
        self.run(|t| {
            t.prepare_cached("SELECT 1 FROM certificate WHERE profile = ?1 AND name = ?2")?
                .exists((role.as_str(), name.as_str()))
        })
    }

    /// The CAs that ever were: current ones first, then by phase and age.
    pub(crate) fn generations(&self) -> Result<Vec<Generation>, Error> {
        let rows: Vec<(String, Phase, u64)> = self.run(|t| {
            t.prepare_cached("SELECT serial, phase, since FROM generation ORDER BY rowid")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, seconds(row, 2)?)))?
                .collect()
        })?;
        let mut generations = Vec::new();
        for (serial, phase, since) in rows {
            generations.extend(self.find(&serial)?.map(|entry| Generation {
                entry,
                phase,
                since,
            }));
        }
        generations.sort_by_key(|generation| generation.phase);
        Ok(generations)
    }

    /// Moves a CA into a phase.
    pub(crate) fn set_phase(&self, serial: &str, phase: Phase, now: u64) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "INSERT INTO generation (serial, phase, since) VALUES (?1, ?2, ?3)
                 ON CONFLICT (serial) DO UPDATE SET phase = excluded.phase, since = excluded.since",
                (serial, phase.as_str(), sql(now)),
            )
        })?;
        Ok(())
    }

    /// Whether the CA's files still have to follow the ledger.
    pub(crate) fn is_unsettled(&self) -> Result<bool, Error> {
        self.run(|t| t.prepare_cached("SELECT 1 FROM unsettled")?.exists([]))
    }

    /// Remembers whether the CA's files still have to follow the ledger.
    pub(crate) fn set_unsettled(&self, unsettled: bool) -> Result<(), Error> {
        let statement = if unsettled {
            "INSERT OR IGNORE INTO unsettled VALUES (1)"
        } else {
            "DELETE FROM unsettled"
        };
        self.run(|t| t.execute(statement, []))?;
        Ok(())
    }

    /// Withdraws the join tokens of a holder that were not used yet, and says how many.
    pub(crate) fn withdraw_tokens(
        &self,
        role: Role,
        name: &NodeName,
        now: u64,
    ) -> Result<usize, Error> {
        self.run(|t| {
            t.execute(
                "UPDATE join_token SET expires = ?3 WHERE role = ?1 AND name = ?2 AND expires > ?3",
                (role.as_str(), name.as_str(), sql(now)),
            )
        })
    }

    /// The audit log.
    pub(crate) fn lines(&self) -> Result<Vec<Line>, Error> {
        self.lines_by("ORDER BY number")
    }

    /// Its newest line.
    pub(crate) fn last_line(&self) -> Result<Option<Line>, Error> {
        Ok(self.lines_by("ORDER BY number DESC LIMIT 1")?.pop())
    }

    fn lines_by(&self, order: &'static str) -> Result<Vec<Line>, Error> {
        self.run(|t| {
            t.prepare_cached(&format!(
                "SELECT number, time, who, what, details, previous, hash FROM audit {order}"
            ))?
            .query_map([], |row| {
                Ok(Line {
                    number: seconds(row, 0)?,
                    time: seconds(row, 1)?,
                    who: row.get(2)?,
                    what: row.get(3)?,
                    details: row.get(4)?,
                    previous: row.get(5)?,
                    hash: row.get(6)?,
                })
            })?
            .collect()
        })
    }

    /// Writes the next line of the audit log.
    pub(crate) fn append(&self, line: &Line) -> Result<(), Error> {
        self.run(|t| {
            t.prepare_cached(
                "INSERT INTO audit (number, time, who, what, details, previous, hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                sql(line.number),
                sql(line.time),
                &line.who,
                &line.what,
                &line.details,
                &line.previous,
                &line.hash,
            ))
        })?;
        Ok(())
    }

    /// Adds a certificate.
    pub(crate) fn add(&self, entry: &Entry) -> Result<(), Error> {
        self.run(|t| {
            t.prepare_cached(
                "INSERT INTO certificate (serial, profile, name, issuer, key_sha256, not_before, not_after,
                                          issued_at, issued_by, state, renews, pem)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(rusqlite::params![
                entry.serial,
                entry.profile.as_str(),
                entry.name,
                entry.issuer,
                entry.key_sha256,
                sql(entry.not_before),
                sql(entry.not_after),
                sql(entry.issued_at),
                entry.issued_by,
                entry.state.as_str(),
                entry.renews,
                entry.pem,
            ])
        })?;
        Ok(())
    }

    /// One certificate.
    pub(crate) fn find(&self, serial: &str) -> Result<Option<Entry>, Error> {
        Ok(self
            .entries_where("serial = ?1", [serial.to_owned()])?
            .into_iter()
            .next())
    }

    /// Every certificate, in the order they were issued.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.entries_where("TRUE", [])
    }

    fn entries_where<const N: usize>(
        &self,
        condition: &'static str,
        values: [String; N],
    ) -> Result<Vec<Entry>, Error> {
        self.run(|t| {
            t.prepare_cached(&format!(
                "SELECT serial, profile, name, issuer, key_sha256, not_before, not_after, issued_at, issued_by,
                        state, revoked_at, revoked_reason, revoked_by, renews, pem
                 FROM certificate WHERE {condition} ORDER BY issued_at, rowid"
            ))?
            .query_map(rusqlite::params_from_iter(values), read_entry)?
            .collect()
        })
    }

    /// Marks a certificate revoked; false if it was already.
    pub(crate) fn revoke(
        &self,
        serial: &str,
        reason: u8,
        who: &str,
        now: u64,
    ) -> Result<bool, Error> {
        let changed = self.run(|t| {
            t.execute(
                "UPDATE certificate SET state = 'revoked', revoked_at = ?2, revoked_reason = ?3, revoked_by = ?4
                 WHERE serial = ?1 AND state <> 'revoked'",
                (serial, sql(now), reason, who),
            )
        })?;
        Ok(changed == 1)
    }

    /// What a CA's CRL names: revoked, and not ended before `ended_before`.
    pub(crate) fn revoked(
        &self,
        issuer: &str,
        ended_before: u64,
    ) -> Result<Vec<RevokedRow>, Error> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT serial, revoked_at, revoked_reason FROM certificate
                 WHERE issuer = ?1 AND state = 'revoked' AND not_after >= ?2 ORDER BY revoked_at, serial",
            )?
            .query_map((issuer, sql(ended_before)), |row| {
                Ok(RevokedRow {
                    serial: row.get(0)?,
                    revoked_at: seconds(row, 1)?,
                    reason: row.get(2)?,
                })
            })?
            .collect()
        })
    }

    /// The newest CRL of each CA, the first CA's first.
    pub(crate) fn crls(&self) -> Result<Vec<CrlRow>, Error> {
        self.run(|t| {
            t.prepare_cached(
                "SELECT issuer, number, this_update, next_update, pem FROM crl ORDER BY rowid",
            )?
            .query_map([], |row| {
                Ok(CrlRow {
                    issuer: row.get(0)?,
                    number: seconds(row, 1)?,
                    this_update: seconds(row, 2)?,
                    next_update: seconds(row, 3)?,
                    pem: row.get(4)?,
                })
            })?
            .collect()
        })
    }

    /// Keeps a new CRL in place of the CA's last one.
    pub(crate) fn put_crl(&self, row: &CrlRow) -> Result<(), Error> {
        self.run(|t| {
            t.execute(
                "INSERT INTO crl (issuer, number, this_update, next_update, pem) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (issuer) DO UPDATE SET number = excluded.number, this_update = excluded.this_update,
                     next_update = excluded.next_update, pem = excluded.pem",
                (
                    &row.issuer,
                    sql(row.number),
                    sql(row.this_update),
                    sql(row.next_update),
                    &row.pem,
                ),
            )
        })?;
        Ok(())
    }

    /// Runs a statement of a module's own in this transaction.
    pub(crate) fn run<T>(
        &self,
        query: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        query(&self.transaction).map_err(|source| self.ledger.failed(source))
    }
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
    let folder = std::fs::canonicalize(folder).map_err(Error::io("read", folder))?;
    Ok(folder.join(name))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A certificate that left must be in the ledger after a power cut too.
    connection.pragma_update(None, "synchronous", "FULL")
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        serial: row.get(0)?,
        profile: row.get(1)?,
        name: row.get(2)?,
        issuer: row.get(3)?,
        key_sha256: row.get(4)?,
        not_before: seconds(row, 5)?,
        not_after: seconds(row, 6)?,
        issued_at: seconds(row, 7)?,
        issued_by: row.get(8)?,
        state: row.get(9)?,
        revoked_at: row.get::<_, Option<i64>>(10)?.map(i64::unsigned_abs),
        revoked_reason: row.get(11)?,
        revoked_by: row.get(12)?,
        renews: row.get(13)?,
        pem: row.get(14)?,
    })
}

impl FromSql for Profile {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}

impl FromSql for Phase {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        [Self::Valid, Self::Revoked]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(FromSqlError::InvalidType)
    }
}

pub(crate) fn seconds(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::unsigned_abs)
}

/// SQLite's integers are signed. What is past them was refused long before.
pub(crate) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
impl Entry {
    pub(crate) fn for_test(serial: &str, profile: Profile) -> Self {
        Self {
            serial: serial.to_owned(),
            profile,
            name: "name".to_owned(),
            issuer: "ca".to_owned(),
            key_sha256: String::new(),
            not_before: 1,
            not_after: 1000,
            issued_at: 2,
            issued_by: "test".to_owned(),
            state: State::Valid,
            revoked_at: None,
            revoked_reason: None,
            revoked_by: None,
            renews: None,
            pem: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        crate::disk::claim(&path).unwrap();
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
        let newer = MIGRATIONS.len() as u32 + 1;
        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", newer).unwrap();
        drop(raw);
        match Ledger::open(&path) {
            Err(Error::LedgerTooNew { found, known, .. }) => {
                assert_eq!((found, known), (newer, newer - 1));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn opening_again_changes_nothing() {
        let (_dir, path) = file();
        let all = |ledger: &Ledger| ledger.exclusive(|book| book.entries()).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        ledger
            .exclusive(|book| book.add(&entry("01", "web1")))
            .unwrap();
        let before = all(&ledger);
        assert_eq!(before, [entry("01", "web1")]);
        drop(ledger);
        assert_eq!(all(&Ledger::open(&path).unwrap()), before);
    }

    #[test]
    fn work_that_fails_leaves_nothing() {
        let (_dir, path) = file();
        let ledger = Ledger::open(&path).unwrap();
        let failed: Result<(), Error> = ledger.exclusive(|book| {
            book.add(&entry("01", "web1"))?;
            Err(Error::Random)
        });
        assert!(failed.is_err());
        assert_eq!(ledger.exclusive(|book| book.entries()).unwrap(), []);
        let twice = ledger.exclusive(|book| {
            book.add(&entry("01", "web1"))?;
            book.add(&entry("01", "web2"))
        });
        assert!(
            matches!(twice, Err(Error::Ledger { .. })),
            "one serial twice"
        );
        assert_eq!(ledger.exclusive(|book| book.entries()).unwrap(), []);
    }

    #[test]
    fn the_revoked_are_named_until_their_end() {
        let (_dir, path) = file();
        let ledger = Ledger::open(&path).unwrap();
        let serials = |ended_before| {
            let rows = ledger
                .exclusive(|book| book.revoked("ca", ended_before))
                .unwrap();
            rows.into_iter().map(|row| row.serial).collect::<Vec<_>>()
        };
        ledger
            .exclusive(|book| {
                book.add(&entry("01", "web1"))?;
                book.add(&entry("02", "web2"))?;
                assert!(book.revoke("01", 1, "test", 50)?);
                assert!(!book.revoke("01", 4, "test", 60)?, "once is enough");
                assert!(!book.revoke("03", 1, "test", 50)?, "not issued");
                Ok(())
            })
            .unwrap();
        assert_eq!(serials(1000), ["01"]);
        assert_eq!(serials(1001), [""; 0]);
        let other = ledger.exclusive(|book| book.revoked("another", 0)).unwrap();
        assert_eq!(other, []);
    }

    #[test]
    fn the_audit_log_is_only_appended_to() {
        let (_dir, path) = file();
        let ledger = Ledger::open(&path).unwrap();
        let event = crate::audit::Event {
            deed: crate::audit::Deed::Init,
            who: "test",
            details: serde_json::json!({}),
        };
        ledger
            .exclusive(|book| {
                book.note(&event, 1)?;
                book.note(&event, 2)
            })
            .unwrap();
        let lines = ledger.exclusive(|book| book.lines()).unwrap();
        assert_eq!(lines.len(), 2);
        drop(ledger);
        // As somebody with the sqlite3 shell would.
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
        assert_eq!(ledger.exclusive(|book| book.lines()).unwrap(), lines);
    }
}
