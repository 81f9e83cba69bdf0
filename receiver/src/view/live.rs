//! Which hosts something came from.

use std::collections::HashMap;

use lizmon_protocol::live::{LiveHost, LiveSummaries};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::summary::Average;

use super::series::BY_MINUTE;
use crate::authorize::{ListHosts, Permit};
use crate::silence;
use crate::summarize::{HostSummaries, SummaryTable};

/// The most hosts of one event; the others follow with the next ones.
const LIVE_HOSTS_MAX: usize = 500;

/// What one stream has told of each host.
#[derive(Default)]
pub(crate) struct LiveCursor {
    told: HashMap<Box<str>, (u64, u64, bool)>,
    /// The last name that was told: the next event begins after it.
    last: Box<str>,
}

impl LiveCursor {
    /// What has changed of a host since it was asked last; none if nothing has.
    pub(crate) fn next_of_one(
        &mut self,
        table: &SummaryTable,
        name: &NodeName,
        now: u64,
    ) -> Option<LiveSummaries> {
        let shard = table.shard_with(name.as_str());
        let host = self.take(name.as_str(), shard.get(name.as_str())?, now)?;
        let hosts = vec![host];
        Some(LiveSummaries { now, hosts })
    }

    /// The same of all hosts that may be seen.
    pub(crate) fn next_of_all(
        &mut self,
        permit: &Permit<ListHosts>,
        table: &SummaryTable,
        now: u64,
    ) -> Option<LiveSummaries> {
        let mut changed: Vec<Box<str>> = Vec::new();
        let mut known = 0;
        for shard in table.shards() {
            known += shard.len();
            let of_shard = shard.iter().filter(|(name, host)| {
                self.has_changed(name, host, now) && permit.sees(name, host.tags())
            });
            changed.extend(of_shard.map(|(name, _)| name.clone()));
        }
        // Hosts that are gone are forgotten.
        if self.told.len() > known {
            self.told
                .retain(|name, _| table.shard_with(name).contains_key(name));
        }
        changed.sort_unstable();
        if changed.len() > LIVE_HOSTS_MAX {
            let after = changed.partition_point(|name| **name <= *self.last);
            changed.rotate_left(after);
            changed.truncate(LIVE_HOSTS_MAX);
        }
        if let Some(last) = changed.last() {
            self.last = last.clone();
        }
        let hosts = changed.iter().filter_map(|name| {
            let shard = table.shard_with(name);
            shard.get(name).and_then(|host| self.take(name, host, now))
        });
        let hosts: Vec<_> = hosts.collect();
        (!hosts.is_empty()).then_some(LiveSummaries { now, hosts })
    }

    fn has_changed(&self, name: &str, host: &HostSummaries, now: u64) -> bool {
        self.told.get(name) != Some(&mark(host, now)) && !host.series.is_empty()
    }

    fn take(&mut self, name: &str, host: &HostSummaries, now: u64) -> Option<LiveHost> {
        if !self.has_changed(name, host, now) {
            return None;
        }
        let mark = mark(host, now);
        self.told.insert(name.into(), mark);
        let newest = host.series.iter().filter_map(|(label, series)| {
            let newest = series.newest(BY_MINUTE, now)?;
            let average = Average {
                start_sec: newest.start,
                end_sec: newest.end,
                interval_size_sec: newest.end - newest.start,
                num_samples: newest.count,
                avg: newest.avg,
                min: newest.min,
                max: newest.max,
            };
            Some((label.to_string(), average))
        });
        Some(LiveHost {
            name: name.to_owned(),
            last_received: mark.0,
            silent: mark.2,
            newest: newest.collect(),
        })
    }
}

/// Differs when something has come, or the host has become silent.
fn mark(host: &HostSummaries, now: u64) -> (u64, u64, bool) {
    let last = silence::last_received(host, now);
    (last, host.last_epoch, silence::is_silent(host, now))
}
