//! Warns of the expiry of the CAs early: nothing outlives its issuer.

use std::fmt;

use super::ca::Authority;
use crate::pki::{CaKind, Validity, rfc3339};

/// A CA that should be replaced by now. Its text names the command that starts the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaExpiry {
    /// Which CA has to be replaced.
    pub which: CaKind,
    /// Its last second.
    pub not_after: u64,
    /// Whether it has expired.
    pub has_ended: bool,
}

impl fmt::Display for CaExpiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let so = match self.has_ended {
            true => "nothing that it signed is accepted any more",
            false => "no certificate outlives it",
        };
        write!(
            f,
            "{}, and {so}: `lizctl rotate {} --next` replaces it, step by step",
            self.summary(),
            self.which
        )
    }
}

impl CaExpiry {
    /// The warning for a CA with this validity, if a third of it or less is left.
    pub fn of(which: CaKind, life: Validity, now: u64) -> Option<Self> {
        let length = life.not_after.saturating_sub(life.not_before);
        let is_late = now > life.not_before + length / 3 * 2;
        is_late.then_some(Self {
            which,
            not_after: life.not_after,
            has_ended: now >= life.not_after,
        })
    }

    /// Which CA expires when, without the advice.
    pub fn summary(&self) -> String {
        let ends = if self.has_ended { "ended" } else { "ends" };
        format!(
            "the {} CA {ends} at {}",
            self.which,
            rfc3339(self.not_after)
        )
    }
}

impl Authority {
    /// The CA that should be replaced by now. The root comes first if it has expired, or if it ends
    /// with the issuing CA: a new issuing CA would gain nothing.
    pub fn expiry(&self, now: u64) -> Option<CaExpiry> {
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
