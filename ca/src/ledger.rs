//! `ledger.db`: every certificate ever signed here, and the CRLs with their numbers.
//!
//! SQLite in WAL mode, so several processes may hold it open. Whoever signs or writes certificate files holds its
//! write lock (an immediate transaction) meanwhile; others wait up to [`BUSY_TIMEOUT`]. A certificate is committed
//! here before its file is written: a crash can leave an entry without a file, never a file without an entry.

mod book;
mod flaw;
mod open;
mod place;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lizmon_protocol::name::Role;
use rusqlite::{Connection, Transaction};

pub(crate) use self::book::{seconds, sql};
pub use self::flaw::LedgerFailure;
use self::flaw::failed;
use self::open::ReadOnlyMode;
pub(crate) use self::place::LedgerOrigin;
pub use self::place::UnknownRevoked;
use crate::enrol::is_enrolled_by_token;
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
    // What a ledger cannot know that was copied, and which certificates were used.
    "
    CREATE TABLE seen (
        serial TEXT PRIMARY KEY,
        at INTEGER NOT NULL                 -- when it was first shown to liz-ca
    ) STRICT;
    CREATE INDEX certificate_renews ON certificate (renews) WHERE renews IS NOT NULL;
    CREATE TABLE place (
        file TEXT NOT NULL,                 -- which file this ledger is: a copy is another one
        copied_at INTEGER                   -- when it was last found to be a copy
    ) STRICT;
    CREATE TABLE crl_floor (
        issuer TEXT PRIMARY KEY,
        number INTEGER NOT NULL,            -- the numbers up to it may have been used elsewhere
        sign_again INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE unknown_revoked (
        issuer TEXT NOT NULL,
        serial TEXT NOT NULL,               -- of a certificate that is not in this ledger
        revoked_at INTEGER NOT NULL,
        revoked_reason INTEGER,
        revoked_by TEXT NOT NULL,
        PRIMARY KEY (issuer, serial)
    ) STRICT;
",
    // What was chosen for the CA as a whole, where that is not the default.
    "
    CREATE TABLE choice (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
",
];

/// Whether a certificate still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertState {
    /// As issued.
    Valid,
    /// On the CRL until it ends.
    Revoked,
}

impl CertState {
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
    pub state: CertState,
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
        self.state == CertState::Valid && now <= self.not_after
    }

    /// Whether its holder renews by itself, as far as can be told: it came by a join token, has renewed before, or is
    /// `liz-ca`'s own.
    pub fn renews_automatically(&self) -> bool {
        self.renews.is_some()
            || is_enrolled_by_token(self)
            || self.profile == Profile::Leaf(Role::Ca)
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
pub(crate) struct CrlRecord {
    pub(crate) issuer: String,
    pub(crate) number: u64,
    pub(crate) this_update: u64,
    pub(crate) next_update: u64,
    pub(crate) pem: String,
}

/// One revoked certificate, as a CRL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevokedEntry {
    pub(crate) serial: String,
    pub(crate) revoked_at: u64,
    pub(crate) reason: Option<u8>,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// As the user knows it.
    path: PathBuf,
    /// The file that is open: another one where that cannot be written.
    file: PathBuf,
    connection: Mutex<Connection>,
    reading: Option<ReadOnlyMode>,
}

impl Ledger {
    /// Runs `work` with the write lock held, and commits if it succeeds.
    pub(crate) fn transaction<T>(
        &self,
        work: impl FnOnce(&LedgerTx<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
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

    fn migrate(&self) -> Result<(), Error> {
        self.transaction(|tx| {
            let found: u32 =
                tx.run(|t| t.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
            let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
            if found > known {
                return Err(Error::LedgerTooNew {
                    path: self.path.clone(),
                    found,
                    known,
                });
            }
            for step in &MIGRATIONS[found as usize..] {
                tx.run(|t| t.execute_batch(step))?;
            }
            if found < known {
                tx.run(|t| t.pragma_update(None, "application_id", APPLICATION_ID))?;
                tx.run(|t| t.pragma_update(None, "user_version", known))?;
            }
            Ok(())
        })
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        failed(&self.path, error)
    }
}

/// The ledger with its write lock held.
pub(crate) struct LedgerTx<'a> {
    ledger: &'a Ledger,
    transaction: Transaction<'a>,
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
            state: CertState::Valid,
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
    use lizmon_protocol::name::Role;

    use super::*;
    use crate::crl::Reason;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        crate::disk::create_secret(&path).unwrap();
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

    #[test]
    fn work_that_fails_leaves_nothing() {
        let (_dir, path) = file();
        let ledger = Ledger::open(&path).unwrap();
        let failed: Result<(), Error> = ledger.transaction(|tx| {
            tx.add(&entry("01", "web1"))?;
            Err(Error::Random)
        });
        assert!(failed.is_err());
        assert_eq!(ledger.transaction(|tx| tx.entries()).unwrap(), []);
        let twice = ledger.transaction(|tx| {
            tx.add(&entry("01", "web1"))?;
            tx.add(&entry("01", "web2"))
        });
        assert!(
            matches!(twice, Err(Error::Ledger { .. })),
            "one serial twice"
        );
        assert_eq!(ledger.transaction(|tx| tx.entries()).unwrap(), []);
    }

    #[test]
    fn the_revoked_are_named_until_their_end() {
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
                Ok(())
            })
            .unwrap();
        assert_eq!(serials(1000), ["01"]);
        // What was only replaced leaves the list sooner.
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
        let event = crate::audit::AuditEvent {
            deed: crate::audit::AuditAction::Init,
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
        assert_eq!(ledger.transaction(|tx| tx.lines()).unwrap(), lines);
    }
}
