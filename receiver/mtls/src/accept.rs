//! From a TCP connection to a TLS one whose peer is known.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use http::Request;
use pin_project_lite::pin_project;
use rustls::HandshakeKind;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use crate::connection::Connection;
use crate::identity::Identity;
use crate::limits::{Addresses, Limits, Paces};
use crate::stream::{Activity, IdleStream, InFlight};
use crate::trust::{Trust, TrustReader};

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
}

impl FrontDoor {
    /// A front door that trusts what `trust` says at the moment of each handshake.
    pub fn new(trust: TrustReader, limits: Limits) -> Self {
        let inner = Inner {
            trust,
            limits,
            addresses: Arc::default(),
            paces: Paces::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    async fn open(
        &self,
        stream: TcpStream,
    ) -> io::Result<(
        IdleStream<TlsStream<TcpStream>>,
        Arc<Connection>,
        Arc<Activity>,
    )> {
        let Inner {
            limits, addresses, ..
        } = &*self.inner;
        let address = stream.peer_addr()?.ip();
        let place = addresses
            .take(address, limits.connections_per_address_max)
            .ok_or_else(|| {
                io::Error::other(format!(
                    "{address} has {} connections already",
                    limits.connections_per_address_max
                ))
            })?;
        stream.set_nodelay(true)?;
        let trust = self.inner.trust.current();
        let handshake = TlsAcceptor::from(trust.server_config()).accept(stream);
        let tls = tokio::time::timeout(limits.handshake_timeout, handshake)
            .await
            .map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
            })??;
        let connection = Arc::new(self.connection_of(&tls, &trust)?);
        let activity = Arc::new(Activity::new());
        let stream = IdleStream::new(tls, limits.idle_timeout, activity.clone(), place);
        Ok((stream, connection, activity))
    }

    fn connection_of(&self, tls: &TlsStream<TcpStream>, trust: &Trust) -> io::Result<Connection> {
        let (_, session) = tls.get_ref();
        let Some(chain) = session.peer_certificates() else {
            return Ok(Connection::anonymous());
        };
        let chain: Vec<CertificateDer<'static>> = chain.to_vec();
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        // The verifier has asked the same before it let the handshake pass.
        let identity = Identity::from_der(leaf).map_err(io::Error::other)?;
        let pace = self.inner.paces.of(identity.thumbprint, &self.inner.limits);
        // A resumed session was not verified again: its first request does that.
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let generation = if resumed { 0 } else { trust.generation() };
        Ok(Connection::authenticated(identity, chain, pace, generation))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for FrontDoor {
    type Stream = Pin<Box<IdleStream<TlsStream<TcpStream>>>>;
    type Service = ConnectionService<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, inner: S) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let (stream, connection, activity) = door.open(stream).await.inspect_err(|error| {
                tracing::debug!(%error, "connection refused");
            })?;
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
