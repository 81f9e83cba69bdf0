//! The series.

use std::collections::{BTreeMap, BTreeSet};

use lizmon_protocol::name::Label;
use rusqlite::{Row, types::ValueRef};

use super::super::super::damage::Damage;
use super::super::super::state::{SeriesSink, StoredSeries};
use super::super::series_body;
use super::decoding::{self, GiveBody};
use super::scanner::{HostNames, HostStates, ScanMode, Scanner, SeriesNames};

/// The index that repeats host, label and row of each series.
const INDEX: &str = "INDEXED BY sqlite_autoindex_series_1";

impl Scanner<'_> {
    /// Reads the series of a database of this version into their hosts.
    pub(super) fn series(&mut self, hosts: &HostNames, states: &mut HostStates) {
        let found = self.scan_series(hosts, Target::Hosts(states));
        self.tell_lost_series(found);
    }

    /// The same, once: the series go to `sink`.
    pub(super) fn series_into(&mut self, hosts: &HostNames, sink: &mut dyn SeriesSink) {
        let mut found = LostSeries::default();
        let lost = decoding::decode(sink, |decode| {
            found = self.scan_series(hosts, Target::Decoder(decode));
        });
        found.lost.extend(lost);
        self.tell_lost_series(found);
    }

    fn scan_series<'a>(&mut self, hosts: &'a HostNames, target: Target<'a, '_>) -> LostSeries {
        let mut found = FoundSeries {
            hosts,
            target,
            mode: self.mode,
            last: None,
            seen: BTreeSet::new(),
            unread: BTreeMap::new(),
            lost: BTreeSet::new(),
            unknown: 0,
        };
        let sql = "SELECT id, host, label, body FROM series NOT INDEXED";
        let mut is_whole = self.scan("series", sql, "id", &mut |row| found.take(row));
        if self.mode == ScanMode::Thorough {
            let sql = format!("SELECT id, host, label FROM series {INDEX}");
            is_whole &= self.scan("series", &sql, "host, label", &mut |row| {
                found.take_name(row);
            });
        }
        LostSeries {
            unknown: found.unknown + found.unread.len() as u64,
            lost: found.lost.difference(&found.seen).cloned().collect(),
            is_whole,
        }
    }

    fn tell_lost_series(&mut self, found: LostSeries) {
        let LostSeries { lost, unknown, .. } = found;
        for (host, label) in lost {
            self.damage.push(Damage {
                label: Some(label),
                ..Damage::of_host(self.now, &host, "the summaries of a series are lost")
            });
        }
        if unknown > 0 {
            self.of_store(format!(
                "{unknown} series have lost their name or their host, and are lost"
            ));
        } else if !found.is_whole && self.mode == ScanMode::Thorough {
            self.of_store("series of which no name could be read may be lost");
        }
    }

    /// The names of the series of a database of a version before, by row.
    pub(super) fn series_names(&mut self, hosts: &HostNames) -> SeriesNames {
        let mut series = SeriesNames::new();
        let mut lost = 0_u64;
        let sources = match self.mode {
            ScanMode::Fast => &[("NOT INDEXED", "id")][..],
            ScanMode::Thorough => &[("NOT INDEXED", "id"), (INDEX, "host, label")],
        };
        for (source, order) in sources {
            let sql = format!("SELECT id, host, label FROM series {source}");
            self.scan("series", &sql, order, &mut |row| {
                let named = row_of(row).and_then(|(id, host, label)| {
                    let host = hosts.get(&host)?.first()?;
                    Some((id, (host.clone(), label.to_owned())))
                });
                let Some((id, candidate)) = named else {
                    lost += 1;
                    return;
                };
                let candidates: &mut Vec<_> = series.entry(id).or_default();
                if !candidates.contains(&candidate) {
                    candidates.push(candidate);
                }
            });
        }
        if lost > 0 && self.mode == ScanMode::Fast {
            self.of_store(format!("{lost} series have lost their name or their host"));
        }
        series
    }
}

/// Row, row of the host, and label.
fn row_of<'r>(row: &'r Row<'_>) -> Option<(i64, i64, &'r str)> {
    let label = row.get_ref(2).ok()?.as_str().ok()?;
    Label::of_series(label).ok()?;
    Some((row.get(0).ok()?, row.get(1).ok()?, label))
}

/// Where the series go.
enum Target<'a, 't> {
    Hosts(&'t mut HostStates),
    Decoder(GiveBody<'a, 't>),
}

/// What could not be read of the series.
#[derive(Default)]
struct LostSeries {
    /// Host and label.
    lost: BTreeSet<(String, String)>,
    /// How many rows belong to nothing that is known.
    unknown: u64,
    /// Every row could be read.
    is_whole: bool,
}

/// What is found of the series.
struct FoundSeries<'a, 't> {
    hosts: &'a HostNames,
    target: Target<'a, 't>,
    mode: ScanMode,
    /// The row before.
    last: Option<i64>,
    /// The series that were read, of a thorough reading, which meets rows more than once.
    seen: BTreeSet<(String, String)>,
    /// Bodies that fit no name yet, by row: the index may have the right one.
    unread: BTreeMap<i64, Vec<u8>>,
    /// The series whose bodies could not be read.
    lost: BTreeSet<(String, String)>,
    /// How many rows belong to nothing that is known.
    unknown: u64,
}

impl<'a> FoundSeries<'a, '_> {
    fn take(&mut self, row: &Row<'_>) {
        // One pass in the order of the rows: one that is not in order is damaged.
        let id = row.get::<_, i64>(0).ok();
        let is_in_order = self.last < id;
        self.last = id;
        if self.mode == ScanMode::Fast && !is_in_order {
            self.unknown += 1;
            return;
        }
        let body = match row.get_ref(3) {
            Ok(ValueRef::Blob(body)) => Some(body),
            _ => None,
        };
        let hosts = self.hosts;
        let named = row_of(row).and_then(|(id, host, label)| {
            let host = hosts.get(&host)?.first()?;
            Some((id, host.as_str(), label))
        });
        match (named, body) {
            (Some((id, host, label)), Some(body)) => {
                if !self.read(host, label, body) {
                    self.lost.insert((host.to_owned(), label.to_owned()));
                    // The index may have another name for it.
                    if self.mode == ScanMode::Thorough {
                        self.unread.insert(id, body.to_vec());
                    }
                }
            }
            (Some((_, host, label)), None) => {
                self.lost.insert((host.to_owned(), label.to_owned()));
            }
            (None, body) => match (self.mode, id) {
                (ScanMode::Thorough, Some(id)) => {
                    self.unread.insert(id, body.unwrap_or_default().to_vec());
                }
                _ => self.unknown += 1,
            },
        }
    }

    /// A name from the index.
    fn take_name(&mut self, row: &Row<'_>) {
        let Some((id, host, label)) = row_of(row) else {
            return;
        };
        let Some(host) = self.hosts.get(&host).and_then(|names| names.first()) else {
            return;
        };
        let unread = self.unread.remove(&id);
        let is_read = unread.is_some_and(|body| self.read(host, label, &body));
        if !is_read {
            self.lost.insert((host.clone(), label.to_owned()));
        }
    }

    /// Whether the body is that of this series, and its host is known. A decoder says so at its end.
    fn read(&mut self, host: &'a str, label: &str, body: &[u8]) -> bool {
        let states = match &mut self.target {
            Target::Hosts(states) => states,
            Target::Decoder(give) => {
                give(host, label, body);
                return true;
            }
        };
        let Some(series) = series_body::decode(host, label, body) else {
            return false;
        };
        let name = (self.mode == ScanMode::Thorough).then(|| (host.to_owned(), label.to_owned()));
        let is_known = name.as_ref().is_some_and(|name| self.seen.contains(name));
        if is_known {
            return true;
        }
        let Some(state) = states.get_mut(host) else {
            return false;
        };
        state.series.push(StoredSeries {
            label: label.into(),
            series,
        });
        self.seen.extend(name);
        true
    }
}
