//! Rows of a database that may be damaged, as far as they can be reached.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row};

use super::super::super::damage::Damage;
use super::super::super::state::StoredHost;

/// How thoroughly a database is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::embedded) enum ScanMode {
    /// Each table once.
    Fast,
    /// Every row that can be reached, and every copy.
    Thorough,
}

/// For each row of `host` its possible names: one, unless it is damaged.
pub(super) type HostNames = HashMap<i64, Vec<String>>;
/// The same for `series`: host and label.
pub(super) type SeriesNames = BTreeMap<i64, Vec<(String, String)>>;
/// What was read, by host.
pub(super) type HostStates = BTreeMap<String, StoredHost>;

/// Reads tables and notes what is damaged.
pub(super) struct Scanner<'a> {
    pub(super) database: &'a Connection,
    pub(super) mode: ScanMode,
    pub(super) now: u64,
    pub(super) damage: Vec<Damage>,
}

impl Scanner<'_> {
    /// Calls `each` with every row that can be read: from the front, and if that fails from the
    /// back as well. Returns whether all could be read.
    pub(super) fn scan(
        &mut self,
        table: &str,
        sql: &str,
        order: &str,
        each: &mut dyn FnMut(&Row<'_>),
    ) -> bool {
        let result = self.walk(&format!("{sql} ORDER BY {order}"), each);
        let Err(error) = result else { return true };
        if self.mode == ScanMode::Thorough {
            let back: Vec<_> = order
                .split(", ")
                .map(|column| format!("{column} DESC"))
                .collect();
            // The same error, from the other end.
            let _again = self.walk(&format!("{sql} ORDER BY {}", back.join(", ")), each);
        } else {
            self.of_store(format!(
                "the table {table} cannot be read to its end: {error}"
            ));
        }
        false
    }

    pub(super) fn walk(&self, sql: &str, each: &mut dyn FnMut(&Row<'_>)) -> rusqlite::Result<()> {
        let mut statement = self.database.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row);
        }
        Ok(())
    }

    pub(super) fn of_store(&mut self, what: impl Into<String>) {
        self.damage.push(Damage::of_store(self.now, what));
    }
}
