//! Single samples over 64 keep-alive mutual-TLS HTTP/1.1 connections: what the receiver does with a
//! second of CPU, beside a bare axum-server handler that reads the body and answers 204 with the
//! same TLS configuration.
//!
//! ```text
//! cargo bench -p lizmon-tests --profile dist --bench ingest -- [SECONDS] [ROUNDS]
//! ```
//!
//! Both servers run as processes of their own, one after the other in every round, under the same
//! load from this one. Their CPU time is read from `/proc/PID/stat`. Linux only.

#![expect(clippy::disallowed_methods, reason = "a benchmark runs in real time")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::StatusCode;
use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_mtls::TlsMin;
use lizmon_mtls::trust::{TrustFiles, TrustWriter};
use lizmon_protocol::name::Role;
use lizmon_receiver::{Clock, Clocks, Config, Receiver};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const CONNECTIONS: usize = 64;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve-bare", folder] => serve_bare(Path::new(folder)),
        ["serve-receiver", folder] => serve_receiver(Path::new(folder)),
        [] => compare(10, 3),
        [seconds] => compare(seconds.parse().context("SECONDS")?, 3),
        [seconds, rounds, ..] => compare(
            seconds.parse().context("SECONDS")?,
            rounds.parse().context("ROUNDS")?,
        ),
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge of the process")]
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn trust_files(folder: &Path) -> TrustFiles {
    let certs = folder.join("certs");
    TrustFiles {
        cert: certs.join("receivers/rx.crt"),
        key: certs.join("receivers/rx.key"),
        ca: certs.join("root.crt"),
        crl: certs.join("crl.pem"),
    }
}

fn listen() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").context("a free port")
}

fn tell(address: SocketAddr) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{address}")
        .and_then(|()| stdout.flush())
        .context("the parent reads")
}

#[tokio::main]
async fn serve_bare(folder: &Path) -> Result<()> {
    let clock: Clock = Arc::new(now);
    let (_writer, trust) =
        TrustWriter::open(trust_files(folder), clock, TlsMin::default()).context("trust")?;
    let listener = listen()?;
    tell(listener.local_addr().context("an address")?)?;
    let handler = |_body: Bytes| async { StatusCode::NO_CONTENT };
    let router = Router::new().route("/api/perf/{host}/{epoch}", post(handler));
    let config =
        axum_server::tls_rustls::RustlsConfig::from_config(trust.current().server_config());
    let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(config)
        .acceptor(axum_server::accept::NoDelayAcceptor);
    let server = axum_server::from_tcp(listener)
        .context("a server")?
        .acceptor(acceptor);
    server
        .serve(router.into_make_service())
        .await
        .context("served")
}

#[tokio::main]
async fn serve_receiver(folder: &Path) -> Result<()> {
    let data = tempfile::tempdir_in(folder).context("a folder")?;
    let mut config = Config::new(trust_files(folder), data.path().to_owned());
    // For trying windows: LIZMON_BENCH_GATHER_MICROS=0
    if let Ok(micros) = std::env::var("LIZMON_BENCH_GATHER_MICROS") {
        config.gather_window =
            Duration::from_micros(micros.parse().context("LIZMON_BENCH_GATHER_MICROS")?);
    }
    let listener = listen()?;
    let address = listener.local_addr().context("an address")?;
    let receiver = Receiver::start(listener, config, Clocks::of_one(Arc::new(now)))
        .await
        .context("a receiver")?;
    tell(address)?;
    receiver.run(std::future::pending()).await.context("served")
}

/// A server in a process of its own; ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(kind: &str, folder: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("this program")?)
            .args([kind, &folder.display().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("a process")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("its output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
            .context("its address")?;
        let address = line.trim().parse().context("an address")?;
        Ok(Self { child, address })
    }

    /// User and system time so far, in seconds: proc(5), fields 14 and 15.
    fn cpu_secs(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .context("its stat")?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks: u64 = [fields[11], fields[12]]
            .iter()
            .map(|field| field.parse::<u64>())
            .sum::<Result<_, _>>()
            .context("ticks")?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn compare(seconds: u64, rounds: usize) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder")?;
    let nodes = make_certificates(folder.path())?;
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    let mut totals = [(0_u64, 0.0_f64); 2];
    for _ in 0..rounds {
        for (total, kind) in totals.iter_mut().zip(["serve-bare", "serve-receiver"]) {
            let server = Server::start(kind, folder.path())?;
            let (requests, cpu, wall) =
                runtime.block_on(load(&server, &nodes, kind, Duration::from_secs(seconds)))?;
            eprintln!(
                "{kind:15} {:8.0} requests/s  {:8.0} requests per server CPU second",
                requests as f64 / wall,
                requests as f64 / cpu
            );
            *total = (total.0 + requests, total.1 + cpu);
        }
    }
    let [bare, receiver] = totals.map(|(requests, cpu)| requests as f64 / cpu);
    eprintln!(
        "bare {bare:.0}, receiver {receiver:.0} requests per server CPU second: {:.2}",
        receiver / bare
    );
    Ok(())
}

struct Node {
    name: String,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

fn make_certificates(folder: &Path) -> Result<Vec<Node>> {
    let certs = folder.join("certs");
    let authority = Authority::init(&certs, &InitOptions::default(), now()).context("a CA")?;
    let mut request = Request::new(Role::Receiver, "rx".parse().context("a name")?);
    request.sans = vec!["127.0.0.1".parse().context("a SAN")?];
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
    (0..CONNECTIONS).map(node).collect()
}

/// Keeps every connection busy for a while: requests answered, the server's CPU seconds, seconds on
/// the clock.
async fn load(
    server: &Server,
    nodes: &[Node],
    kind: &str,
    lasting: Duration,
) -> Result<(u64, f64, f64)> {
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = Vec::new();
    for node in nodes {
        let token = if kind == "serve-receiver" {
            token(server.address, node).await?
        } else {
            "x".repeat(700)
        };
        let stream = connect(server.address, node).await?;
        tasks.push(tokio::spawn(post_samples(
            stream,
            node.name.clone(),
            token,
            stop.clone(),
            answered.clone(),
        )));
    }
    // Warm before it counts.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (from, cpu, before) = (
        Instant::now(),
        server.cpu_secs()?,
        answered.load(Ordering::Relaxed),
    );
    tokio::time::sleep(lasting).await;
    let (wall, cpu) = (from.elapsed().as_secs_f64(), server.cpu_secs()? - cpu);
    let requests = answered.load(Ordering::Relaxed) - before;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.context("a connection failed")??;
    }
    Ok((requests, cpu, wall))
}

async fn token(address: SocketAddr, node: &Node) -> Result<String> {
    let credentials = Credentials {
        cert: node.cert.clone(),
        key: node.key.clone(),
        ca: node.ca.clone(),
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

async fn connect(
    address: SocketAddr,
    node: &Node,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&node.ca).context("a root")?)
        .context("a root")?;
    let chain = CertificateDer::pem_file_iter(&node.cert)
        .and_then(Iterator::collect)
        .context("a chain")?;
    let key = PrivateKeyDer::from_pem_file(&node.key).context("a key")?;
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

async fn post_samples(
    mut stream: tokio_rustls::client::TlsStream<TcpStream>,
    host: String,
    token: String,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Result<()> {
    let mut answer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let body = r#"{"cpu":4.98,"mem":61.2}"#;
        let request = format!(
            "POST /api/perf/{host}/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            now(),
            body.len()
        );
        stream.write_all(request.as_bytes()).await.context("sent")?;
        let read = stream.read(&mut answer).await.context("an answer")?;
        ensure!(
            answer[..read].starts_with(b"HTTP/1.1 204 "),
            "{}",
            String::from_utf8_lossy(&answer[..read])
        );
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
