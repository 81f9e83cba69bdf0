//! How much of a log is kept though no destination waits for it.

use std::collections::VecDeque;

/// What of one log is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Kept from this number on; none if nothing is.
    from: Option<u64>,
    /// Through which number nothing was waited for at which second of the spool's own time.
    /// Ascending.
    ends: VecDeque<(u64, u64)>,
}

impl Kept {
    /// Nothing is kept.
    pub(super) fn nothing() -> Self {
        Self::default()
    }

    /// Everything, until [`Kept::release`].
    pub(super) fn everything() -> Self {
        Self {
            from: Some(1),
            ends: VecDeque::new(),
        }
    }

    /// Whether anything is.
    pub(super) fn keeps(&self) -> bool {
        self.from.is_some()
    }

    /// The same for a log that begins with this number.
    pub(super) fn beginning_with(self, first: u64) -> Self {
        Self {
            from: self.from.map(|_| first),
            ..self
        }
    }

    /// The first number whose record stays, if destinations need those from `needed_from` on.
    pub(super) fn first(&self, needed_from: u64) -> u64 {
        self.from.map_or(needed_from, |from| from.min(needed_from))
    }

    /// Records through this number are not kept any more.
    pub(super) fn release(&mut self, through: u64) {
        self.from = self.from.map(|from| from.max(through.saturating_add(1)));
        while self.ends.front().is_some_and(|(last, _)| *last <= through) {
            self.ends.pop_front();
        }
    }

    /// Records before this number are only kept from now on, if they were not before.
    pub(super) fn note(&mut self, needed_from: u64, now: u64, step_secs: u64) {
        let through = needed_from - 1;
        let (last, at) = self.ends.back().copied().unwrap_or_default();
        let is_first = self.ends.is_empty() && self.from.is_some_and(|from| from <= through);
        if is_first || (through > last && now >= at + step_secs) {
            self.ends.push_back((through, now));
        }
    }

    /// Releases what was noted until this second, but not `except` and what is after it.
    pub(super) fn expire(&mut self, until: u64, except: Option<u64>) {
        while let Some((through, at)) = self.ends.front().copied()
            && at <= until
        {
            match except.filter(|except| *except <= through) {
                Some(except) => return self.from = self.from.map(|from| from.max(except)),
                None => self.release(through),
            }
        }
    }

    /// When the oldest end was noted.
    pub(super) fn oldest_end(&self) -> Option<u64> {
        self.ends.front().map(|(_, at)| *at)
    }
}
