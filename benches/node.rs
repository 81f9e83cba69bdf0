//! Nodes with certificates, and a receiver's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_protocol::name::Role;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

#[expect(clippy::disallowed_methods, reason = "the edge of the process")]
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A node, and where its files are.
pub(crate) struct Node {
    pub(crate) name: String,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

/// A CA in this folder, a receiver `rx` of 127.0.0.1, and so many nodes.
pub(crate) fn certificates(folder: &Path, nodes: usize) -> Result<Vec<Node>> {
    let certs = folder.join("certs");
    let authority = Authority::init(&certs, &InitOptions::default(), now()).context("a CA")?;
    let mut request = Request::new(Role::Receiver, "rx".parse().context("a name")?);
    request.sans = vec!["127.0.0.1".parse().context("a SAN")?];
    authority.issue(request, now()).context("a certificate")?;
    let request = Request::new(Role::Summarizer, "sum".parse().context("a name")?);
    authority.issue(request, now()).context("a certificate")?;
    let node = |at| {
        let name = format!("node{at}");
        authority
            .issue(
                Request::new(Role::Node, name.parse().context("a name")?),
                now(),
            )
            .context("a certificate")?;
        let file = |ending| certs.join(format!("nodes/{name}.{ending}"));
        Ok(Node {
            cert: file("crt"),
            key: file("key"),
            ca: certs.join("root.crt"),
            name: name.clone(),
        })
    };
    (0..nodes).map(node).collect()
}

impl Node {
    pub(crate) async fn token(&self, address: SocketAddr) -> Result<String> {
        let credentials = Credentials {
            cert: self.cert.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
        };
        let url: BaseUrl = format!("https://{address}").parse().context("a URL")?;
        let now = now();
        let client = Client::new(url, &credentials, now).context("a client")?;
        Ok(client
            .token(None, now)
            .await
            .context("a token")?
            .access_token)
    }

    /// A connection that shows the certificate.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.ca).context("a root")?)
            .context("a root")?;
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect)
            .context("a chain")?;
        let key = PrivateKeyDer::from_pem_file(&self.key).context("a key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("versions")?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .context("a certificate")?;
        let stream = TcpStream::connect(address).await.context("a connection")?;
        stream.set_nodelay(true).context("no delay")?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("127.0.0.1").context("a name")?;
        connector.connect(name, stream).await.context("a handshake")
    }
}
