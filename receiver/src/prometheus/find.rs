//! Finds the series that queries mean, of the hosts that a caller may read.

use std::collections::HashMap;

use super::selector::Selector;
use crate::authorize::{Permit, ReadSeries};
use crate::summarize::{HostMap, SummaryTable};

/// Most series of one answer.
pub const SERIES_MAX: usize = 50_000;
/// Of how many labels it is remembered whether a selector means them: hosts have the same ones.
const LABELS_REMEMBERED_MAX: usize = 10_000;

/// More series than one answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {SERIES_MAX} such series, or names: ask for less")]
pub struct TooMany;

/// A series that a caller may read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    /// Its host.
    pub host: Box<str>,
    /// Its label.
    pub label: Box<str>,
}

/// The series with samples in a window that a selector means, by host and label. One that is named
/// exactly is there in any case: the history may have it.
pub fn series(
    permit: &Permit<ReadSeries>,
    table: &SummaryTable,
    selector: &Selector,
    now: u64,
) -> Result<Vec<Found>, TooMany> {
    let mut all = Vec::new();
    each(permit, table, selector, now, &mut |host, label| {
        if all.len() == SERIES_MAX {
            return Err(TooMany);
        }
        all.push(Found {
            host: host.into(),
            label: label.into(),
        });
        Ok(())
    })?;
    all.sort_unstable();
    if all.is_empty()
        && let Some((host, label)) = selector.only_series()
        && selector.has_host(host)
        && sees(permit, table, host)
    {
        all.push(Found {
            host: host.into(),
            label: label.into(),
        });
    }
    Ok(all)
}

fn sees(permit: &Permit<ReadSeries>, table: &SummaryTable, host: &str) -> bool {
    let hosts = table.shard_with(host);
    let tags = hosts.get(host).map(|host| host.tags().clone());
    permit.sees(host, &tags.unwrap_or_default())
}

/// Calls `found` for each of them, shard by shard.
pub fn each(
    permit: &Permit<ReadSeries>,
    table: &SummaryTable,
    selector: &Selector,
    now: u64,
    found: &mut dyn FnMut(&str, &str) -> Result<(), TooMany>,
) -> Result<(), TooMany> {
    let mut known = HashMap::new();
    let only = permit.only_host().or(selector.only_host());
    let mut search = |hosts: &HostMap| {
        let hosts = hosts.iter().filter(|(name, host)| {
            only.is_none_or(|only| only == &***name)
                && selector.has_host(name)
                && permit.sees(name, host.tags())
        });
        for (name, host) in hosts {
            for (label, series) in &host.series {
                if is_meant(selector, label, &mut known) && !series.is_empty_at(now) {
                    found(name, label)?;
                }
            }
        }
        Ok(())
    };
    match only {
        Some(host) => search(&table.shard_with(host)),
        None => table.shards().try_for_each(|hosts| search(&hosts)),
    }
}

fn is_meant(selector: &Selector, label: &str, known: &mut HashMap<Box<str>, bool>) -> bool {
    if let Some(is_meant) = known.get(label) {
        return *is_meant;
    }
    let is_meant = selector.has_label(label);
    if known.len() < LABELS_REMEMBERED_MAX {
        known.insert(label.into(), is_meant);
    }
    is_meant
}
