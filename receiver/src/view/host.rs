//! One host.

use lizmon_page::date::moment;
use lizmon_page::frame::Paging;
use lizmon_page::host::{
    DeliverySums, HostPage, HostQuery, LABELS_PER_PAGE, LabelPlots, PlotRange,
};
use lizmon_page::plot::{
    AlarmMark, MONTH_BY_HOUR, PlotInterval, PlotTier, SeriesPlot, YEAR_BY_DAY,
};
use lizmon_page::unit::ValueUnit;
use lizmon_protocol::history::{HistoryRange, HistoryTier};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::sample::Epoch;
use lizmon_summary::Series;

use super::alarms::marks;
use super::delivery::{add, sums_of};
use super::fleet::FleetHost;
use super::series::{BY_MINUTE, known_from, plots};
use super::sources::PageSources;
use crate::authorize::{Permit, ReadHost, ViewPage};
use crate::silence;
use crate::store::DocumentKind;
use crate::summarize::HostSummaries;

/// How long a series must be known until the time between its samples is shown.
const SPACING_AFTER_SECS: u64 = 180;
/// Who has reported a host so recently still does: it is written down once a minute.
const REPORTS_NOW_SECS: u64 = 180;
/// Labels that come first.
const FIRST_LABELS: [&str; 2] = ["cpu", "mem"];

/// Why there is no page of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHostPage {
    /// The viewer may not know whether there is such a host.
    OutsideHostScope,
    /// Nothing is known of it in any window.
    Unknown,
    /// The store cannot be read.
    Unread,
}

/// The host.
pub(crate) fn host(
    permit: &Permit<ViewPage>,
    sources: PageSources<'_>,
    name: &NodeName,
    query: HostQuery,
) -> Result<HostPage, NoHostPage> {
    let now = sources.sample_now;
    let entries = sources.alarms.entries();
    let entries: Vec<_> = entries
        .into_iter()
        .filter(|entry| entry.host == name.as_str())
        .collect();
    let shard = sources.table.shard_with(name.as_str());
    let summaries = shard.get(name.as_str());
    let tags = summaries
        .map(HostSummaries::tags)
        .cloned()
        .unwrap_or_default();
    // The same whether there is such a host or not.
    if !permit.shows(name.as_str(), &tags) {
        return Err(NoHostPage::OutsideHostScope);
    }
    let summaries = summaries.ok_or(NoHostPage::Unknown)?;
    let found = labels(summaries, &query, now).ok_or(NoHostPage::Unknown)?;
    let paging = Paging::new(query.page, LABELS_PER_PAGE, found.len() as u64);
    let of_page = found.into_iter().skip(paging.first()).take(paging.size());
    let mut labels: Vec<_> = of_page
        .map(|(label, series)| {
            let marks = marks(&entries, label);
            label_plots(label, series, query.range, now, &marks)
        })
        .collect();
    let mut delivery = DeliverySums::default();
    for producer in summaries.producers.values() {
        add(&mut delivery, sums_of(producer));
    }
    let mut fleet = FleetHost::new(name.as_str(), summaries, now);
    // The first minutes are no measure.
    let is_measured =
        |series| known_from(series, now).is_some_and(|from| from + SPACING_AFTER_SECS <= now);
    let spacing_secs = silence::spacing_secs(summaries, now)
        .filter(|_| summaries.series.values().any(is_measured));
    let tagged = tags.iter().map(|tag| ("tag".to_owned(), tag.to_string()));
    let reporters = reporters(summaries, now);
    let facts = reporters.chain(tagged).chain(facts(summaries)).collect();
    drop(shard);
    // The store is read without a lock.
    if let Some(tier) = long_tier(query.range) {
        let permit = permit.read_host(name, &tags);
        let permit = permit.ok_or(NoHostPage::OutsideHostScope)?;
        for label in &mut labels {
            let marks = marks(&entries, &label.label);
            label.plots = vec![long_plot(&permit, sources, &label.label, tier, marks)?];
        }
    }
    fleet.judge_certificate(sources, false);
    fleet.add_alarms(&entries);
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

fn label_plots(
    label: &str,
    series: &Series,
    range: PlotRange,
    now: u64,
    marks: &[AlarmMark],
) -> LabelPlots {
    let [hour, day] = plots(label, series, now, marks);
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

fn long_tier(range: PlotRange) -> Option<(PlotTier, HistoryTier)> {
    match range {
        PlotRange::Month => Some((MONTH_BY_HOUR, HistoryTier::ByHour)),
        PlotRange::Year => Some((YEAR_BY_DAY, HistoryTier::ByDay)),
        PlotRange::HourAndDay | PlotRange::Hour | PlotRange::Day => None,
    }
}

/// A series further back, from the store.
fn long_plot(
    permit: &Permit<ReadHost>,
    sources: PageSources<'_>,
    label: &str,
    (tier, of_history): (PlotTier, HistoryTier),
    marks: Vec<AlarmMark>,
) -> Result<SeriesPlot, NoHostPage> {
    let now = sources.sample_now;
    let from = now
        .next_multiple_of(tier.width_secs)
        .saturating_sub(tier.slots * tier.width_secs);
    let range = HistoryRange {
        tier: of_history,
        from: Epoch::new(from),
        to: None,
    };
    let read = sources
        .history
        .read(permit, sources.table, label, &range, now);
    let found = read.map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "the history cannot be read");
        NoHostPage::Unread
    })?;
    let intervals: Vec<_> = found
        .unwrap_or_default()
        .intervals
        .into_iter()
        .map(|average| PlotInterval {
            end: average.end_sec,
            count: average.num_samples,
            avg: average.avg,
            min: average.min,
            max: average.max,
        })
        .collect();
    let first = intervals.first();
    Ok(SeriesPlot {
        tier,
        unit: ValueUnit::of(label),
        now,
        known_from: first.map_or(now, |first| first.end.saturating_sub(tier.width_secs)),
        intervals,
        marks,
    })
}

/// Who reports it, where that is not the host alone.
fn reporters(host: &HostSummaries, now: u64) -> impl Iterator<Item = (String, String)> {
    let times = host.reporters().into_times().into_iter();
    times.map(move |(who, at)| {
        let text = match at.saturating_add(REPORTS_NOW_SECS) < now {
            true => format!("{who}, until {}", moment(at)),
            false => who,
        };
        ("reported by".to_owned(), text)
    })
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
