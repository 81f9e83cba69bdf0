//! Who reports a host, where that is not the host alone: kept as a document of the host.
//!
//! ```text
//! gateway/prom1 1465001814
//! node/web1 1465001800
//! ```

use std::collections::BTreeMap;

use lizmon_protocol::name::{NodeName, Role};

/// Whoever reports a host is written down so often: seconds.
const EVERY_SECS: u64 = 60;
/// Of more than so many those who reported longest ago are left out.
const REPORTERS_MAX: usize = 8;
/// So are those who have not reported for a week.
const KEPT_SECS: u64 = 7 * 86_400;

/// Whether it was a moment ago. A time ahead of ours is of a clock that was wrong.
pub fn is_recent(at: u64, now: u64) -> bool {
    (at..at.saturating_add(EVERY_SECS)).contains(&now)
}

/// Role and name of each, with when it reported last: epoch seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reporters(BTreeMap<String, u64>);

impl Reporters {
    /// The document's body. What cannot be read is left out.
    pub fn read(body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let read = text.lines().filter_map(|line| {
            let (who, at) = line.split_once(' ')?;
            let (role, name) = who.split_once('/')?;
            let _known: (Role, NodeName) = (role.parse().ok()?, name.parse().ok()?);
            Some((who.to_owned(), at.parse().ok()?))
        });
        Self(read.collect())
    }

    /// The document's body.
    pub fn write(&self) -> Vec<u8> {
        let lines = self.0.iter().map(|(who, at)| format!("{who} {at}\n"));
        lines.collect::<String>().into_bytes()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one that reports now. `None` if it is known already that it has reported a moment ago.
    #[must_use]
    pub fn with(mut self, role: Role, name: &NodeName, now: u64) -> Option<Self> {
        let who = format!("{role}/{name}");
        if self.0.get(&who).is_some_and(|at| is_recent(*at, now)) {
            return None;
        }
        self.0.insert(who, now);
        self.0.retain(|_, at| at.saturating_add(KEPT_SECS) > now);
        while self.0.len() > REPORTERS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at);
            let Some(oldest) = oldest.map(|(who, _)| who.clone()) else {
                break;
            };
            self.0.remove(&oldest);
        }
        Some(self)
    }

    /// Role and name of each, with when it reported last, about: epoch seconds.
    pub fn into_times(self) -> BTreeMap<String, u64> {
        self.0
    }

    /// The same.
    pub fn times(&self) -> &BTreeMap<String, u64> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn each_is_written_down_once_a_minute() {
        let first = Reporters::default().with(Role::Gateway, &name("prom1"), NOW);
        let first = first.unwrap();
        assert_eq!(first.write(), format!("gateway/prom1 {NOW}\n").as_bytes());
        assert_eq!(Reporters::read(&first.write()), first);
        let again = |of: &Reporters, role, who: &str, at| of.clone().with(role, &name(who), at);
        assert_eq!(again(&first, Role::Gateway, "prom1", NOW), None);
        assert_eq!(again(&first, Role::Gateway, "prom1", NOW + 59), None);
        for at in [NOW + 60, NOW - 1] {
            let next = again(&first, Role::Gateway, "prom1", at).unwrap();
            assert_eq!(next.times().values().collect::<Vec<_>>(), [&at]);
        }
        // Of the same name, and somebody else.
        let second = again(&first, Role::Node, "prom1", NOW + 1).unwrap();
        assert_eq!(second.times().len(), 2);
    }

    #[test]
    fn they_are_few_and_recent() {
        let mut reporters = Reporters::default();
        for at in 0..20 {
            let gateway = name(&format!("g{at}"));
            reporters = reporters.with(Role::Gateway, &gateway, NOW + at).unwrap();
        }
        let newest: Vec<_> = reporters.times().values().collect();
        assert!(newest.iter().all(|at| **at >= NOW + 12));
        assert_eq!(newest.len(), REPORTERS_MAX);
        let later = NOW + KEPT_SECS + 14;
        let left = reporters.with(Role::Gateway, &name("g0"), later).unwrap();
        assert_eq!(left.times().len(), 6, "{left:?}");
    }

    #[test]
    fn what_was_not_written_is_not_read() {
        let body = b"gateway/prom1 5\nnobody/a 5\nnode/ 5\nnode/a\nnode/a x\nnode/b -1\n\xff";
        assert_eq!(Reporters::read(body), Reporters::default());
        let body = b"gateway/prom1 5\nnobody/a 5\nnode/ 5\nnode/a\nnode/a x\nnode/b -1\nnode/c 18446744073709551615";
        let read = Reporters::read(body);
        assert_eq!(read.times().len(), 2);
        // A time at the end of all time is no overflow.
        let c = name("c");
        assert!(read.with(Role::Node, &c, NOW).is_some());
    }
}
