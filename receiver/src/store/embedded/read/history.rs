//! The history: hours and days of series, in chunks.

use std::collections::BTreeMap;

use lizmon_protocol::history::HistoryTier;
use rusqlite::Row;

use super::super::super::damage::Damage;
use super::super::super::history::{Chunk, StoredChunk};
use super::super::history::tier_of;
use super::scanner::{ScanMode, Scanner};

/// For each row of `history_series` its host and label.
type PastNames = BTreeMap<i64, (Box<str>, Box<str>)>;

impl Scanner<'_> {
    /// Gives every chunk that can be read, some of them twice, and notes the others.
    pub(in crate::store::embedded) fn history(&mut self, each: &mut dyn FnMut(StoredChunk)) {
        let (names, mut is_whole) = self.past_names();
        let mut lost = Vec::new();
        let mut unknown = 0_u64;
        let sql = "SELECT series, tier, start, body FROM history";
        let mut take = |row: &Row<'_>| match chunk_of(row, &names) {
            Ok(chunk) => each(chunk),
            Err(Some(damaged)) => lost.push(damaged),
            Err(None) => unknown += 1,
        };
        is_whole &= match self.mode {
            ScanMode::Fast => self.scan("history", sql, "series, tier, start", &mut take),
            ScanMode::Thorough => names.keys().fold(true, |is_whole, id| {
                let of_one = format!("{sql} WHERE series = {id}");
                self.scan("history", &of_one, "tier, start", &mut take) && is_whole
            }),
        };
        lost.sort();
        lost.dedup();
        for (host, label, tier, span) in lost {
            let what = match tier {
                HistoryTier::ByHour => "the hours of a day are lost",
                HistoryTier::ByDay => "the days of four weeks are lost",
            };
            self.damage.push(Damage {
                label: Some(label.into()),
                span: Some(span),
                ..Damage::of_host(self.now, &host, what)
            });
        }
        if unknown > 0 {
            self.of_store(format!(
                "{unknown} parts of the history, of unknown series, are lost"
            ));
        }
        if !is_whole && self.mode == ScanMode::Thorough {
            self.of_store("of some series, hours and days of the history are lost");
        }
    }

    fn past_names(&mut self) -> (PastNames, bool) {
        let mut names = PastNames::new();
        let mut is_whole = true;
        let sources: &[(&str, &str)] = match self.mode {
            ScanMode::Fast => &[("NOT INDEXED", "id")],
            ScanMode::Thorough => &[
                ("NOT INDEXED", "id"),
                (
                    "INDEXED BY sqlite_autoindex_history_series_1",
                    "host, label",
                ),
            ],
        };
        for (at, (source, order)) in sources.iter().enumerate() {
            let sql = format!("SELECT id, host, label FROM history_series {source}");
            let is_read = self.scan("history_series", &sql, order, &mut |row| {
                let read = || Some((row.get(0).ok()?, (row.get(1).ok()?, row.get(2).ok()?)));
                if let Some((id, names_of)) = read() {
                    names.entry(id).or_insert(names_of);
                }
            });
            // One of the two suffices.
            is_whole = is_read || (at > 0 && is_whole);
        }
        (names, is_whole)
    }
}

type DamagedChunk = (Box<str>, Box<str>, HistoryTier, (u64, u64));

/// The chunk of a row; whose it was and of what time, if that is known and the chunk is damaged.
fn chunk_of(row: &Row<'_>, names: &PastNames) -> Result<StoredChunk, Option<DamagedChunk>> {
    let key = || {
        let (host, label) = names.get(&row.get::<_, i64>(0).ok()?)?.clone();
        let tier = tier_of(row.get(1).ok()?)?;
        let start = row.get::<_, i64>(2).ok()? as u64;
        Some((host, label, tier, start))
    };
    let (host, label, tier, start) = key().ok_or(None)?;
    let chunk = StoredChunk {
        bytes: row.get(3).unwrap_or_default(),
        host,
        label,
        tier,
        start,
    };
    match Chunk::decode(&chunk.key(), &chunk.bytes) {
        Some(_) => Ok(chunk),
        None => {
            let span = (start, chunk.key().end());
            Err(Some((chunk.host, chunk.label, tier, span)))
        }
    }
}
