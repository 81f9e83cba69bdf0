//! The tables, and whose a database is.

use rusqlite::{Connection, params};

use super::super::{SHARDS, StoreError};
use super::rows;

/// What this program reads and writes.
pub(super) const VERSION: i64 = 2;
/// `lizm`, in the place where a database says which program's it is.
pub(super) const APPLICATION: i32 = 0x6c69_7a6d;
/// Where that stands in the file.
pub(super) const APPLICATION_AT: std::ops::Range<usize> = 68..72;
/// Tables that no database of ours is without.
const OURS: &str = "('meta', 'journal', 'shard', 'host', 'series', 'bucket', 'producer')";

/// It must fit into the first page: rescue.rs puts a new one in the place of a damaged one.
const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE journal(position INTEGER PRIMARY KEY AUTOINCREMENT, groups BLOB NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE shard(id INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE shard_again(id INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE host(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
last_epoch INTEGER NOT NULL, certificate_end INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE series(id INTEGER PRIMARY KEY, host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE,
label TEXT NOT NULL, UNIQUE(host, label));
CREATE TABLE bucket(series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE,
tier INTEGER NOT NULL, slot INTEGER NOT NULL, start INTEGER NOT NULL, stats BLOB NOT NULL,
PRIMARY KEY(series, tier, slot)) WITHOUT ROWID;
CREATE TABLE producer(host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE, producer BLOB NOT NULL,
duplicate INTEGER NOT NULL, last_taken INTEGER NOT NULL, ranges BLOB NOT NULL, dropped TEXT NOT NULL, sum INTEGER NOT NULL,
PRIMARY KEY(host, producer)) WITHOUT ROWID;
CREATE TABLE producer_again(host INTEGER NOT NULL REFERENCES host(id) ON DELETE CASCADE, producer BLOB NOT NULL,
duplicate INTEGER NOT NULL, last_taken INTEGER NOT NULL, ranges BLOB NOT NULL, dropped TEXT NOT NULL, sum INTEGER NOT NULL,
PRIMARY KEY(host, producer)) WITHOUT ROWID;
CREATE TABLE damage(id INTEGER PRIMARY KEY, found_at INTEGER NOT NULL,
host TEXT, label TEXT, start INTEGER, stop INTEGER, what TEXT NOT NULL);
CREATE TABLE removed(host INTEGER PRIMARY KEY REFERENCES host(id) ON DELETE CASCADE,
samples INTEGER NOT NULL, at INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE clock(id INTEGER PRIMARY KEY, boot BLOB NOT NULL, wall_offset INTEGER NOT NULL,
since INTEGER NOT NULL, floor INTEGER NOT NULL, floor_at INTEGER NOT NULL, sum INTEGER NOT NULL);
";

/// Makes the tables of a store with this name of its own.
pub(super) fn make(connection: &mut Connection, id: &str) -> Result<(), StoreError> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute(
        "INSERT INTO meta VALUES ('version', ?1), ('shards', ?2), ('id', ?3)",
        params![VERSION, SHARDS, id],
    )?;
    for shard in 0..SHARDS {
        rows::save_cursor(&transaction, shard, 0)?;
    }
    Ok(transaction.commit()?)
}

/// Whose a database is that can be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// There is nothing in it.
    Nobodys,
    /// Ours, of this version.
    Ours,
    /// Ours, of another version.
    OfVersion(i64),
    /// Another program's.
    Foreign,
    /// Ours, and damaged: where it says what it is.
    Damaged,
}

/// Looks at what a database says of itself.
pub(super) fn whose(connection: &Connection) -> rusqlite::Result<Whose> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    if count("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(Whose::Nobodys);
    }
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let of_ours = count(&format!(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN {OURS}"
    ))?;
    if of_ours == 0 && application != APPLICATION {
        return Ok(Whose::Foreign);
    }
    let in_head: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let in_table = count("SELECT value FROM meta WHERE key = 'version'");
    Ok(judge(in_head, in_table.ok()))
}

/// The version stands at two places, so that a flipped bit in one of them does not make it another program's.
fn judge(in_head: i64, in_table: Option<i64>) -> Whose {
    let is_one_bit_off = |version: i64| (version ^ VERSION).count_ones() == 1;
    match in_table {
        Some(version) if version == VERSION && in_head == VERSION => Whose::Ours,
        Some(version) if version == VERSION => Whose::Damaged,
        Some(version) if version == in_head || !is_one_bit_off(version) => {
            Whose::OfVersion(version)
        }
        _ => Whose::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_from_a_flipped_bit() {
        for (in_head, in_table, whose) in [
            (2, Some(2), Whose::Ours),
            // The first one's, and those to come.
            (0, Some(1), Whose::OfVersion(1)),
            (3, Some(3), Whose::OfVersion(3)),
            (6, Some(6), Whose::OfVersion(6)),
            (2, Some(99), Whose::OfVersion(99)),
            // One bit.
            (2, Some(3), Whose::Damaged),
            (2, Some(0), Whose::Damaged),
            (3, Some(2), Whose::Damaged),
            (0x8002, Some(2), Whose::Damaged),
            (2, None, Whose::Damaged),
        ] {
            assert_eq!(judge(in_head, in_table), whose, "{in_head} {in_table:?}");
        }
    }
}
