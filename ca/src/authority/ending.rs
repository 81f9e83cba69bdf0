//! The ends of the CAs themselves, told long before they come: nothing outlives what signed it.

use std::fmt;

use super::{Authority, CaKind};
use crate::profile::{Validity, rfc3339};

/// A CA that should be replaced by now. What it displays names the command that begins that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaExpiry {
    /// Which of the two is to be replaced.
    pub which: CaKind,
    /// Its last second.
    pub not_after: u64,
    /// Whether that is over.
    pub has_ended: bool,
}

impl fmt::Display for CaExpiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let so = match self.has_ended {
            true => "nothing that it signed is taken any more",
            false => "no certificate outlives it",
        };
        write!(
            f,
            "{}, and {so}: `lizctl rotate {} --next` replaces it, step by step",
            self.story(),
            self.which
        )
    }
}

impl CaExpiry {
    /// A CA with this life, if it should be replaced by now: a third of it is left, or less.
    pub fn of(which: CaKind, life: Validity, now: u64) -> Option<Self> {
        let length = life.not_after.saturating_sub(life.not_before);
        let is_late = now > life.not_before + length / 3 * 2;
        is_late.then_some(Self {
            which,
            not_after: life.not_after,
            has_ended: now >= life.not_after,
        })
    }

    /// Which CA ends when, and nothing of what helps.
    pub fn story(&self) -> String {
        let ends = if self.has_ended { "ended" } else { "ends" };
        format!(
            "the {} CA {ends} at {}",
            self.which,
            rfc3339(self.not_after)
        )
    }
}

impl Authority {
    /// Which CA should be replaced by now. A root that has ended, or that an issuing CA lives as long as, comes first:
    /// another issuing CA would gain nothing.
    pub fn ending(&self, now: u64) -> Option<CaExpiry> {
        let issuing = || CaExpiry::of(CaKind::Issuing, self.issuing.validity, now);
        let root = || CaExpiry::of(CaKind::Root, self.root.validity, now);
        let end = self.root.validity.not_after;
        if now >= end || self.issuing.validity.not_after >= end {
            root().or_else(issuing)
        } else {
            issuing().or_else(root)
        }
    }
}
