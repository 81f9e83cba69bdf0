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

mod settle;
mod stages;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use self::settle::current_key;
pub(super) use self::settle::settle;
pub use self::stages::{RotateOptions, Rotated, Rotation, Stage, UnknownCa, Waiting};
use super::{Authority, SignedCrl};
use crate::audit::{Deed, Event};
use crate::disk::{self, Access, Scaffold};
use crate::enrol::{der_of, sans_of};
use crate::error::Error;
use crate::founding::NewCa;
use crate::ledger::{Book, Entry, Generation, Phase};
use crate::passphrase;
use crate::profile::{Profile, rfc3339};

/// After which time a program shows what was put in the place of its files: it looks at them every 10 s at the latest.
const TAKEN_UP_SECS: u64 = 15;

impl Authority {
    /// Where a rotation stands.
    pub fn rotation(&self, now: u64) -> Result<Rotation, Error> {
        self.ledger.exclusive(|book| {
            let generations = book.generations()?;
            let (stage, mut rotated) = Stage::of(&generations);
            if stage == Stage::Steady {
                let mut retired = in_phase(&generations, Phase::Retired).peekable();
                rotated = retired.peek().is_some().then(|| Rotated::of(retired));
            }
            Ok(Rotation {
                stage,
                rotated,
                waiting: waiting(book, &generations, stage, rotated, now)?,
                settled_from: settled_from(book, &generations, stage, now)?,
                generations,
            })
        })
    }

    /// Takes the next step, and has the CA open as it is then.
    pub fn rotate_next(
        &mut self,
        rotated: Rotated,
        options: &RotateOptions,
        now: u64,
    ) -> Result<Rotation, Error> {
        self.unlock()?;
        self.ledger.exclusive(|book| {
            let generations = book.generations()?;
            let stage = stage_of(rotated, &generations)?;
            if stage != Stage::Steady && !options.force {
                refuse_to_leave(
                    waiting(book, &generations, stage, Some(rotated), now)?,
                    stage,
                )?;
            }
            match stage {
                Stage::Steady => self.publish(book, &generations, rotated, options, now),
                Stage::Published => self.exchange(book, &generations, Step::Use, now),
                Stage::InUse => self.retire(book, &generations, rotated, now),
            }
        })?;
        self.settle_and_reopen(now)
    }

    /// Takes the last step back, and has the CA open as it is then.
    pub fn rotate_back(
        &mut self,
        rotated: Rotated,
        options: &RotateOptions,
        now: u64,
    ) -> Result<Rotation, Error> {
        self.unlock()?;
        self.ledger.exclusive(|book| {
            let generations = book.generations()?;
            match stage_of(rotated, &generations)? {
                Stage::Steady => self.trust_again(book, &generations, rotated, now),
                Stage::Published => {
                    if !options.force {
                        let left = holders_of(book, &generations, Phase::Next, now)?;
                        refuse_to_leave(left, Stage::InUse)?;
                    }
                    self.withdraw(book, &generations, rotated, now)
                }
                Stage::InUse => self.exchange(book, &generations, Step::UseNot, now),
            }
        })?;
        self.settle_and_reopen(now)
    }

    fn settle_and_reopen(&mut self, now: u64) -> Result<Rotation, Error> {
        self.ledger.exclusive(|book| settle(&self.files, book))?;
        *self = self.reopen(now)?;
        self.rotation(now)
    }

    fn publish(
        &self,
        book: &Book<'_>,
        generations: &[Generation],
        rotated: Rotated,
        options: &RotateOptions,
        now: u64,
    ) -> Result<(), Error> {
        for ca in in_phase(generations, Phase::Retired) {
            book.set_phase(&ca.entry.serial, Phase::Gone, now)?;
        }
        let mut scaffold = Scaffold::default();
        let mut serials = Vec::new();
        let root = match rotated {
            Rotated::Issuing => {
                let root = current(generations, Profile::Root)?;
                refuse_ended_root(root, now)?;
                self.signer_of(generations, root)?
            }
            Rotated::Root => {
                let (alg, days) = (options.key_alg, options.root_days);
                let root = NewCa::root(self.trust_domain(), alg, days, now)?;
                self.keep(
                    book,
                    &root,
                    options.offline_root.as_deref(),
                    &mut scaffold,
                    now,
                )?;
                serials.push(root.serial.to_string());
                root.signer(&self.files.root_certificate, None)?.into()
            }
        };
        let (alg, days) = (options.key_alg, options.issuing_days);
        let issuing = NewCa::issuing(self.trust_domain(), &root, alg, days, now)?;
        self.keep(book, &issuing, None, &mut scaffold, now)?;
        serials.push(issuing.serial.to_string());
        self.tell_step(book, Step::Publish, rotated, &serials, now)?;
        // The root's list runs to the end of its last issuing CA: signed while the key is at hand.
        let generations = book.generations()?;
        self.sign_crl_with(book, &generations, &root, now)?;
        let path = &self.files.issuing_certificate;
        let signer = issuing.signer(path, Some(root.certificate()))?;
        self.sign_crl_with(book, &generations, &signer, now)?;
        scaffold.keep();
        Ok(())
    }

    /// Enters a CA that does not sign yet, and writes its key, encrypted if the one that signs is.
    fn keep(
        &self,
        book: &Book<'_>,
        ca: &NewCa,
        offline: Option<&Path>,
        scaffold: &mut Scaffold,
        now: u64,
    ) -> Result<(), Error> {
        let serial = ca.serial.to_string();
        let path = if let Some(folder) = offline {
            folder.join(format!("root-{}.key", &serial[..8]))
        } else {
            if !disk::is_taken(&self.files.generations) {
                scaffold.add(self.files.generations.clone());
            }
            disk::folder(&self.files.generations)?;
            self.files.generation_key(&serial)
        };
        if disk::is_taken(&path) {
            return Err(Error::InTheWay(path));
        }
        scaffold.add(path.clone());
        let sealed = self.keyring.passphrase_like(&self.files.issuing_key)?;
        passphrase::write_key(&path, &ca.key, sealed.as_ref())?;
        book.add(&ca.entry(now))?;
        book.set_phase(&serial, Phase::Next, now)
    }

    /// What signs and what does not change places: next becomes current and current old, or the other way round.
    fn exchange(
        &self,
        book: &Book<'_>,
        generations: &[Generation],
        step: Step,
        now: u64,
    ) -> Result<(), Error> {
        let (comes, goes) = match step {
            Step::Use => (Phase::Next, Phase::Old),
            _ => (Phase::Old, Phase::Next),
        };
        let incoming: Vec<&Generation> = in_phase(generations, comes).collect();
        let rotated = Rotated::of(incoming.iter().copied());
        if let Some(over) = incoming.iter().find(|ca| ca.entry.not_after <= now) {
            return Err(Error::NextEnded {
                which: rotated,
                subject: over.entry.name.clone(),
                not_after: rfc3339(over.entry.not_after),
            });
        }
        disk::folder(&self.files.generations)?;
        for new in &incoming {
            let old = current(generations, new.entry.profile)?;
            let key = current_key(&self.files, new.entry.profile);
            if let Some(bytes) = disk::read_if_there(key)?.map(Zeroizing::new) {
                let copy = self.files.generation_key(&old.entry.serial);
                disk::write(&copy, &bytes, Access::Secret)?;
            }
            book.set_phase(&old.entry.serial, goes, now)?;
            book.set_phase(&new.entry.serial, Phase::Current, now)?;
        }
        self.tell_step(book, step, rotated, &serials(incoming.into_iter()), now)
    }

    fn retire(
        &self,
        book: &Book<'_>,
        generations: &[Generation],
        rotated: Rotated,
        now: u64,
    ) -> Result<(), Error> {
        let old: Vec<&Generation> = in_phase(generations, Phase::Old).collect();
        self.shift(book, &old, Phase::Retired, (Step::Retire, rotated), now)?;
        self.hold(book, rotated, now).map(drop)
    }

    fn trust_again(
        &self,
        book: &Book<'_>,
        generations: &[Generation],
        rotated: Rotated,
        now: u64,
    ) -> Result<(), Error> {
        let retired: Vec<&Generation> = in_phase(generations, Phase::Retired).collect();
        if retired.is_empty() || Rotated::of(retired.iter().copied()) != rotated {
            return Err(Error::NothingToTakeBack(rotated));
        }
        self.shift(book, &retired, Phase::Old, (Step::TrustAgain, rotated), now)?;
        self.hold(book, rotated, now)?;
        // Their lists have aged meanwhile, and say nothing of what was revoked since.
        let generations = book.generations()?;
        for ca in in_phase(&generations, Phase::Old) {
            match self.sign_crl(book, &generations, ca, now) {
                Err(Error::RootKeyAway(_)) => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    fn withdraw(
        &self,
        book: &Book<'_>,
        generations: &[Generation],
        rotated: Rotated,
        now: u64,
    ) -> Result<(), Error> {
        let next: Vec<&Generation> = in_phase(generations, Phase::Next).collect();
        self.shift(book, &next, Phase::Gone, (Step::Withdraw, rotated), now)?;
        match self.hold(book, rotated, now) {
            // It signed nothing, and its list is not published: that it is on the root's can wait for the key.
            Err(Error::RootKeyAway(_)) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Moves CAs to another phase, and tells of that step.
    fn shift(
        &self,
        book: &Book<'_>,
        moved: &[&Generation],
        phase: Phase,
        (step, rotated): (Step, Rotated),
        now: u64,
    ) -> Result<(), Error> {
        for ca in moved {
            book.set_phase(&ca.entry.serial, phase, now)?;
        }
        let serials = serials(moved.iter().copied());
        self.tell_step(book, step, rotated, &serials, now)
    }

    /// Signs the root's list anew, on which an issuing CA is that is not trusted any more: `certificateHold`, which can
    /// be lifted, while it could be trusted again. Without that, a receiver that keeps its last list would go on
    /// trusting. A root that is not trusted any more needs no such word.
    fn hold(
        &self,
        book: &Book<'_>,
        rotated: Rotated,
        now: u64,
    ) -> Result<Option<SignedCrl>, Error> {
        if rotated == Rotated::Root {
            return Ok(None);
        }
        let generations = book.generations()?;
        let root = current(&generations, Profile::Root)?;
        self.sign_crl(book, &generations, root, now)
    }

    fn tell_step(
        &self,
        book: &Book<'_>,
        step: Step,
        rotated: Rotated,
        serials: &[String],
        now: u64,
    ) -> Result<(), Error> {
        book.set_unsettled(true)?;
        let event = Event {
            deed: Deed::Rotate,
            who: &self.operator,
            details: json!({"what": rotated.as_str(), "step": step.as_str(), "serial": serials}),
        };
        book.note(&event, now)
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
        which: Rotated::Root,
        subject: root.entry.name.clone(),
        not_after: rfc3339(root.entry.not_after),
    })
}

fn serials<'a>(moved: impl Iterator<Item = &'a Generation>) -> Vec<String> {
    moved.map(|ca| ca.entry.serial.clone()).collect()
}

/// How far this rotation is; an error where the other one is under way.
fn stage_of(rotated: Rotated, generations: &[Generation]) -> Result<Stage, Error> {
    match Stage::of(generations) {
        (_, Some(other)) if other != rotated => Err(Error::OtherRotation(other)),
        (stage, _) => Ok(stage),
    }
}

fn refuse_to_leave(left: Vec<Waiting>, stage: Stage) -> Result<(), Error> {
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
    book: &Book<'_>,
    generations: &[Generation],
    stage: Stage,
    rotated: Option<Rotated>,
    now: u64,
) -> Result<Vec<Waiting>, Error> {
    match (stage, rotated) {
        (Stage::InUse, _) => holders_of(book, generations, Phase::Old, now),
        // A new root is handed out with each renewal: who has not renewed since may not know it.
        (Stage::Published, Some(Rotated::Root)) => {
            let next = serials(in_phase(generations, Phase::Next));
            let entries = book.entries()?;
            // In the ledger's order, which also tells apart what happened in one second.
            let before = entries
                .iter()
                .take_while(|entry| !next.contains(&entry.serial));
            let before: HashSet<&str> = before.map(|entry| entry.serial.as_str()).collect();
            holders(book, now, |leaf| before.contains(leaf.serial.as_str()))
        }
        _ => Ok(Vec::new()),
    }
}

/// Whose newest certificate an issuing CA in this phase signed.
fn holders_of(
    book: &Book<'_>,
    generations: &[Generation],
    phase: Phase,
    now: u64,
) -> Result<Vec<Waiting>, Error> {
    let issuers = serials(in_phase(generations, phase));
    holders(book, now, |leaf| issuers.contains(&leaf.issuer))
}

/// The holders whose newest live certificate is such.
fn holders(
    book: &Book<'_>,
    now: u64,
    such: impl Fn(&Entry) -> bool,
) -> Result<Vec<Waiting>, Error> {
    let mut newest = BTreeMap::new();
    for entry in book
        .entries()?
        .into_iter()
        .filter(|entry| entry.is_live(now))
    {
        if let Profile::Leaf(role) = entry.profile {
            newest.insert((role.as_str(), entry.name.clone()), (role, entry));
        }
    }
    let such = newest.into_values().filter(|(_, entry)| such(entry));
    such.map(|(role, entry)| {
        // Who came by a token, or has renewed before, goes on doing so, before the last third of the life.
        let renews = entry.renews_itself();
        let life = entry.not_after.saturating_sub(entry.not_before);
        Ok(Waiting {
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
fn settled_from(
    book: &Book<'_>,
    generations: &[Generation],
    stage: Stage,
    now: u64,
) -> Result<Option<u64>, Error> {
    if stage != Stage::InUse {
        return Ok(None);
    }
    let old = serials(in_phase(generations, Phase::Old));
    let (mut replaced, mut newest) = (HashSet::new(), None);
    let live = book.entries()?.into_iter();
    for entry in live.filter(|entry| entry.is_live(now)) {
        let holder = (entry.profile, entry.name);
        if old.contains(&entry.issuer) {
            replaced.insert(holder);
        } else if replaced.contains(&holder) {
            newest = newest.max(Some(entry.issued_at));
        }
    }
    Ok(newest.map(|issued| issued + TAKEN_UP_SECS))
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Publish,
    Use,
    Retire,
    Withdraw,
    UseNot,
    TrustAgain,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Use => "use",
            Self::Retire => "retire",
            Self::Withdraw => "withdraw",
            Self::UseNot => "use-not",
            Self::TrustAgain => "trust-again",
        }
    }
}
