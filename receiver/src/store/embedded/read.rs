//! Everything that stands in a database, each piece judged by its checksum.
//!
//! A start reads each table once, from end to end. Where that finds damage the database is read again, [`How::Thorough`]: from both
//! ends of a table to the damaged pages, names from the indexes as well, which say them again, what stands twice from both places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rusqlite::{Connection, Row};

use super::super::damage::Damage;
use super::super::{HostState, KeptProducer, Position, SHARDS, State};
use super::rows::{self, CURSORS, PRODUCERS, ProducerRow};
use lizmon_protocol::name::{Label, NodeName};

mod clocks;
mod intervals;

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Each table once.
    Once,
    /// Every row that can be reached, and whatever stands elsewhere as well.
    Thorough,
}

/// What could be read, and what could not.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) state: State,
    /// The last position that was ever used.
    pub(super) last: Position,
    /// The name that the store has of its own.
    pub(super) id: Option<String>,
    /// What was found before.
    pub(super) known: Vec<Damage>,
    pub(super) damage: Vec<Damage>,
}

/// The journal's groups that could be read, by position.
pub(super) type Groups = BTreeMap<Position, Vec<u8>>;

/// Reads all of it but the journal's groups, which `journal` gets.
pub(super) fn everything(
    database: &Connection,
    how: How,
    now: u64,
    journal: &mut dyn FnMut(Position, &[u8]),
) -> Reading {
    let mut reader = Reader {
        database,
        how,
        now,
        damage: Vec::new(),
    };
    let (hosts, mut states) = reader.hosts();
    let series = reader.series(&hosts);
    reader.buckets(&series, &mut states);
    reader.producers(&hosts, &mut states);
    reader.removed(&hosts, &mut states);
    let clock = reader.clock();
    let cursors = reader.cursors();
    let last = reader.journal(&cursors, journal);
    let known = reader.known();
    let id = database.query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| {
        row.get::<_, String>(0)
    });
    Reading {
        state: State {
            cursors,
            hosts: states.into_values().collect(),
            clock,
        },
        last,
        id: id.ok().filter(|id| uuid::Uuid::parse_str(id).is_ok()),
        known,
        damage: reader.damage,
    }
}

/// For each row of `host` the names it may stand for: one, unless it is damaged.
type Hosts = HashMap<i64, Vec<String>>;
/// The same for `series`: host and label.
type Series = BTreeMap<i64, Vec<(String, String)>>;
type States = BTreeMap<String, HostState>;

struct Reader<'a> {
    database: &'a Connection,
    how: How,
    now: u64,
    damage: Vec<Damage>,
}

impl Reader<'_> {
    /// Calls `each` with every row that can be read: from the front, and if that fails from the back as well. Whether all could.
    fn scan(
        &mut self,
        table: &str,
        sql: &str,
        order: &str,
        each: &mut dyn FnMut(&Row<'_>),
    ) -> bool {
        let result = self.walk(&format!("{sql} ORDER BY {order}"), each);
        let Err(error) = result else { return true };
        if self.how == How::Thorough {
            let back: Vec<_> = order
                .split(", ")
                .map(|column| format!("{column} DESC"))
                .collect();
            // The same error, seen from the other side.
            let _again = self.walk(&format!("{sql} ORDER BY {}", back.join(", ")), each);
        } else {
            self.of_store(format!(
                "the table {table} cannot be read to its end: {error}"
            ));
        }
        false
    }

    fn walk(&self, sql: &str, each: &mut dyn FnMut(&Row<'_>)) -> rusqlite::Result<()> {
        let mut statement = self.database.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row);
        }
        Ok(())
    }

    fn of_store(&mut self, what: impl Into<String>) {
        self.damage.push(Damage::of_store(self.now, what));
    }

    fn hosts(&mut self) -> (Hosts, States) {
        let (mut hosts, mut states) = (Hosts::new(), States::new());
        let mut damaged = BTreeSet::new();
        let sql = "SELECT id, name, last_epoch, certificate_end, sum FROM host NOT INDEXED";
        self.scan("host", sql, "id", &mut |row| match host_of(row) {
            Some((id, state)) => {
                hosts.insert(id, vec![state.name.clone()]);
                states.insert(state.name.clone(), state);
            }
            None => {
                damaged.insert(row.get::<_, i64>(0).unwrap_or(-1));
            }
        });
        if self.how == How::Thorough {
            let sql = "SELECT id, name FROM host INDEXED BY sqlite_autoindex_host_1";
            self.scan("host", sql, "name", &mut |row| {
                let (Ok(id), Ok(name)) = (row.get::<_, i64>(0), row.get::<_, String>(1)) else {
                    return;
                };
                if !hosts.contains_key(&id) && name.parse::<NodeName>().is_ok() {
                    hosts.insert(id, vec![name]);
                    damaged.insert(id);
                }
            });
        }
        for id in damaged {
            let Some(name) = hosts.get(&id).and_then(|names| names.first()) else {
                self.of_store(format!(
                    "a host's name is lost, and with it what was kept of it (row {id})"
                ));
                continue;
            };
            if !states.contains_key(name) {
                states.insert(
                    name.clone(),
                    HostState {
                        name: name.clone(),
                        ..HostState::default()
                    },
                );
                let what = "when it last reported and when its certificate ends is lost, until it reports again";
                self.damage.push(Damage::of_host(self.now, name, what));
            }
        }
        (hosts, states)
    }

    fn series(&mut self, hosts: &Hosts) -> Series {
        let mut series = Series::new();
        let mut lost = 0_u64;
        let sources = match self.how {
            How::Once => &["NOT INDEXED"][..],
            How::Thorough => &["NOT INDEXED", "INDEXED BY sqlite_autoindex_series_1"],
        };
        for source in sources {
            let sql = format!("SELECT id, host, label FROM series {source}");
            let order = if source.starts_with("NOT") {
                "id"
            } else {
                "host, label"
            };
            self.scan("series", &sql, order, &mut |row| {
                let read = || {
                    Some((
                        row.get(0).ok()?,
                        row.get::<_, i64>(1).ok()?,
                        row.get::<_, String>(2).ok()?,
                    ))
                };
                let found = read().filter(|(_, _, label)| Label::new(label.as_str()).is_ok());
                let names = found.as_ref().and_then(|(_, host, _)| hosts.get(host));
                let (Some((id, _, label)), Some(names)) = (found, names) else {
                    lost += 1;
                    return;
                };
                let candidates: &mut Vec<_> = series.entry(id).or_default();
                for name in names {
                    let candidate = (name.clone(), label.clone());
                    if !candidates.contains(&candidate) {
                        candidates.push(candidate);
                    }
                }
            });
        }
        if lost > 0 && self.how == How::Once {
            self.of_store(format!("{lost} series have lost their name or their host"));
        }
        series
    }

    fn producers(&mut self, hosts: &Hosts, states: &mut States) {
        let mut found: BTreeMap<(String, [u8; 16]), KeptProducer> = BTreeMap::new();
        let mut bad: BTreeSet<(String, [u8; 16])> = BTreeSet::new();
        let (mut nobodys, mut counts) = (0_u64, [0_u64; 2]);
        for (table, count) in PRODUCERS.into_iter().zip(&mut counts) {
            let sql = format!(
                "SELECT host, producer, duplicate, last_taken, ranges, dropped, sum FROM {table}"
            );
            self.scan(table, &sql, "host, producer", &mut |row| {
                *count += 1;
                let names = row.get::<_, i64>(0).ok().and_then(|id| hosts.get(&id));
                let Some(name) = names.and_then(|names| names.first()) else {
                    nobodys += 1;
                    return;
                };
                let id = row.get::<_, [u8; 16]>(1).unwrap_or_default();
                match producer_of(row, name) {
                    Some(kept) => {
                        found
                            .entry((name.clone(), *kept.producer.as_bytes()))
                            .or_insert(kept);
                    }
                    None => {
                        bad.insert((name.clone(), id));
                    }
                }
            });
        }
        let differs = counts[0] != counts[1] || nobodys > 0;
        if self.how == How::Once && (differs || !bad.is_empty()) {
            self.of_store("what was delivered does not stand twice, as it should");
        } else {
            for (host, _) in bad.iter().filter(|key| !found.contains_key(*key)) {
                let what = "which numbers of a producer were received is lost: numbers from before that come again count again, or show as missing";
                self.damage.push(Damage::of_host(self.now, host, what));
            }
        }
        for ((host, _), kept) in found {
            if let Some(state) = states.get_mut(&host) {
                state.producers.push(kept);
            }
        }
    }

    fn cursors(&mut self) -> Vec<Position> {
        let mut cursors: BTreeMap<u16, Position> = BTreeMap::new();
        let mut reads = 0_usize;
        for table in CURSORS {
            let sql = format!("SELECT id, cursor, sum FROM {table}");
            self.scan(table, &sql, "id", &mut |row| {
                let read = || {
                    let (shard, cursor) = (
                        row.get::<_, u16>(0).ok()?,
                        row.get::<_, i64>(1).ok()? as u64,
                    );
                    (row.get::<_, i64>(2).ok()? == i64::from(rows::cursor_sum(shard, cursor)))
                        .then_some((shard, cursor))
                };
                if let Some((shard, cursor)) = read() {
                    cursors.entry(shard).or_insert(cursor);
                    reads += 1;
                }
            });
        }
        if self.how == How::Once && reads != usize::from(SHARDS) * CURSORS.len() {
            self.of_store("how far the journal is counted does not stand twice, as it should");
        }
        let lost = (0..SHARDS)
            .filter(|shard| !cursors.contains_key(shard))
            .count();
        if lost > 0 && self.how == How::Thorough {
            self.of_store(format!(
                "how far the journal is counted is lost for {lost} of {SHARDS} parts of the hosts: what they delivered in the last minutes is left out"
            ));
        }
        // What may have been counted must not be counted again.
        let highest = cursors.values().copied().max().unwrap_or(0);
        (0..SHARDS)
            .map(|shard| cursors.get(&shard).copied().unwrap_or(highest))
            .collect()
    }

    fn journal(&mut self, cursors: &[Position], give: &mut dyn FnMut(Position, &[u8])) -> Position {
        let counted = cursors.iter().copied().max().unwrap_or(0);
        let mut positions = BTreeSet::new();
        let mut bad = BTreeSet::new();
        let sql = "SELECT position, groups, sum FROM journal";
        let is_whole = self.scan("journal", sql, "position", &mut |row| {
            let Ok(position) = row.get::<_, i64>(0).map(|position| position as u64) else {
                return;
            };
            let sum = row.get::<_, i64>(2).ok();
            match row.get_ref(1).ok().and_then(|value| value.as_blob().ok()) {
                Some(group) if sum == Some(i64::from(rows::group_sum(position, group))) => {
                    if positions.insert(position) {
                        give(position, group);
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
            // Nothing was ever appended; or it is lost.
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
        if missing + bad == 0 && !is_whole && self.how == How::Thorough {
            self.of_store(format!(
                "groups of the journal before {first} may be lost: what was acknowledged with them"
            ));
        }
        if missing + bad > 0 {
            self.of_store(format!(
                "{} groups of the journal are lost, of {first} to {last}: what was acknowledged with them; `lizctl audit HOST` shows their numbers as missing",
                missing + bad
            ));
        }
        last
    }

    fn known(&mut self) -> Vec<Damage> {
        let mut known = Vec::new();
        let sql = "SELECT found_at, host, label, start, stop, what FROM damage";
        self.scan("damage", sql, "id", &mut |row| {
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
}

/// More than this cannot have been written between two commits: a number that says so is damaged.
const LOST_POSITIONS_MAX: u64 = 10_000_000;

fn host_of(row: &Row<'_>) -> Option<(i64, HostState)> {
    let state = HostState {
        name: row.get(1).ok()?,
        last_epoch: row.get::<_, i64>(2).ok()? as u64,
        certificate_end: row.get::<_, i64>(3).ok()? as u64,
        ..HostState::default()
    };
    let sum = rows::host_sum(&state.name, state.last_epoch, state.certificate_end);
    (row.get::<_, i64>(4).ok()? == i64::from(sum)).then_some((row.get(0).ok()?, state))
}

fn producer_of(row: &Row<'_>, host: &str) -> Option<KeptProducer> {
    let kept = ProducerRow {
        producer: row.get(1).ok()?,
        duplicate: row.get::<_, i64>(2).ok()? as u64,
        last_taken: row.get::<_, i64>(3).ok()? as u64,
        ranges: row.get_ref(4).ok()?.as_blob().ok()?,
        dropped: row.get_ref(5).ok()?.as_str().ok()?,
    };
    kept.read(host, row.get(6).ok()?)
}

/// What SQLite says of the file's structure; `None` if nothing is wrong. `pragma` is `quick_check` or `integrity_check`.
pub(super) fn structure(database: &Connection, pragma: &str) -> rusqlite::Result<Option<String>> {
    let sql = format!("PRAGMA {pragma}(1)");
    match database.query_row(&sql, [], |row| row.get::<_, String>(0)) {
        Ok(verdict) if verdict == "ok" => Ok(None),
        Ok(verdict) => Ok(Some(
            verdict.split_whitespace().collect::<Vec<_>>().join(" "),
        )),
        Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Whether it is the file's own fault that it cannot be used, and not the disk's or another process's.
pub(in crate::store) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    match error {
        rusqlite::Error::SqliteFailure(..) => matches!(
            error.sqlite_error_code(),
            Some(
                Code::DatabaseCorrupt
                    | Code::NotADatabase
                    | Code::Unknown
                    | Code::ConstraintViolation
                    | Code::TypeMismatch
            )
        ),
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::QueryReturnedNoRows => true,
        _ => false,
    }
}

/// Opens a database that nobody writes to any more, or that others may write to, to read it.
pub(super) fn to_read(file: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
}
