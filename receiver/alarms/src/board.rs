//! The alarms there are, for who asks: written where hosts are judged, a part of the hosts at a
//! time.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::state::Alarm;

/// An alarm of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct BoardEntry {
    /// The host.
    pub host: String,
    /// The alarm.
    pub alarm: Alarm,
    /// Until when the host is silenced; none if it is not.
    pub silenced_until: Option<u64>,
    /// Whether it is not told, because the host was silenced when it fired.
    pub is_held: bool,
}

/// All alarms.
#[derive(Debug, Default)]
pub struct AlarmBoard {
    parts: RwLock<BTreeMap<u16, Vec<BoardEntry>>>,
}

impl AlarmBoard {
    /// Replaces what there is of one part.
    pub fn replace(&self, part: u16, entries: Vec<BoardEntry>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        match entries.is_empty() {
            true => drop(parts.remove(&part)),
            false => drop(parts.insert(part, entries)),
        }
    }

    /// All of them, by host.
    pub fn entries(&self) -> Vec<BoardEntry> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<_> = parts.values().flatten().cloned().collect();
        drop(parts);
        let by_name = |a: &BoardEntry, b: &BoardEntry| {
            let names = |entry: &BoardEntry| (entry.alarm.rule.clone(), entry.alarm.label.clone());
            a.host.cmp(&b.host).then_with(|| names(a).cmp(&names(b)))
        };
        entries.sort_by(by_name);
        entries
    }
}
