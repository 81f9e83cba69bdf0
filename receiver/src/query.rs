//! Answers queries from memory. A lock is held for one host or one shard at a time.

mod json;

use lizmon_protocol::delivery::{Delivery, ProducerDelivery, Removed, StampClock};
use lizmon_protocol::name::{Label, NodeName, SUMMARY_PREFIX};
use lizmon_protocol::sample::{BATCH_DROPPED_MAX, Dropped, Epoch, SampleSet, Seq};
use lizmon_protocol::summary::{self, HolderState, Hosts};
use lizmon_summary::{AHEAD_SECS_MAX, IntervalAverage, TIERS, Tier, Window};

use self::json::SummariesJson;
use crate::authorize::{AcknowledgeMissing, ListHosts, Permit, ReadHost, ReadMetrics};
use crate::store::record::Submission;
use crate::summarize::SummaryTable;
use crate::{glance, silence};

/// A monitor that has not reported its clock's difference for so long stamps samples by its own
/// clock.
const CLOCK_SAID_AGO_SECS_MAX: u64 = 300;

/// The host's summaries whose name contains `filter`, whatever the case of its ASCII letters: the
/// JSON of [`Summaries`](lizmon_protocol::summary::Summaries). `None` if nothing at all is known of
/// the host in any window.
pub fn summaries(
    permit: &Permit<ReadHost>,
    table: &SummaryTable,
    filter: &str,
    now: u64,
) -> Option<serde_json::Result<Vec<u8>>> {
    let host = permit.host().as_str();
    let labels = live_labels(table, host, now)?;
    Some(encode(table, host, &labels, filter, now))
}

fn encode(
    table: &SummaryTable,
    host: &str,
    labels: &[Box<str>],
    filter: &str,
    now: u64,
) -> serde_json::Result<Vec<u8>> {
    let filter = filter.to_ascii_lowercase();
    let is_wanted = |name: &str| filter.is_empty() || name.to_ascii_lowercase().contains(&filter);
    let by_tier = (0..).zip(&TIERS).flat_map(|(at, tier)| {
        let names = labels
            .iter()
            .map(move |label| (summary_name(tier, label), label));
        names.map(move |(name, label)| (name, at, label))
    });
    let mut wanted: Vec<_> = by_tier.filter(|(name, ..)| is_wanted(name)).collect();
    wanted.sort_unstable();
    let intervals = wanted.iter().filter_map(|(_, at, _)| TIERS.get(*at));
    let mut json = SummariesJson::with_room(intervals.map(|tier| tier.kept).sum());
    let as_of = table.as_of(table.shard_of(host), now);
    let mut window = Window::default();
    for (name, tier, label) in wanted {
        // Locked for one window at a time, so that a host with many labels blocks no other.
        let hosts = table.shard_with(host);
        let series = hosts.get(host).and_then(|host| host.series.get(label));
        let has_samples = series.is_some_and(|of| of.window_into(tier, now, &mut window));
        drop(hosts);
        if has_samples {
            json.push(&name, &window, as_of)?;
        }
    }
    Ok(json.finish())
}

/// How many labels a host has: an estimate of the work to answer.
pub fn label_count(permit: &Permit<ReadHost>, table: &SummaryTable) -> usize {
    let name = permit.host().as_str();
    let hosts = table.shard_with(name);
    hosts.get(name).map_or(0, |host| host.series.len())
}

fn live_labels(table: &SummaryTable, host: &str, now: u64) -> Option<Vec<Box<str>>> {
    let hosts = table.shard_with(host);
    let live = hosts
        .get(host)?
        .series
        .iter()
        .filter(|(_, series)| !series.is_empty_at(now));
    let labels: Vec<_> = live.map(|(label, _)| label.clone()).collect();
    if labels.is_empty() {
        None
    } else {
        Some(labels)
    }
}

/// How much a list of all hosts is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FleetSize {
    /// Hosts.
    pub hosts: usize,
    /// Labels of all of them.
    pub labels: usize,
}

/// An estimate of the work to list all hosts.
pub fn fleet_size(table: &SummaryTable) -> FleetSize {
    table.shards().fold(FleetSize::default(), |size, hosts| {
        let labels: usize = hosts.values().map(|host| host.series.len()).sum();
        FleetSize {
            hosts: size.hosts + hosts.len(),
            labels: size.labels + labels,
        }
    })
}

/// Every host with samples in a window that the caller may read, by name.
pub fn hosts(permit: &Permit<ListHosts>, table: &SummaryTable, now: u64) -> Hosts {
    let mut list = Vec::new();
    for hosts in table.shards() {
        for (name, host) in hosts.iter() {
            let live = host
                .series
                .iter()
                .filter(|(_, series)| !series.is_empty_at(now));
            let labels: Vec<String> = live.map(|(label, _)| label.to_string()).collect();
            let tags = host.tags();
            if !labels.is_empty() && permit.sees(name, tags) {
                list.push(summary::Host {
                    name: name.to_string(),
                    last_epoch: host.last_epoch,
                    labels,
                    certificate_end: host.certificate_end,
                    state: (host.certificate_end < now).then_some(HolderState::Ended),
                    // A wrong clock stamped what is ahead of ours; it is not current.
                    silent: silence::is_silent(host, now)
                        || host.last_epoch > now + 2 * AHEAD_SECS_MAX,
                    last_received: Some(silence::last_received(host, now)),
                    facts: host.documents.facts().cloned(),
                    tags: tags.clone(),
                    newest: glance::newest(host, now),
                    silent_hours: glance::silent_hours(host, now),
                    reported_by: host.reporters().into_times(),
                });
            }
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Hosts {
        hosts: list,
        limits: permit.scope().limits(),
        as_of: table.oldest_as_of(now),
    }
}

/// The newest minute of each series that has one, of the hosts that the caller may read: host, label,
/// minute. Shard by shard, so that no lock is held while they are encoded.
pub fn newest_minutes(
    permit: &Permit<ReadMetrics>,
    table: &SummaryTable,
    now: u64,
) -> impl Iterator<Item = Vec<(Box<str>, Box<str>, IntervalAverage)>> {
    const BY_MINUTE: usize = 0;
    let scope = permit.scope();
    table.shards().map(move |hosts| {
        let seen = hosts
            .iter()
            .filter(|(name, host)| scope.includes_all() || scope.includes(name, host.tags()));
        let series = seen.flat_map(|(name, host)| {
            host.series
                .iter()
                .map(move |(label, series)| (name, label, series))
        });
        series
            .filter_map(|(name, label, series)| {
                Some((name.clone(), label.clone(), series.newest(BY_MINUTE, now)?))
            })
            .collect()
    })
}

/// What has arrived from a host, by producer. `None` if nothing is known of the host.
pub fn delivery(permit: &Permit<ReadHost>, table: &SummaryTable, now: u64) -> Option<Delivery> {
    let name = permit.host().as_str();
    let hosts = table.shard_with(name);
    let host = hosts.get(name)?;
    let removed = (host.removed.samples > 0).then_some(Removed {
        samples: host.removed.samples,
        at: host.removed.at,
    });
    let mut producers: Vec<_> = host
        .producers
        .iter()
        .map(|(id, producer)| ProducerDelivery {
            producer: *id,
            received: producer.set.received(),
            duplicate: producer.duplicate,
            missing: producer.dropped.take_out_of(producer.set.missing()),
            dropped: producer
                .dropped
                .without(producer.set.ranges())
                .map(|(from, to, why)| (from, to, why.to_owned()))
                .collect(),
            repaired: producer.repaired,
            highest: Some(producer.set.highest().unwrap_or(0)),
        })
        .collect();
    producers.sort_by_key(|producer| producer.producer);
    // A monitor that stamps by its own clock again reports nothing.
    let is_fresh = |at: u64| at + CLOCK_SAID_AGO_SECS_MAX >= host.last_epoch;
    let clock = host.clock.filter(|(_, at)| is_fresh(*at));
    Some(Delivery {
        producers,
        removed,
        clock: clock.map(|(ahead_secs, at)| StampClock { ahead_secs, at }),
        as_of: table.as_of(table.shard_of(name), now),
    })
}

/// What is missing of a host, as submissions that drop those numbers for this reason, with how many
/// numbers each has. `None` if nothing is known of the host.
pub fn missing(
    _permit: &Permit<AcknowledgeMissing>,
    table: &SummaryTable,
    name: &NodeName,
    why: &Label<'static>,
    now: u64,
) -> Option<Vec<(u64, Submission)>> {
    let hosts = table.shard_with(name.as_str());
    let host = hosts.get(name.as_str())?;
    let mut submissions = Vec::new();
    for (id, producer) in &host.producers {
        let missing = producer.dropped.take_out_of(producer.set.missing());
        for ranges in missing.chunks(BATCH_DROPPED_MAX) {
            let dropped = ranges.iter().filter_map(|(from, to)| {
                Some(Dropped {
                    from: Seq::new(*from)?,
                    to: Seq::new(*to)?,
                    why: why.clone(),
                })
            });
            let dropped: Vec<_> = dropped.collect();
            let none = std::iter::empty::<(Option<Seq>, Epoch, &SampleSet<'_>)>();
            let submission = Submission::new(name, host.certificate_end, Some(*id), now)
                .with_records_and_dropped(none, &dropped);
            let count = ranges.iter().map(|(from, to)| to - from + 1).sum();
            submissions.push((count, submission));
        }
    }
    Some(submissions)
}

fn summary_name(tier: &Tier, label: &str) -> String {
    format!("{SUMMARY_PREFIX}{}:{label}", tier.name)
}
