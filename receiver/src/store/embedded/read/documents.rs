//! The documents of hosts and shards.

use rusqlite::Row;

use super::super::super::damage::Damage;
use super::super::super::document::{DocumentKind, StoredDocument};
use super::super::rows::DocumentKey;
use super::scanner::{HostStates, ScanMode, Scanner};
use crate::store::Shard;

/// The documents of shards.
pub(super) type ShardDocuments = Vec<(Shard, StoredDocument)>;

impl Scanner<'_> {
    pub(super) fn documents(&mut self, states: &mut HostStates) -> ShardDocuments {
        let mut of_shards = ShardDocuments::new();
        let mut lost = Vec::new();
        let sql = "SELECT host, shard, kind, body, sum FROM document";
        let is_whole = self.scan("document", sql, "host, shard, kind", &mut |row| {
            match document_of(row) {
                Some((host, shard, document)) if host.is_empty() => {
                    of_shards.push((shard, document));
                }
                Some((host, _, document)) => match states.get_mut(&host) {
                    // A table that is read from both ends gives some rows twice.
                    Some(state) if state.documents.contains(&document) => (),
                    Some(state) => state.documents.push(document),
                    None => lost.push((host, document.kind.loss())),
                },
                None => lost.push(what_is_lost(row)),
            }
        });
        for (host, what) in lost {
            if states.contains_key(&host) {
                self.damage.push(Damage::of_host(self.now, &host, what));
            } else {
                self.of_store(format!("of a shard or an unknown host, {what}"));
            }
        }
        if !is_whole && self.mode == ScanMode::Thorough {
            self.of_store("of some hosts, what is known of the machine, silences and the state of alarms may be lost");
        }
        of_shards.dedup();
        of_shards
    }
}

/// The host's name as it stands there, and what its document was, as far as that can be read.
fn what_is_lost(row: &Row<'_>) -> (String, &'static str) {
    let kind = row.get::<_, u8>(2).ok().and_then(DocumentKind::from_number);
    let what = kind.map_or("a document is lost", DocumentKind::loss);
    (row.get(0).unwrap_or_default(), what)
}

fn document_of(row: &Row<'_>) -> Option<(String, Shard, StoredDocument)> {
    let host: String = row.get(0).ok()?;
    let key = DocumentKey {
        host: &host,
        shard: Shard::new(row.get(1).ok()?),
        kind: DocumentKind::from_number(row.get(2).ok()?)?,
    };
    let body = row.get_ref(3).ok()?.as_blob().ok()?;
    let document = key.read(body, row.get(4).ok()?)?;
    let shard = key.shard;
    Some((host, shard, document))
}
