//! How far a rotation is, and what a step of it may be told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use lizmon_protocol::name::Role;

use super::in_phase;
use crate::key::KeyAlg;
use crate::ledger::{Generation, Phase};
use crate::profile::{Profile, San};

/// Which CA is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaKind {
    /// The one that signs leaves.
    Issuing,
    /// The trust anchor, and the issuing CA below it.
    Root,
}

impl CaKind {
    /// As it is written on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Root => "root",
        }
    }

    /// By the CAs that a step moves.
    pub(super) fn of<'a>(mut moved: impl Iterator<Item = &'a Generation>) -> Self {
        if moved.any(|ca| ca.entry.profile == Profile::Root) {
            Self::Root
        } else {
            Self::Issuing
        }
    }
}

impl fmt::Display for CaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Neither of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such CA: issuing or root")]
pub struct UnknownCaKind;

impl FromStr for CaKind {
    type Err = UnknownCaKind;

    fn from_str(text: &str) -> Result<Self, UnknownCaKind> {
        [Self::Issuing, Self::Root]
            .into_iter()
            .find(|rotated| rotated.as_str() == text)
            .ok_or(UnknownCaKind)
    }
}

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// None is under way.
    Steady,
    /// The new CA is trusted and does not sign yet.
    Published,
    /// The new CA signs, and the old one is still trusted.
    InUse,
}

impl Stage {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Published => "published",
            Self::InUse => "in use",
        }
    }

    pub(super) fn of(generations: &[Generation]) -> (Self, Option<CaKind>) {
        for (phase, stage) in [(Phase::Next, Self::Published), (Phase::Old, Self::InUse)] {
            let mut moved = in_phase(generations, phase).peekable();
            if moved.peek().is_some() {
                return (stage, Some(CaKind::of(moved)));
            }
        }
        (Self::Steady, None)
    }
}

/// A holder of a certificate that the next step would leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingHolder {
    /// As what.
    pub role: Role,
    /// Who.
    pub name: String,
    /// When its newest certificate ends: epoch seconds.
    pub not_after: u64,
    /// By when it should have renewed, if it does that by itself as far as can be told: epoch seconds.
    pub renews_by: Option<u64>,
    /// The DNS names and addresses of its newest certificate.
    pub sans: Vec<San>,
}

impl fmt::Display for PendingHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.role, self.name)
    }
}

/// Where a rotation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// How far it is.
    pub stage: Stage,
    /// What is replaced; if none is under way, what `--back` would bring back.
    pub rotated: Option<CaKind>,
    /// The CAs, the current ones first.
    pub generations: Vec<Generation>,
    /// Whom the next step would leave behind: without renewal they would be refused, or refuse others.
    pub waiting: Vec<PendingHolder>,
    /// When those who were given a certificate of the new CA have taken it up, who look at their files every few seconds;
    /// the last step waits for that. None while nobody has to: epoch seconds.
    pub retire_from: Option<u64>,
}

/// What a step may be told.
#[derive(Debug, Clone)]
pub struct RotateOptions {
    /// Go on although somebody would be left behind.
    pub force: bool,
    /// How long a new root lives, in days.
    pub root_days: u32,
    /// How long a new issuing CA lives, in days; never past its root's end.
    pub issuing_days: u32,
    /// Kind of the new keys.
    pub key_alg: KeyAlg,
    /// An existing folder where a new root's key is written, and nowhere else.
    pub offline_root: Option<PathBuf>,
}

impl Default for RotateOptions {
    fn default() -> Self {
        Self {
            force: false,
            root_days: 3650,
            issuing_days: 365,
            key_alg: KeyAlg::default(),
            offline_root: None,
        }
    }
}
