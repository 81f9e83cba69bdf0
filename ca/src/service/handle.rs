//! The CA as the service works with it: opened again when its files change, and our own certificate seen to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lizmon_mtls::identity::Identity;
use lizmon_pki::pem;
use lizmon_protocol::name::{NodeName, Role};

use crate::authority::{Authority, Request};
use crate::disk;
use crate::enrol::{IssuanceError, LEAF_LIFETIME, SUPERSEDED_INTERVAL, sans_of};
use crate::error::Error;
use crate::layout::LeafFiles;
use crate::passphrase::Unlock;
use crate::profile::{San, rfc3339};
use crate::signer::strip_sign;

/// How often revocation lists and our own certificate are looked at.
pub(super) const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// The certificate that the service shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceCertificate {
    /// Somebody else's care.
    Given(LeafFiles),
    /// Issued by the service to itself, and again in time.
    Issued {
        /// Its name: `certs/cas/NAME.crt`.
        name: NodeName,
        /// Under which names clients reach it.
        sans: Vec<San>,
    },
}

/// The CA as it was opened last.
pub(super) struct AuthorityHandle {
    certs: PathBuf,
    own: ServiceCertificate,
    authority: Mutex<Arc<Authority>>,
    /// When those were ended last that were replaced: epoch seconds.
    superseded_revoked_at: AtomicU64,
}

/// A failure that may only mean that `lizctl` has rotated a CA meanwhile.
pub(super) trait DetectRotation {
    fn is_rotation(&self) -> bool;
}

impl DetectRotation for Error {
    fn is_rotation(&self) -> bool {
        matches!(self, Self::Rotated)
    }
}

impl DetectRotation for IssuanceError {
    fn is_rotation(&self) -> bool {
        matches!(self, Self::Ca(error) if error.is_rotation())
    }
}

impl AuthorityHandle {
    /// Opens the CA and its issuing key.
    pub(super) fn open(
        certs: &Path,
        own: ServiceCertificate,
        unlock: Unlock,
        now: u64,
    ) -> Result<Self, Error> {
        let authority = Authority::open_with(certs, unlock, now)?;
        authority.unlock()?;
        Ok(Self {
            certs: certs.to_owned(),
            own,
            authority: Mutex::new(Arc::new(authority)),
            superseded_revoked_at: AtomicU64::new(0),
        })
    }

    /// Works with the CA; once more with the new one, if it turns out to have been rotated.
    pub(super) fn with<T, E: DetectRotation + From<Error>>(
        &self,
        now: u64,
        work: impl Fn(&Authority) -> Result<T, E>,
    ) -> Result<T, E> {
        let authority = self.authority();
        match work(&authority) {
            Err(error) if error.is_rotation() => work(&*self.reopened(&authority, now)?),
            done => done,
        }
    }

    fn authority(&self) -> Arc<Authority> {
        self.authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Of many that find out at the same time, one opens it again.
    fn reopened(&self, old: &Arc<Authority>, now: u64) -> Result<Arc<Authority>, Error> {
        let mut current = self
            .authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, old) {
            *current = Arc::new(old.reopen(now)?);
            tracing::info!("the CA was rotated: going on with the new one");
        }
        Ok(current.clone())
    }

    /// Which CA should be replaced by now, and how to.
    pub(super) fn ending(&self, now: u64) -> Option<String> {
        Some(self.authority().ending(now)?.to_string())
    }

    /// Signs revocation lists again that are due, and sees to our own certificate.
    pub(super) fn maintenance(&self, now: u64) -> Result<(), Error> {
        self.with(now, |authority| authority.refresh_crls(now))?;
        self.revoke_superseded(now)?;
        self.ensure_service_certificate(now).map(|_| ())
    }

    /// Ends what was replaced, at most once in [`SUPERSEDED_EVERY`].
    fn revoke_superseded(&self, now: u64) -> Result<(), Error> {
        let last = self.superseded_revoked_at.load(Ordering::Relaxed);
        if (last..last.saturating_add(SUPERSEDED_INTERVAL.as_secs())).contains(&now) {
            return Ok(());
        }
        let done = self.with(now, |authority| authority.revoke_superseded(now))?;
        self.superseded_revoked_at.store(now, Ordering::Relaxed);
        if !done.revoked.is_empty() {
            tracing::info!(
                count = done.revoked.len(),
                "revoked certificates that were replaced by a renewal, as superseded"
            );
        }
        Ok(())
    }

    /// Where our own certificate is: a good one, if we issue it.
    pub(super) fn ensure_service_certificate(&self, now: u64) -> Result<LeafFiles, Error> {
        let (name, sans) = match &self.own {
            ServiceCertificate::Given(files) => return Ok(files.clone()),
            ServiceCertificate::Issued { name, sans } => (name, sans),
        };
        let files = LeafFiles::new(&self.certs, Role::Ca, name);
        self.with(now, |authority| {
            let Err(why) = self.check_current(authority, &files, sans, now)? else {
                return Ok::<_, Error>(());
            };
            let request = Request {
                sans: sans.clone(),
                lifetime: LEAF_LIFETIME,
                ..Request::new(Role::Ca, name.clone())
            };
            let issued = authority.issue(request, now)?;
            tracing::info!(serial = %issued.serial, not_after = rfc3339(issued.validity.not_after), %why,
                           "issued a certificate to ourselves");
            Ok(())
        })?;
        Ok(files)
    }

    /// Whether it is ours, by today's issuing CA, under these names, not revoked, begun, and not past two thirds of its
    /// life; else why it has to be issued again.
    fn check_current(
        &self,
        authority: &Authority,
        files: &LeafFiles,
        sans: &[San],
        now: u64,
    ) -> Result<Result<(), ReissueReason>, Error> {
        let Some(chain) = disk::read_if_there(&files.certificate)? else {
            return Ok(Err(ReissueReason::None));
        };
        let chain = pem::certificates(&chain).unwrap_or_default();
        let issuing = disk::read(&authority.files().issuing_certificate)?;
        let issuing = pem::certificates(&issuing).ok();
        let issuing = issuing.and_then(|found| found.into_iter().next());
        let (Some(leaf), Some(above)) = (chain.first(), chain.get(1)) else {
            return Ok(Err(ReissueReason::Unreadable));
        };
        let Ok(identity) = Identity::from_der(leaf) else {
            return Ok(Err(ReissueReason::Unreadable));
        };
        let life = identity.not_after.saturating_sub(identity.not_before);
        let names =
            |sans: &[San]| -> BTreeSet<String> { sans.iter().map(San::to_string).collect() };
        let serial = hex::encode(strip_sign(&identity.serial));
        let live = authority
            .ledger()
            .transaction(|tx| tx.find(&serial))?
            .is_some_and(|entry| entry.is_live(now));
        let has_names = sans_of(leaf).is_some_and(|found| names(&found) == names(sans));
        let checks = [
            (live, ReissueReason::NotLive),
            (issuing.as_ref() == Some(above), ReissueReason::OtherIssuer),
            (files.key.exists(), ReissueReason::NoKey),
            (
                identity.not_before <= now,
                ReissueReason::NotBegun(identity.not_before),
            ),
            (now < identity.not_before + life / 3 * 2, ReissueReason::Due),
            (has_names, ReissueReason::OtherNames),
        ];
        let failed = checks.into_iter().find(|(is_good, _)| !is_good);
        Ok(failed.map_or(Ok(()), |(_, why)| Err(why)))
    }
}

/// Why our own certificate is issued anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ReissueReason {
    #[error("there was none")]
    None,
    #[error("the file of the one before cannot be read")]
    Unreadable,
    #[error("the one before is revoked, has ended, or is not in the ledger")]
    NotLive,
    #[error("another issuing CA signs now")]
    OtherIssuer,
    #[error("the key of the one before is gone")]
    NoKey,
    #[error("the one before begins only at {}: the clock was ahead when it was issued", rfc3339(*.0))]
    NotBegun(u64),
    #[error("the one before is past two thirds of its life")]
    Due,
    #[error("the one before is for other names")]
    OtherNames,
}
