//! The certificates that hosts last reported with: a host whose certificate was revoked is not
//! merely silent.
//!
//! Kept in memory alone, so it is known of hosts that have reported since the receiver started.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use lizmon_mtls::identity::Identity;
use lizmon_mtls::trust::Trust;
use lizmon_protocol::summary::HolderState;
use rustls_pki_types::CertificateDer;

/// How many hosts' certificates are kept, at one to two KiB each.
const HOLDERS_MAX: usize = 20_000;

/// The certificate that each host last showed.
#[derive(Default)]
pub(crate) struct HolderCertificates(Mutex<HashMap<Box<str>, Held>>);

struct Held {
    thumbprint: [u8; 32],
    not_after: u64,
    /// From when on it is overdue for renewal.
    late_after: u64,
    chain: Box<[CertificateDer<'static>]>,
    /// The generation of trust it was last verified by, and whether it is revoked.
    judged: (u64, bool),
}

impl HolderCertificates {
    /// A host has just reported with this certificate.
    pub(crate) fn saw(&self, host: &str, shown: &Identity, chain: &[CertificateDer<'static>]) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = held.get(host).map(|held| held.thumbprint);
        if is_known == Some(shown.thumbprint) || (is_known.is_none() && held.len() >= HOLDERS_MAX) {
            return;
        }
        held.insert(
            host.into(),
            Held {
                thumbprint: shown.thumbprint,
                not_after: shown.not_after,
                late_after: shown.late_after(),
                chain: chain.into(),
                judged: (0, false),
            },
        );
    }

    /// The certificate's state; none if it is valid or not known.
    pub(crate) fn state(&self, host: &str, trust: &Trust, now: u64) -> Option<HolderState> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get_mut(host)?;
        if held.judged.0 != trust.generation() {
            // As of its end at the latest: revocation is not checked for expired certificates.
            let at = now.min(held.not_after);
            let judged = trust.verify(&held.chain, at);
            let is_revoked = judged.is_err_and(|refusal| refusal.is_revoked());
            held.judged = (trust.generation(), is_revoked);
        }
        held.judged.1.then_some(HolderState::Revoked)
    }

    /// Whether the certificate should have been renewed by now; none if it is not known.
    pub(crate) fn is_late(&self, host: &str, now: u64) -> Option<bool> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get(host)?;
        Some(now > held.late_after)
    }
}
