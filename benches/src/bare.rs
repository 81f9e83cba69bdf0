//! The baseline: axum-server as others use it, with the receiver's TLS settings. Clients show
//! certificates, which rustls' own verifier checks, without CRLs.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CipherSuite, RootCertStore, ServerConfig};

/// Serves these routes until the process is ended. `started` gets its address.
pub async fn serve(
    (cert, key, root): (&Path, &Path, &Path),
    router: Router,
    started: impl FnOnce(SocketAddr) -> Result<()>,
) -> Result<()> {
    let config = config(cert, key, root)?;
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    let address = listener.local_addr().context("an address")?;
    let config = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(config));
    let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(config)
        .acceptor(axum_server::accept::NoDelayAcceptor);
    let server = axum_server::from_tcp(listener)
        .context("a server")?
        .acceptor(acceptor);
    started(address)?;
    let served = server.serve(router.into_make_service());
    served.await.context("served")
}

fn config(cert: &Path, key: &Path, root: &Path) -> Result<ServerConfig> {
    let provider = Arc::new(provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(root)? {
        roots.add(root).context("a root")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .context("a verifier")?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("versions")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(cert)?, key)
        .context("a certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().context("a ticketer")?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| file.display().to_string())
}
