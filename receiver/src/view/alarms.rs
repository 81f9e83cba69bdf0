//! The alarms.

use lizmon_alarms::board::BoardEntry;
use lizmon_alarms::rules::AlarmSeverity;
use lizmon_alarms::state::AlarmState;
use lizmon_page::alarms::{ALARMS_PER_PAGE, AlarmRow, AlarmsPage};
use lizmon_page::badge::{Badge, BadgeLevel};
use lizmon_page::frame::Paging;

use super::sources::PageSources;
use crate::alarms;
use crate::authorize::{Permit, ViewPage};

/// The alarms of the hosts that the page shows: those that fire first.
pub(crate) fn alarms(
    permit: &Permit<ViewPage>,
    sources: PageSources<'_>,
    entries: Vec<BoardEntry>,
    page: u64,
) -> AlarmsPage {
    let tags_of = |host: &str| {
        let hosts = sources.table.shard_with(host);
        hosts.get(host).map(|host| host.tags()).unwrap_or_default()
    };
    let is_shown = |entry: &BoardEntry| {
        !permit.is_limited() || permit.shows(&entry.host, &tags_of(&entry.host))
    };
    let mut entries: Vec<_> = entries.into_iter().filter(is_shown).collect();
    entries.sort_by_key(alarms::order);
    let paging = Paging::new(page, ALARMS_PER_PAGE, entries.len() as u64);
    let of_page = entries.into_iter().skip(paging.first()).take(paging.size());
    AlarmsPage {
        now: sources.sample_now,
        paging,
        rows: Some(of_page.map(row).collect()),
    }
}

fn row(entry: BoardEntry) -> AlarmRow {
    let BoardEntry {
        host,
        alarm,
        silenced_until,
        ..
    } = entry;
    let level = match (alarm.state, alarm.severity) {
        (AlarmState::Resolved, _) => BadgeLevel::Good,
        (AlarmState::Pending, _) | (_, AlarmSeverity::Info) => BadgeLevel::Note,
        (AlarmState::Firing, AlarmSeverity::Warning) => BadgeLevel::Warn,
        (AlarmState::Firing, AlarmSeverity::Critical) => BadgeLevel::Bad,
    };
    let words = format!("{}, {}", alarm.state.as_str(), alarm.severity.as_str());
    let mut badges = vec![Badge::new(level, words)];
    if alarm.flapping {
        badges.push(Badge::new(BadgeLevel::Note, "flapping"));
    }
    AlarmRow {
        rule: alarm.rule,
        host,
        label: (!alarm.label.is_empty()).then_some(alarm.label),
        badges,
        since: alarm.since,
        value: ((alarm.value * 100.0).round() / 100.0).to_string(),
        silenced_until,
    }
}
