//! A time in which something is not done.

use std::time::Duration;

/// It begins at a time of the wall clock, which may be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    since: Duration,
    lasts: Duration,
}

impl Pause {
    pub(super) fn new(since: Duration, lasts: Duration) -> Self {
        Self { since, lasts }
    }

    /// How long it still lasts. It is over at once where the clock was set back.
    pub(super) fn left(self, now: Duration) -> Option<Duration> {
        let passed = now.checked_sub(self.since)?;
        let left = self.lasts.checked_sub(passed)?;
        (!left.is_zero()).then_some(left)
    }
}
