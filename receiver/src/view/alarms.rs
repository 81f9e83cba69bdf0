//! Alarms on pages.

use lizmon_alarms::board::BoardEntry;
use lizmon_alarms::rules::AlarmSeverity;
use lizmon_alarms::state::{Alarm, AlarmState};
use lizmon_page::alarms::{ALARMS_PER_PAGE, AlarmRow, AlarmsPage};
use lizmon_page::badge::{Badge, BadgeLevel};
use lizmon_page::frame::Paging;
use lizmon_page::plot::AlarmMark;
use lizmon_page::unit::ValueUnit;

use super::sources::PageSources;
use crate::alarms;
use crate::authorize::{Permit, ViewPage};

/// The alarms of the hosts that the viewer may see: those that fire first.
pub(crate) fn alarms(
    permit: &Permit<ViewPage>,
    sources: PageSources<'_>,
    search: String,
    page: u64,
) -> AlarmsPage {
    let wanted = search.to_ascii_lowercase();
    let is_like = |entry: &BoardEntry| {
        let texts = [&entry.host, &entry.alarm.rule, &entry.alarm.label];
        texts
            .map(|text| text.to_ascii_lowercase().contains(&wanted))
            .contains(&true)
    };
    let entries = sources.alarms.entries();
    let mut entries = alarms::of_scope(permit.scope(), sources.table, entries);
    entries.retain(|entry| is_like(entry));
    entries.sort_by_key(alarms::order);
    let paging = Paging::new(page, ALARMS_PER_PAGE, entries.len() as u64);
    let of_page = entries.into_iter().skip(paging.first()).take(paging.size());
    AlarmsPage {
        search,
        now: sources.sample_now,
        paging,
        rows: of_page.map(row).collect(),
    }
}

fn row(entry: BoardEntry) -> AlarmRow {
    let alarm = entry.alarm;
    let level = match alarm.state {
        AlarmState::Firing => level(alarm.severity),
        AlarmState::Pending => BadgeLevel::Note,
        AlarmState::Resolved => BadgeLevel::Good,
    };
    let text = format!("{} ({})", alarm.state.as_str(), alarm.severity.as_str());
    let mut badges = vec![Badge::new(level, text)];
    if alarm.flapping {
        badges.push(Badge::new(BadgeLevel::Note, "flapping"));
    }
    AlarmRow {
        rule: alarm.rule,
        host: entry.host,
        value: ValueUnit::of(&alarm.label).short(alarm.value),
        label: (!alarm.label.is_empty()).then_some(alarm.label),
        badges,
        since: alarm.since,
        silenced_until: entry.silenced_until,
    }
}

fn level(severity: AlarmSeverity) -> BadgeLevel {
    match severity {
        AlarmSeverity::Critical => BadgeLevel::Bad,
        AlarmSeverity::Warning => BadgeLevel::Warn,
        AlarmSeverity::Info => BadgeLevel::Note,
    }
}

/// An alarm that fires, in a few words.
pub(super) fn badge(alarm: &Alarm) -> Option<Badge> {
    let about = match alarm.label.as_str() {
        "" => alarm.rule.clone(),
        label => format!("{}: {label}", alarm.rule),
    };
    let fires = alarm.state == AlarmState::Firing;
    fires.then(|| Badge::new(level(alarm.severity), format!("Alarm {about}")))
}

/// When alarms about a label fired.
pub(super) fn marks(entries: &[BoardEntry], label: &str) -> Vec<AlarmMark> {
    let about = entries.iter().filter(|entry| entry.alarm.label == label);
    let marks = about.filter_map(|entry| {
        let alarm = &entry.alarm;
        let to = match alarm.state {
            AlarmState::Pending => return None,
            AlarmState::Firing => None,
            AlarmState::Resolved => Some(alarm.at),
        };
        Some(AlarmMark {
            from: alarm.since,
            to,
            text: alarm.rule.clone(),
        })
    });
    marks.collect()
}
