//! The tables of `ledger.db`.
//!
//! Times are epoch seconds. `state` has no CHECK and CRLs are kept as they were signed, so that a
//! later schema can add states and tables without rewriting a row.

use rusqlite::Transaction;

/// The schema's version, SQLite's `user_version`. Change it with every change of [`SCHEMA`].
pub(super) const VERSION: u32 = 1;

/// `application_id` of the file, "LIZL": tells it from other SQLite files, also for `file(1)`.
const APPLICATION_ID: i32 = 0x4c49_5a4c;

const SCHEMA: &str = "
    CREATE TABLE certificate (
        serial TEXT PRIMARY KEY,            -- lower-case hex
        profile TEXT NOT NULL,              -- root, issuing or a role
        name TEXT NOT NULL,                 -- the holder's, or a CA's common name
        issuer TEXT NOT NULL,               -- serial of the signer; a root's own
        key_sha256 TEXT NOT NULL,           -- of the subject public key info
        not_before INTEGER NOT NULL,
        not_after INTEGER NOT NULL,
        issued_at INTEGER NOT NULL,
        issued_by TEXT NOT NULL,            -- who requested it
        state TEXT NOT NULL,                -- valid, revoked
        revoked_at INTEGER,
        revoked_reason INTEGER,             -- RFC 5280 section 5.3.1
        revoked_by TEXT,
        renews TEXT,                        -- serial of the certificate that this one renews
        pem TEXT NOT NULL
    ) STRICT;
    CREATE INDEX certificate_name ON certificate (profile, name COLLATE NOCASE);
    CREATE INDEX certificate_end ON certificate (not_after);
    CREATE INDEX certificate_revoked ON certificate (issuer) WHERE state = 'revoked';
    CREATE INDEX certificate_renews ON certificate (renews) WHERE renews IS NOT NULL;

    -- When liz-ca first saw a certificate in use.
    CREATE TABLE first_use (serial TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;

    -- Revoked certificates that are not in this ledger.
    CREATE TABLE unknown_revoked (
        issuer TEXT NOT NULL,
        serial TEXT NOT NULL,
        revoked_at INTEGER NOT NULL,
        revoked_reason INTEGER,
        revoked_by TEXT NOT NULL,
        PRIMARY KEY (issuer, serial)
    ) STRICT;

    CREATE TABLE generation (
        serial TEXT PRIMARY KEY REFERENCES certificate (serial),
        phase TEXT NOT NULL,                -- next, current, old, retired, gone
        since INTEGER NOT NULL
    ) STRICT;
    -- Has a row while the CA's files do not follow the ledger yet.
    CREATE TABLE reconcile_pending (files INTEGER PRIMARY KEY CHECK (files = 1)) STRICT;

    CREATE TABLE crl (
        issuer TEXT PRIMARY KEY,            -- serial of the CA that signs it
        number INTEGER NOT NULL,            -- only rises
        this_update INTEGER NOT NULL,
        next_update INTEGER NOT NULL,
        pem TEXT NOT NULL
    ) STRICT;
    CREATE TABLE crl_floor (
        issuer TEXT PRIMARY KEY,
        number INTEGER NOT NULL,            -- numbers up to it may have been used by a copy
        sign_again INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE join_token (
        hash BLOB PRIMARY KEY,              -- SHA-256; the token itself is stored nowhere
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
        previous BLOB NOT NULL,             -- hash of the previous line; zeros before the first
        hash BLOB NOT NULL                  -- SHA-256, see audit/line.rs
    ) STRICT;
    -- The rule on numbers also stops INSERT OR REPLACE, which deletes without firing a DELETE trigger.
    CREATE TRIGGER audit_appends BEFORE INSERT ON audit
        WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM audit)
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
    CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;

    -- Which file this ledger is: a copy of it is another one.
    CREATE TABLE origin (
        file TEXT NOT NULL,
        copied_at INTEGER                   -- when it was last found to be a copy
    ) STRICT;
    CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
";

/// A table that ledgers of this version may lack. An older program ignores it, and refuses the join
/// tokens of servers, which it does not look for: so the version stays.
const JOIN_TOKEN_SANS: &str = "
    -- The DNS names and addresses that a server gets with its join token.
    CREATE TABLE IF NOT EXISTS join_token_san (
        hash BLOB NOT NULL,                 -- of the token
        san TEXT NOT NULL,
        PRIMARY KEY (hash, san)
    ) STRICT;
";

/// The same, of tags and limits. An older program would issue to a node without its tags, which
/// claims nothing; it refuses the tokens of limited readers, whose role it does not know.
const JOIN_TOKEN_ATTRIBUTES: &str = "
    -- The tags that a node, or the limits that a reader gets with its join token.
    CREATE TABLE IF NOT EXISTS join_token_attribute (
        hash BLOB NOT NULL,                 -- of the token
        attribute TEXT NOT NULL,
        PRIMARY KEY (hash, attribute)
    ) STRICT;
";

/// Creates the tables in a new file, and returns the schema's version.
pub(super) fn create_if_new(transaction: &Transaction<'_>) -> rusqlite::Result<u32> {
    let found = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found != 0 {
        return Ok(found);
    }
    transaction.execute_batch(SCHEMA)?;
    complete(transaction)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(VERSION)
}

/// Adds what a file of an earlier program of the same version lacks.
pub(super) fn complete(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(JOIN_TOKEN_SANS)?;
    transaction.execute_batch(JOIN_TOKEN_ATTRIBUTES)
}
