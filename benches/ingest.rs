//! Single samples over 64 keep-alive mutual-TLS HTTP/1.1 connections: what the receiver does with a
//! second of CPU, beside a bare axum-server handler that reads the body and answers 204 with the
//! same TLS settings.
//!
//! ```text
//! cargo bench -p lizmon-benches --profile dist --bench ingest -- [SECONDS] [ROUNDS]
//! ```
//!
//! `LIZMON_BENCH_UNDER="valgrind --tool=callgrind"` runs the servers under that command, and
//! `LIZMON_BENCH_CONNECTIONS` sets how many connections there are.
//!
//! Both servers run as processes of their own, one after the other in every round, under the same
//! load from this one. Their CPU time is read from `/proc/PID/stat`. Linux only.

#![expect(clippy::disallowed_methods, reason = "a benchmark runs in real time")]

mod node;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::StatusCode;
use lizmon_benches::{bare, cpu};
use lizmon_mtls::trust::TrustFiles;
use lizmon_receiver::{Clocks, Config, Receiver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::node::{Node, now};

const CONNECTIONS: usize = 64;

fn connections() -> Result<usize> {
    let set = std::env::var("LIZMON_BENCH_CONNECTIONS").ok();
    set.map_or(Ok(CONNECTIONS), |count| {
        count.parse().context("LIZMON_BENCH_CONNECTIONS")
    })
}

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
    let handler = |_body: Bytes| async { StatusCode::NO_CONTENT };
    let router = Router::new().route("/api/perf/{host}/{epoch}", post(handler));
    let files = trust_files(folder);
    bare::serve((&files.cert, &files.key, &files.ca), router, tell).await
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
        // Such as `valgrind --tool=callgrind`, which counts instructions.
        let under = std::env::var("LIZMON_BENCH_UNDER").unwrap_or_default();
        let program = std::env::current_exe().context("this program")?;
        let mut words: Vec<_> = under.split_whitespace().map(OsString::from).collect();
        words.extend([program.into(), kind.into(), folder.into()]);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
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

    fn cpu_secs(&self) -> Result<f64> {
        cpu::secs(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // So that what it runs under can write its figures.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ended_before = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _reaped = self.child.wait();
    }
}

fn compare(seconds: u64, rounds: usize) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder")?;
    let nodes = node::certificates(folder.path(), connections()?)?;
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
            node.token(server.address).await?
        } else {
            "x".repeat(700)
        };
        let stream = node.connect(server.address).await?;
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
