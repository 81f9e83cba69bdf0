//! The certificate that `liz-ca` shows, issued by the CA itself and renewed in time.

use std::collections::BTreeSet;

use lizmon_mtls::identity::Identity;
use lizmon_pki::pem;
use lizmon_protocol::name::{NodeName, Role};

use super::ca::Authority;
use super::error::Error;
use super::issue::Request;
use super::lifetimes::LEAF_LIFETIME;
use crate::files::{LeafFiles, disk};
use crate::pki::{San, rfc3339, sans_of, strip_sign};

impl Authority {
    /// Issues the certificate that `liz-ca` shows, unless the one on disk can still be used.
    /// Returns its files.
    pub(crate) fn ensure_service_certificate(
        &self,
        name: &NodeName,
        sans: &[San],
        now: u64,
    ) -> Result<LeafFiles, Error> {
        let files = LeafFiles::new(&self.certs, Role::Ca, name);
        let Err(why) = self.check_service_certificate(&files, sans, now)? else {
            return Ok(files);
        };
        let request = Request {
            sans: sans.to_vec(),
            lifetime: LEAF_LIFETIME,
            ..Request::new(Role::Ca, name.clone())
        };
        let issued = self.issue(request, now)?;
        tracing::info!(serial = %issued.serial, not_after = rfc3339(issued.validity.not_after), %why,
                       "issued the service certificate");
        Ok(files)
    }

    /// Whether the certificate was signed by the current issuing CA for these names, is valid, and
    /// is not past two thirds of its lifetime. If not, why it has to be issued again.
    fn check_service_certificate(
        &self,
        files: &LeafFiles,
        sans: &[San],
        now: u64,
    ) -> Result<Result<(), ReissueReason>, Error> {
        let Some(chain) = disk::read_if_there(&files.certificate)? else {
            return Ok(Err(ReissueReason::None));
        };
        let chain = pem::certificates(&chain).unwrap_or_default();
        let issuing = disk::read(&self.files.issuing_certificate)?;
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
        let live = self
            .ledger
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

/// Why the service certificate is issued again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ReissueReason {
    #[error("there is no previous one")]
    None,
    #[error("the file of the previous one cannot be read")]
    Unreadable,
    #[error("the previous one is revoked, has expired, or is not in the ledger")]
    NotLive,
    #[error("the issuing CA was rotated")]
    OtherIssuer,
    #[error("the key of the previous one is missing")]
    NoKey,
    #[error("the previous one begins only at {}: the clock was ahead when it was issued", rfc3339(*.0))]
    NotBegun(u64),
    #[error("the previous one is past two thirds of its life")]
    Due,
    #[error("the previous one is for other names")]
    OtherNames,
}
