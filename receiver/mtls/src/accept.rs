//! Accepts a TCP connection and turns it into a TLS connection with a known peer.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Clock;
use crate::activity::ConnectionActivity;
use crate::client_quota::ClientQuotas;
use crate::connection::Connection;
use crate::connection_age::ConnectionAges;
use crate::connection_slots::{AddressSlot, AddressSlots, ClientSlot, NoConnectionSlot};
use crate::forwarding::Forwarding;
use crate::handshake;
use crate::identity::Identity;
use crate::limits::{ANONYMOUS_IDLE_TIMEOUT, ANONYMOUS_LIFETIME, ANONYMOUS_MAX, Limits};
use crate::proxies::Proxies;
use crate::proxy_protocol;
use crate::quota_use::HolderQuotas;
use crate::rate_limited_log::RateLimitedLog;
use crate::rejected_connections::RejectedConnections;
use crate::stream::{IdleStream, PeerSlot};
use crate::trust::{Trust, TrustReader};
use crate::unauthenticated_slots::{UnauthenticatedSlot, UnauthenticatedSlots};

/// The interval between warnings when the listener cannot accept connections.
const ACCEPT_FAILED_EVERY: Duration = Duration::from_secs(10);
/// Too many open files, in the process or in the whole system. The numbers are the same on every
/// Unix.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Accepts connections. Each handshake runs in the task of its connection and has a timeout, so a
/// slow client does not block others.
#[derive(Debug, Clone)]
pub struct MtlsAcceptor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    trust: TrustReader,
    limits: Limits,
    proxies: Proxies,
    forwarding: Arc<Forwarding>,
    addresses: Arc<AddressSlots>,
    handshakes: Arc<UnauthenticatedSlots>,
    anonymous: Arc<UnauthenticatedSlots>,
    of_holders: Arc<AtomicUsize>,
    quotas: Arc<ClientQuotas>,
    ages: ConnectionAges,
    rejected: Arc<RejectedConnections>,
}

/// The number of open connections, counted at each call.
#[derive(Debug, Clone)]
pub struct OpenConnections(Arc<Inner>);

impl OpenConnections {
    /// The numbers by kind of peer.
    pub fn counts(&self) -> [(&'static str, usize); 3] {
        [
            ("in_handshake", self.0.handshakes.taken()),
            ("without_certificate", self.0.anonymous.taken()),
            ("of_holders", self.0.of_holders.load(Ordering::Relaxed)),
        ]
    }
}

/// A connection that may send requests.
pub(crate) type AcceptedConnection = (
    Pin<Box<IdleStream<TlsStream<TcpStream>>>>,
    Arc<Connection>,
    Arc<ConnectionActivity>,
);

impl MtlsAcceptor {
    /// Creates an acceptor. Each handshake uses the `trust` in force at that moment.
    pub fn new(trust: TrustReader, limits: Limits, proxies: Proxies, clock: Clock) -> Self {
        if limits.anonymous_max < ANONYMOUS_MAX {
            tracing::warn!(
                in_handshake = limits.handshakes_max,
                without_certificate = limits.anonymous_max,
                of_one_holder = limits.connections_per_holder_max,
                of_all_holders = limits.connections_max,
                "the limit on open files allows few connections (`ulimit -n`; systemd: LimitNOFILE=)"
            );
        }
        let quotas = Arc::new(ClientQuotas::new());
        let forwarding = Forwarding::new(
            proxies.role,
            trust.clone(),
            quotas.clone(),
            limits.clone(),
            clock,
        );
        let inner = Inner {
            trust,
            proxies,
            forwarding: Arc::new(forwarding),
            addresses: Arc::default(),
            handshakes: UnauthenticatedSlots::new(limits.handshakes_max),
            anonymous: UnauthenticatedSlots::new(limits.anonymous_max),
            of_holders: Arc::default(),
            quotas,
            ages: ConnectionAges::new(limits.connection_age),
            rejected: Arc::default(),
            limits,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The counters of rejected connections.
    pub fn rejected(&self) -> Arc<RejectedConnections> {
        self.inner.rejected.clone()
    }

    /// Finds the client of each request.
    pub(crate) fn forwarding(&self) -> Arc<Forwarding> {
        self.inner.forwarding.clone()
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> OpenConnections {
        OpenConnections(self.inner.clone())
    }

    /// What holders use of their limits.
    pub fn holder_quotas(&self) -> HolderQuotas {
        HolderQuotas {
            quotas: self.inner.quotas.clone(),
            limits: self.inner.limits.clone(),
        }
    }

    /// Returns a callback that logs when the listener cannot accept a connection.
    pub(crate) fn accept_failed(&self) -> impl Fn(&io::Error) + Send + Sync + 'static {
        let log = RateLimitedLog::new(NonZeroU32::MIN, ACCEPT_FAILED_EVERY);
        move |error| {
            let advice = match error.raw_os_error() {
                Some(EMFILE) => {
                    ": this process has reached its limit on open files (`ulimit -n`; systemd: LimitNOFILE=), raise it"
                }
                Some(ENFILE) => {
                    ": this machine has reached its limit on open files (sysctl fs.file-max)"
                }
                _ => "",
            };
            log.say(|unsaid| {
                tracing::error!(%error, unsaid, "cannot accept connections, trying again{advice}");
            });
        }
    }

    /// Runs the handshake. A failure is counted and logged.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        address: IpAddr,
    ) -> io::Result<AcceptedConnection> {
        let mut address = address;
        let opened = self.open(&mut address, stream).await;
        opened.inspect_err(|error| self.inner.rejected.record(address, error))
    }

    /// `address` is the peer's, and then the client's, if a proxy is in between.
    async fn open(
        &self,
        address: &mut IpAddr,
        mut stream: TcpStream,
    ) -> io::Result<AcceptedConnection> {
        let Inner {
            limits,
            addresses,
            handshakes,
            proxies,
            ..
        } = &*self.inner;
        let mut of_proxy = None;
        if proxies.must_send_header(*address) {
            let handshake = of_proxy.insert(handshakes.take());
            let header = evictable(handshake, proxy_protocol::read(&mut stream)).await??;
            *address = header.unwrap_or(*address);
        }
        let address = *address;
        let max = limits.connections_per_address_max;
        let slot = addresses
            .take(address, max)
            .ok_or(NoConnectionSlot::OfAddress(max))?;
        stream.set_nodelay(true)?;
        let trust = self.inner.trust.current();
        let handshake = of_proxy.unwrap_or_else(|| handshakes.take());
        let tls = self.handshake(handshake, stream, &trust).await?;
        let (_, session) = tls.get_ref();
        // A resumed session was not verified again. Its first request does that.
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let generation = if resumed { 0 } else { trust.generation() };
        match session.peer_certificates() {
            None => Ok(self.anonymous(address, tls, slot)),
            Some(chain) => {
                let chain = chain.to_vec();
                self.of_holder(address, tls, slot, chain, generation)
            }
        }
    }

    /// Runs a TLS handshake in one of the handshake slots.
    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant or a flag"
    )]
    async fn handshake(
        &self,
        mut slot: UnauthenticatedSlot,
        stream: TcpStream,
        trust: &Trust,
    ) -> io::Result<TlsStream<TcpStream>> {
        let handshake = TlsAcceptor::from(trust.server_config()).accept(stream);
        let in_time = tokio::time::timeout(self.inner.limits.handshake_timeout, handshake);
        let (shaken, refused) = evictable(&mut slot, handshake::noting(in_time)).await?;
        if let Some(refused) = refused {
            return Err(io::Error::new(io::ErrorKind::InvalidData, refused));
        }
        shaken.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
        })?
    }

    fn anonymous(
        &self,
        address: IpAddr,
        tls: TlsStream<TcpStream>,
        slot: AddressSlot,
    ) -> AcceptedConnection {
        let limits = &self.inner.limits;
        let activity = Arc::new(ConnectionActivity::unauthenticated());
        let held = PeerSlot::Anonymous {
            slot: self.inner.anonymous.take(),
            lifetime: ANONYMOUS_LIFETIME,
            address,
            rejected: self.inner.rejected.clone(),
        };
        let idle_timeout = limits.idle_timeout.min(ANONYMOUS_IDLE_TIMEOUT);
        let stream = IdleStream::new(tls, idle_timeout, activity.clone(), slot, held);
        let connection = Arc::new(Connection::anonymous(address));
        (Box::pin(stream), connection, activity)
    }

    fn of_holder(
        &self,
        address: IpAddr,
        tls: TlsStream<TcpStream>,
        slot: AddressSlot,
        chain: Vec<CertificateDer<'static>>,
        generation: u64,
    ) -> io::Result<AcceptedConnection> {
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        // The verifier made the same check before it accepted the handshake.
        let identity = Identity::from_der(leaf).map_err(io::Error::other)?;
        let Inner {
            limits,
            quotas,
            of_holders,
            ages,
            ..
        } = &*self.inner;
        let quota = quotas.of(&identity.spiffe_id, limits);
        let of_holder = ClientSlot::take(&quota, of_holders, limits)?;
        let activity = Arc::new(ConnectionActivity::of_holder(quota.clone(), ages.next()));
        let held = PeerSlot::OfHolder(of_holder);
        let stream = IdleStream::new(tls, limits.idle_timeout, activity.clone(), slot, held);
        let connection = Connection::authenticated(address, identity, chain, quota, generation);
        Ok((Box::pin(stream), Arc::new(connection), activity))
    }
}

/// Runs a part of the handshake, until its slot is needed by another.
async fn evictable<F: Future>(
    slot: &mut UnauthenticatedSlot,
    part: F,
) -> Result<F::Output, NoConnectionSlot> {
    let mut part = pin!(part);
    poll_fn(|cx| match part.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => {
            // Data has arrived, or the part has just started.
            slot.touch();
            Pin::new(&mut *slot)
                .poll(cx)
                .map(|()| Err(NoConnectionSlot::Evicted))
        }
    })
    .await
}
