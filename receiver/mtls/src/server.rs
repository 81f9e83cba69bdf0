//! HTTP over accepted connections, from the first connection to a clean shutdown.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;

use crate::accept::MtlsAcceptor;

/// How long requests in progress may take to finish after a shutdown begins.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// HTTP limits: what a client may make the server hold before a handler runs.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// How long the client may take to send the head of its first request after the handshake.
    pub first_request_timeout: Duration,
    /// How long a connection may be idle without a request.
    pub idle_timeout: Duration,
    /// The maximum size of a request head.
    pub head_bytes_max: u32,
    /// The maximum number of concurrent HTTP/2 streams per connection.
    pub http2_streams_max: u32,
}

/// Serves until `shutdown`. Then stops accepting connections and finishes the requests in progress.
pub async fn serve(
    listener: TcpListener,
    door: MtlsAcceptor,
    limits: HttpLimits,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let handle = Handle::new();
    let accept_failed = door.accept_failed();
    let mut server = axum_server::from_tcp(listener)?
        .accept_error_handler(accept_failed)
        .acceptor(door)
        .handle(handle.clone())
        .first_request_timeout(limits.first_request_timeout);
    let http = server.http_builder();
    // hyper also applies this timeout while a keep-alive connection is idle, so it must not be
    // shorter than the idle timeout.
    http.http1()
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.head_bytes_max as usize);
    http.http2()
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(limits.head_bytes_max);
    let serving = server.serve(routes.into_make_service());
    let stopping = async {
        shutdown.await;
        tracing::info!("stopping: no new connections, finishing requests that have begun");
        handle.graceful_shutdown(Some(DRAIN_TIMEOUT));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = serving => served,
        () = stopping => Ok(()),
    }
}
