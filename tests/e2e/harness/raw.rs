//! Raw bytes over TLS, for requests that no HTTP client sends.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::World;

/// Maximum wait for a response; a slower one counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client's certificate chain and key.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Shown {
    pub(crate) fn from_files(cert: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(cert).expect("a certificate file");
        Self {
            chain: chain.collect::<Result<_, _>>().expect("PEM"),
            key: PrivateKeyDer::from_pem_file(key).expect("a key file"),
        }
    }
}

impl Clone for Shown {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// A client configuration with this root file, this certificate, valid or not, and these protocols.
pub(crate) fn tls_config(root: &Path, shown: Option<Shown>, alpn: &[&str]) -> ClientConfig {
    tls_config_of(&[&TLS13, &TLS12], root, shown, alpn)
}

/// The same with these TLS versions.
pub(crate) fn tls_config_of(
    versions: &[&'static SupportedProtocolVersion],
    root: &Path,
    shown: Option<Shown>,
    alpn: &[&str],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(root).expect("a root file") {
        roots.add(der.expect("PEM")).expect("a root");
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .expect("the provider speaks TLS 1.3 and 1.2")
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(Shown { chain, key }) => {
            // Not `with_client_auth_cert`, which would reject invalid certificates before the
            // receiver sees them.
            let key = provider.key_provider.load_private_key(key).expect("a key");
            let certified = Arc::new(CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A TLS connection to the world's receiver. TLS 1.3 clients learn of a refusal only when they
/// read.
pub(crate) async fn connect(
    world: &World,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    connect_to(world.port(), config).await
}

/// The same to any server on this port.
pub(crate) async fn connect_to(
    port: u16,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    // Without TCP_NODELAY the end of the handshake and the request would wait for acknowledgements.
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a DNS name");
    let connector = TlsConnector::from(Arc::new(config));
    timeout(PATIENCE, connector.connect(name, tcp))
        .await
        .expect("a handshake in time")
}

/// Sends these bytes, and reads until the receiver closes the connection.
pub(crate) async fn exchange(
    stream: &mut TlsStream<TcpStream>,
    bytes: &[u8],
) -> io::Result<Vec<u8>> {
    // The receiver may answer and close before it has read everything: the response counts.
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let sent = timeout(PATIENCE, sent)
        .await
        .expect("the bytes are taken in time");
    match read_to_close(stream).await {
        Ok(answer) if answer.is_empty() => sent.map(|()| answer),
        other => other,
    }
}

/// Sends a request, and reads one answer; the connection stays open.
pub(crate) async fn exchange_one(
    stream: &mut TlsStream<TcpStream>,
    bytes: &[u8],
) -> io::Result<Vec<u8>> {
    let exchanged = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) && stream.read_buf(&mut answer).await? > 0 {}
        Ok(answer)
    };
    timeout(PATIENCE, exchanged)
        .await
        .expect("an answer in time")
}

/// Whether head and body of an answer are there, whose length its head says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().expect("a length"))
}

/// Reads until the receiver closes; a close without close_notify is accepted after a response.
pub(crate) async fn read_to_close(stream: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    match read.expect("the receiver closes in time") {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

/// The status of a raw response; 0 if there was none.
pub(crate) fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}
