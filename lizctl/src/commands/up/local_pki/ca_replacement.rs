//! Replacing a CA of `lizctl up` that comes to its end.

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, CaExpiry, CaKind, RotateOptions, Stage};
use lizmon_ca::ledger::{Entry, Generation, Phase};
use lizmon_ca::profile::{Profile, Validity};

use crate::output;

/// Whether anything runs on the files that are maintained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaintenanceMode {
    /// Nothing runs yet: all that is due is done at once.
    BeforeStart,
    /// Programs have to take up what each step changes: one step of a rotation a time.
    WhileRunning,
}

/// Takes the steps of a rotation that a CA's coming end asks for, and says whether it took any. Where the CA has let in
/// others, they may have to be told of each step: then it is only said what to do, until the end is there and nobody
/// is left to be told.
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
                output::note(format!("{}; it could not be replaced: {error}", due.story));
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        output::note(format!("{}: {}", due.story, told(which, stage)));
        stepped = true;
        // The old one goes only once nobody shows its certificates.
        if mode == MaintenanceMode::WhileRunning || stage == Stage::InUse {
            break;
        }
    }
    Ok(stepped)
}

/// Why a CA has to be replaced.
struct Due {
    story: String,
    /// What to tell instead, where others have certificates of it. Nobody has any that count once it has ended.
    advice: Option<String>,
    can_wait: bool,
}

impl Due {
    fn of(which: CaKind, life: Validity, now: u64) -> Option<Self> {
        if now < life.not_before {
            let begins = output::date(life.not_before);
            let story = format!("the {which} CA begins at {begins}, later than now");
            return Some(Self {
                advice: Some(format!("{story}: is the clock right?")),
                story,
                can_wait: false,
            });
        }
        let ending = CaExpiry::of(which, life, now)?;
        Some(Self {
            story: ending.story(),
            advice: (!ending.has_ended).then(|| ending.to_string()),
            can_wait: !ending.has_ended,
        })
    }
}

/// The rotation that is to be begun or to go on, and why.
fn next_step(authority: &Authority, now: u64) -> Result<Option<(CaKind, Due)>, Error> {
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
            Due::of(which, life, now)
        });
        // Who still shows a certificate of the old one is not left behind.
        let due = due.filter(|_| rotation.waiting.is_empty());
        return Ok(rotation.rotated.zip(due));
    }
    // One that somebody has begun goes on, whichever it is.
    let under_way = rotation.rotated.filter(|_| rotation.stage != Stage::Steady);
    let root = authority.root_validity();
    let which = match authority.ending(now) {
        Some(ending) => ending.which,
        None if now < root.not_before => CaKind::Root,
        None => CaKind::Issuing,
    };
    let life = match which {
        CaKind::Root => root,
        CaKind::Issuing => authority.issuing_validity(),
    };
    let due = Due::of(which, life, now);
    Ok(due.map(|due| (under_way.unwrap_or(which), due)))
}

fn told(which: CaKind, stage: Stage) -> String {
    match stage {
        Stage::Published => format!("made a new {which} CA"),
        Stage::InUse => format!("the new {which} CA signs now"),
        Stage::Steady => format!("the old {which} CA is not trusted any more"),
    }
}
