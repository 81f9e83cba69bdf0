//! Replaces an expiring CA of `lizctl up`.

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, CaExpiry, CaKind, RotateOptions, Stage};
use lizmon_ca::ledger::{Entry, Generation, Phase};
use lizmon_ca::pki::{Profile, Validity};

use crate::output;

/// Whether programs use the files that are maintained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaintenanceMode {
    /// Nothing runs yet: everything that is due is done at once.
    BeforeStart,
    /// Programs must reload the files after each step: one step of a rotation at a time.
    WhileRunning,
}

/// Rotates a CA that expires, and returns whether it took any step. If the CA has issued to others,
/// they may need to be informed of each step: then this only advises, until the CA has expired and
/// no holder is left to inform.
pub(super) fn replace_ending(
    authority: &mut Authority,
    mode: MaintenanceMode,
    is_sole_holder: impl Fn(&[Entry]) -> bool,
    now: u64,
) -> Result<bool, Error> {
    let options = RotateOptions {
        force: true,
        ..RotateOptions::default()
    };
    let mut stepped = false;
    while let Some((which, due)) = next_step(authority, now)? {
        if due.advice.is_some() && !is_sole_holder(&authority.entries()?) {
            if let (MaintenanceMode::BeforeStart, Some(advice)) = (mode, due.advice) {
                output::note(advice);
            }
            return Ok(false);
        }
        let stage = match authority.rotate_next(which, &options, now) {
            Ok(rotation) => rotation.stage,
            Err(error) if due.can_wait => {
                output::note(format!("{}; replacing it failed: {error}", due.reason));
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        output::note(format!("{}: {}", due.reason, step_done(which, stage)));
        stepped = true;
        // The old CA is retired only when none of its certificates is in use.
        if mode == MaintenanceMode::WhileRunning || stage == Stage::InUse {
            break;
        }
    }
    Ok(stepped)
}

/// Why a CA has to be replaced.
struct ReplacementDue {
    reason: String,
    /// What to advise instead, if others have certificates of it. `None` once it has expired,
    /// because then none of them is valid.
    advice: Option<String>,
    can_wait: bool,
}

impl ReplacementDue {
    fn of(which: CaKind, life: Validity, now: u64) -> Option<Self> {
        if now < life.not_before {
            let begins = output::date(life.not_before);
            let reason = format!("the {which} CA is valid from {begins}, later than now");
            return Some(Self {
                advice: Some(format!("{reason}: is the clock right?")),
                reason,
                can_wait: false,
            });
        }
        let ending = CaExpiry::of(which, life, now)?;
        Some(Self {
            reason: ending.summary(),
            advice: (!ending.has_ended).then(|| ending.to_string()),
            can_wait: !ending.has_ended,
        })
    }
}

/// The rotation to start or to continue, and why.
fn next_step(authority: &Authority, now: u64) -> Result<Option<(CaKind, ReplacementDue)>, Error> {
    let rotation = authority.rotation(now)?;
    if rotation.stage == Stage::InUse {
        let old = |ca: &&Generation| ca.phase == Phase::Old;
        let due = rotation.generations.iter().filter(old).find_map(|ca| {
            let which = match ca.entry.profile {
                Profile::Root => CaKind::Root,
                _ => CaKind::Issuing,
            };
            let life = Validity {
                not_before: ca.entry.not_before,
                not_after: ca.entry.not_after,
            };
            ReplacementDue::of(which, life, now)
        });
        // Wait for holders that still use a certificate of the old CA.
        let due = due.filter(|_| rotation.waiting.is_empty());
        return Ok(rotation.rotated.zip(due));
    }
    // A rotation that has been started continues, whichever CA it is of.
    let under_way = rotation.rotated.filter(|_| rotation.stage != Stage::Steady);
    let root = authority.root_validity();
    let which = match authority.expiry(now) {
        Some(ending) => ending.which,
        None if now < root.not_before => CaKind::Root,
        None => CaKind::Issuing,
    };
    let life = match which {
        CaKind::Root => root,
        CaKind::Issuing => authority.issuing_validity(),
    };
    let due = ReplacementDue::of(which, life, now);
    Ok(due.map(|due| (under_way.unwrap_or(which), due)))
}

fn step_done(which: CaKind, stage: Stage) -> String {
    match stage {
        Stage::Published => format!("created a new {which} CA"),
        Stage::InUse => format!("the new {which} CA is in use"),
        Stage::Steady => format!("the old {which} CA is no longer trusted"),
    }
}
