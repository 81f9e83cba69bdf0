//! The steps of a rotation.

use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use super::holders::{holders_of, retire_from, waiting};
use super::reconcile::reconcile;
use super::stage::{
    PendingHolder, RotateOptions, Rotation, Stage, current, current_key, in_phase, kind_of, serials,
};
use crate::authority::ca::Authority;
use crate::authority::crls::SignedCrl;
use crate::authority::error::{Error, IssueError, RotationError};
use crate::authority::new_ca::NewCa;
use crate::files::{Access, CaFileError, Rollback, disk};
use crate::ledger::audit::{AuditAction, AuditEvent};
use crate::ledger::{Generation, LedgerTx, Phase};
use crate::pki::{CaKind, Profile, rfc3339, write_key};

impl Authority {
    /// The state of the rotation.
    pub fn rotation(&self, now: u64) -> Result<Rotation, Error> {
        self.transaction(|tx| {
            let generations = tx.generations()?;
            let (stage, mut rotated) = Stage::of(&generations);
            if stage == Stage::Steady {
                let mut retired = in_phase(&generations, Phase::Retired).peekable();
                rotated = retired.peek().is_some().then(|| kind_of(retired));
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

    /// Takes the next step, and reopens the CA.
    pub fn rotate_next(
        &mut self,
        rotated: CaKind,
        options: &RotateOptions,
        now: u64,
    ) -> Result<Rotation, Error> {
        self.unlock()?;
        self.transaction(|tx| {
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

    /// Takes the last step back, and reopens the CA.
    pub fn rotate_back(
        &mut self,
        rotated: CaKind,
        options: &RotateOptions,
        now: u64,
    ) -> Result<Rotation, Error> {
        self.unlock()?;
        self.transaction(|tx| {
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
                self.add_next(
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
        self.add_next(tx, &issuing, None, &mut rollback, now)?;
        serials.push(issuing.serial.to_string());
        self.log_step(tx, Step::Publish, rotated, &serials, now)?;
        // The root's CRL is valid to the end of its last issuing CA: sign it while the key is here.
        let generations = tx.generations()?;
        self.sign_crl_with(tx, &generations, &root, now)?;
        let path = &self.files.issuing_certificate;
        let signer = issuing.signer(path, Some(root.certificate()))?;
        self.sign_crl_with(tx, &generations, &signer, now)?;
        rollback.disarm();
        Ok(())
    }

    /// Records a CA that does not sign yet, and writes its key, encrypted if the current one is.
    fn add_next(
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
            return Err(CaFileError::AlreadyExists(path).into());
        }
        rollback.add(path.clone());
        let passphrase = self.keyring.passphrase_of(&self.files.issuing_key)?;
        write_key(&path, &ca.key, passphrase.as_ref())?;
        tx.add(&ca.entry(now))?;
        Ok(tx.set_phase(&serial, Phase::Next, now)?)
    }

    /// Swaps the signing CA: next becomes current and current becomes old, or the reverse.
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
        let rotated = kind_of(incoming.iter().copied());
        if let Some(over) = incoming.iter().find(|ca| ca.entry.not_after <= now) {
            return Err(RotationError::NextExpired {
                which: rotated,
                subject: over.entry.name.clone(),
                not_after: rfc3339(over.entry.not_after),
            }
            .into());
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
        if retired.is_empty() || kind_of(retired.iter().copied()) != rotated {
            return Err(RotationError::NothingToTakeBack(rotated).into());
        }
        self.shift(tx, &retired, Phase::Old, (Step::Reinstate, rotated), now)?;
        self.put_on_hold(tx, rotated, now)?;
        // Their CRLs are outdated, and lack what was revoked since.
        let generations = tx.generations()?;
        for ca in in_phase(&generations, Phase::Old) {
            match self.sign_crl(tx, &generations, ca, now) {
                Err(Error::RootKeyMissing(_)) => {}
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
            // It signed nothing, and its CRL is not published: its entry on the root's CRL can wait
            // for the key.
            Err(Error::RootKeyMissing(_)) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Moves CAs to another phase, and logs the step.
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

    /// Signs the root's CRL again, which lists an issuing CA that is no longer trusted: as
    /// `certificateHold`, which can be lifted, while it can be reinstated. Without that, a receiver
    /// that keeps its last CRL would continue to trust it. A root that is no longer trusted needs
    /// no entry.
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
            action: AuditAction::Rotate,
            who: &self.operator,
            details: json!({"what": rotated.as_str(), "step": step.as_str(), "serial": serials}),
        };
        Ok(tx.record(&event, now)?)
    }
}

/// A CA that an expired root signs would have expired too.
fn refuse_ended_root(root: &Generation, now: u64) -> Result<(), Error> {
    if now < root.entry.not_after {
        return Ok(());
    }
    Err(IssueError::IssuerExpired {
        which: CaKind::Root,
        subject: root.entry.name.clone(),
        not_after: rfc3339(root.entry.not_after),
    }
    .into())
}

/// How far this rotation is; an error if the other CA is being rotated.
fn stage_of(rotated: CaKind, generations: &[Generation]) -> Result<Stage, Error> {
    match Stage::of(generations) {
        (_, Some(other)) if other != rotated => Err(RotationError::OtherInProgress(other).into()),
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
        Stage::InUse => RotationError::StillInUse { count, first },
        _ => RotationError::RootUnknown { count, first },
    }
    .into())
}

/// A step, as the audit log records it.
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
