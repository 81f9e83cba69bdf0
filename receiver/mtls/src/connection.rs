//! What is known of one connection, asked again by every request on it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lizmon_pki::path::Fault;
use rustls_pki_types::CertificateDer;

use crate::client_quota::ClientQuota;
use crate::identity::Identity;
use crate::refusal::PeerRefusal;
use crate::trust::Trust;

/// One accepted connection. Every request on it carries this in its extensions.
#[derive(Debug)]
pub struct Connection {
    address: IpAddr,
    peer: Option<Peer>,
}

/// The certificate at the other end.
#[derive(Debug)]
struct Peer {
    identity: Identity,
    /// The last second the whole chain is good: epoch seconds.
    not_after: u64,
    chain: Vec<CertificateDer<'static>>,
    quota: Arc<ClientQuota>,
    /// The generation of trust that last took the chain.
    trusted: AtomicU64,
    /// The one that last refused it, and why.
    refused: Mutex<Option<(u64, PeerRefusal)>>,
    /// In which minute it was last asked whether it was the first time.
    asked_minute: AtomicU64,
}

/// A peer that is trusted at this moment.
#[derive(Debug, Clone, Copy)]
pub struct TrustedPeer<'a> {
    /// Who it is.
    pub identity: &'a Identity,
    /// How fast it may go on.
    pub quota: &'a ClientQuota,
}

impl Connection {
    /// A connection without a client certificate.
    pub(crate) fn anonymous(address: IpAddr) -> Self {
        Self {
            address,
            peer: None,
        }
    }

    /// A connection whose certificate `generation` has judged to be good; 0 if none has yet.
    pub(crate) fn authenticated(
        address: IpAddr,
        identity: Identity,
        chain: Vec<CertificateDer<'static>>,
        quota: Arc<ClientQuota>,
        generation: u64,
    ) -> Self {
        let of_chain = chain
            .iter()
            .filter_map(|der| crate::identity::not_after(der))
            .min();
        let not_after = of_chain.unwrap_or(0).min(identity.not_after);
        Self {
            address,
            peer: Some(Peer {
                identity,
                not_after,
                chain,
                quota,
                trusted: AtomicU64::new(generation),
                refused: Mutex::default(),
                asked_minute: AtomicU64::new(u64::MAX),
            }),
        }
    }

    /// From where it comes; where something stands in between, that one's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whose certificate was shown, good at this moment or not.
    pub fn shown_identity(&self) -> Option<&Identity> {
        self.peer.as_ref().map(|peer| &peer.identity)
    }

    /// The certificates that were shown, the holder's first; none if no certificate was.
    pub fn shown(&self) -> &[CertificateDer<'static>] {
        self.peer.as_ref().map_or(&[], |peer| &peer.chain)
    }

    /// Whether this was not asked in this minute before, for what need not be done for each request. Never without a certificate.
    pub fn is_first_of_minute(&self, now: u64) -> bool {
        let minute = now / 60;
        self.peer.as_ref().is_some_and(|peer| {
            let asked = &peer.asked_minute;
            asked.load(Ordering::Relaxed) != minute
                && asked.swap(minute, Ordering::Relaxed) != minute
        })
    }

    /// Who is at the other end, if a certificate was shown and is good at this moment by the trust of this moment.
    ///
    /// After a reload of trust the chain is verified once more, wholly; until the next one the verdict is kept.
    pub fn peer(&self, trust: &Trust, now: u64) -> Option<Result<TrustedPeer<'_>, PeerRefusal>> {
        self.peer.as_ref().map(|peer| {
            peer.judge(trust, now)?;
            Ok(TrustedPeer {
                identity: &peer.identity,
                quota: &peer.quota,
            })
        })
    }
}

impl Peer {
    fn judge(&self, trust: &Trust, now: u64) -> Result<(), PeerRefusal> {
        if now > self.not_after {
            return Err(Fault::ended(&self.chain, self.not_after, now).into());
        }
        let generation = trust.generation();
        if self.trusted.load(Ordering::Relaxed) == generation {
            return Ok(());
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, refusal)) = &*refused
            && *at == generation
        {
            return Err(refusal.clone());
        }
        match trust.verify(&self.chain, now) {
            Ok(()) => {
                self.trusted.store(generation, Ordering::Relaxed);
                Ok(())
            }
            Err(refusal) => {
                // What is only the time's fault may be over by the next request.
                *refused = (!refusal.is_about_time()).then(|| (generation, refusal.clone()));
                Err(refusal)
            }
        }
    }
}
