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
        self.rotate(rotated, now, |rotation, stage| {
            if stage != Stage::Steady && !options.force {
                refuse_to_leave(rotation.waiting(stage)?, stage)?;
            }
            match stage {
                Stage::Steady => rotation.publish(options),
                Stage::Published => rotation.swap(Step::Use),
                Stage::InUse => rotation.retire(),
            }
        })
    }

    /// Takes the last step back, and reopens the CA.
    pub fn rotate_back(
        &mut self,
        rotated: CaKind,
        options: &RotateOptions,
        now: u64,
    ) -> Result<Rotation, Error> {
        self.rotate(rotated, now, |rotation, stage| match stage {
            Stage::Steady => rotation.reinstate(),
            Stage::Published => {
                if !options.force {
                    refuse_to_leave(rotation.holders_of_next()?, Stage::InUse)?;
                }
                rotation.withdraw()
            }
            Stage::InUse => rotation.swap(Step::StopUsing),
        })
    }

    /// Takes one step in one transaction, and reopens the CA.
    fn rotate(
        &mut self,
        rotated: CaKind,
        now: u64,
        take_step: impl FnOnce(&RotationTx<'_>, Stage) -> Result<(), Error>,
    ) -> Result<Rotation, Error> {
        self.unlock()?;
        self.transaction(|tx| {
            let generations = tx.generations()?;
            let stage = stage_of(rotated, &generations)?;
            let rotation = RotationTx {
                authority: self,
                tx,
                generations,
                rotated,
                now,
            };
            take_step(&rotation, stage)
        })?;
        self.ledger.transaction(|tx| reconcile(&self.files, tx))?;
        *self = self.reopen(now)?;
        self.rotation(now)
    }
}

/// One step of a rotation, within a transaction.
struct RotationTx<'a> {
    authority: &'a Authority,
    tx: &'a LedgerTx<'a>,
    /// As they were before the step.
    generations: Vec<Generation>,
    rotated: CaKind,
    now: u64,
}

impl RotationTx<'_> {
    fn waiting(&self, stage: Stage) -> Result<Vec<PendingHolder>, Error> {
        waiting(
            self.tx,
            &self.generations,
            stage,
            Some(self.rotated),
            self.now,
        )
    }

    fn holders_of_next(&self) -> Result<Vec<PendingHolder>, Error> {
        holders_of(self.tx, &self.generations, Phase::Next, self.now)
    }

    fn in_phase(&self, phase: Phase) -> Vec<&Generation> {
        in_phase(&self.generations, phase).collect()
    }

    fn set_phase(&self, serial: &str, phase: Phase) -> Result<(), Error> {
        Ok(self.tx.set_phase(serial, phase, self.now)?)
    }

    fn publish(&self, options: &RotateOptions) -> Result<(), Error> {
        for ca in self.in_phase(Phase::Retired) {
            self.set_phase(&ca.entry.serial, Phase::Gone)?;
        }
        let ca = self.authority;
        let mut rollback = Rollback::default();
        let mut serials = Vec::new();
        let root = match self.rotated {
            CaKind::Issuing => {
                let root = current(&self.generations, Profile::Root)?;
                refuse_ended_root(root, self.now)?;
                ca.signer_of(&self.generations, root)?
            }
            CaKind::Root => {
                let (alg, days) = (options.key_alg, options.root_days);
                let root = NewCa::root(ca.trust_domain(), alg, days, self.now)?;
                self.add_next(&root, options.offline_root.as_deref(), &mut rollback)?;
                serials.push(root.serial.to_string());
                root.signer(&ca.files.root_certificate, None)?.into()
            }
        };
        let (alg, days) = (options.key_alg, options.issuing_days);
        let issuing = NewCa::issuing(ca.trust_domain(), &root, alg, days, self.now)?;
        self.add_next(&issuing, None, &mut rollback)?;
        serials.push(issuing.serial.to_string());
        self.log_step(Step::Publish, self.rotated, &serials)?;
        // The root's CRL is valid to the end of its last issuing CA: sign it while the key is here.
        let generations = self.tx.generations()?;
        ca.sign_crl_with(self.tx, &generations, &root, self.now)?;
        let path = &ca.files.issuing_certificate;
        let signer = issuing.signer(path, Some(root.certificate()))?;
        ca.sign_crl_with(self.tx, &generations, &signer, self.now)?;
        rollback.disarm();
        Ok(())
    }

    /// Records a CA that does not sign yet, and writes its key, encrypted if the current one is.
    fn add_next(
        &self,
        ca: &NewCa,
        offline: Option<&Path>,
        rollback: &mut Rollback,
    ) -> Result<(), Error> {
        let files = &self.authority.files;
        let serial = ca.serial.to_string();
        let path = if let Some(folder) = offline {
            folder.join(format!("root-{}.key", &serial[..8]))
        } else {
            if !disk::is_present(&files.generations) {
                rollback.add(files.generations.clone());
            }
            disk::create_folder(&files.generations)?;
            files.generation_key(&serial)
        };
        if disk::is_present(&path) {
            return Err(CaFileError::AlreadyExists(path).into());
        }
        rollback.add(path.clone());
        let passphrase = self.authority.keyring.passphrase_of(&files.issuing_key)?;
        write_key(&path, &ca.key, passphrase.as_ref())?;
        self.tx.add(&ca.entry(self.now))?;
        self.set_phase(&serial, Phase::Next)
    }

    /// Swaps the signing CA: next becomes current and current becomes old, or the reverse.
    fn swap(&self, step: Step) -> Result<(), Error> {
        let (comes, goes) = match step {
            Step::Use => (Phase::Next, Phase::Old),
            _ => (Phase::Old, Phase::Next),
        };
        let incoming = self.in_phase(comes);
        let rotated = kind_of(incoming.iter().copied());
        if let Some(over) = incoming.iter().find(|ca| ca.entry.not_after <= self.now) {
            return Err(RotationError::NextExpired {
                which: rotated,
                subject: over.entry.name.clone(),
                not_after: rfc3339(over.entry.not_after),
            }
            .into());
        }
        let files = &self.authority.files;
        disk::create_folder(&files.generations)?;
        for new in &incoming {
            let old = current(&self.generations, new.entry.profile)?;
            let key = current_key(files, new.entry.profile);
            if let Some(bytes) = disk::read_if_there(key)?.map(Zeroizing::new) {
                let copy = files.generation_key(&old.entry.serial);
                disk::write(&copy, &bytes, Access::Secret)?;
            }
            self.set_phase(&old.entry.serial, goes)?;
            self.set_phase(&new.entry.serial, Phase::Current)?;
        }
        self.log_step(step, rotated, &serials(incoming.into_iter()))
    }

    fn retire(&self) -> Result<(), Error> {
        self.shift(&self.in_phase(Phase::Old), Phase::Retired, Step::Retire)?;
        self.put_on_hold().map(drop)
    }

    fn reinstate(&self) -> Result<(), Error> {
        let retired = self.in_phase(Phase::Retired);
        if retired.is_empty() || kind_of(retired.iter().copied()) != self.rotated {
            return Err(RotationError::NothingToTakeBack(self.rotated).into());
        }
        self.shift(&retired, Phase::Old, Step::Reinstate)?;
        self.put_on_hold()?;
        // Their CRLs are outdated, and lack what was revoked since.
        let generations = self.tx.generations()?;
        for ca in in_phase(&generations, Phase::Old) {
            match self.authority.sign_crl(self.tx, &generations, ca, self.now) {
                Err(Error::RootKeyMissing(_)) => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    fn withdraw(&self) -> Result<(), Error> {
        self.shift(&self.in_phase(Phase::Next), Phase::Gone, Step::Withdraw)?;
        match self.put_on_hold() {
            // It signed nothing, and its CRL is not published: its entry on the root's CRL can wait
            // for the key.
            Err(Error::RootKeyMissing(_)) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Moves CAs to another phase, and logs the step.
    fn shift(&self, moved: &[&Generation], phase: Phase, step: Step) -> Result<(), Error> {
        for ca in moved {
            self.set_phase(&ca.entry.serial, phase)?;
        }
        self.log_step(step, self.rotated, &serials(moved.iter().copied()))
    }

    /// Signs the root's CRL again, which lists an issuing CA that is no longer trusted: as
    /// `certificateHold`, which can be lifted, while it can be reinstated. Without that, a receiver
    /// that keeps its last CRL would continue to trust it. A root that is no longer trusted needs
    /// no entry.
    fn put_on_hold(&self) -> Result<Option<SignedCrl>, Error> {
        if self.rotated == CaKind::Root {
            return Ok(None);
        }
        let generations = self.tx.generations()?;
        let root = current(&generations, Profile::Root)?;
        self.authority
            .sign_crl(self.tx, &generations, root, self.now)
    }

    fn log_step(&self, step: Step, rotated: CaKind, serials: &[String]) -> Result<(), Error> {
        self.tx.set_reconcile_pending(true)?;
        let event = AuditEvent {
            action: AuditAction::Rotate,
            who: &self.authority.operator,
            details: json!({"what": rotated.as_str(), "step": step.as_str(), "serial": serials}),
        };
        Ok(self.tx.record(&event, self.now)?)
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
