//! The list of hosts.

use std::collections::BTreeMap;

use lizmon_page::frame::Paging;
use lizmon_page::overview::{
    COLUMNS_MAX, FILTERS, HOSTS_PER_PAGE, HostRow, OverviewPage, OverviewQuery, TAGS_MAX,
};
use lizmon_page::spark::Spark;

use super::fleet::{FleetCache, FleetHost, fullest_disk};
use super::series::spark;
use super::sources::PageSources;
use crate::authorize::{Permit, ViewPage};
use crate::summarize::HostSummaries;

/// Columns that come first where a host of the page has them.
const FIRST_COLUMNS: [&str; 2] = ["cpu", "mem"];
/// The column of each host's fullest file system.
const DISK_COLUMN: &str = "fullest disk";

/// The hosts that were asked for.
pub(crate) fn overview(
    permit: &Permit<ViewPage>,
    sources: PageSources<'_>,
    cache: &FleetCache,
    query: OverviewQuery,
) -> OverviewPage {
    let fleet = cache.now(sources);
    let shown = FILTERS.iter().position(|filter| filter.key == query.show);
    let shown = shown.unwrap_or_default();
    let search = query.search.to_ascii_lowercase();
    let is_like =
        |host: &&FleetHost| search.is_empty() || host.name.to_ascii_lowercase().contains(&search);
    let may_see = |host: &&FleetHost| permit.shows(&host.name, &host.tags);
    let is_tagged = |host: &FleetHost| {
        query.tag.is_empty() || host.tags.iter().any(|tag| tag.as_str() == query.tag)
    };
    let mut counts = [0; FILTERS.len()];
    let mut found: Vec<&FleetHost> = Vec::new();
    let mut tags: BTreeMap<&str, u64> = BTreeMap::new();
    for host in fleet.hosts.iter().filter(may_see).filter(is_like) {
        for tag in &host.tags {
            *tags.entry(tag.as_str()).or_default() += 1;
        }
        if !is_tagged(host) {
            continue;
        }
        for (count, is_in) in counts.iter_mut().zip(host.is_in) {
            *count += u64::from(is_in);
        }
        found.extend(
            host.is_in
                .get(shown)
                .is_some_and(|is_in| *is_in)
                .then_some(host),
        );
    }
    let paging = Paging::new(query.page, HOSTS_PER_PAGE, found.len() as u64);
    let of_page: Vec<&FleetHost> = found
        .into_iter()
        .skip(paging.first())
        .take(paging.size())
        .collect();
    let columns = columns(sources, &of_page);
    OverviewPage {
        query: OverviewQuery {
            page: paging.page,
            ..query
        },
        now: sources.sample_now,
        counts,
        tags: tags
            .into_iter()
            .take(TAGS_MAX)
            .map(|(tag, hosts)| (tag.to_owned(), hosts))
            .collect(),
        paging,
        rows: of_page
            .into_iter()
            .map(|host| row(sources, host, &columns))
            .collect(),
        columns,
        limits: permit.scope().limits(),
    }
}

fn row(sources: PageSources<'_>, host: &FleetHost, columns: &[String]) -> HostRow {
    let shard = sources.table.shard_with(&host.name);
    let summaries = shard.get(&host.name);
    let spark = |column: &String| of_column(summaries?, column, sources.sample_now);
    HostRow {
        name: host.name.to_string(),
        badges: host.badges.clone(),
        sparks: columns.iter().map(spark).collect(),
        cover: host.cover.clone(),
        last_received: host.last_received,
        certificate_end: host.certificate_end,
    }
}

fn of_column(host: &HostSummaries, column: &str, now: u64) -> Option<(String, Spark)> {
    let label = match column {
        DISK_COLUMN => fullest_disk(host, now)?.0,
        label => label,
    };
    let series = host.series.get(label)?;
    Some((label.to_owned(), spark(label, series, now)))
}

/// The columns of a page: what most people look at, then the labels that most of its hosts have.
fn columns(sources: PageSources<'_>, hosts: &[&FleetHost]) -> Vec<String> {
    let now = sources.sample_now;
    let mut hosts_with: BTreeMap<String, usize> = BTreeMap::new();
    for host in hosts {
        let shard = sources.table.shard_with(&host.name);
        let Some(summaries) = shard.get(&host.name) else {
            continue;
        };
        let live = summaries.series.iter().filter(|(_, s)| !s.is_empty_at(now));
        for (label, _) in live {
            let column = match label.starts_with("disk-") {
                true if label.starts_with("disk-used:") => DISK_COLUMN,
                true => continue,
                false => label,
            };
            *hosts_with.entry(column.to_owned()).or_default() += 1;
        }
    }
    let first = FIRST_COLUMNS.into_iter().chain([DISK_COLUMN]);
    let mut columns: Vec<String> = first
        .filter(|column| hosts_with.remove(*column).is_some())
        .map(str::to_owned)
        .collect();
    let mut others: Vec<_> = hosts_with.into_iter().collect();
    others.sort_by(|(_, a), (_, b)| b.cmp(a));
    columns.extend(others.into_iter().map(|(label, _)| label));
    columns.truncate(COLUMNS_MAX);
    columns
}
