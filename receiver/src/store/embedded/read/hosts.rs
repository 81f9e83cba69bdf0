//! The hosts.

use std::collections::BTreeSet;

use lizmon_protocol::name::NodeName;
use rusqlite::Row;

use super::super::super::damage::Damage;
use super::super::super::state::StoredHost;
use super::super::rows;
use super::scanner::{HostNames, HostStates, ScanMode, Scanner};

impl Scanner<'_> {
    pub(super) fn hosts(&mut self) -> (HostNames, HostStates) {
        let (mut hosts, mut states) = (HostNames::new(), HostStates::new());
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
        if self.mode == ScanMode::Thorough {
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
                    "a host's name is lost, and its data with it (row {id})"
                ));
                continue;
            };
            if !states.contains_key(name) {
                states.insert(
                    name.clone(),
                    StoredHost {
                        name: name.clone(),
                        ..StoredHost::default()
                    },
                );
                let what = "the time of its last report and the end of its certificate are lost, until it reports again";
                self.damage.push(Damage::of_host(self.now, name, what));
            }
        }
        (hosts, states)
    }
}

fn host_of(row: &Row<'_>) -> Option<(i64, StoredHost)> {
    let state = StoredHost {
        name: row.get(1).ok()?,
        last_epoch: row.get::<_, i64>(2).ok()? as u64,
        certificate_end: row.get::<_, i64>(3).ok()? as u64,
        ..StoredHost::default()
    };
    let sum = rows::host_sum(&state.name, state.last_epoch, state.certificate_end);
    (row.get::<_, i64>(4).ok()? == i64::from(sum)).then_some((row.get(0).ok()?, state))
}
