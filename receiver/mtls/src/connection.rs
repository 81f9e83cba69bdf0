//! The state of one connection. Every request on it is checked against the current trust.

use std::any::Any;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lizmon_pki::path::Fault;
use rustls_pki_types::CertificateDer;

use crate::client_quota::ClientQuota;
use crate::identity::Identity;
use crate::refusal::PeerRefusal;
use crate::trust::Trust;

/// One accepted connection, or the part of a proxy's that is one client's. Every request on it is
/// handed on with this.
#[derive(Debug)]
pub struct Connection {
    address: IpAddr,
    peer: Option<Arc<Peer>>,
    /// Why the certificate that a proxy named is rejected. There is no peer then.
    refusal: Option<PeerRefusal>,
    /// The proxy's connection, if there is one in between.
    proxy: Option<Arc<Connection>>,
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// The client certificate.
#[derive(Debug)]
pub(crate) struct Peer {
    identity: Identity,
    /// The last second in which the whole chain is valid: epoch seconds.
    not_after: u64,
    chain: Vec<CertificateDer<'static>>,
    quota: Arc<ClientQuota>,
    /// The trust generation that last accepted the chain.
    trusted: AtomicU64,
    /// The trust generation that last rejected the chain, and the reason.
    refused: Mutex<Option<(u64, PeerRefusal)>>,
    /// The minute of the last call to [`Connection::is_first_of_minute`].
    asked_minute: AtomicU64,
}

/// A peer with a currently trusted certificate.
#[derive(Debug, Clone, Copy)]
pub struct TrustedPeer<'a> {
    /// The identity of the peer.
    pub identity: &'a Identity,
    /// The rate limits of the peer.
    pub quota: &'a ClientQuota,
}

impl Connection {
    /// A connection without a client certificate.
    pub(crate) fn anonymous(address: IpAddr) -> Self {
        Self {
            address,
            peer: None,
            refusal: None,
            proxy: None,
            kept: OnceLock::new(),
        }
    }

    /// A connection whose certificate was accepted by `generation`, or 0 if not verified yet.
    pub(crate) fn authenticated(
        address: IpAddr,
        identity: Identity,
        chain: Vec<CertificateDer<'static>>,
        quota: Arc<ClientQuota>,
        generation: u64,
    ) -> Self {
        let peer = Peer::new(identity, chain, quota, generation);
        Self::of_peer(address, Arc::new(peer))
    }

    /// A connection with a certificate.
    pub(crate) fn of_peer(address: IpAddr, peer: Arc<Peer>) -> Self {
        Self {
            peer: Some(peer),
            ..Self::anonymous(address)
        }
    }

    /// A connection with a certificate that is not valid.
    pub(crate) fn refused(address: IpAddr, refusal: PeerRefusal) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::anonymous(address)
        }
    }

    /// The same, through this connection of a proxy.
    pub(crate) fn through(self, proxy: Arc<Connection>) -> Self {
        Self {
            proxy: Some(proxy),
            ..self
        }
    }

    /// The quota of the client behind a proxy, if this is one with a certificate.
    pub(crate) fn forwarded_quota(&self) -> Option<Arc<ClientQuota>> {
        self.proxy.as_ref()?;
        Some(self.peer.as_ref()?.quota.clone())
    }

    /// The client's address: that of the peer, unless a trusted proxy names another.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The identity in the client certificate, whether it is currently valid or not.
    pub fn shown_identity(&self) -> Option<&Identity> {
        self.peer.as_ref().map(|peer| &peer.identity)
    }

    /// The client's certificate chain, leaf first. Empty without a client certificate.
    pub fn shown(&self) -> &[CertificateDer<'static>] {
        self.peer.as_ref().map_or(&[], |peer| &peer.chain)
    }

    /// Returns true for the first call in each minute, for work that is not needed for each
    /// request. Always false without a client certificate.
    pub fn is_first_of_minute(&self, now: u64) -> bool {
        let minute = now / 60;
        self.peer.as_ref().is_some_and(|peer| {
            let asked = &peer.asked_minute;
            asked.load(Ordering::Relaxed) != minute
                && asked.swap(minute, Ordering::Relaxed) != minute
        })
    }

    /// What the caller keeps with the connection until it ends, such as what it has verified. There
    /// is one value: none if one of another type was asked for first.
    pub fn kept<T: Default + Send + Sync + 'static>(&self) -> Option<&T> {
        let kept = self.kept.get_or_init(|| Box::new(T::default()));
        kept.downcast_ref()
    }

    /// The peer, if it sent a client certificate. Fails if the certificate is not valid now under
    /// the current trust.
    ///
    /// After each reload of the trust, the whole chain is verified again. The result is cached
    /// until the next reload.
    pub fn peer(&self, trust: &Trust, now: u64) -> Option<Result<TrustedPeer<'_>, PeerRefusal>> {
        if let Some(refusal) = &self.refusal {
            return Some(Err(refusal.clone()));
        }
        self.peer.as_ref().map(|peer| {
            peer.verify(trust, now)?;
            tracing::trace!("trust checked");
            Ok(TrustedPeer {
                identity: &peer.identity,
                quota: &peer.quota,
            })
        })
    }
}

impl Peer {
    /// A peer whose chain was accepted by `generation`, or 0 if not verified yet.
    pub(crate) fn new(
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
            identity,
            not_after,
            chain,
            quota,
            trusted: AtomicU64::new(generation),
            refused: Mutex::default(),
            asked_minute: AtomicU64::new(u64::MAX),
        }
    }

    fn verify(&self, trust: &Trust, now: u64) -> Result<(), PeerRefusal> {
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
                // A rejection because of the time may be over by the next request, so it is not
                // cached.
                *refused = (!refusal.is_about_time()).then(|| (generation, refusal.clone()));
                Err(refusal)
            }
        }
    }
}
