//! The journal, and how far it is in the state.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::shard::{Position, Shard};
use super::super::rows::{self, CURSORS};
use super::super::schema::{SHARDS, stored_shards};
use super::scanner::{ScanMode, Scanner};

/// Receives the cursors of all shards, and a row of the journal with its position.
pub(in crate::store::embedded) type GiveRow<'a> = &'a mut dyn FnMut(&[Position], Position, &[u8]);

/// No more rows than this can be written between two commits: a larger difference is damage.
const LOST_POSITIONS_MAX: u64 = 10_000_000;

impl Scanner<'_> {
    /// By shard, how far its journal is in the state.
    pub(super) fn cursors(&mut self) -> Vec<Position> {
        let mut cursors: BTreeMap<Shard, Position> = BTreeMap::new();
        let mut reads = 0_usize;
        for table in CURSORS {
            let sql = format!("SELECT id, cursor, sum FROM {table}");
            self.scan(table, &sql, "id", &mut |row| {
                let read = || {
                    let (shard, cursor) = (
                        row.get::<_, u16>(0).ok()?,
                        Position::new(row.get::<_, i64>(1).ok()? as u64),
                    );
                    (row.get::<_, i64>(2).ok()? == i64::from(rows::cursor_sum(shard, cursor)))
                        .then_some((Shard::new(shard), cursor))
                };
                if let Some((shard, cursor)) = read() {
                    cursors.entry(shard).or_insert(cursor);
                    reads += 1;
                }
            });
        }
        let stored = stored_shards(self.database);
        let count = stored.unwrap_or(SHARDS);
        if self.mode == ScanMode::Fast && (stored.is_none() || reads != count.get() * CURSORS.len())
        {
            self.of_store("the journal's cursor is not stored twice, as it should be");
        }
        let lost = count.all().filter(|shard| !cursors.contains_key(shard));
        let lost = lost.count();
        if lost > 0 && self.mode == ScanMode::Thorough {
            self.of_store(format!(
                "the journal's cursor is lost for {lost} of {} shards: samples that their hosts delivered in the last minutes are left out",
                count.get()
            ));
        }
        // What may have been counted must not be counted again.
        let highest = cursors.values().copied().max().unwrap_or_default();
        let of_shard = |shard: Shard| {
            let stored = (shard.index() % count.get()) as u16;
            let stored = cursors.get(&Shard::new(stored)).copied();
            stored.unwrap_or(highest)
        };
        SHARDS.all().map(of_shard).collect()
    }

    pub(super) fn journal(&mut self, cursors: &[Position], give: GiveRow<'_>) -> Position {
        let counted = cursors.iter().copied().max().unwrap_or_default().get();
        let mut positions = BTreeSet::new();
        let mut bad = BTreeSet::new();
        let sql = "SELECT position, groups, sum FROM journal";
        let is_whole = self.scan("journal", sql, "position", &mut |row| {
            let Ok(position) = row.get::<_, i64>(0).map(|position| position as u64) else {
                return;
            };
            let sum = row.get::<_, i64>(2).ok();
            match row.get_ref(1).ok().and_then(|value| value.as_blob().ok()) {
                Some(group) if sum == Some(row_sum(position, group)) => {
                    if positions.insert(position) {
                        give(cursors, Position::new(position), group);
                    }
                }
                _ => {
                    bad.insert(position);
                }
            }
        });
        let sequence = self.database.query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'journal'",
            [],
            |row| row.get::<_, i64>(0).map(|last| last as u64),
        );
        let found = positions.last().copied().unwrap_or(0).max(counted);
        let last = match sequence {
            Ok(last) if last >= found && last - found < LOST_POSITIONS_MAX => last,
            Ok(_) => {
                self.of_store("the number of the journal's last group is damaged");
                found
            }
            // Either nothing was ever appended, or the number is lost.
            Err(_) if found == 0 => 0,
            Err(_) => {
                self.of_store("the number of the journal's last group is lost");
                found
            }
        };
        let told_through = self
            .database
            .query_row(
                "SELECT value FROM meta WHERE key = 'told_through'",
                [],
                |row| row.get::<_, i64>(0),
            )
            .map_or(0, |position| position as u64);
        let first = positions.first().copied().unwrap_or(counted + 1);
        let first = first.max(told_through.saturating_add(1));
        let missing = (first..=last)
            .filter(|position| !positions.contains(position))
            .count();
        let bad = bad
            .iter()
            .filter(|position| !positions.contains(position) && **position < first)
            .count();
        if missing + bad == 0 && !is_whole && self.mode == ScanMode::Thorough {
            self.of_store(format!(
                "journal groups before {first} may be lost, and the samples acknowledged with them"
            ));
        }
        if missing + bad > 0 {
            self.of_store(format!(
                "{} journal groups between {first} and {last} are lost, and the samples acknowledged with them; `lizctl audit HOST` shows their numbers as missing",
                missing + bad
            ));
        }
        Position::new(last)
    }
}

fn row_sum(position: u64, row: &[u8]) -> i64 {
    rows::row_sum(Position::new(position), row).into()
}
