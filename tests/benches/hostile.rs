//! Ten minutes of what nobody should send, against the shipped receiver: its memory stays what it
//! was.
//!
//! ```text
//! cargo build --release -p lizmon-receiver
//! cargo bench -p lizmon-tests --profile release --bench hostile -- [SECONDS] [SECONDS BETWEEN ROWS]
//! ```
//!
//! Several kinds of hostility go on side by side, each in tasks of its own: see [`hostilities`].
//! Prints VmRSS of the receiver's process as the rows of a table, and fails where it has grown
//! since the end of the first tenth by more than [`GROWTH_KIB_MAX`]. Linux only.

#![expect(clippy::disallowed_methods, reason = "a benchmark runs in real time")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_protocol::name::Role;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// What a process may grow by once it is warm: allocators keep some of what was freed.
const GROWTH_KIB_MAX: u64 = 32 << 10;
/// Hosts whose certificates misbehave.
const NODES: usize = 8;
/// Connections that are opened and say nothing, or half of something.
const HALF_OPEN: usize = 200;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The least pause between two of a kind, so that the clients leave the receiver some of the
/// machine.
const PAUSE: Duration = Duration::from_millis(5);
const DEPTH: usize = 100_000;
const WIDTH: usize = 60_000;
/// Unpacked, ten times what a body may be.
const BOMB_BYTES: usize = 80 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<u64> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .map(|arg| arg.parse().context("SECONDS"))
        .collect::<Result<_>>()?;
    let lasting = Duration::from_secs(args.first().copied().unwrap_or(600));
    let row_every = Duration::from_secs(args.get(1).copied().unwrap_or(60));
    let folder = tempfile::tempdir().context("a folder")?;
    let authority = Authority::init(&folder.path().join("certs"), &InitOptions::default(), now())
        .context("a CA")?;
    let mut server = Server::start(folder.path(), &authority)?;
    let enemies = Enemies::new(&server, folder.path(), &authority).await?;
    watch(&mut server, enemies, lasting, row_every).await
}

async fn watch(
    server: &mut Server,
    enemies: Enemies,
    lasting: Duration,
    row_every: Duration,
) -> Result<()> {
    let begun = Instant::now();
    let before = server.rss_kib()?;
    println_row(&[
        "minutes",
        "VmRSS, MiB",
        "requests",
        "handshakes refused",
        "connections half open",
    ]);
    println_row(&["---"; 5]);
    let row = |rss: u64, enemies: &Enemies| {
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        let [requests, refused, half_open] = enemies.counts.all();
        println_row(&[
            &format!("{minutes:.1}"),
            &format!("{:.1}", rss as f64 / 1024.0),
            &requests.to_string(),
            &refused.to_string(),
            &half_open.to_string(),
        ]);
    };
    row(before, &enemies);
    let tasks = hostilities(&enemies);
    let mut warm = None;
    while begun.elapsed() < lasting {
        sleep(row_every.min(lasting.saturating_sub(begun.elapsed()))).await;
        let rss = server.rss_kib()?;
        row(rss, &enemies);
        if warm.is_none() && begun.elapsed() * 10 >= lasting {
            warm = Some(rss);
        }
        if let Some(task) = tasks.iter().find(|task| task.is_finished()) {
            bail!("a client gave up: {task:?}");
        }
    }
    for task in &tasks {
        task.abort();
    }
    sleep(row_every.min(Duration::from_secs(15))).await;
    let after = server.rss_kib()?;
    row(after, &enemies);
    eprintln!("{}", enemies.counts.statuses());
    enemies.check_honest_client().await?;
    let warm = warm.unwrap_or(after);
    ensure!(
        after <= warm + GROWTH_KIB_MAX,
        "the receiver has grown from {warm} KiB to {after} KiB"
    );
    Ok(())
}

fn println_row(cells: &[&str]) {
    eprintln!("| {} |", cells.join(" | "));
}

#[expect(clippy::disallowed_methods, reason = "the edge of the process")]
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The shipped receiver; ended when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path, authority: &Authority) -> Result<Self> {
        let mut request = Request::new(Role::Receiver, "rx".parse().context("a name")?);
        request.sans = vec!["127.0.0.1".parse().context("a SAN")?];
        authority.issue(request, now()).context("a certificate")?;
        let here = std::env::current_exe().context("this program")?;
        let program = here
            .ancestors()
            .nth(2)
            .context("a folder")?
            .join("liz-receiver");
        let file = |name: &str| folder.join("certs").join(name);
        let mut child = Command::new(&program)
            .args(["--listen", "127.0.0.1:0"])
            // Else all is refused after five minutes for a token that has ended.
            .args(["--token-ttl", "2h"])
            .arg("--cert")
            .arg(file("receivers/rx.crt"))
            .arg("--key")
            .arg(file("receivers/rx.key"))
            .arg("--ca")
            .arg(file("root.crt"))
            .arg("--crl")
            .arg(file("crl.pem"))
            .arg("--data")
            .arg(folder.join("data"))
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: build it first", program.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("its log")?).lines();
        let ready = loop {
            let line = lines.next().context("READY")?.context("a line")?;
            if line.contains("READY") {
                break line;
            }
        };
        let port: String = ready
            .split_once("127.0.0.1:")
            .context("an address")?
            .1
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        // What it logs from now on is nobody's, but its pipe must not fill.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            child,
            address: format!("127.0.0.1:{port}"),
        })
    }

    fn rss_kib(&mut self) -> Result<u64> {
        if let Some(status) = self.child.try_wait().context("its state")? {
            bail!("the receiver ended: {status}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("its status")?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("VmRSS")?;
        line.split_whitespace()
            .nth(1)
            .context("a number")?
            .parse()
            .context("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Answers, by status.
    by_status: std::sync::Mutex<std::collections::BTreeMap<u16, u64>>,
    broken: AtomicU64,
    refused: AtomicU64,
    half_open: AtomicU64,
}

impl Counts {
    fn answered(&self, status: StatusCode) {
        if let Ok(mut counts) = self.by_status.lock() {
            *counts.entry(status.as_u16()).or_default() += 1;
        }
    }

    fn all(&self) -> [u64; 3] {
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

    fn statuses(&self) -> String {
        let broken = self.broken.load(Ordering::Relaxed);
        format!(
            "answers by status: {:?}, without an answer: {broken}",
            self.by_status.lock()
        )
    }
}

/// Somebody with a certificate who means no good.
#[derive(Clone)]
struct Node {
    name: String,
    token: String,
    http: reqwest::Client,
}

#[derive(Clone)]
struct Enemies {
    address: String,
    certs: PathBuf,
    nodes: Vec<Node>,
    tls: Arc<ClientConfig>,
    honest: Arc<Client>,
    counts: Arc<Counts>,
    gzip_bomb: Vec<u8>,
    zstd_bomb: Vec<u8>,
}

impl Enemies {
    async fn new(server: &Server, folder: &Path, authority: &Authority) -> Result<Self> {
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

    fn node(&self) -> &Node {
        &self.nodes[fastrand::usize(..self.nodes.len())]
    }

    async fn post(
        &self,
        node: &Node,
        path: &str,
        token: &str,
        encoding: Option<&str>,
        key: Option<String>,
        body: Vec<u8>,
    ) {
        let url = format!("https://{}{path}", self.address);
        let mut request = node
            .http
            .post(url)
            .header("Authorization", format!("Bearer {token}"))
            .body(body);
        if let Some(encoding) = encoding {
            request = request.header("Content-Encoding", encoding);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        match request.send().await {
            Ok(answer) => self.counts.answered(answer.status()),
            Err(_) => drop(self.counts.broken.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// After all that, and with all that, the receiver does its work.
    async fn check_honest_client(&self) -> Result<()> {
        let host = "honest".parse().context("a name")?;
        let values =
            lizmon_protocol::sample::parse_sample_set(br#"{"cpu":4.98}"#).context("a set")?;
        let epoch = lizmon_protocol::sample::Epoch::new(now()).context("an epoch")?;
        self.honest
            .publish(&host, epoch, &values, None, now())
            .await
            .context("an honest sample is refused")
    }
}

/// What goes on side by side, each kind one after another.
fn hostilities(enemies: &Enemies) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    macro_rules! for_ever {
        ($hostility:ident) => {{
            let enemies = enemies.clone();
            tasks.push(tokio::spawn(async move {
                loop {
                    $hostility(&enemies).await;
                    sleep(PAUSE).await;
                }
            }));
        }};
    }
    for_ever!(malformed_bodies);
    for_ever!(deep_and_wide_bodies);
    for_ever!(bombs);
    for_ever!(wrong_tokens);
    for_ever!(wrong_tokens);
    for_ever!(new_labels);
    for_ever!(new_producers);
    for_ever!(abandoned_bodies);
    for_ever!(strange_certificates);
    for_ever!(noise_over_tls);
    for _ in 0..HALF_OPEN {
        for_ever!(half_open);
    }
    tasks
}

fn sample_path(node: &Node) -> String {
    format!("/api/perf/{}/{}", node.name, now())
}

async fn malformed_bodies(enemies: &Enemies) {
    let node = enemies.node();
    let mut body = br#"{"producer":"1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b","records":[{"seq":17,"epoch":1465001814,"values":{"cpu":4.98}}]}"#.to_vec();
    for _ in 0..fastrand::usize(1..8) {
        let at = fastrand::usize(..body.len());
        match fastrand::bool() {
            true => body[at] = fastrand::u8(..),
            false => body.truncate(at.max(1)),
        }
    }
    let path = match fastrand::bool() {
        true => sample_path(node),
        false => format!("/api/perf/{}", node.name),
    };
    enemies
        .post(node, &path, &node.token, None, None, body)
        .await;
}

async fn deep_and_wide_bodies(enemies: &Enemies) {
    let node = enemies.node();
    let body = match fastrand::u8(..3) {
        0 => "[".repeat(DEPTH),
        1 => format!("{{\"cpu\":{}", "{\"a\":".repeat(DEPTH)),
        _ => {
            let labels: Vec<String> = (0..WIDTH).map(|at| format!("\"label{at}\":{at}")).collect();
            format!("{{{}}}", labels.join(","))
        }
    };
    enemies
        .post(
            node,
            &sample_path(node),
            &node.token,
            None,
            None,
            body.into_bytes(),
        )
        .await;
}

async fn bombs(enemies: &Enemies) {
    let node = enemies.node();
    let (encoding, bomb) = match fastrand::bool() {
        true => ("gzip", &enemies.gzip_bomb),
        false => ("zstd", &enemies.zstd_bomb),
    };
    enemies
        .post(
            node,
            &sample_path(node),
            &node.token,
            Some(encoding),
            None,
            bomb.clone(),
        )
        .await;
}

/// Each is another: whatever remembers tokens must be bounded.
async fn wrong_tokens(enemies: &Enemies) {
    let node = enemies.node();
    let mut token = match fastrand::u8(..3) {
        0 => node.token.clone(),
        1 => enemies.node().token.clone(),
        _ => (0..fastrand::usize(1..2_000))
            .map(|_| fastrand::alphanumeric())
            .collect(),
    };
    let at = fastrand::usize(..token.len());
    token.replace_range(at..=at, &fastrand::alphanumeric().to_string());
    enemies
        .post(
            node,
            &sample_path(node),
            &token,
            None,
            None,
            br#"{"cpu":1}"#.to_vec(),
        )
        .await;
}

/// Up to the labels a host may have, and on and on.
async fn new_labels(enemies: &Enemies) {
    let node = enemies.node();
    let labels: Vec<String> = (0..20)
        .map(|_| format!("\"{:0128x}\":1", fastrand::u128(..)))
        .collect();
    let body = format!("{{{}}}", labels.join(","));
    enemies
        .post(
            node,
            &sample_path(node),
            &node.token,
            None,
            None,
            body.into_bytes(),
        )
        .await;
}

/// Each number comes from a producer unheard of, or leaves a gap.
async fn new_producers(enemies: &Enemies) {
    let node = enemies.node();
    let producer = match fastrand::bool() {
        true => uuid::Uuid::from_u128(fastrand::u128(..)),
        false => uuid::Uuid::from_u128(7),
    };
    let key = format!("\"{producer}/{}\"", fastrand::u64(1..1 << 53));
    enemies
        .post(
            node,
            &sample_path(node),
            &node.token,
            None,
            Some(key),
            br#"{"cpu":1}"#.to_vec(),
        )
        .await;
}

/// A megabyte is announced, a part is sent, and that was that.
async fn abandoned_bodies(enemies: &Enemies) {
    let node = enemies.node();
    let Ok(mut stream) = connect(enemies, &enemies.tls).await else {
        return;
    };
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1048576\r\n\r\n",
        sample_path(node),
        node.token
    );
    let _refused = stream.write_all(head.as_bytes()).await;
    let _refused = stream
        .write_all(&vec![b' '; fastrand::usize(..500_000)])
        .await;
    let _refused = stream.flush().await;
    enemies.counts.broken.fetch_add(1, Ordering::Relaxed);
}

/// A certificate of a CA that nobody knows, another each time.
async fn strange_certificates(enemies: &Enemies) {
    let Ok((chain, key)) = strange_certificate() else {
        return;
    };
    let Ok(builder) = builder(&enemies.certs) else {
        return;
    };
    let Ok(config) = builder.with_client_auth_cert(vec![chain], key) else {
        return;
    };
    let mut answer = [0; 1];
    let is_let_in = match connect(enemies, &Arc::new(config)).await {
        Ok(mut stream) => stream.read(&mut answer).await.is_ok(),
        Err(_) => false,
    };
    if !is_let_in {
        enemies.counts.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn strange_certificate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error>
{
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    let name = format!("spiffe://lizmon.internal/node/{}", fastrand::u64(..));
    params.subject_alt_names = vec![rcgen::SanType::URI(name.as_str().try_into()?)];
    let cert = params.self_signed(&key)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok((cert.der().clone(), key.into()))
}

/// Bytes that are neither HTTP/1 nor HTTP/2, over a connection that is.
async fn noise_over_tls(enemies: &Enemies) {
    let Ok(mut stream) = connect(enemies, &enemies.tls).await else {
        return;
    };
    let mut noise: Vec<u8> = match fastrand::bool() {
        true => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        false => Vec::new(),
    };
    noise.extend((0..fastrand::usize(1..20_000)).map(|_| fastrand::u8(..)));
    let _refused = stream.write_all(&noise).await;
    let mut answer = Vec::new();
    let _closed = timeout(Duration::from_secs(1), stream.read_to_end(&mut answer)).await;
    enemies.counts.broken.fetch_add(1, Ordering::Relaxed);
}

/// Nothing is said, or the beginning of a handshake; held until the receiver has enough of it.
async fn half_open(enemies: &Enemies) {
    let Ok(mut stream) = TcpStream::connect(&enemies.address).await else {
        return sleep(Duration::from_secs(1)).await;
    };
    enemies.counts.half_open.fetch_add(1, Ordering::Relaxed);
    // A ClientHello's first bytes, announcing far more.
    let _refused = stream
        .write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f][..fastrand::usize(..9)])
        .await;
    let mut answer = Vec::new();
    let _closed = timeout(Duration::from_secs(120), stream.read_to_end(&mut answer)).await;
}

async fn connect(
    enemies: &Enemies,
    config: &Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(&enemies.address)
        .await
        .context("a connection")?;
    let name = ServerName::try_from("127.0.0.1").context("a name")?;
    let connector = tokio_rustls::TlsConnector::from(config.clone());
    timeout(REQUEST_TIMEOUT, connector.connect(name, tcp))
        .await
        .context("in time")?
        .context("a handshake")
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

fn builder(
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
