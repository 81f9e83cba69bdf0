//! The tables, and what kind of database a file is.

use std::num::NonZeroU16;

use rusqlite::{Connection, params};

use super::super::shard::{Position, ShardCount};
use super::error::EmbeddedError;
use super::rows;

/// The version that this program reads and writes. It differs in more than one bit from those of
/// earlier programs: 1, 2, 4, 7 and 8.
pub(super) const VERSION: i64 = 11;
/// The versions before that are rewritten when they are opened: without documents and history; with
/// a row for each interval, and both with fewer shards.
const REWRITTEN_VERSIONS: [i64; 2] = [4, 7];
/// The version before that is upgraded in its place: without points, and else the same. A program
/// of then would take points for damage.
const WITHOUT_POINTS: i64 = 8;
/// How many shards a store has. One shard is committed at once, so it must be small: requests wait
/// for a commit.
pub(super) const SHARDS: ShardCount = ShardCount::new(NonZeroU16::new(1_024).unwrap());
/// How many the versions before had. [`SHARDS`] is a multiple of it, so a shard of today is part of
/// one of theirs: that of its number modulo this.
pub(super) const EARLIER_SHARDS: ShardCount = ShardCount::new(NonZeroU16::new(64).unwrap());
const _: () = assert!(SHARDS.get().is_multiple_of(EARLIER_SHARDS.get()));
/// SQLite's application_id: `lizm`.
pub(super) const APPLICATION: i32 = 0x6c69_7a6d;
/// Where it is in the file.
pub(super) const APPLICATION_AT: std::ops::Range<usize> = 68..72;
/// Tables that every database of ours has.
const OURS: &str = "('meta', 'journal', 'shard', 'host', 'series', 'bucket', 'producer')";

/// The schema must fit into the first page: recovery.rs replaces a damaged one. New tables come
/// last, so that those of the versions before are where they were. `bucket` is of these alone, and
/// stays empty: without it the tables behind it would be elsewhere.
const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE journal(position INTEGER PRIMARY KEY AUTOINCREMENT, groups BLOB NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE shard(id INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE shard_again(id INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE host(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
last_epoch INTEGER NOT NULL, certificate_end INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE series(id INTEGER PRIMARY KEY, host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE,
label TEXT NOT NULL, body BLOB NOT NULL, UNIQUE(host, label));
CREATE TABLE bucket(series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE,
tier INTEGER NOT NULL, slot INTEGER NOT NULL, start INTEGER NOT NULL, stats BLOB NOT NULL,
PRIMARY KEY(series, tier, slot)) WITHOUT ROWID;
CREATE TABLE producer(host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE, producer BLOB NOT NULL,
duplicate INTEGER NOT NULL, repaired INTEGER NOT NULL, last_taken INTEGER NOT NULL, ranges BLOB NOT NULL, dropped TEXT NOT NULL, sum INTEGER NOT NULL,
PRIMARY KEY(host, producer)) WITHOUT ROWID;
CREATE TABLE producer_again(host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE, producer BLOB NOT NULL,
duplicate INTEGER NOT NULL, repaired INTEGER NOT NULL, last_taken INTEGER NOT NULL, ranges BLOB NOT NULL, dropped TEXT NOT NULL, sum INTEGER NOT NULL,
PRIMARY KEY(host, producer)) WITHOUT ROWID;
CREATE TABLE damage(id INTEGER PRIMARY KEY, found_at INTEGER NOT NULL,
host TEXT, label TEXT, start INTEGER, stop INTEGER, what TEXT NOT NULL);
CREATE TABLE removed(host INTEGER PRIMARY KEY REFERENCES host(id) ON DELETE CASCADE,
samples INTEGER NOT NULL, at INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE clock(id INTEGER PRIMARY KEY, boot BLOB NOT NULL, wall_offset INTEGER NOT NULL,
since INTEGER NOT NULL, floor INTEGER NOT NULL, floor_at INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE document(host TEXT NOT NULL, shard INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL,
sum INTEGER NOT NULL, PRIMARY KEY(host, shard, kind)) WITHOUT ROWID;
CREATE TABLE history_series(id INTEGER PRIMARY KEY, host TEXT NOT NULL, label TEXT NOT NULL, UNIQUE(host, label));
CREATE TABLE history(series INTEGER NOT NULL, tier INTEGER NOT NULL, start INTEGER NOT NULL, body BLOB NOT NULL,
PRIMARY KEY(series, tier, start)) WITHOUT ROWID;
";

/// The version of a database as its tables say, which may be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SchemaVersion(Option<i64>);

impl SchemaVersion {
    /// That of this database.
    pub(super) fn of(connection: &Connection) -> Self {
        let sql = "SELECT value FROM meta WHERE key = 'version'";
        Self(connection.query_row(sql, [], |row| row.get(0)).ok())
    }

    /// Whether documents and the history have tables.
    pub(super) fn has_documents(self) -> bool {
        self.0 != Some(4)
    }

    /// Whether the row of a series has its intervals.
    pub(super) fn has_bodies(self) -> bool {
        !self.is_rewritten()
    }

    /// Whether it is one of those before that are rewritten.
    pub(super) fn is_rewritten(self) -> bool {
        self.0
            .is_some_and(|version| REWRITTEN_VERSIONS.contains(&version))
    }

    /// Whether it is the one before that only has to be marked.
    pub(super) fn is_marked_anew(self) -> bool {
        self.0 == Some(WITHOUT_POINTS)
    }

    /// Whether it is one of those before that are upgraded.
    pub(super) fn is_upgraded(self) -> bool {
        self.is_rewritten() || self.is_marked_anew()
    }
}

/// How many shards a database has; `None` if that is damaged.
pub(super) fn stored_shards(connection: &Connection) -> Option<ShardCount> {
    let sql = "SELECT value FROM meta WHERE key = 'shards'";
    let stored: i64 = connection.query_row(sql, [], |row| row.get(0)).ok()?;
    let known = [SHARDS, EARLIER_SHARDS];
    known.into_iter().find(|count| count.get() as i64 == stored)
}

/// Creates the tables of a store with this identifier.
pub(super) fn make(connection: &mut Connection, id: &str) -> Result<(), EmbeddedError> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute(
        "INSERT INTO meta VALUES ('version', ?1), ('shards', ?2), ('id', ?3)",
        params![VERSION, SHARDS.get() as i64, id],
    )?;
    for shard in SHARDS.all() {
        rows::save_cursor(&transaction, shard, Position::START)?;
    }
    Ok(transaction.commit()?)
}

/// Marks a database of the version before, which has the same tables, as one of this version.
pub(super) fn mark_anew(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    let sql = "UPDATE meta SET value = ?1 WHERE key = 'version'";
    transaction.execute(sql, [VERSION])?;
    transaction.commit()
}

/// The greatest fencing epoch that was used; 0 if none was, or if it is damaged.
pub(super) fn read_epoch(connection: &Connection) -> u64 {
    let sql = "SELECT value FROM meta WHERE key = 'epoch'";
    let epoch = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    epoch.map_or(0, |epoch| epoch.max(0) as u64)
}

/// Stores the greatest fencing epoch that was used.
pub(super) fn save_epoch(connection: &Connection, epoch: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('epoch', ?1)")?
        .execute([epoch as i64])
        .map(drop)
}

/// A small write.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('probed', 1 + coalesce((SELECT value FROM meta WHERE key = 'probed'), 0))")?
        .execute([])
        .map(drop)
}

/// What kind of database a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DatabaseKind {
    /// An empty database.
    Empty,
    /// Ours, of this version.
    Ours,
    /// Ours, of another version.
    OtherVersion(i64),
    /// Another program's.
    Foreign,
    /// Ours, but its version is damaged.
    Damaged,
}

/// Asks a database what it is.
pub(super) fn kind_of(connection: &Connection) -> rusqlite::Result<DatabaseKind> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    if count("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(DatabaseKind::Empty);
    }
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let ours = count(&format!(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN {OURS}"
    ))?;
    if ours == 0 && application != APPLICATION {
        return Ok(DatabaseKind::Foreign);
    }
    let in_head: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let in_table = count("SELECT value FROM meta WHERE key = 'version'");
    Ok(kind_by_version(in_head, in_table.ok()))
}

/// The version is stored twice, so that a flipped bit in one of them is not taken for another
/// version.
fn kind_by_version(in_head: i64, in_table: Option<i64>) -> DatabaseKind {
    let is_one_bit_off = |version: i64| (version ^ VERSION).count_ones() == 1;
    match in_table {
        Some(version) if version == VERSION && in_head == VERSION => DatabaseKind::Ours,
        Some(version) if version == VERSION => DatabaseKind::Damaged,
        Some(version) if version == in_head || !is_one_bit_off(version) => {
            DatabaseKind::OtherVersion(version)
        }
        _ => DatabaseKind::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_distinguished_from_a_flipped_bit() {
        for (in_head, in_table, kind) in [
            (11, Some(11), DatabaseKind::Ours),
            // Earlier ones, and those to come.
            (0, Some(1), DatabaseKind::OtherVersion(1)),
            (2, Some(2), DatabaseKind::OtherVersion(2)),
            (4, Some(4), DatabaseKind::OtherVersion(4)),
            (7, Some(7), DatabaseKind::OtherVersion(7)),
            (8, Some(8), DatabaseKind::OtherVersion(8)),
            (12, Some(12), DatabaseKind::OtherVersion(12)),
            (11, Some(99), DatabaseKind::OtherVersion(99)),
            // Its first page was lost.
            (11, Some(8), DatabaseKind::OtherVersion(8)),
            // One bit.
            (11, Some(10), DatabaseKind::Damaged),
            (11, Some(3), DatabaseKind::Damaged),
            (9, Some(11), DatabaseKind::Damaged),
            (0x800b, Some(11), DatabaseKind::Damaged),
            (11, None, DatabaseKind::Damaged),
        ] {
            assert_eq!(
                kind_by_version(in_head, in_table),
                kind,
                "{in_head} {in_table:?}"
            );
        }
    }
}
