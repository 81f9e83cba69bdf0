//! What is wrong with each host: made of all summaries, once a second at most.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use lizmon_alarms::board::BoardEntry;
use lizmon_page::badge::{Badge, BadgeLevel};
use lizmon_page::date;
use lizmon_page::overview::FILTERS;
use lizmon_page::spark::DayCover;
use lizmon_protocol::name::Tag;
use lizmon_protocol::summary::HolderState;
use lizmon_summary::AHEAD_SECS_MAX;

use super::sources::PageSources;
use super::{alarms, cover};
use crate::silence;
use crate::summarize::HostSummaries;

const BY_MINUTE: usize = 0;
/// With more hosts than this, certificates are verified only of those that have not reported for
/// [`RECENT_SECS`]: each takes a chain to verify.
const JUDGED_AT_ONCE_MAX: usize = 1_000;
const RECENT_SECS: u64 = 2;
/// A certificate of which it is not known when it began is late when this is left: one of seven days
/// has been renewed by then.
const CERTIFICATE_LEFT_SECS: u64 = 36 * 3_600;
/// How full a file system is that is worth knowing, and one that needs somebody: percent.
const DISK_PERCENT: f64 = 90.0;
const DISK_PERCENT_BAD: f64 = 97.0;
/// Built-in rules, and the filters whose badges say the same.
const SAID: [(&str, &str); 4] = [
    ("silent", "silent"),
    ("certificate-ends", "certificates"),
    ("disk-nearly-full", "disks"),
    ("inodes-nearly-full", "disks"),
];
/// The labels of file systems.
const DISK_LABELS: [&str; 2] = ["disk-inodes:", "disk-used:"];

/// A host, and what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct FleetHost {
    pub(super) name: Box<str>,
    pub(super) tags: BTreeSet<Tag>,
    /// Worst first.
    pub(super) badges: Vec<Badge>,
    pub(super) cover: DayCover,
    pub(super) last_received: u64,
    pub(super) certificate_end: u64,
    /// Whether it belongs to each of [`FILTERS`].
    pub(super) is_in: [bool; FILTERS.len()],
}

/// All hosts, those that need somebody first.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    at: u64,
    pub(super) hosts: Vec<FleetHost>,
}

/// The fleet as it was made last.
#[derive(Default)]
pub(crate) struct FleetCache(Mutex<Option<Arc<Fleet>>>);

impl FleetCache {
    /// The fleet of this second, with hosts that not everyone may see. Others wait for who makes it.
    pub(super) fn now(&self, sources: PageSources<'_>) -> Arc<Fleet> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fleet) = &*made
            && fleet.at == sources.sample_now
        {
            return fleet.clone();
        }
        let fleet = Arc::new(fleet(sources));
        *made = Some(fleet.clone());
        fleet
    }
}

fn fleet(sources: PageSources<'_>) -> Fleet {
    let now = sources.sample_now;
    let mut hosts = Vec::new();
    for shard in sources.table.shards() {
        let live = shard
            .iter()
            .filter(|(_, host)| host.series.values().any(|series| !series.is_empty_at(now)));
        hosts.extend(live.map(|(name, host)| FleetHost::new(name, host, now)));
    }
    let firing = sources.alarms.entries();
    let is_many = hosts.len() > JUDGED_AT_ONCE_MAX;
    for host in &mut hosts {
        let is_recent = host.last_received.saturating_add(RECENT_SECS) >= now;
        host.judge_certificate(sources, is_many && is_recent);
        host.add_alarms(&firing);
        host.badges.sort_by_key(|badge| badge.level);
    }
    hosts.sort_by(|a, b| a.order().cmp(&b.order()));
    Fleet { at: now, hosts }
}

/// Which of [`FILTERS`], by key.
fn place(key: &str) -> usize {
    let place = FILTERS.iter().position(|filter| filter.key == key);
    place.unwrap_or_default()
}

impl FleetHost {
    /// What its summaries say.
    pub(super) fn new(name: &str, host: &HostSummaries, now: u64) -> Self {
        let last_received = silence::last_received(host, now);
        let mut made = Self {
            name: name.into(),
            tags: host.tags().clone(),
            badges: Vec::new(),
            cover: cover::last_day(host, now),
            last_received,
            certificate_end: host.certificate_end,
            is_in: [false; FILTERS.len()],
        };
        made.add(place(""), None);
        // A wrong clock stamped what is ahead of ours; it is not current.
        let is_silent = silence::is_silent(host, now)
            || host.last_epoch > now.saturating_add(2 * AHEAD_SECS_MAX);
        if is_silent {
            let secs = now.saturating_sub(last_received);
            let text = format!("Silent {}", date::span(secs));
            made.add(place("silent"), Some(Badge::new(BadgeLevel::Bad, text)));
        }
        made.judge_day(is_silent);
        if let Some((label, used)) = fullest_disk(host, now)
            && used >= DISK_PERCENT
        {
            let level = match used >= DISK_PERCENT_BAD {
                true => BadgeLevel::Bad,
                false => BadgeLevel::Warn,
            };
            let text = format!("{label} {used:.0} %");
            made.add(place("disks"), Some(Badge::new(level, text)));
        }
        made
    }

    fn add(&mut self, place: usize, badge: Option<Badge>) {
        if let Some(is_in) = self.is_in.get_mut(place) {
            *is_in = true;
        }
        self.badges.extend(badge);
    }

    /// What fires. What the page says in other words already is not repeated.
    pub(super) fn add_alarms(&mut self, entries: &[BoardEntry]) {
        let first = entries.partition_point(|entry| *entry.host < *self.name);
        let others = entries.partition_point(|entry| *entry.host <= *self.name);
        for entry in entries.get(first..others).unwrap_or_default() {
            let Some(badge) = alarms::badge(&entry.alarm) else {
                continue;
            };
            let is_said = SAID.iter().any(|(rule, filter)| {
                let is_in = self.is_in.get(place(filter));
                *rule == entry.alarm.rule && is_in.is_some_and(|is_in| *is_in)
            });
            self.add(place("alarms"), (!is_said).then_some(badge));
        }
    }

    /// A gap that lasts is told as silence already.
    fn judge_day(&mut self, is_silent: bool) {
        let mut gaps = self.cover.gaps();
        if is_silent {
            gaps.retain(|(_, end)| *end != self.cover.to);
        }
        let Some((from, to)) = gaps.last().copied() else {
            return;
        };
        let more = match gaps.len() {
            1 => String::new(),
            number => format!(" and {} more", number - 1),
        };
        let (from, to) = (date::clock(from), date::clock(to));
        let text = format!("Silent {from}–{to}{more}");
        self.add(place("gaps"), Some(Badge::new(BadgeLevel::Note, text)));
    }

    /// What is wrong with the certificate that it reported with last.
    pub(super) fn judge_certificate(&mut self, sources: PageSources<'_>, was_judged: bool) {
        let (now, end) = (sources.now, self.certificate_end);
        let is_revoked = !was_judged
            && sources.holders.state(&self.name, sources.trust, now) == Some(HolderState::Revoked);
        let is_late = sources.holders.is_late(&self.name, now);
        let is_late = is_late.unwrap_or(end.saturating_sub(now) < CERTIFICATE_LEFT_SECS);
        let badge = match end {
            0 => return,
            _ if is_revoked => Badge::new(BadgeLevel::Bad, "Certificate revoked"),
            _ if end < now => Badge::new(BadgeLevel::Bad, "Certificate ended"),
            _ if is_late => {
                let left = date::span(end - now);
                Badge::new(BadgeLevel::Warn, format!("Certificate ends in {left}"))
            }
            _ => return,
        };
        self.add(place("certificates"), Some(badge));
    }

    /// Who needs somebody first: by the worst, then by how much there is, then by name.
    fn order(&self) -> (BadgeLevel, Reverse<usize>, &str) {
        let worst = self.badges.iter().map(|badge| badge.level).min();
        let worst = worst.unwrap_or(BadgeLevel::Good);
        (worst, Reverse(self.badges.len()), &self.name)
    }
}

/// The fullest file system, by bytes or by inodes, in the newest minute.
pub(super) fn fullest_disk(host: &HostSummaries, now: u64) -> Option<(&str, f64)> {
    let disks = DISK_LABELS.into_iter().flat_map(|prefix| {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let labels = host.series.range::<str, _>(from);
        labels.take_while(move |(label, _)| label.starts_with(prefix))
    });
    let newest = disks.filter_map(|(label, series)| {
        let newest = series.newest(BY_MINUTE, now)?;
        Some((&**label, newest.avg))
    });
    newest.max_by(|(_, a), (_, b)| a.total_cmp(b))
}
