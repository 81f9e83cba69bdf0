//! Alarms as readers get them.

use lizmon_alarms::board::BoardEntry;
use lizmon_alarms::state::AlarmState;
use lizmon_protocol::alarm::{AlarmEntry, AlarmList, AlarmPhase};

use crate::authorize::{HostScope, ListHosts, Permit};
use crate::summarize::{HostSummaries, SummaryTable};

/// The alarms of the hosts that the caller may know of: those that fire first, then those that may
/// soon, then those that have ended.
pub fn list(
    permit: &Permit<ListHosts>,
    table: &SummaryTable,
    entries: Vec<BoardEntry>,
) -> AlarmList {
    let mut seen = of_scope(permit.scope(), table, entries);
    seen.sort_by_key(order);
    let alarms = seen.into_iter().map(shown).collect();
    AlarmList { alarms }
}

/// The alarms of these hosts.
pub fn of_scope(
    scope: &HostScope,
    table: &SummaryTable,
    mut entries: Vec<BoardEntry>,
) -> Vec<BoardEntry> {
    if !scope.includes_all() {
        entries.retain(|entry| {
            let hosts = table.shard_with(&entry.host);
            let tags = hosts.get(&*entry.host).map(HostSummaries::tags).cloned();
            scope.includes(&entry.host, &tags.unwrap_or_default())
        });
    }
    entries
}

/// What fires comes first.
pub fn order(entry: &BoardEntry) -> u8 {
    match entry.alarm.state {
        AlarmState::Firing => 0,
        AlarmState::Pending => 1,
        AlarmState::Resolved => 2,
    }
}

fn shown(entry: BoardEntry) -> AlarmEntry {
    let BoardEntry {
        host,
        alarm,
        silenced_until,
        ..
    } = entry;
    AlarmEntry {
        id: alarm.id,
        rule: alarm.rule,
        host,
        label: (!alarm.label.is_empty()).then_some(alarm.label),
        state: match alarm.state {
            AlarmState::Pending => AlarmPhase::Pending,
            AlarmState::Firing => AlarmPhase::Firing,
            AlarmState::Resolved => AlarmPhase::Resolved,
        },
        since: alarm.since,
        value: alarm.value,
        severity: alarm.severity.as_str().to_owned(),
        silenced_until,
        at: alarm.at,
        flapping: alarm.flapping,
    }
}
