//! The baseline: axum-server with the receiver's TLS settings, whose handlers read the body and
//! answer.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path as RoutePath;
use axum::routing::{get, post};
use http::StatusCode;
use lizmon_mtls::trust::{TrustFiles, TrustWriter};
use lizmon_mtls::{Clock, TlsMin};
use lizmon_protocol::route;

use crate::scene::now;

/// As long as a receiver's.
pub(crate) const TOKEN_BYTES: usize = 700;
/// Answered with so many bytes, as summaries are: `/bytes/{count}`
pub(crate) const BYTES: &str = "/bytes";

/// Serves until it is ended by a signal.
#[tokio::main]
pub(crate) async fn serve(certs: &Path) -> Result<()> {
    let files = TrustFiles {
        cert: certs.join("receivers/rx.crt"),
        key: certs.join("receivers/rx.key"),
        ca: certs.join("root.crt"),
        crl: certs.join("crl.pem"),
    };
    let clock: Clock = Arc::new(now);
    let (_writer, trust) = TrustWriter::open(files, clock, TlsMin::default()).context("trust")?;
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    let address = listener.local_addr().context("an address")?;
    let config =
        axum_server::tls_rustls::RustlsConfig::from_config(trust.current().server_config());
    let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(config)
        .acceptor(axum_server::accept::NoDelayAcceptor);
    let server = axum_server::from_tcp(listener)
        .context("a server")?
        .acceptor(acceptor);
    eprintln!("READY on {address}");
    let served = server.serve(router().into_make_service());
    served.await.context("served")
}

fn router() -> Router {
    let take = |_body: Bytes| async { StatusCode::NO_CONTENT };
    let token = format!(
        r#"{{"access_token":"{}","token_type":"Bearer","expires_in":300,"scope":"metrics:write"}}"#,
        "x".repeat(TOKEN_BYTES)
    );
    let token = Bytes::from(token);
    let filler = Bytes::from(vec![b'0'; 1 << 20]);
    Router::new()
        .route("/api/perf/{host}/{epoch}", post(take))
        .route("/api/perf/{host}", post(take))
        .route(route::TOKEN, post(move |_body: Bytes| async { token }))
        .route(
            &format!("{BYTES}/{{count}}"),
            get(move |RoutePath(count): RoutePath<usize>| async move {
                filler.slice(..count.min(filler.len()))
            }),
        )
}
