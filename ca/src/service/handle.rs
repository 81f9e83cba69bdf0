//! The open CA as the service uses it: reopened after a rotation, and maintained.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::config::ServiceCertificate;
use crate::authority::{Authority, Error, IssuanceError, SUPERSEDED_INTERVAL};
use crate::files::LeafFiles;
use crate::pki::Unlock;

/// How often the CRLs and our own certificate are checked.
pub(super) const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// The open CA, shared by all requests.
pub(super) struct AuthorityHandle {
    certificate: ServiceCertificate,
    authority: Mutex<Arc<Authority>>,
    /// When superseded certificates were last revoked: epoch seconds.
    superseded_revoked_at: AtomicU64,
}

/// Errors that show whether the CA was rotated since it was opened.
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
        certificate: ServiceCertificate,
        unlock: Unlock,
        now: u64,
    ) -> Result<Self, Error> {
        let authority = Authority::open_with(certs, unlock, now)?;
        authority.unlock()?;
        Ok(Self {
            certificate,
            authority: Mutex::new(Arc::new(authority)),
            superseded_revoked_at: AtomicU64::new(0),
        })
    }

    /// Runs `work` with the CA, and once more with the new one if it was rotated meanwhile.
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

    /// Of many threads that notice the rotation, one reopens the CA.
    fn reopened(&self, old: &Arc<Authority>, now: u64) -> Result<Arc<Authority>, Error> {
        let mut current = self
            .authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, old) {
            *current = Arc::new(old.reopen(now)?);
            tracing::info!("the CA was rotated: using the new one");
        }
        Ok(current.clone())
    }

    /// The warning of a CA that should be replaced by now.
    pub(super) fn expiry(&self, now: u64) -> Option<String> {
        Some(self.authority().expiry(now)?.to_string())
    }

    /// Signs CRLs that are due, revokes superseded certificates, and renews our own certificate.
    pub(super) fn maintenance(&self, now: u64) -> Result<(), Error> {
        self.with(now, |authority| authority.refresh_crls(now))?;
        self.revoke_superseded(now)?;
        self.ensure_service_certificate(now).map(|_| ())
    }

    /// Revokes superseded certificates, at most once in [`SUPERSEDED_INTERVAL`].
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
                "revoked superseded certificates"
            );
        }
        Ok(())
    }

    /// The files of the certificate that we show: issued again first if that is due.
    pub(super) fn ensure_service_certificate(&self, now: u64) -> Result<LeafFiles, Error> {
        match &self.certificate {
            ServiceCertificate::Provided(files) => Ok(files.clone()),
            ServiceCertificate::Issued { name, sans } => self.with(now, |authority| {
                authority.ensure_service_certificate(name, sans, now)
            }),
        }
    }
}
