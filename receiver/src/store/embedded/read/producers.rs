//! What was delivered, by producer.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Row;

use super::super::super::damage::Damage;
use super::super::super::state::StoredProducer;
use super::super::rows::{PRODUCERS, ProducerRow};
use super::scanner::{HostNames, HostStates, ScanMode, Scanner};

impl Scanner<'_> {
    pub(super) fn producers(&mut self, hosts: &HostNames, states: &mut HostStates) {
        let mut found: BTreeMap<(String, [u8; 16]), StoredProducer> = BTreeMap::new();
        let mut bad: BTreeSet<(String, [u8; 16])> = BTreeSet::new();
        let (mut orphans, mut counts) = (0_u64, [0_u64; 2]);
        for (table, count) in PRODUCERS.into_iter().zip(&mut counts) {
            let sql = format!(
                "SELECT host, producer, duplicate, repaired, last_taken, ranges, dropped, sum FROM {table}"
            );
            self.scan(table, &sql, "host, producer", &mut |row| {
                *count += 1;
                let names = row.get::<_, i64>(0).ok().and_then(|id| hosts.get(&id));
                let Some(name) = names.and_then(|names| names.first()) else {
                    orphans += 1;
                    return;
                };
                let id = row.get::<_, [u8; 16]>(1).unwrap_or_default();
                match producer_of(row, name) {
                    Some(stored) => {
                        found
                            .entry((name.clone(), *stored.producer.as_bytes()))
                            .or_insert(stored);
                    }
                    None => {
                        bad.insert((name.clone(), id));
                    }
                }
            });
        }
        let differs = counts[0] != counts[1] || orphans > 0;
        if self.mode == ScanMode::Fast && (differs || !bad.is_empty()) {
            self.of_store("the delivery sets are not stored twice, as they should be");
        } else {
            for (host, _) in bad.iter().filter(|key| !found.contains_key(*key)) {
                let what = "a producer's delivery set is lost: earlier numbers count again if they are sent again, or show as missing";
                self.damage.push(Damage::of_host(self.now, host, what));
            }
        }
        for ((host, _), stored) in found {
            if let Some(state) = states.get_mut(&host) {
                state.producers.push(stored);
            }
        }
    }
}

fn producer_of(row: &Row<'_>, host: &str) -> Option<StoredProducer> {
    let stored = ProducerRow {
        producer: row.get(1).ok()?,
        duplicate: row.get::<_, i64>(2).ok()? as u64,
        repaired: row.get::<_, i64>(3).ok()? as u64,
        last_taken: row.get::<_, i64>(4).ok()? as u64,
        ranges: row.get_ref(5).ok()?.as_blob().ok()?,
        dropped: row.get_ref(6).ok()?.as_str().ok()?,
    };
    stored.read(host, row.get(7).ok()?)
}
