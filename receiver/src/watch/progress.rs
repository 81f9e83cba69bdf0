//! For how long shards have been behind. Pure.

use crate::store::ShardReading;

/// What is known of a shard's progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardProgress {
    pub(super) reading: ShardReading,
    /// Since when groups wait and none of them was committed: seconds of a clock that does not
    /// step.
    waiting_since: Option<u64>,
    /// Since when no process has its lease.
    unowned_since: Option<u64>,
}

impl ShardProgress {
    /// What is known after this reading, and before it.
    pub(super) fn after(before: Option<Self>, reading: ShardReading, now: u64) -> Self {
        let cursor = before.map(|before| before.reading.cursor);
        let is_stuck = cursor == Some(reading.cursor) && reading.waiting_groups > 0;
        let since = |was: Option<u64>, is: bool| is.then(|| was.unwrap_or(now).min(now));
        Self {
            waiting_since: since(
                before
                    .and_then(|before| before.waiting_since)
                    .filter(|_| is_stuck),
                reading.waiting_groups > 0,
            ),
            unowned_since: since(
                before.and_then(|before| before.unowned_since),
                !reading.is_owned,
            ),
            reading,
        }
    }

    /// For how many seconds groups have waited, without one that was committed.
    pub(super) fn waiting_secs(&self, now: u64) -> u64 {
        self.waiting_since
            .map_or(0, |since| now.saturating_sub(since))
    }

    /// For how many seconds no process has had its lease.
    pub(super) fn unowned_secs(&self, now: u64) -> u64 {
        self.unowned_since
            .map_or(0, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Position, Shard};

    #[test]
    fn since_when_a_shard_is_behind() {
        // When it was read, cursor, groups behind it, owned; then for how long they have waited,
        // and it was unowned.
        let readings = [
            (100, 0, 0, false, 0, 0),
            (101, 0, 3, false, 0, 1),
            (105, 0, 5, true, 4, 0),
            (110, 0, 9, true, 9, 0),
            (111, 5, 4, true, 0, 0),
            (121, 5, 4, false, 10, 0),
            (122, 9, 0, false, 0, 1),
            (130, 9, 0, false, 0, 9),
            (131, 9, 1, false, 0, 10),
        ];
        let mut progress = None;
        for (now, cursor, waiting_groups, is_owned, waiting, unowned) in readings {
            let reading = ShardReading {
                shard: Shard::new(0),
                cursor: Position::new(cursor),
                waiting_groups,
                journal_bytes: None,
                is_owned,
            };
            let after = ShardProgress::after(progress, reading, now);
            let found = (after.waiting_secs(now), after.unowned_secs(now));
            assert_eq!(found, (waiting, unowned), "at {now}");
            progress = Some(after);
        }
    }
}
