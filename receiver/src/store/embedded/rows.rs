//! How rows are written and read. Each has a checksum over its values and over the names it belongs
//! to, so an identifier that points to another host or label is detected like a changed number.

use lizmon_protocol::sample::ProducerId;
use rusqlite::{Connection, Transaction, params};

use super::super::damage::Damage;
use super::super::document::{DocumentKind, StoredDocument};
use super::super::shard::{Position, Shard};
use super::super::state::{RemovedSamples, StoredHost, StoredProducer, StoredSeries};
use super::checksum::checksum;
use super::error::EmbeddedError;
use super::series_body;
use crate::clock::StoredClock;

/// Of a row of the journal at its position.
pub(super) fn row_sum(position: Position, row: &[u8]) -> u32 {
    checksum(&[b"group", &position.get().to_le_bytes(), row])
}

/// Of a shard's cursor.
pub(super) fn cursor_sum(shard: u16, cursor: Position) -> u32 {
    checksum(&[b"shard", &shard.to_le_bytes(), &cursor.get().to_le_bytes()])
}

/// Of a host's properties.
pub(super) fn host_sum(name: &str, last_epoch: u64, certificate_end: u64) -> u32 {
    let (last_epoch, end) = (last_epoch.to_le_bytes(), certificate_end.to_le_bytes());
    checksum(&[b"host", name.as_bytes(), &last_epoch, &end])
}

/// Of the count of removed samples.
fn removed_sum(host: &str, removed: RemovedSamples) -> u32 {
    let (samples, at) = (removed.samples.to_le_bytes(), removed.at.to_le_bytes());
    checksum(&[b"removed", host.as_bytes(), &samples, &at])
}

/// How many samples were removed of this host; `None` if the checksum differs.
pub(super) fn read_removed(
    host: &str,
    removed: RemovedSamples,
    sum: i64,
) -> Option<RemovedSamples> {
    (i64::from(removed_sum(host, removed)) == sum).then_some(removed)
}

/// Of what is known of the clock.
fn clock_sum(clock: &StoredClock) -> u32 {
    checksum(&[
        b"clock",
        &clock.boot,
        &clock.offset.to_le_bytes(),
        &clock.since.to_le_bytes(),
        &clock.floor.to_le_bytes(),
        &clock.floor_at.to_le_bytes(),
    ])
}

/// What a row says of the clock; `None` if the checksum differs.
pub(super) fn read_clock(clock: StoredClock, sum: i64) -> Option<StoredClock> {
    (i64::from(clock_sum(&clock)) == sum).then_some(clock)
}

/// Where a document is: of a shard if the host is empty, else of the host, in shard 0.
pub(super) struct DocumentKey<'a> {
    pub(super) host: &'a str,
    pub(super) shard: Shard,
    pub(super) kind: DocumentKind,
}

impl DocumentKey<'_> {
    fn sum(&self, body: &[u8]) -> u32 {
        let (shard, kind) = (self.shard.number().to_le_bytes(), [self.kind.number()]);
        checksum(&[b"document", self.host.as_bytes(), &shard, &kind, body])
    }

    /// The document; `None` if the checksum differs.
    pub(super) fn read(&self, body: &[u8], sum: i64) -> Option<StoredDocument> {
        (i64::from(self.sum(body)) == sum).then(|| StoredDocument {
            kind: self.kind,
            body: body.into(),
        })
    }
}

/// Writes documents of a shard, or of a host; one without a body goes.
pub(super) fn save_documents(
    transaction: &Transaction<'_>,
    host: &str,
    shard: Shard,
    documents: &[StoredDocument],
) -> Result<(), EmbeddedError> {
    for StoredDocument { kind, body } in documents {
        let key = DocumentKey {
            host,
            shard,
            kind: *kind,
        };
        if body.is_empty() {
            transaction
                .prepare_cached(
                    "DELETE FROM document WHERE host = ?1 AND shard = ?2 AND kind = ?3",
                )?
                .execute(params![host, shard.number(), kind.number()])?;
            continue;
        }
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO document(host, shard, kind, body, sum) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                host,
                shard.number(),
                kind.number(),
                body,
                key.sum(body)
            ])?;
    }
    Ok(())
}

/// The shard column of a host's documents: its name says which shard it is in.
pub(super) const OF_HOST: Shard = Shard::new(0);

/// A producer's row as it is stored.
pub(super) struct ProducerRow<'a> {
    pub(super) producer: [u8; 16],
    pub(super) duplicate: u64,
    pub(super) repaired: u64,
    pub(super) last_taken: u64,
    pub(super) ranges: &'a [u8],
    pub(super) dropped: &'a str,
}

impl ProducerRow<'_> {
    fn sum(&self, host: &str) -> u32 {
        checksum(&[
            b"producer",
            host.as_bytes(),
            &self.producer,
            &self.duplicate.to_le_bytes(),
            &self.repaired.to_le_bytes(),
            &self.last_taken.to_le_bytes(),
            self.ranges,
            self.dropped.as_bytes(),
        ])
    }

    /// What it says of this host; `None` if the checksum differs.
    pub(super) fn read(&self, host: &str, sum: i64) -> Option<StoredProducer> {
        if i64::from(self.sum(host)) != sum {
            return None;
        }
        Some(StoredProducer {
            producer: ProducerId::from_bytes(self.producer),
            ranges: decode_ranges(self.ranges)?,
            dropped: serde_json::from_str(self.dropped).ok()?,
            duplicate: self.duplicate,
            repaired: self.repaired,
            last_taken: self.last_taken,
        })
    }
}

fn encode_ranges(ranges: &[(u64, u64)]) -> Vec<u8> {
    ranges
        .iter()
        .flat_map(|(from, to)| [from.to_le_bytes(), to.to_le_bytes()])
        .flatten()
        .collect()
}

fn decode_ranges(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (words, rest) = bytes.as_chunks::<8>();
    let (pairs, single) = words.as_chunks::<2>();
    (rest.is_empty() && single.is_empty()).then(|| {
        let word = |word: [u8; 8]| u64::from_le_bytes(word);
        pairs
            .iter()
            .map(|[from, to]| (word(*from), word(*to)))
            .collect()
    })
}

/// Tables that are stored twice, so that one damaged page does not lose what was counted.
pub(super) const CURSORS: [&str; 2] = ["shard", "shard_again"];
pub(super) const PRODUCERS: [&str; 2] = ["producer", "producer_again"];

pub(super) fn save_cursor(
    transaction: &Transaction<'_>,
    shard: Shard,
    cursor: Position,
) -> Result<(), EmbeddedError> {
    let shard = shard.number();
    for table in CURSORS {
        transaction
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO {table}(id, cursor, sum) VALUES (?1, ?2, ?3)"
            ))?
            .execute(params![
                shard,
                cursor.get() as i64,
                cursor_sum(shard, cursor)
            ])?;
    }
    Ok(())
}

/// Writes a row of the journal.
pub(super) fn save_row(
    connection: &Connection,
    position: Position,
    row: &[u8],
) -> Result<(), EmbeddedError> {
    connection
        .prepare_cached("INSERT INTO journal(position, groups, sum) VALUES (?1, ?2, ?3)")?
        .execute(params![position.get() as i64, row, row_sum(position, row)])?;
    Ok(())
}

/// Reads the rows of the journal after a position, in order, until `each` gives `None`: then the
/// error is where that was.
pub(super) fn read_rows(
    connection: &Connection,
    after: Position,
    each: &mut dyn FnMut(Position, &[u8]) -> Option<()>,
) -> rusqlite::Result<Result<(), Position>> {
    let mut statement = connection.prepare_cached(
        "SELECT position, groups FROM journal WHERE position > ?1 ORDER BY position",
    )?;
    let mut rows = statement.query([after.get() as i64])?;
    while let Some(row) = rows.next()? {
        let position = Position::new(row.get::<_, i64>(0)? as u64);
        let groups = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        if each(position, groups).is_none() {
            return Ok(Err(position));
        }
    }
    Ok(Ok(()))
}

pub(super) fn save_damage(
    transaction: &Transaction<'_>,
    damage: &Damage,
) -> Result<(), EmbeddedError> {
    let span = damage.span.map(|(start, end)| (start as i64, end as i64));
    transaction
        .prepare_cached(
            "INSERT INTO damage(found_at, host, label, start, stop, what) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            damage.found_at as i64,
            damage.host,
            damage.label,
            span.map(|span| span.0),
            span.map(|span| span.1),
            damage.what,
        ])?;
    Ok(())
}

pub(super) fn save_host(
    transaction: &Transaction<'_>,
    host: &StoredHost,
) -> Result<(), EmbeddedError> {
    let id: i64 = transaction
        .prepare_cached(
            "INSERT INTO host(name, last_epoch, certificate_end, sum) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT(name) DO UPDATE SET
                 last_epoch = excluded.last_epoch, certificate_end = excluded.certificate_end, sum = excluded.sum
             RETURNING id",
        )?
        .query_row(
            params![
                host.name,
                host.last_epoch as i64,
                host.certificate_end as i64,
                host_sum(&host.name, host.last_epoch, host.certificate_end),
            ],
            |row| row.get(0),
        )?;
    if host.is_whole {
        transaction
            .prepare_cached("DELETE FROM series WHERE host = ?1")?
            .execute([id])?;
    }
    if host.removed != RemovedSamples::default() {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO removed(host, samples, at, sum) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                id,
                host.removed.samples as i64,
                host.removed.at as i64,
                removed_sum(&host.name, host.removed),
            ])?;
    }
    for StoredSeries { label, series } in &host.series {
        let body = series_body::encode(&host.name, label, series);
        transaction
            .prepare_cached(
                "INSERT INTO series(host, label, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT(host, label) DO UPDATE SET body = excluded.body",
            )?
            .execute(params![id, label, body])?;
    }
    for table in PRODUCERS {
        transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE host = ?1"))?
            .execute([id])?;
    }
    for kept in &host.producers {
        save_producer(transaction, &host.name, id, kept)?;
    }
    save_documents(transaction, &host.name, OF_HOST, &host.documents)
}

/// Stores what is known of the clock.
pub(super) fn save_clock(
    transaction: &Transaction<'_>,
    clock: &StoredClock,
) -> Result<(), EmbeddedError> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO clock(id, boot, wall_offset, since, floor, floor_at, sum)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            clock.boot,
            clock.offset,
            clock.since as i64,
            clock.floor as i64,
            clock.floor_at as i64,
            clock_sum(clock),
        ])?;
    Ok(())
}

fn save_producer(
    transaction: &Transaction<'_>,
    host: &str,
    id: i64,
    kept: &StoredProducer,
) -> Result<(), EmbeddedError> {
    let ranges = encode_ranges(&kept.ranges);
    let dropped = serde_json::to_string(&kept.dropped).unwrap_or_else(|_| "[]".to_owned());
    let row = ProducerRow {
        producer: *kept.producer.as_bytes(),
        duplicate: kept.duplicate,
        repaired: kept.repaired,
        last_taken: kept.last_taken,
        ranges: &ranges,
        dropped: &dropped,
    };
    for table in PRODUCERS {
        transaction
            .prepare_cached(&format!(
                "INSERT INTO {table}(host, producer, duplicate, repaired, last_taken, ranges, dropped, sum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            ))?
            .execute(params![
                id,
                row.producer,
                row.duplicate as i64,
                row.repaired as i64,
                row.last_taken as i64,
                row.ranges,
                row.dropped,
                row.sum(host),
            ])?;
    }
    Ok(())
}
