//! HTTP over accepted connections, from the first connection to a clean shutdown.

use std::future::Future;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::accept::MtlsAcceptor;
use crate::connection_end::{self, LAST_REQUEST_GRACE};
use crate::service::{ConnectionService, Routes};

/// How long requests in progress may take to finish after a shutdown begins.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the listener failed to accept a connection: it would fail again at once,
/// such as without a free file descriptor.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// HTTP limits: what a client may make the server hold before a handler runs.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// How long the client may take to send the head of its first request after the handshake.
    pub first_request_timeout: Duration,
    /// The maximum size of a request head.
    pub head_bytes_max: u32,
    /// The maximum number of concurrent HTTP/2 streams per connection.
    pub http2_streams_max: u32,
}

/// What all connections have in common.
#[derive(Clone)]
struct Server<R> {
    door: MtlsAcceptor,
    http: Arc<Builder<TokioExecutor>>,
    first_request_timeout: Duration,
    routes: R,
    /// Changes when the server stops.
    stopping: watch::Receiver<()>,
}

/// Serves until `shutdown`. Then stops accepting connections, finishes the requests in progress,
/// and tells each client that its connection ends.
#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant"
)]
pub async fn serve(
    listener: TcpListener,
    door: MtlsAcceptor,
    limits: HttpLimits,
    routes: impl Routes,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let accept_failed = door.accept_failed();
    let (stop, stopping) = watch::channel(());
    let server = Server {
        door,
        http: Arc::new(http(&limits)),
        first_request_timeout: limits.first_request_timeout,
        routes,
        stopping,
    };
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            // First, so that connections that wait in the listener are not reset at a shutdown.
            (stream, address) = accept(&listener, &accept_failed) => {
                connections.spawn(server.clone().run(stream, address));
            }
            () = &mut shutdown => break,
            Some(_ended) = connections.join_next() => (),
        }
    }
    tracing::info!("stopping: no new connections, finishing requests that have begun");
    drop((listener, server));
    stop.send_replace(());
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_TIMEOUT, ended).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "closing connections whose requests have not finished in time"
        );
    }
    Ok(())
}

fn http(limits: &HttpLimits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    // A head that does not arrive leaves the connection idle, and that has a limit of its own.
    http.http1()
        .header_read_timeout(None)
        .max_buf_size(limits.head_bytes_max as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(limits.head_bytes_max);
    http
}

#[expect(clippy::disallowed_methods, reason = "paces attempts")]
async fn accept(
    listener: &tokio::net::TcpListener,
    accept_failed: &impl Fn(&io::Error),
) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream, address.ip()),
            Err(error) => accept_failed(&error),
        }
        sleep(ACCEPT_AGAIN_AFTER).await;
    }
}

impl<R: Routes> Server<R> {
    async fn run(self, stream: TcpStream, address: IpAddr) {
        let mut stopping = self.stopping.clone();
        // On the heap, so that its room is given back after the handshake.
        let accepting = Box::pin(self.door.accept(stream, address));
        let opened = tokio::select! {
            opened = accepting => opened,
            () = too_late(&mut stopping) => return,
        };
        // The reason has been counted and logged.
        let Ok((stream, connection, activity)) = opened else {
            return;
        };
        let forwarding = self.door.forwarding();
        let service = ConnectionService::new(self.routes, connection, forwarding, activity.clone());
        let served = self.http.serve_connection(TokioIo::new(stream), service);
        let served = pin!(served);
        connection_end::run(served, &activity, self.first_request_timeout, self.stopping).await;
    }
}

/// Returns when a handshake no longer matters, because the server stops. Its client may have sent a
/// request already.
#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant"
)]
async fn too_late(stopping: &mut watch::Receiver<()>) {
    let _sent_or_dropped = stopping.changed().await;
    sleep(LAST_REQUEST_GRACE).await;
}
