//! What is known of the clock, and what was removed because of it.

use std::collections::BTreeSet;

use rusqlite::Row;

use super::super::super::damage::Damage;
use super::super::super::state::RemovedSamples;
use super::super::rows;
use super::scanner::{HostNames, HostStates, ScanMode, Scanner};
use crate::clock::StoredClock;

impl Scanner<'_> {
    /// How many samples of each host were removed because a wrong clock had stamped them.
    pub(super) fn removed(&mut self, hosts: &HostNames, states: &mut HostStates) {
        let mut bad = BTreeSet::new();
        let mut orphans = 0_u64;
        let sql = "SELECT host, samples, at, sum FROM removed";
        let is_whole = self.scan("removed", sql, "host", &mut |row| {
            let names = row.get::<_, i64>(0).ok().and_then(|id| hosts.get(&id));
            let Some(name) = names.and_then(|names| names.first()) else {
                orphans += 1;
                return;
            };
            match (removed_of(row, name), states.get_mut(name)) {
                (Some(removed), Some(state)) => state.removed = removed,
                _ => {
                    bad.insert(name.clone());
                }
            }
        });
        let what = "the number of samples removed because they were ahead of the clock is lost";
        for host in &bad {
            self.damage.push(Damage::of_host(self.now, host, what));
        }
        if orphans > 0 || (!is_whole && self.mode == ScanMode::Thorough) {
            self.of_store(format!("of some unknown hosts, {what}"));
        }
    }

    pub(super) fn clock(&mut self) -> Option<StoredClock> {
        let (mut found, mut is_damaged) = (None, false);
        let sql = "SELECT id, boot, wall_offset, since, floor, floor_at, sum FROM clock";
        let is_whole = self.scan("clock", sql, "id", &mut |row| match clock_of(row) {
            Some(clock) => found = Some(clock),
            None => is_damaged = true,
        });
        let is_out_of_reach = !is_whole && found.is_none() && self.mode == ScanMode::Thorough;
        if is_damaged || is_out_of_reach {
            self.of_store("the last known time is lost: the clock is checked again");
        }
        found
    }
}

fn removed_of(row: &Row<'_>, host: &str) -> Option<RemovedSamples> {
    let removed = RemovedSamples {
        samples: row.get::<_, i64>(1).ok()? as u64,
        at: row.get::<_, i64>(2).ok()? as u64,
    };
    rows::read_removed(host, removed, row.get(3).ok()?)
}

fn clock_of(row: &Row<'_>) -> Option<StoredClock> {
    let clock = StoredClock {
        boot: row.get(1).ok()?,
        offset: row.get(2).ok()?,
        since: row.get::<_, i64>(3).ok()? as u64,
        floor: row.get::<_, i64>(4).ok()? as u64,
        floor_at: row.get::<_, i64>(5).ok()? as u64,
    };
    rows::read_clock(clock, row.get(6).ok()?)
}
