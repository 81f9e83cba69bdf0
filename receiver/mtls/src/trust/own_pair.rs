//! Selects the certificate and key that we use: the pair in the files, unless clients would reject
//! it and accept the previous one.

use std::sync::Arc;

use lizmon_pki::date::rfc3339;
use lizmon_pki::path::{Fault, Usage, unix_time};
use rustls_pki_types::CertificateDer;

use super::contents::{TrustContents, TrustParts};
use super::current::Trust;
use super::error::TrustError;
use super::server_pair::ServerPair;
use super::warning::{TrustPart, TrustWarning};
use super::writer::TrustWriter;
use crate::revocation;

/// Why clients would reject our certificate.
#[derive(Debug, thiserror::Error)]
enum PairFault {
    /// The chain is invalid.
    #[error(transparent)]
    Chain(#[from] Fault),
    /// It has no usable name.
    #[error("it has no DNS name or address that a client could ask for")]
    NoName,
}

impl Trust {
    /// Verifies our own certificate as peers do. They trust the same roots.
    pub fn verify_own(&self, now: u64) -> Result<(), Fault> {
        self.verify_as_own(&self.parts.own.chain, now)
    }

    fn verify_as_own(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Fault> {
        let (leaf, above) = chain
            .split_first()
            .ok_or(Fault::Malformed(webpki::Error::BadDer))?;
        self.verifier
            .paths
            .verify(leaf, above, unix_time(now), self.own_usage)
    }

    fn check_pair(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), PairFault> {
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let has_name = crate::identity::first_server_name(leaf).is_some();
        match has_name || self.own_usage == Usage::Client {
            true => Ok(self.verify_as_own(chain, now)?),
            false => Err(PairFault::NoName),
        }
    }

    /// The contents of this trust with another pair, and an additional warning.
    fn showing(&self, own: &ServerPair, warning: TrustWarning, now: u64) -> TrustContents {
        let TrustParts {
            anchors,
            crls,
            known,
            ..
        } = &self.parts;
        let mut crls = crls.clone();
        revocation::require(&mut crls, &own.chain, &anchors.roots, now);
        let parts = TrustParts {
            own: own.copy(),
            anchors: anchors.clone(),
            crls,
            known: known.clone(),
        };
        let mut warnings = vec![warning];
        warnings.extend(self.warnings.iter().cloned());
        TrustContents {
            parts,
            warnings,
            notes: self.notes.clone(),
        }
    }
}

impl TrustWriter {
    /// Returns the trust as read from the files. If clients would reject its pair and accept the
    /// pair of `held`, returns the same trust with the pair of `held`.
    pub(super) fn with_accepted_pair(
        &mut self,
        read: Arc<Trust>,
        held: &Trust,
        now: u64,
    ) -> Result<Arc<Trust>, TrustError> {
        self.waiting = None;
        let held = &held.parts.own;
        let Err(fault) = read.check_pair(&read.parts.own.chain, now) else {
            return Ok(read);
        };
        if read.check_pair(&held.chain, now).is_err() {
            return Ok(read);
        }
        self.waiting = Some(read.parts.own.chain.clone());
        let until = held
            .chain
            .first()
            .and_then(|leaf| crate::identity::not_after(leaf))
            .map(rfc3339)
            .unwrap_or_default();
        let reason = format!(
            "clients would refuse this certificate: {fault}; kept the previous one, which is valid until {until}"
        );
        let warning = TrustWarning::new(&self.files.cert, TrustPart::Own, reason);
        self.next(read.showing(held, warning, now))
    }

    /// Whether to switch to the pair in the files: it is valid by now, or the pair in use has
    /// expired.
    pub(super) fn is_pending_pair_better(&self, now: u64) -> bool {
        let current = self.current.load();
        self.waiting.as_ref().is_some_and(|chain| {
            current.check_pair(chain, now).is_ok() || current.verify_own(now).is_err()
        })
    }
}
