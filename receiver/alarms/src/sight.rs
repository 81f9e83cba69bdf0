//! Since when the receiver sees its hosts. Pure: what works is an argument.
//!
//! Nothing can be said of a host for a time in which the receiver did not run, could store nothing,
//! had no steady clock, or refused everyone. So alarms are judged from the moment on at which it
//! sees again, and it says that it was blind.

use serde::{Deserialize, Serialize};

/// Looks are a second or so apart. After a longer time without any, the process was stopped, or its
/// machine asleep.
const GAP_SECS_MAX: u64 = 30;

/// What is stored of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSight {
    /// When it last saw: epoch seconds.
    pub saw: u64,
}

/// A time in which nothing was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlindTime {
    /// When it last saw before it.
    pub from: u64,
    /// When it saw again.
    pub to: u64,
    /// Why it did not.
    pub why: &'static str,
}

/// Why nothing is seen.
pub const NOT_RUNNING: &str = "the receiver did not run";
/// The process was there.
pub const STOPPED: &str = "the receiver was stopped, or its machine slept";

/// Whether the receiver sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// When it last saw.
    saw: Option<u64>,
    /// Since when it sees without a gap; none while it does not.
    since: Option<u64>,
    /// Why it does not.
    why: Option<&'static str>,
}

impl Sight {
    /// As it was stored.
    pub fn restore(stored: Option<StoredSight>) -> Self {
        Self {
            saw: stored.map(|stored| stored.saw),
            since: None,
            why: stored.map(|_| NOT_RUNNING),
        }
    }

    /// What is to be stored.
    pub fn stored(&self) -> Option<StoredSight> {
        self.saw.map(|saw| StoredSight { saw })
    }

    /// Since when it sees; none while it does not.
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// Looks at what prevents it from seeing, if anything does. When it sees again, for how long it
    /// did not.
    pub fn look(&mut self, now: u64, prevented: Option<&'static str>) -> Option<BlindTime> {
        if let Some(why) = prevented {
            self.since = None;
            // What began it explains it, but for a start: that it did not run has ended.
            self.why = match self.why {
                Some(NOT_RUNNING) | None => Some(why),
                began => began,
            };
            return None;
        }
        let saw = self.saw.replace(now);
        let is_gap = saw.is_some_and(|saw| now > saw + GAP_SECS_MAX || now < saw);
        if self.since.is_some() && !is_gap {
            return None;
        }
        self.since = Some(now);
        let why = self.why.take().unwrap_or(STOPPED);
        let from = saw.filter(|saw| *saw < now)?;
        Some(BlindTime { from, to: now, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What prevents it at which moment, and what is said: from, to.
    fn check(stored: Option<u64>, looks: &[(u64, Option<&'static str>)], expected: &[(u64, u64)]) {
        let mut sight = Sight::restore(stored.map(|saw| StoredSight { saw }));
        let said = looks
            .iter()
            .filter_map(|(now, prevented)| sight.look(*now, *prevented));
        let said: Vec<_> = said.map(|blind| (blind.from, blind.to)).collect();
        assert_eq!(said, expected, "{stored:?} {looks:?}");
    }

    #[test]
    fn it_says_once_that_it_was_blind() {
        let full = Some("the store is full");
        check(None, &[(100, None), (101, None)], &[]);
        check(Some(100), &[(101, None), (102, None)], &[(100, 101)]);
        check(Some(100), &[(400, None), (401, None)], &[(100, 400)]);
        check(Some(100), &[(160, full), (400, None)], &[(100, 400)]);
        check(
            None,
            &[(1, None), (2, full), (90, full), (91, None)],
            &[(1, 91)],
        );
        check(None, &[(1, None), (31, None), (62, None)], &[(31, 62)]);
        // A clock that is set back is no time that has passed.
        check(None, &[(100, None), (50, None), (51, None)], &[]);
    }

    #[test]
    fn it_sees_from_the_moment_on_at_which_it_sees_again() {
        let mut sight = Sight::restore(Some(StoredSight { saw: 100 }));
        assert_eq!(sight.since(), None);
        let blind = sight.look(400, None);
        assert_eq!(blind.map(|blind| blind.why), Some(NOT_RUNNING));
        assert_eq!(sight.since(), Some(400));
        sight.look(401, None);
        assert_eq!(sight.since(), Some(400));
        sight.look(402, Some("the clock is not steady"));
        assert_eq!(sight.since(), None);
        sight.look(405, None);
        assert_eq!(
            (sight.since(), sight.stored()),
            (Some(405), Some(StoredSight { saw: 405 }))
        );
    }
}
