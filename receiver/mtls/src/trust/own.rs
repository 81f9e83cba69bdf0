//! Which pair of ours is shown: the one in the files, unless clients would refuse it and take the one from before.

use std::sync::Arc;

use lizmon_pki::date::rfc3339;
use lizmon_pki::path::{Fault, Usage, unix_time};
use rustls_pki_types::CertificateDer;

use super::files::Own;
use super::{Complaint, Part, Parts, Read, Trust, TrustError, TrustWriter, revocation};

/// Why clients would not take a certificate of ours.
#[derive(Debug, thiserror::Error)]
enum Flaw {
    /// By its chain.
    #[error(transparent)]
    Chain(#[from] Fault),
    /// By its names.
    #[error("it has no DNS name or address that a client could ask for")]
    NoName,
}

impl Trust {
    /// What clients would say of our own certificate. They are given the same roots as we are.
    pub fn judge_own(&self, now: u64) -> Result<(), Fault> {
        self.judge_server(&self.parts.own.chain, now)
    }

    fn judge_server(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Fault> {
        let (leaf, above) = chain
            .split_first()
            .ok_or(Fault::Malformed(webpki::Error::BadDer))?;
        self.verifier
            .paths
            .judge(leaf, above, unix_time(now), Usage::Server)
    }

    fn find_flaw(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Flaw> {
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        match crate::identity::first_server_name(leaf) {
            Some(_) => Ok(self.judge_server(chain, now)?),
            None => Err(Flaw::NoName),
        }
    }

    /// The same trust with another pair of ours, and something to be said of that.
    fn showing(&self, own: &Own, complaint: Complaint, now: u64) -> Read {
        let Parts {
            anchors,
            lists,
            known,
            ..
        } = &self.parts;
        let mut lists = lists.clone();
        revocation::require(&mut lists, &own.chain, &anchors.roots, now);
        let parts = Parts {
            own: own.same(),
            anchors: anchors.clone(),
            lists,
            known: known.clone(),
        };
        let mut complaints = vec![complaint];
        complaints.extend(self.complaints.iter().cloned());
        Read {
            parts,
            complaints,
            notes: self.notes.clone(),
        }
    }
}

impl TrustWriter {
    /// The trust as it was read, or the same with the pair that `held` shows, where that is the better one.
    pub(super) fn with_the_better_pair(
        &mut self,
        read: Arc<Trust>,
        held: &Trust,
        now: u64,
    ) -> Result<Arc<Trust>, TrustError> {
        self.waiting = None;
        let held = &held.parts.own;
        let Err(flaw) = read.find_flaw(&read.parts.own.chain, now) else {
            return Ok(read);
        };
        if read.find_flaw(&held.chain, now).is_err() {
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
            "clients would not take this certificate: {flaw}; kept the one from before, which is good until {until}"
        );
        let complaint = Complaint::new(&self.files.cert, Part::Own, reason);
        self.next(read.showing(held, complaint, now))
    }

    /// Whether a pair that waits in the files would be the better one by now: it has begun, or the one that is shown has
    /// ended.
    pub(super) fn is_time_for_what_waits(&self, now: u64) -> bool {
        let current = self.current.load();
        self.waiting.as_ref().is_some_and(|chain| {
            current.find_flaw(chain, now).is_ok() || current.judge_own(now).is_err()
        })
    }
}
