//! TLS as a client speaks it, by whom it believes.

use std::path::Path;
use std::sync::Arc;

use lizmon_pki::anchors::Anchors;
use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ClientConfig, ConfigBuilder};

use super::{CredentialsError, in_file, read_roots};
use crate::enrol::lists::ServerLists;
use crate::verify::{AnyServer, ServerRoleVerifier, Servers};

/// TLS to a `liz-ca` below one of the roots in this file, by one who shows no certificate: for what anyone may have.
pub(crate) fn anonymous_tls(ca: &Path) -> Result<ClientConfig, CredentialsError> {
    let (servers, lists) = (Servers::CaAlone, ServerLists::default());
    let tls = trusting(&read_roots(ca)?, servers, &lists, Arc::new(provider()));
    let tls = tls.map_err(in_file(ca))?;
    Ok(with_protocol(tls.with_no_client_auth()))
}

/// TLS to the `liz-ca` below exactly this root, by one who has no certificate yet.
pub(crate) fn pinned_tls(root: &CertificateDer<'static>) -> Result<ClientConfig, rustls::Error> {
    let anchors = Anchors {
        roots: vec![root.clone()],
        ..Anchors::default()
    };
    let (servers, lists) = (Servers::CaAlone, ServerLists::default());
    let tls = trusting(&anchors, servers, &lists, Arc::new(provider()))?;
    Ok(with_protocol(tls.with_no_client_auth()))
}

/// TLS to anyone: for what is public, and is checked by other means before anything is made of it.
pub(crate) fn unverified_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(provider());
    let tls = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    Ok(with_protocol(tls.with_no_client_auth()))
}

pub(super) fn trusting(
    anchors: &Anchors,
    servers: Servers,
    lists: &ServerLists,
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let verifier = ServerRoleVerifier::new(anchors, servers, lists.all(), provider.clone());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// One request at a time and one connection: HTTP/2 would cost memory and bring nothing.
pub(super) fn with_protocol(mut tls: ClientConfig) -> ClientConfig {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls
}

/// aws-lc-rs with AES-128 first: the server goes by our order, and SHA-384 runs without hardware on most machines.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
