//! Clients that mean no good, and one that does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use lizmon_ca::authority::{Authority, Request};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_protocol::name::Role;
use reqwest::RequestBuilder;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::server::{Server, now};

/// Hosts whose certificates misbehave.
const NODES: usize = 8;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Unpacked, ten times what a body may be.
const BOMB_BYTES: usize = 80 << 20;

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Answers, by status.
    pub(super) by_status: std::sync::Mutex<std::collections::BTreeMap<u16, u64>>,
    pub(super) broken: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) half_open: AtomicU64,
}

impl Counts {
    pub(super) fn answered(&self, status: StatusCode) {
        if let Ok(mut counts) = self.by_status.lock() {
            *counts.entry(status.as_u16()).or_default() += 1;
        }
    }

    pub(super) fn all(&self) -> [u64; 3] {
        let answered: u64 = self
            .by_status
            .lock()
            .map_or(0, |counts| counts.values().sum());
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            answered + count(&self.broken),
            count(&self.refused),
            count(&self.half_open),
        ]
    }

    pub(super) fn statuses(&self) -> String {
        let broken = self.broken.load(Ordering::Relaxed);
        format!(
            "answers by status: {:?}, without an answer: {broken}",
            self.by_status.lock()
        )
    }
}

/// Somebody with a certificate who means no good.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) token: String,
    pub(super) http: reqwest::Client,
}

#[derive(Clone)]
pub(super) struct Enemies {
    pub(super) address: String,
    pub(super) certs: PathBuf,
    pub(super) nodes: Vec<Node>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) honest: Arc<Client>,
    pub(super) counts: Arc<Counts>,
    pub(super) gzip_bomb: Vec<u8>,
    pub(super) zstd_bomb: Vec<u8>,
}

impl Enemies {
    pub(super) async fn new(server: &Server, folder: &Path, authority: &Authority) -> Result<Self> {
        let certs = folder.join("certs");
        let mut nodes = Vec::new();
        for at in 0..NODES {
            nodes.push(node(server, &certs, authority, &format!("enemy{at}")).await?);
        }
        let honest = client(server, &certs, authority, "honest")?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![b' '; BOMB_BYTES]).context("a bomb")?;
        Ok(Self {
            address: server.address.clone(),
            certs: certs.clone(),
            nodes,
            tls: Arc::new(config(&certs, None)?),
            honest: Arc::new(honest),
            counts: Arc::default(),
            gzip_bomb: gzip.finish().context("a bomb")?,
            zstd_bomb: zstd::bulk::compress(&vec![b' '; BOMB_BYTES], 19).context("a bomb")?,
        })
    }

    pub(super) fn node(&self) -> &Node {
        &self.nodes[fastrand::usize(..self.nodes.len())]
    }

    /// A sample of this host.
    pub(super) fn post_sample(&self, node: &Node) -> RequestBuilder {
        self.post(node, &sample_path(node), &node.token)
    }

    pub(super) fn post(&self, node: &Node, path: &str, token: &str) -> RequestBuilder {
        let url = format!("https://{}{path}", self.address);
        node.http.post(url).bearer_auth(token)
    }

    pub(super) async fn send(&self, request: RequestBuilder) {
        match request.send().await {
            Ok(answer) => self.counts.answered(answer.status()),
            Err(_) => drop(self.counts.broken.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// After all that, and with all that, the receiver does its work.
    pub(super) async fn check_honest_client(&self) -> Result<()> {
        let host = "honest".parse().context("a name")?;
        let values =
            lizmon_protocol::sample::parse_sample_set(br#"{"cpu":4.98}"#).context("a set")?;
        let epoch = lizmon_protocol::sample::Epoch::new(now()).context("an epoch")?;
        self.honest
            .publish(&host, epoch, &values, None, now())
            .await
            .context("an honest sample is refused")
    }

    pub(super) async fn connect(
        &self,
        config: &Arc<ClientConfig>,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&self.address)
            .await
            .context("a connection")?;
        let name = ServerName::try_from("127.0.0.1").context("a name")?;
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        timeout(REQUEST_TIMEOUT, connector.connect(name, tcp))
            .await
            .context("in time")?
            .context("a handshake")
    }
}

pub(super) fn sample_path(node: &Node) -> String {
    format!("/api/perf/{}/{}", node.name, now())
}

async fn node(server: &Server, certs: &Path, authority: &Authority, name: &str) -> Result<Node> {
    let token = client(server, certs, authority, name)?
        .token(None, now())
        .await
        .context("a token")?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(config(certs, Some(name))?)
        .timeout(REQUEST_TIMEOUT)
        .no_proxy()
        .build()
        .context("an HTTP client")?;
    Ok(Node {
        name: name.to_owned(),
        token: token.access_token,
        http,
    })
}

fn client(server: &Server, certs: &Path, authority: &Authority, name: &str) -> Result<Client> {
    authority
        .issue(
            Request::new(Role::Node, name.parse().context("a name")?),
            now(),
        )
        .context("a certificate")?;
    let [cert, key] = files(certs, name);
    let ca = certs.join("root.crt");
    let url: BaseUrl = format!("https://{}", server.address)
        .parse()
        .context("a URL")?;
    Client::new(url, &Credentials { cert, key, ca }, now()).context("a client")
}

fn files(certs: &Path, name: &str) -> [PathBuf; 2] {
    ["crt", "key"].map(|end| certs.join(format!("nodes/{name}.{end}")))
}

fn config(certs: &Path, name: Option<&str>) -> Result<ClientConfig> {
    let builder = builder(certs)?;
    let Some(name) = name else {
        return Ok(builder.with_no_client_auth());
    };
    let [cert, key] = files(certs, name);
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .context("a chain")?;
    let key = PrivateKeyDer::from_pem_file(key).context("a key")?;
    builder
        .with_client_auth_cert(chain, key)
        .context("a certificate")
}

pub(super) fn builder(
    certs: &Path,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certs.join("root.crt")).context("a root")?)
        .context("a root")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("versions")?
        .with_root_certificates(roots))
}
