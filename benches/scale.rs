//! Batches of samples at 1, 2 and 4 receivers on Redis, on one primary and on three: how much CPU
//! time a sample costs at receivers, servers and summarizer, beside a receiver with its embedded
//! store.
//!
//! ```text
//! cargo build --release --bins
//! cargo bench -p lizmon-benches --profile release --bench scale -- [SECONDS]
//! ```
//!
//! Every program is a process of its own. 64 nodes, divided among the receivers, post one batch
//! after another over a connection each. CPU time is read from `/proc/PID/stat`. Linux only.

#![expect(clippy::disallowed_methods, reason = "a benchmark runs in real time")]

mod node;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lizmon_benches::cpu;
use lizmon_benches::program::{Program, built};
use lizmon_engines::{EngineCluster, EngineNode, EngineSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use self::node::{Node, now};

const NODES: usize = 64;
/// Records of a batch, each with two values.
const RECORDS: u64 = 50;
const ISSUER: &str = "https://scale.example";

fn main() -> Result<()> {
    let seconds = std::env::args().skip(1).find(|arg| arg != "--bench");
    let seconds = seconds.map_or(Ok(10), |text| text.parse());
    let lasting = Duration::from_secs(seconds.context("SECONDS")?);
    let folder = tempfile::tempdir().context("a folder")?;
    let nodes = node::certificates(folder.path(), NODES)?;
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    eprintln!("us of CPU a sample: receivers + servers + summarizer; samples a second in all");
    let measure = |name: &str, setup: &Setup| -> Result<()> {
        let measured = runtime.block_on(load(setup, &nodes, lasting))?;
        measured.show(name);
        Ok(())
    };
    measure("embedded", &Setup::start(folder.path(), &[], 1)?)?;
    for count in [1, 2, 4] {
        let server = EngineNode::start(&EngineSettings::redis());
        let setup = Setup::start(folder.path(), &[&server], count)?;
        measure(&format!("1 primary, {count} receivers"), &setup)?;
    }
    for count in [1, 2, 4] {
        let cluster = EngineCluster::start(&EngineSettings::redis(), 3, 0);
        let servers: Vec<_> = cluster.nodes().iter().collect();
        let setup = Setup::start(folder.path(), &servers, count)?;
        measure(&format!("3 primaries, {count} receivers"), &setup)?;
    }
    Ok(())
}

/// What is measured.
struct Setup {
    receivers: Vec<Program>,
    addresses: Vec<SocketAddr>,
    summarizer: Option<Program>,
    servers: Vec<u32>,
    _data: tempfile::TempDir,
}

impl Setup {
    /// So many receivers on these servers; one with an embedded store, if there are none.
    fn start(folder: &Path, servers: &[&EngineNode], count: usize) -> Result<Self> {
        let data = tempfile::tempdir_in(folder).context("a folder")?;
        let certs = folder.join("certs");
        let trust = |command: &mut Command, pair: PathBuf| {
            command.arg("--cert").arg(pair.with_extension("crt"));
            command.arg("--key").arg(pair.with_extension("key"));
            command.arg("--ca").arg(certs.join("root.crt"));
            command.arg("--crl").arg(certs.join("crl.pem"));
            if let Some(server) = servers.first() {
                command.args(["--store", &server.url(), "--accept-lossy-store"]);
            }
        };
        let receiver = |number: usize| {
            let mut command = Command::new(built("liz-receiver")?);
            trust(&mut command, certs.join("receivers/rx"));
            command.args(["--listen", "127.0.0.1:0"]);
            command.args(["--issuer", ISSUER, "--audience", ISSUER]);
            command.arg("--records-per-second").arg("100000000");
            let folder = data.path().join(number.to_string());
            command.arg("--data").arg(folder);
            if !servers.is_empty() {
                command.args(["--min-replicas", "0"]);
            }
            Program::start(command)
        };
        let receivers = (0..count).map(receiver).collect::<Result<Vec<_>>>()?;
        let summarizer = match servers.is_empty() {
            true => None,
            false => {
                let mut command = Command::new(built("liz-summarizer")?);
                trust(&mut command, certs.join("summarizers/sum"));
                Some(Program::start(command)?)
            }
        };
        let addresses = receivers.iter().map(Program::address);
        let addresses = addresses.collect::<Result<_>>()?;
        Ok(Self {
            addresses,
            receivers,
            summarizer,
            servers: servers.iter().filter_map(|server| server.pid()).collect(),
            _data: data,
        })
    }

    /// CPU seconds so far of receivers, servers and summarizer.
    fn cpu(&self) -> Result<[f64; 3]> {
        let sum =
            |pids: &mut dyn Iterator<Item = u32>| -> Result<f64> { pids.map(cpu::secs).sum() };
        Ok([
            sum(&mut self.receivers.iter().map(|one| one.pid()))?,
            sum(&mut self.servers.iter().copied())?,
            sum(&mut self.summarizer.iter().map(|one| one.pid()))?,
        ])
    }
}

struct Measured {
    samples: u64,
    cpu: [f64; 3],
    secs: f64,
}

impl Measured {
    fn show(&self, name: &str) {
        let samples = self.samples as f64;
        let [receivers, servers, summarizer] = self.cpu.map(|secs| secs * 1e6 / samples);
        eprintln!(
            "{name:24} {receivers:6.2} + {servers:5.2} + {summarizer:5.2} us  {:9.0} samples/s",
            samples / self.secs
        );
    }
}

async fn load(setup: &Setup, nodes: &[Node], lasting: Duration) -> Result<Measured> {
    let (stop, counted) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let address = setup.addresses[at % setup.addresses.len()];
        let token = node.token(address).await?;
        let stream = node.connect(address).await?;
        let host = node.name.clone();
        let (stop, counted) = (stop.clone(), counted.clone());
        tasks.push(tokio::spawn(post_batches(
            stream, host, token, stop, counted,
        )));
    }
    // Warm before it counts.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (from, before) = (Instant::now(), counted.load(Ordering::Relaxed));
    let cpu_before = setup.cpu()?;
    tokio::time::sleep(lasting).await;
    let cpu = setup.cpu()?;
    let measured = Measured {
        samples: counted.load(Ordering::Relaxed) - before,
        cpu: [0, 1, 2].map(|at| cpu[at] - cpu_before[at]),
        secs: from.elapsed().as_secs_f64(),
    };
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.context("a connection failed")??;
    }
    Ok(measured)
}

async fn post_batches(
    mut stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    host: String,
    token: String,
    stop: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
) -> Result<()> {
    let producer = Uuid::new_v4();
    let mut answer = [0; 4096];
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        let epoch = now();
        let records = (0..RECORDS).map(|_| {
            seq += 1;
            format!(r#"{{"seq":{seq},"epoch":{epoch},"values":{{"cpu":4.98,"mem":61.2}}}}"#)
        });
        let records = records.collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"producer":"{producer}","records":[{records}]}}"#);
        let request = format!(
            "POST /api/perf/{host} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.context("sent")?;
        let read = stream.read(&mut answer).await.context("an answer")?;
        ensure!(
            answer[..read].starts_with(b"HTTP/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&answer[..read])
        );
        counted.fetch_add(RECORDS, Ordering::Relaxed);
    }
    Ok(())
}
