//! From a TCP connection to a TLS one whose peer is known.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use http::Request;
use pin_project_lite::pin_project;
use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use crate::bounded_log::BoundedLog;
use crate::connection::Connection;
use crate::handshake::{self, Refused};
use crate::identity::Identity;
use crate::limits::{Addresses, Limits, Paces};
use crate::stream::{Activity, IdleStream, InFlight};
use crate::trust::{Trust, TrustReader};

/// A listener that cannot take connections is told of this often.
const ACCEPT_FAILED_EVERY: Duration = Duration::from_secs(10);
/// The process, and the whole system, have too many files open: the same numbers on every Unix.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// The acceptor to give to axum-server. Each handshake runs in its connection's own task, and none for longer than its
/// limit: a slow client stalls nobody.
#[derive(Debug, Clone)]
pub struct FrontDoor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    trust: TrustReader,
    limits: Limits,
    addresses: Arc<Addresses>,
    paces: Paces,
    turned_away: Arc<TurnedAway>,
}

/// Why no connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client's certificate is not taken.
    Certificate,
    /// The handshake took too long.
    Slow,
    /// The address holds as many connections as one may.
    TooMany,
    /// Whatever else ends a handshake: no TLS, no version or suite of ours, a client that does not trust us, or leaves.
    Handshake,
}

impl Cause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 4] = [
        Self::Certificate,
        Self::Slow,
        Self::TooMany,
        Self::Handshake,
    ];

    /// As it is counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Slow => "slow",
            Self::TooMany => "too_many",
            Self::Handshake => "handshake",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            _ if refused(error).is_some() => Self::Certificate,
            io::ErrorKind::TimedOut => Self::Slow,
            io::ErrorKind::QuotaExceeded => Self::TooMany,
            _ => Self::Handshake,
        }
    }
}

/// Who did not get in: all counted, some told of.
#[derive(Debug, Default)]
pub struct TurnedAway {
    counts: [AtomicU64; Cause::ALL.len()],
    log: BoundedLog,
}

impl TurnedAway {
    /// How many did not get in so far, for this cause.
    pub fn count(&self, cause: Cause) -> u64 {
        self.counts[cause as usize].load(Ordering::Relaxed)
    }

    fn note(&self, address: IpAddr, error: &io::Error) {
        let cause = Cause::of(error);
        self.counts[cause as usize].fetch_add(1, Ordering::Relaxed);
        match cause {
            // Probes of balancers and scanners: every second, for ever.
            Cause::Handshake => tracing::debug!(%address, %error, "no connection"),
            cause => self.log.say(|unsaid| {
                let shown = refused(error).map(|refused| refused.shown.as_str());
                tracing::warn!(%address, cause = cause.as_str(), shown, %error, unsaid, "turned away");
            }),
        }
    }
}

/// Whether a certificate ended the handshake.
fn refused(error: &io::Error) -> Option<&Refused> {
    error.get_ref()?.downcast_ref()
}

impl FrontDoor {
    /// A front door that trusts what `trust` says at the moment of each handshake.
    pub fn new(trust: TrustReader, limits: Limits) -> Self {
        let inner = Inner {
            trust,
            limits,
            addresses: Arc::default(),
            paces: Paces::new(),
            turned_away: Arc::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Who did not get in.
    pub fn turned_away(&self) -> Arc<TurnedAway> {
        self.inner.turned_away.clone()
    }

    /// What to say where the listener itself cannot take a connection: give it to axum-server, which tries again 20 times a second.
    pub fn accept_failed(
        &self,
    ) -> impl Fn(Option<&SocketAddr>, &io::Error) + Send + Sync + 'static {
        let log = BoundedLog::new(NonZeroU32::MIN, ACCEPT_FAILED_EVERY);
        move |address, error| {
            // With an address it is one client's affair, and noted already.
            if address.is_some() {
                return;
            }
            let advice = match error.raw_os_error() {
                Some(EMFILE) => {
                    ": this process has as many files open as it may (`ulimit -n`; systemd: LimitNOFILE=), raise that"
                }
                Some(ENFILE) => {
                    ": this machine has as many files open as it may (sysctl fs.file-max)"
                }
                _ => "",
            };
            log.say(|unsaid| {
                tracing::error!(%error, unsaid, "no new connection can be taken, and it is tried again{advice}");
            });
        }
    }

    async fn open(
        &self,
        address: IpAddr,
        stream: TcpStream,
    ) -> io::Result<(
        IdleStream<TlsStream<TcpStream>>,
        Arc<Connection>,
        Arc<Activity>,
    )> {
        let Inner {
            limits, addresses, ..
        } = &*self.inner;
        let place = addresses
            .take(address, limits.connections_per_address_max)
            .ok_or_else(|| {
                let max = limits.connections_per_address_max;
                let why = format!("the address has {max} connections already");
                io::Error::new(io::ErrorKind::QuotaExceeded, why)
            })?;
        stream.set_nodelay(true)?;
        let trust = self.inner.trust.current();
        let handshake = TlsAcceptor::from(trust.server_config()).accept(stream);
        let handshake = tokio::time::timeout(limits.handshake_timeout, handshake);
        let (tls, refused) = handshake::noting(handshake).await;
        if let Some(refused) = refused {
            return Err(io::Error::new(io::ErrorKind::InvalidData, refused));
        }
        let tls = tls.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
        })??;
        let connection = Arc::new(self.connection_of(address, &tls, &trust)?);
        let activity = Arc::new(Activity::new());
        let stream = IdleStream::new(tls, limits.idle_timeout, activity.clone(), place);
        Ok((stream, connection, activity))
    }

    fn connection_of(
        &self,
        address: IpAddr,
        tls: &TlsStream<TcpStream>,
        trust: &Trust,
    ) -> io::Result<Connection> {
        let (_, session) = tls.get_ref();
        let Some(chain) = session.peer_certificates() else {
            return Ok(Connection::anonymous(address));
        };
        let chain: Vec<CertificateDer<'static>> = chain.to_vec();
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        // The verifier has asked the same before it let the handshake pass.
        let identity = Identity::from_der(leaf).map_err(io::Error::other)?;
        let pace = self.inner.paces.of(&identity.spiffe_id, &self.inner.limits);
        // A resumed session was not verified again: its first request does that.
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let generation = if resumed { 0 } else { trust.generation() };
        Ok(Connection::authenticated(
            address, identity, chain, pace, generation,
        ))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for FrontDoor {
    type Stream = Pin<Box<IdleStream<TlsStream<TcpStream>>>>;
    type Service = ConnectionService<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, inner: S) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let address = stream.peer_addr()?.ip();
            let opened = door.open(address, stream).await;
            let (stream, connection, activity) =
                opened.inspect_err(|error| door.inner.turned_away.note(address, error))?;
            Ok((
                Box::pin(stream),
                ConnectionService {
                    inner,
                    connection,
                    activity,
                },
            ))
        })
    }
}

/// Gives every request its [`Connection`], and notes that the connection is busy.
#[derive(Debug, Clone)]
pub struct ConnectionService<S> {
    inner: S,
    connection: Arc<Connection>,
    activity: Arc<Activity>,
}

impl<S, B> Service<Request<B>> for ConnectionService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BusyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.connection.clone());
        BusyFuture {
            inner: self.inner.call(request),
            _in_flight: self.activity.begin(),
        }
    }
}

pin_project! {
    /// A request being answered.
    #[derive(Debug)]
    pub struct BusyFuture<F> {
        #[pin]
        inner: F,
        _in_flight: InFlight,
    }
}

impl<F: Future> Future for BusyFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(cx)
    }
}
