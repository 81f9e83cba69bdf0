//! Replaces the issuing CA or the root: publish the new one, use it, retire the old one. Each step can be taken back.
//!
//! ```text
//!            --next: publish         --next: use             --next: retire
//!   steady ------------------> published ----------> in use ---------------> steady
//!          <------------------           <----------        <---------------
//!            --back: withdraw         --back           --back: trust again
//!
//!   new CA        next                current                 current
//!   old CA        current             old                     retired (gone when the next rotation begins)
//!   crl.pem       both                both                    the new one's
//!   root.crt      both roots          both roots              the new root
//! ```
//!
//! A new root comes with an issuing CA of its own, so that a leaf's chain says which root it needs. The ledger says what
//! is, and the files follow it: if that is cut off, whoever opens the CA next finishes it. A CA's list is in `crl.pem`
//! before its root is in `root.crt`, and its root is out of that before its list is: at no moment do the two files
//! refuse what is good.

mod reconcile;
mod stages;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use self::reconcile::current_key;
pub(super) use self::reconcile::reconcile;
pub use self::stages::{CaKind, PendingHolder, RotateOptions, Rotation, Stage, UnknownCaKind};
use super::{Authority, SignedCrl};
use crate::audit::{AuditAction, AuditEvent};
use crate::disk::{self, Access, Rollback};
use crate::enrol::{der_of, sans_of};
use crate::error::Error;
use crate::founding::NewCa;
use crate::ledger::{Entry, Generation, LedgerTx, Phase};
use crate::passphrase;
use crate::profile::{Profile, rfc3339};

/// After which time a program shows what was put in the place of its files: it looks at them every 10 s at the latest.
const RELOAD_SECS_MAX: u64 = 15;

impl Authority {
    /// Where a rotation stands.
    pub fn rotation(&self, now: u64) -> Result<Rotation, Error> {
        self.ledger.transaction(|tx| {
            let generations = tx.generations()?;
            let (stage, mut rotated) = Stage::of(&generations);
            if stage == Stage::Steady {
                let mut retired = in_phase(&generations, Phase::Retired).peekable();
                rotated = retired.peek().is_some().then(|| CaKind::of(retired));
            }
            Ok(Rotation {
                stage,
                rotated,
                waiting: waiting(tx, &generations, stage, rotated, now)?,
                retire_from: retire_from(tx, &generations, stage, now)?,
                generations,
            })
        })
    }

    /// Takes the next step, and has the CA open as it is then.
    pub fn rotate_next(
        &mut self,
        rotated: CaKind,
        options: &RotateOptions,
        now: u64,
    ) -> Result<Rotation, Error> {
        self.unlock()?;
        self.ledger.transaction(|tx| {
            let generations = tx.generations()?;
            let stage = stage_of(rotated, &generations)?;
            if stage != Stage::Steady && !options.force {
                refuse_to_leave(waiting(tx, &generations, stage, Some(rotated), now)?, stage)?;
            }
            match stage {
                Stage::Steady => self.publish(tx, &generations, rotated, options, now),
                Stage::Published => self.swap(tx, &generations, Step::Use, now),
                Stage::InUse => self.retire(tx, &generations, rotated, now),
            }
        })?;
        self.reconcile_and_reopen(now)
    }

    /// Takes the last step back, and has the CA open as it is then.
    pub fn rotate_back(
        &mut self,
        rotated: CaKind,
        options: &RotateOptions,
        now: u64,
    ) -> Result<Rotation, Error> {
        self.unlock()?;
        self.ledger.transaction(|tx| {
            let generations = tx.generations()?;
            match stage_of(rotated, &generations)? {
                Stage::Steady => self.reinstate(tx, &generations, rotated, now),
                Stage::Published => {
                    if !options.force {
                        let left = holders_of(tx, &generations, Phase::Next, now)?;
                        refuse_to_leave(left, Stage::InUse)?;
                    }
                    self.withdraw(tx, &generations, rotated, now)
                }
                Stage::InUse => self.swap(tx, &generations, Step::StopUsing, now),
            }
        })?;
        self.reconcile_and_reopen(now)
    }

    fn reconcile_and_reopen(&mut self, now: u64) -> Result<Rotation, Error> {
        self.ledger.transaction(|tx| reconcile(&self.files, tx))?;
        *self = self.reopen(now)?;
        self.rotation(now)
    }

    fn publish(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        rotated: CaKind,
        options: &RotateOptions,
        now: u64,
    ) -> Result<(), Error> {
        for ca in in_phase(generations, Phase::Retired) {
            tx.set_phase(&ca.entry.serial, Phase::Gone, now)?;
        }
        let mut rollback = Rollback::default();
        let mut serials = Vec::new();
        let root = match rotated {
            CaKind::Issuing => {
                let root = current(generations, Profile::Root)?;
                refuse_ended_root(root, now)?;
                self.signer_of(generations, root)?
            }
            CaKind::Root => {
                let (alg, days) = (options.key_alg, options.root_days);
                let root = NewCa::root(self.trust_domain(), alg, days, now)?;
                self.keep(
                    tx,
                    &root,
                    options.offline_root.as_deref(),
                    &mut rollback,
                    now,
                )?;
                serials.push(root.serial.to_string());
                root.signer(&self.files.root_certificate, None)?.into()
            }
        };
        let (alg, days) = (options.key_alg, options.issuing_days);
        let issuing = NewCa::issuing(self.trust_domain(), &root, alg, days, now)?;
        self.keep(tx, &issuing, None, &mut rollback, now)?;
        serials.push(issuing.serial.to_string());
        self.log_step(tx, Step::Publish, rotated, &serials, now)?;
        // The root's list runs to the end of its last issuing CA: signed while the key is at hand.
        let generations = tx.generations()?;
        self.sign_crl_with(tx, &generations, &root, now)?;
        let path = &self.files.issuing_certificate;
        let signer = issuing.signer(path, Some(root.certificate()))?;
        self.sign_crl_with(tx, &generations, &signer, now)?;
        rollback.disarm();
        Ok(())
    }

    /// Enters a CA that does not sign yet, and writes its key, encrypted if the one that signs is.
    fn keep(
        &self,
        tx: &LedgerTx<'_>,
        ca: &NewCa,
        offline: Option<&Path>,
        rollback: &mut Rollback,
        now: u64,
    ) -> Result<(), Error> {
        let serial = ca.serial.to_string();
        let path = if let Some(folder) = offline {
            folder.join(format!("root-{}.key", &serial[..8]))
        } else {
            if !disk::is_present(&self.files.generations) {
                rollback.add(self.files.generations.clone());
            }
            disk::create_folder(&self.files.generations)?;
            self.files.generation_key(&serial)
        };
        if disk::is_present(&path) {
            return Err(Error::InTheWay(path));
        }
        rollback.add(path.clone());
        let sealed = self.keyring.passphrase_of(&self.files.issuing_key)?;
        passphrase::write_key(&path, &ca.key, sealed.as_ref())?;
        tx.add(&ca.entry(now))?;
        tx.set_phase(&serial, Phase::Next, now)
    }

    /// What signs and what does not change places: next becomes current and current old, or the other way round.
    fn swap(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        step: Step,
        now: u64,
    ) -> Result<(), Error> {
        let (comes, goes) = match step {
            Step::Use => (Phase::Next, Phase::Old),
            _ => (Phase::Old, Phase::Next),
        };
        let incoming: Vec<&Generation> = in_phase(generations, comes).collect();
        let rotated = CaKind::of(incoming.iter().copied());
        if let Some(over) = incoming.iter().find(|ca| ca.entry.not_after <= now) {
            return Err(Error::NextEnded {
                which: rotated,
                subject: over.entry.name.clone(),
                not_after: rfc3339(over.entry.not_after),
            });
        }
        disk::create_folder(&self.files.generations)?;
        for new in &incoming {
            let old = current(generations, new.entry.profile)?;
            let key = current_key(&self.files, new.entry.profile);
            if let Some(bytes) = disk::read_if_there(key)?.map(Zeroizing::new) {
                let copy = self.files.generation_key(&old.entry.serial);
                disk::write(&copy, &bytes, Access::Secret)?;
            }
            tx.set_phase(&old.entry.serial, goes, now)?;
            tx.set_phase(&new.entry.serial, Phase::Current, now)?;
        }
        self.log_step(tx, step, rotated, &serials(incoming.into_iter()), now)
    }

    fn retire(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        rotated: CaKind,
        now: u64,
    ) -> Result<(), Error> {
        let old: Vec<&Generation> = in_phase(generations, Phase::Old).collect();
        self.shift(tx, &old, Phase::Retired, (Step::Retire, rotated), now)?;
        self.put_on_hold(tx, rotated, now).map(drop)
    }

    fn reinstate(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        rotated: CaKind,
        now: u64,
    ) -> Result<(), Error> {
        let retired: Vec<&Generation> = in_phase(generations, Phase::Retired).collect();
        if retired.is_empty() || CaKind::of(retired.iter().copied()) != rotated {
            return Err(Error::NothingToTakeBack(rotated));
        }
        self.shift(tx, &retired, Phase::Old, (Step::Reinstate, rotated), now)?;
        self.put_on_hold(tx, rotated, now)?;
        // Their lists have aged meanwhile, and say nothing of what was revoked since.
        let generations = tx.generations()?;
        for ca in in_phase(&generations, Phase::Old) {
            match self.sign_crl(tx, &generations, ca, now) {
                Err(Error::RootKeyAway(_)) => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    fn withdraw(
        &self,
        tx: &LedgerTx<'_>,
        generations: &[Generation],
        rotated: CaKind,
        now: u64,
    ) -> Result<(), Error> {
        let next: Vec<&Generation> = in_phase(generations, Phase::Next).collect();
        self.shift(tx, &next, Phase::Gone, (Step::Withdraw, rotated), now)?;
        match self.put_on_hold(tx, rotated, now) {
            // It signed nothing, and its list is not published: that it is on the root's can wait for the key.
            Err(Error::RootKeyAway(_)) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Moves CAs to another phase, and tells of that step.
    fn shift(
        &self,
        tx: &LedgerTx<'_>,
        moved: &[&Generation],
        phase: Phase,
        (step, rotated): (Step, CaKind),
        now: u64,
    ) -> Result<(), Error> {
        for ca in moved {
            tx.set_phase(&ca.entry.serial, phase, now)?;
        }
        let serials = serials(moved.iter().copied());
        self.log_step(tx, step, rotated, &serials, now)
    }

    /// Signs the root's list anew, on which an issuing CA is that is not trusted any more: `certificateHold`, which can
    /// be lifted, while it could be trusted again. Without that, a receiver that keeps its last list would go on
    /// trusting. A root that is not trusted any more needs no such word.
    fn put_on_hold(
        &self,
        tx: &LedgerTx<'_>,
        rotated: CaKind,
        now: u64,
    ) -> Result<Option<SignedCrl>, Error> {
        if rotated == CaKind::Root {
            return Ok(None);
        }
        let generations = tx.generations()?;
        let root = current(&generations, Profile::Root)?;
        self.sign_crl(tx, &generations, root, now)
    }

    fn log_step(
        &self,
        tx: &LedgerTx<'_>,
        step: Step,
        rotated: CaKind,
        serials: &[String],
        now: u64,
    ) -> Result<(), Error> {
        tx.set_reconcile_pending(true)?;
        let event = AuditEvent {
            deed: AuditAction::Rotate,
            who: &self.operator,
            details: json!({"what": rotated.as_str(), "step": step.as_str(), "serial": serials}),
        };
        tx.record(&event, now)
    }
}

fn in_phase(generations: &[Generation], phase: Phase) -> impl Iterator<Item = &Generation> {
    generations.iter().filter(move |ca| ca.phase == phase)
}

fn current(generations: &[Generation], profile: Profile) -> Result<&Generation, Error> {
    in_phase(generations, Phase::Current)
        .find(|ca| ca.entry.profile == profile)
        .ok_or(Error::Rotated)
}

/// What it signs would have ended with it.
fn refuse_ended_root(root: &Generation, now: u64) -> Result<(), Error> {
    if now < root.entry.not_after {
        return Ok(());
    }
    Err(Error::IssuerEnded {
        which: CaKind::Root,
        subject: root.entry.name.clone(),
        not_after: rfc3339(root.entry.not_after),
    })
}

fn serials<'a>(moved: impl Iterator<Item = &'a Generation>) -> Vec<String> {
    moved.map(|ca| ca.entry.serial.clone()).collect()
}

/// How far this rotation is; an error where the other one is under way.
fn stage_of(rotated: CaKind, generations: &[Generation]) -> Result<Stage, Error> {
    match Stage::of(generations) {
        (_, Some(other)) if other != rotated => Err(Error::OtherRotation(other)),
        (stage, _) => Ok(stage),
    }
}

fn refuse_to_leave(left: Vec<PendingHolder>, stage: Stage) -> Result<(), Error> {
    let count = left.len();
    let Some(first) = left.into_iter().next() else {
        return Ok(());
    };
    let first = first.to_string();
    Err(match stage {
        Stage::InUse => Error::StillInUse { count, first },
        _ => Error::RootUnknown { count, first },
    })
}

/// Whom the next step would leave behind.
fn waiting(
    tx: &LedgerTx<'_>,
    generations: &[Generation],
    stage: Stage,
    rotated: Option<CaKind>,
    now: u64,
) -> Result<Vec<PendingHolder>, Error> {
    match (stage, rotated) {
        (Stage::InUse, _) => holders_of(tx, generations, Phase::Old, now),
        // A new root is handed out with each renewal: who has not renewed since may not know it.
        (Stage::Published, Some(CaKind::Root)) => {
            let next = serials(in_phase(generations, Phase::Next));
            let entries = tx.entries()?;
            // In the ledger's order, which also tells apart what happened in one second.
            let before = entries
                .iter()
                .take_while(|entry| !next.contains(&entry.serial));
            let before: HashSet<&str> = before.map(|entry| entry.serial.as_str()).collect();
            holders(tx, now, |leaf| before.contains(leaf.serial.as_str()))
        }
        _ => Ok(Vec::new()),
    }
}

/// Whose newest certificate an issuing CA in this phase signed.
fn holders_of(
    tx: &LedgerTx<'_>,
    generations: &[Generation],
    phase: Phase,
    now: u64,
) -> Result<Vec<PendingHolder>, Error> {
    let issuers = serials(in_phase(generations, phase));
    holders(tx, now, |leaf| issuers.contains(&leaf.issuer))
}

/// The holders whose newest live certificate is such.
fn holders(
    tx: &LedgerTx<'_>,
    now: u64,
    such: impl Fn(&Entry) -> bool,
) -> Result<Vec<PendingHolder>, Error> {
    let mut newest = BTreeMap::new();
    for entry in tx.entries()?.into_iter().filter(|entry| entry.is_live(now)) {
        if let Profile::Leaf(role) = entry.profile {
            newest.insert((role.as_str(), entry.name.clone()), (role, entry));
        }
    }
    let such = newest.into_values().filter(|(_, entry)| such(entry));
    such.map(|(role, entry)| {
        // Who came by a token, or has renewed before, goes on doing so, before the last third of the life.
        let renews = entry.renews_automatically();
        let life = entry.not_after.saturating_sub(entry.not_before);
        Ok(PendingHolder {
            role,
            not_after: entry.not_after,
            renews_by: renews.then(|| entry.not_before + life / 4 * 3),
            sans: sans_of(&der_of(&entry)?).unwrap_or_default(),
            name: entry.name,
        })
    })
    .collect()
}

/// When the last holder has taken up its certificate of the new CA who had one of the old that still counts: until then
/// it may go on showing that.
fn retire_from(
    tx: &LedgerTx<'_>,
    generations: &[Generation],
    stage: Stage,
    now: u64,
) -> Result<Option<u64>, Error> {
    if stage != Stage::InUse {
        return Ok(None);
    }
    let old = serials(in_phase(generations, Phase::Old));
    let (mut replaced, mut newest) = (HashSet::new(), None);
    let live = tx.entries()?.into_iter();
    for entry in live.filter(|entry| entry.is_live(now)) {
        let holder = (entry.profile, entry.name);
        if old.contains(&entry.issuer) {
            replaced.insert(holder);
        } else if replaced.contains(&holder) {
            newest = newest.max(Some(entry.issued_at));
        }
    }
    Ok(newest.map(|issued| issued + RELOAD_SECS_MAX))
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Publish,
    Use,
    Retire,
    Withdraw,
    StopUsing,
    Reinstate,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Use => "use",
            Self::Retire => "retire",
            Self::Withdraw => "withdraw",
            Self::StopUsing => "use-not",
            Self::Reinstate => "trust-again",
        }
    }
}
