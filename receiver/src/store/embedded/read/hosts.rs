//! Hosts and their series.

use std::collections::BTreeSet;

use lizmon_protocol::name::{Label, NodeName};
use rusqlite::Row;

use super::super::super::damage::Damage;
use super::super::super::state::StoredHost;
use super::super::rows;
use super::scanner::{HostNames, HostStates, ScanMode, Scanner, SeriesNames};

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

    pub(super) fn series(&mut self, hosts: &HostNames) -> SeriesNames {
        let mut series = SeriesNames::new();
        let mut lost = 0_u64;
        let sources = match self.mode {
            ScanMode::Fast => &["NOT INDEXED"][..],
            ScanMode::Thorough => &["NOT INDEXED", "INDEXED BY sqlite_autoindex_series_1"],
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
        if lost > 0 && self.mode == ScanMode::Fast {
            self.of_store(format!("{lost} series have lost their name or their host"));
        }
        series
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
