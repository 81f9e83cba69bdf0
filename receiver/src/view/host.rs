//! One host.

use lizmon_page::frame::Paging;
use lizmon_page::host::{
    DeliverySums, HostPage, HostQuery, LABELS_PER_PAGE, LabelPlots, PlotRange,
};
use lizmon_page::plot::SeriesPlot;
use lizmon_protocol::name::NodeName;
use lizmon_summary::Series;

use super::delivery::{add, sums_of};
use super::fleet::FleetHost;
use super::series::{BY_MINUTE, plots};
use super::sources::PageSources;
use crate::authorize::{Permit, ViewPage};
use crate::silence;
use crate::store::DocumentKind;
use crate::summarize::HostSummaries;

/// Labels that come first.
const FIRST_LABELS: [&str; 2] = ["cpu", "mem"];

/// Why there is no page of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHostPage {
    /// The viewer may not know whether there is such a host.
    OutsideHostScope,
    /// Nothing is known of it in any window.
    Unknown,
}

/// The host.
pub(crate) fn host(
    permit: &Permit<ViewPage>,
    sources: PageSources<'_>,
    name: &NodeName,
    query: HostQuery,
) -> Result<HostPage, NoHostPage> {
    let now = sources.sample_now;
    let shard = sources.table.shard_with(name.as_str());
    let summaries = shard.get(name.as_str());
    let tags = summaries.map(HostSummaries::tags).unwrap_or_default();
    // The same whether there is such a host or not.
    if !permit.shows(name.as_str(), &tags) {
        return Err(NoHostPage::OutsideHostScope);
    }
    let summaries = summaries.ok_or(NoHostPage::Unknown)?;
    let found = labels(summaries, &query, now).ok_or(NoHostPage::Unknown)?;
    let paging = Paging::new(query.page, LABELS_PER_PAGE, found.len() as u64);
    let of_page = found.into_iter().skip(paging.first()).take(paging.size());
    let labels = of_page
        .map(|(label, series)| label_plots(label, series, query.range, now))
        .collect();
    let mut delivery = DeliverySums::default();
    for producer in summaries.producers.values() {
        add(&mut delivery, sums_of(producer));
    }
    let mut fleet = FleetHost::new(name.as_str(), summaries, now);
    let spacing_secs = silence::spacing_secs(summaries, now);
    let tags = tags.iter().map(|tag| ("tag".to_owned(), tag.to_string()));
    let facts = tags.chain(facts(summaries)).collect();
    drop(shard);
    fleet.judge_certificate(sources, false);
    fleet.badges.sort_by_key(|badge| badge.level);
    Ok(HostPage {
        name: name.to_string(),
        query: HostQuery {
            page: paging.page,
            ..query
        },
        now,
        badges: fleet.badges,
        last_received: fleet.last_received,
        spacing_secs,
        certificate_end: fleet.certificate_end,
        delivery,
        facts,
        paging,
        labels,
    })
}

/// The labels that were asked for; none if the host has no label at all.
fn labels<'a>(
    host: &'a HostSummaries,
    query: &HostQuery,
    now: u64,
) -> Option<Vec<(&'a str, &'a Series)>> {
    let live = host.series.iter().filter(|(_, s)| !s.is_empty_at(now));
    let mut labels: Vec<_> = live.map(|(label, series)| (&**label, series)).collect();
    if labels.is_empty() {
        return None;
    }
    let search = query.search.to_ascii_lowercase();
    labels.retain(|(label, _)| match query.label.as_str() {
        "" => search.is_empty() || label.to_ascii_lowercase().contains(&search),
        alone => alone == *label,
    });
    labels.sort_by_key(|(label, _)| {
        let first = FIRST_LABELS.iter().position(|first| first == label);
        first.unwrap_or(FIRST_LABELS.len())
    });
    Some(labels)
}

fn label_plots(label: &str, series: &Series, range: PlotRange, now: u64) -> LabelPlots {
    let [hour, day] = plots(label, series, now, &[]);
    let plots: Vec<SeriesPlot> = match range {
        PlotRange::HourAndDay => vec![hour, day],
        PlotRange::Hour => vec![hour],
        PlotRange::Day => vec![day],
        PlotRange::Month | PlotRange::Year => Vec::new(),
    };
    LabelPlots {
        label: label.to_owned(),
        newest: series.newest(BY_MINUTE, now).map(|newest| newest.avg),
        plots,
    }
}

/// What the monitor says of the machine: names and values of a JSON object.
fn facts(host: &HostSummaries) -> Vec<(String, String)> {
    let Some(body) = host.documents.get(DocumentKind::Facts) else {
        return Vec::new();
    };
    let facts: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).unwrap_or_default();
    let said = facts.into_iter().filter_map(|(name, value)| {
        let text = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some((name, text))
    });
    said.collect()
}
