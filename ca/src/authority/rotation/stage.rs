//! How far a rotation is, and the options of a step.

use std::fmt;
use std::path::{Path, PathBuf};

use lizmon_protocol::name::Role;

use crate::authority::error::Error;
use crate::files::CaFiles;
use crate::ledger::{Generation, Phase};
use crate::pki::{CaKind, KeyAlg, Profile, San};

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No rotation is in progress.
    Steady,
    /// The new CA is trusted and does not sign yet.
    Published,
    /// The new CA signs, and the old one is still trusted.
    InUse,
}

impl Stage {
    /// As it is displayed.
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
                return (stage, Some(kind_of(moved)));
            }
        }
        (Self::Steady, None)
    }
}

/// A holder that the next step would leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingHolder {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// When its newest certificate ends: epoch seconds.
    pub not_after: u64,
    /// When it should have renewed, if it renews automatically as far as is known: epoch seconds.
    pub renews_by: Option<u64>,
    /// The DNS names and addresses of its newest certificate.
    pub sans: Vec<San>,
}

impl fmt::Display for PendingHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.role, self.name)
    }
}

/// The state of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// How far it is.
    pub stage: Stage,
    /// The CA that is replaced. If no rotation is in progress, the one that `--back` would
    /// reinstate.
    pub rotated: Option<CaKind>,
    /// All generations, the current ones first.
    pub generations: Vec<Generation>,
    /// The holders that the next step would leave behind: they would be refused, or refuse others.
    pub waiting: Vec<PendingHolder>,
    /// When the holders that just got a certificate of the new CA have loaded it; the last step
    /// waits for that. `None` if no holder has to: epoch seconds.
    pub retire_from: Option<u64>,
}

/// Options of a step.
#[derive(Debug, Clone)]
pub struct RotateOptions {
    /// Take the step although holders would be left behind.
    pub force: bool,
    /// Validity of a new root, in days.
    pub root_days: u32,
    /// Validity of a new issuing CA, in days; cut to its root's end.
    pub issuing_days: u32,
    /// Algorithm of the new keys.
    pub key_alg: KeyAlg,
    /// An existing folder for a new root's key, instead of the CA's.
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

/// The CAs in a phase.
pub(super) fn in_phase(
    generations: &[Generation],
    phase: Phase,
) -> impl Iterator<Item = &Generation> {
    generations.iter().filter(move |ca| ca.phase == phase)
}

/// The current CA of a profile.
pub(super) fn current(generations: &[Generation], profile: Profile) -> Result<&Generation, Error> {
    in_phase(generations, Phase::Current)
        .find(|ca| ca.entry.profile == profile)
        .ok_or(Error::Rotated)
}

/// Which CA a rotation replaces, by the CAs that a step moves.
pub(super) fn kind_of<'a>(mut moved: impl Iterator<Item = &'a Generation>) -> CaKind {
    if moved.any(|ca| ca.entry.profile == Profile::Root) {
        CaKind::Root
    } else {
        CaKind::Issuing
    }
}

pub(super) fn serials<'a>(moved: impl Iterator<Item = &'a Generation>) -> Vec<String> {
    moved.map(|ca| ca.entry.serial.clone()).collect()
}

/// The key file of the CA that signs.
pub(super) fn current_key(files: &CaFiles, profile: Profile) -> &Path {
    match profile {
        Profile::Root => &files.root_key,
        _ => &files.issuing_key,
    }
}
