//! Reads a database from end to end and verifies each row by its checksum.
//!
//! A start reads each table once. Where that finds damage the database is read again,
//! [`ScanMode::Thorough`]: from both ends of a table to the damaged pages; names from the indexes
//! as well, which repeat them; and both copies of what is stored twice.

use std::collections::BTreeMap;

use rusqlite::Connection;

use self::journal::GiveRow;
use self::scanner::Scanner;
use super::super::damage::Damage;
use super::super::document::StoredDocument;
use super::super::history::StoredChunk;
use super::super::shard::{Position, Shard};
use super::super::state::{SeriesSink, ShardState, StoredHost};
use super::schema::{self, SHARDS, SchemaVersion};
use crate::clock::StoredClock;

mod buckets;
mod clocks;
mod decoding;
mod documents;
mod history;
mod hosts;
mod journal;
mod producers;
mod scanner;
mod series;

#[cfg(test)]
pub(super) use self::decoding::BATCH_BYTES;
pub(super) use self::scanner::ScanMode;

/// Everything that is committed, over all shards.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// By shard, the last position whose effect is in the state.
    pub(super) cursors: Vec<Position>,
    /// Every host.
    pub(super) hosts: Vec<StoredHost>,
    /// What was known of the clock.
    pub(super) clock: Option<StoredClock>,
    /// The documents of shards.
    pub(super) documents: Vec<(Shard, StoredDocument)>,
}

impl Snapshot {
    /// That of these shards.
    pub(super) fn of(states: Vec<ShardState>) -> Self {
        let mut snapshot = Self {
            cursors: vec![Position::START; SHARDS.get()],
            ..Self::default()
        };
        for state in states {
            if let Some(cursor) = snapshot.cursors.get_mut(state.shard.index()) {
                *cursor = state.cursor;
            }
            snapshot.hosts.extend(state.hosts);
            let of_shard = state.documents.into_iter();
            let of_shard = of_shard.map(|document| (state.shard, document));
            snapshot.documents.extend(of_shard);
            snapshot.clock = snapshot.clock.or(state.clock);
        }
        snapshot
    }

    /// The same by shard: there is a state for each.
    pub(super) fn into_states(self) -> Vec<Option<ShardState>> {
        let cursor = |shard: Shard| self.cursors.get(shard.index()).copied();
        let mut states: Vec<_> = SHARDS
            .all()
            .map(|shard| {
                Some(ShardState {
                    shard,
                    cursor: cursor(shard).unwrap_or_default(),
                    hosts: Vec::new(),
                    clock: self.clock,
                    documents: Vec::new(),
                    evicted: Vec::new(),
                })
            })
            .collect();
        for (shard, document) in self.documents {
            if let Some(Some(state)) = states.get_mut(shard.index()) {
                state.documents.push(document);
            }
        }
        for host in self.hosts {
            let state = states.get_mut(SHARDS.shard_of(&host.name).index());
            if let Some(Some(state)) = state {
                state.hosts.push(host);
            }
        }
        states
    }
}

/// What could be read, and what could not.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    pub(super) snapshot: Snapshot,
    /// The last position that was ever used.
    pub(super) last: Position,
    /// The greatest fencing epoch that was ever used.
    pub(super) epoch: u64,
    /// The store's identifier.
    pub(super) id: Option<String>,
    /// What was found before.
    pub(super) known: Vec<Damage>,
    pub(super) damage: Vec<Damage>,
}

/// The journal's rows that could be read, by position.
pub(super) type Groups = BTreeMap<Position, Vec<u8>>;

/// Reads all of it but the journal's rows, which `journal` gets.
pub(super) fn everything(
    database: &Connection,
    mode: ScanMode,
    now: u64,
    journal: GiveRow<'_>,
) -> ScanResult {
    read_all(database, mode, now, None, journal)
}

/// The same, once and fast, of a database of this version. The series go to `sink`, and are in no
/// host.
pub(super) fn everything_into(
    database: &Connection,
    now: u64,
    sink: &mut dyn SeriesSink,
    journal: GiveRow<'_>,
) -> ScanResult {
    read_all(database, ScanMode::Fast, now, Some(sink), journal)
}

fn read_all(
    database: &Connection,
    mode: ScanMode,
    now: u64,
    sink: Option<&mut dyn SeriesSink>,
    journal: GiveRow<'_>,
) -> ScanResult {
    let mut scanner = Scanner {
        database,
        mode,
        now,
        damage: Vec::new(),
    };
    let (hosts, mut states) = scanner.hosts();
    let version = SchemaVersion::of(database);
    if version.has_bodies() {
        match sink {
            Some(sink) => scanner.series_into(&hosts, sink),
            None => scanner.series(&hosts, &mut states),
        }
    } else {
        let series = scanner.series_names(&hosts);
        scanner.buckets(&series, &mut states);
    }
    scanner.producers(&hosts, &mut states);
    scanner.removed(&hosts, &mut states);
    let documents = match version.has_documents() {
        true => scanner.documents(&mut states),
        false => Vec::new(),
    };
    let clock = scanner.clock();
    let cursors = scanner.cursors();
    let last = scanner.journal(&cursors, journal);
    let known = known_damage(&mut scanner);
    let id = database.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| {
        row.get::<_, String>(0)
    });
    ScanResult {
        snapshot: Snapshot {
            cursors,
            hosts: states.into_values().collect(),
            clock,
            documents,
        },
        last,
        epoch: schema::read_epoch(database),
        id: id.ok().filter(|id| uuid::Uuid::parse_str(id).is_ok()),
        known,
        damage: scanner.damage,
    }
}

/// Gives every part of the history that can be read. What cannot is returned.
pub(super) fn history(
    database: &Connection,
    mode: ScanMode,
    now: u64,
    each: &mut dyn FnMut(StoredChunk),
) -> Vec<Damage> {
    if !SchemaVersion::of(database).has_documents() {
        return Vec::new();
    }
    let mut scanner = Scanner {
        database,
        mode,
        now,
        damage: Vec::new(),
    };
    scanner.history(each);
    scanner.damage
}

fn known_damage(scanner: &mut Scanner<'_>) -> Vec<Damage> {
    let mut known = Vec::new();
    let sql = "SELECT found_at, host, label, start, stop, what FROM damage";
    scanner.scan("damage", sql, "id", &mut |row| {
        let read = || {
            let span = row.get::<_, i64>(3).ok().zip(row.get::<_, i64>(4).ok());
            Some(Damage {
                found_at: row.get::<_, i64>(0).ok()? as u64,
                host: row.get(1).ok()?,
                label: row.get(2).ok()?,
                span: span.map(|(start, stop)| (start as u64, stop as u64)),
                what: row.get(5).ok()?,
            })
        };
        known.extend(read());
    });
    known
}
