//! Which groups of a shard were read already, by the receivers that appended them.
//!
//! A writer numbers its groups and appends them in order. Where the outcome of an append is unknown
//! it appends the group again, under its number; so a number that is not above the writer's last
//! one was read before, or was given up.

use std::collections::{BTreeMap, HashMap, VecDeque};

use uuid::Uuid;

use super::shard::Position;

/// A writer of which nothing was committed for so long is forgotten: none of its appends can still
/// be on its way.
const KEPT_SECS: u64 = 24 * 3600;

/// The writers of one shard.
#[derive(Debug, Default)]
pub(super) struct Writers {
    /// By writer, the number of its last group.
    last: HashMap<Uuid, u64>,
    /// Those behind the cursor of the last commit, and when it was: seconds of the server.
    committed: HashMap<Uuid, (u64, u64)>,
    /// What was read since: in order.
    read: VecDeque<(Position, Uuid, u64)>,
}

impl Writers {
    /// As they were committed: by writer `NUMBER SECONDS`.
    pub(super) fn restore(stored: impl Iterator<Item = (Uuid, u64, u64)>) -> Self {
        let committed: HashMap<_, _> = stored
            .map(|(writer, number, at)| (writer, (number, at)))
            .collect();
        Self {
            last: committed
                .iter()
                .map(|(writer, (number, _))| (*writer, *number))
                .collect(),
            committed,
            read: VecDeque::new(),
        }
    }

    /// Whether the group is new. It is known from now on.
    pub(super) fn is_new(&mut self, position: Position, writer: Uuid, number: u64) -> bool {
        let last = self.last.entry(writer).or_default();
        if number <= *last {
            return false;
        }
        *last = number;
        self.read.push_back((position, writer, number));
        true
    }

    /// What a commit up to this cursor has to store.
    pub(super) fn through(&self, cursor: Position) -> BTreeMap<Uuid, u64> {
        let behind = self.read.iter();
        let behind = behind.take_while(|(position, _, _)| *position <= cursor);
        behind
            .map(|(_, writer, number)| (*writer, *number))
            .collect()
    }

    /// The writers to be forgotten, by the time of the last commit.
    pub(super) fn expired(&self, now: u64) -> Vec<Uuid> {
        let expired = self
            .committed
            .iter()
            .filter(|(_, (_, at))| at.saturating_add(KEPT_SECS) < now);
        expired.map(|(writer, _)| *writer).collect()
    }

    /// A commit up to this cursor took effect at this second of the server, and these were
    /// forgotten.
    pub(super) fn committed(&mut self, cursor: Position, forgotten: &[Uuid], now: u64) {
        for (writer, number) in self.through(cursor) {
            self.committed.insert(writer, (number, now));
        }
        while self.read.front().is_some_and(|(at, _, _)| *at <= cursor) {
            self.read.pop_front();
        }
        for writer in forgotten {
            self.committed.remove(writer);
            if !self.read.iter().any(|(_, read, _)| read == writer) {
                self.last.remove(writer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_bytes([1; 16]);
    const B: Uuid = Uuid::from_bytes([2; 16]);

    #[test]
    fn repeated_and_late_groups_are_known() {
        let mut writers = Writers::default();
        let mut is_new = |at, writer, number| writers.is_new(Position::new(at), writer, number);
        assert!(is_new(1, A, 1));
        assert!(!is_new(2, A, 1), "repeated");
        assert!(is_new(3, B, 1), "another writer's");
        assert!(is_new(4, A, 3), "2 was given up");
        assert!(!is_new(5, A, 2), "and came late");
    }

    #[test]
    fn a_commit_stores_what_is_behind_its_cursor() {
        let mut writers = Writers::restore([(B, 7, 100)].into_iter());
        assert!(!writers.is_new(Position::new(1), B, 7));
        assert!(writers.is_new(Position::new(2), A, 1));
        assert!(writers.is_new(Position::new(3), A, 2));
        let through = |writers: &Writers, cursor| writers.through(Position::new(cursor));
        assert_eq!(through(&writers, 1), BTreeMap::new());
        assert_eq!(through(&writers, 2), BTreeMap::from([(A, 1)]));
        assert_eq!(through(&writers, 9), BTreeMap::from([(A, 2)]));
        writers.committed(Position::new(2), &[], 200);
        assert_eq!(through(&writers, 9), BTreeMap::from([(A, 2)]));
        assert!(!writers.is_new(Position::new(4), A, 2), "still known");
    }

    #[test]
    fn old_writers_are_forgotten() {
        let mut writers = Writers::restore([(A, 7, 100), (B, 7, 100 + KEPT_SECS)].into_iter());
        assert!(writers.expired(100 + KEPT_SECS).is_empty());
        let now = 101 + KEPT_SECS;
        assert_eq!(writers.expired(now), [A]);
        writers.committed(Position::START, &[A], now);
        assert!(writers.expired(now).is_empty());
        assert!(
            writers.is_new(Position::new(1), A, 1),
            "a new one for all that is known"
        );
    }
}
