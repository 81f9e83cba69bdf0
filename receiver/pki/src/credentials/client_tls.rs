//! TLS configurations of clients, one for each kind of server trust.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder};
use rustls_pki_types::CertificateDer;

use super::error::CredentialsError;
use super::files::{in_file, read_roots};
use super::server_verifier::{
    AnyServer, ServerCheck, ServerRoleCheck, ServerRoles, ServerVerifier,
};
use crate::anchors::Anchors;
use crate::provider::provider;
use crate::server_crls::ServerCrls;

/// TLS without a client certificate, to a `liz-ca` below one of the roots in this file. For public
/// data.
pub fn anonymous_tls(ca: &Path) -> Result<ClientConfig, CredentialsError> {
    let (servers, crls) = (ServerRoles::CaOnly, ServerCrls::default());
    let tls = trusting(&read_roots(ca)?, servers, &crls, Arc::new(provider()));
    let tls = tls.map_err(in_file(ca))?;
    Ok(with_protocol(tls.with_no_client_auth()))
}

/// TLS without a client certificate, to a `liz-ca` below exactly this root.
pub fn pinned_tls(root: &CertificateDer<'static>) -> Result<ClientConfig, rustls::Error> {
    let anchors = Anchors {
        roots: vec![root.clone()],
        ..Anchors::default()
    };
    let (servers, crls) = (ServerRoles::CaOnly, ServerCrls::default());
    let tls = trusting(&anchors, servers, &crls, Arc::new(provider()))?;
    Ok(with_protocol(tls.with_no_client_auth()))
}

/// TLS to any server, without verification. Only for public data that is verified by other means
/// before it is used.
pub fn unverified_tls() -> Result<ClientConfig, rustls::Error> {
    let tls = verified_by(AnyServer, Arc::new(provider()))?;
    Ok(with_protocol(tls.with_no_client_auth()))
}

pub(super) fn trusting(
    anchors: &Anchors,
    servers: ServerRoles,
    crls: &ServerCrls,
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let check = ServerRoleCheck::new(anchors, servers, crls.all(), &provider);
    verified_by(check, provider)
}

fn verified_by(
    check: impl ServerCheck + 'static,
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let verifier = ServerVerifier {
        provider: provider.clone(),
        check,
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// HTTP/1.1 only: a client sends one request at a time, so HTTP/2 would only cost memory.
pub(super) fn with_protocol(mut tls: ClientConfig) -> ClientConfig {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls
}
