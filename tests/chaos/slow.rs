//! Slow clients beside normal ones.

use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lizmon_client::Client;
use lizmon_protocol::name::{Label, NodeName, Role};
use lizmon_protocol::sample::{Epoch, SampleSet, Value};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::netns::TestNetwork;
use crate::programs::{Program, epoch_now, without_lizmon_env};

/// This many clients send their head slowly, and this many their body.
const SLOW: usize = 200;
const CLIENTS: usize = 4;
const QUIET: Duration = Duration::from_secs(5);
const REQUEST_EVERY: Duration = Duration::from_millis(10);
/// A slow client sends a byte this often, so that idle timeouts do not catch it.
const DRIP_EVERY: Duration = Duration::from_millis(500);
/// How much later than its timeout a slow client may be closed, on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// Timeouts of the receiver for heads and bodies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    head: Duration,
    body: Duration,
}

impl Timeouts {
    /// Short ones for a test, or the receiver's defaults.
    pub(crate) fn new(is_default: bool) -> Self {
        let (head, body) = if is_default { (10, 30) } else { (4, 6) };
        Self {
            head: Duration::from_secs(head),
            body: Duration::from_secs(body),
        }
    }
}

/// All slow clients are closed, and no other request fails.
pub(crate) fn run(timeouts: Timeouts) {
    let network = TestNetwork::new();
    let data = network.disk("receiver", 64 << 10);
    let mut command = network.receiver(&data);
    let secs = |time: Duration| format!("{}s", time.as_secs());
    command.args([
        "--first-request-timeout",
        &secs(timeouts.head),
        "--body-timeout",
        &secs(timeouts.body),
    ]);
    let mut receiver = Program::new("liz-receiver", command, network.path("receiver.log"));
    receiver.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let clients: Vec<Arc<Client>> = (0..CLIENTS)
        .map(|at| Arc::new(network.client(Role::Node, &format!("quick{at}"))))
        .collect();
    let slow = network.client(Role::Node, "slow");
    let token = wait_for_token(&runtime, &slow);

    let quiet = runtime.block_on(latencies(&clients, QUIET));
    let heads = slow_heads(&network, timeouts);
    let bodies = runtime.spawn(slow_bodies(
        tls_config(&network),
        network.listen(),
        token,
        timeouts,
    ));
    let duration = timeouts.head.max(timeouts.body);
    let beside = runtime.block_on(latencies(&clients, duration));
    let longest_body = runtime.block_on(bodies).unwrap();
    let heads = heads.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&heads.stdout);
    // Otherwise some connections were still open at its timeout.
    assert!(said.contains("No open connections left"), "{said}");
    receiver.check();
    receiver.end();
    eprintln!(
        "alone: {}; beside {SLOW} slow heads and {SLOW} slow bodies: {}; the last slow body was cut after {longest_body:.1?}",
        percentiles(quiet),
        percentiles(beside)
    );
}

fn wait_for_token(runtime: &tokio::runtime::Runtime, client: &Client) -> String {
    let by = Instant::now() + Duration::from_secs(60);
    loop {
        match runtime.block_on(client.token(None, epoch_now())) {
            Ok(token) => return token.access_token,
            Err(error) => assert!(Instant::now() < by, "{error}"),
        }
        sleep(Duration::from_millis(50));
    }
}

/// Each client posts and reads in turn. Any failed request fails the test.
async fn latencies(clients: &[Arc<Client>], duration: Duration) -> Vec<Duration> {
    let until = Instant::now() + duration;
    let tasks = clients.iter().cloned().map(|client| {
        tokio::spawn(async move {
            let host: NodeName = client.identity().name.clone();
            let values = SampleSet::new(vec![(
                Label::new("cpu").unwrap(),
                Value::new(4.98).unwrap(),
            )]);
            let mut took = Vec::new();
            while Instant::now() < until {
                let now = epoch_now();
                let begun = Instant::now();
                client
                    .publish(&host, Epoch::new(now).unwrap(), &values, None, now)
                    .await
                    .unwrap();
                took.push(begun.elapsed());
                let begun = Instant::now();
                client.summaries(&host, None, now).await.unwrap();
                took.push(begun.elapsed());
                tokio::time::sleep(REQUEST_EVERY).await;
            }
            took
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    format!(
        "{} requests, p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        took.len(),
        at(50),
        at(99),
        at(100)
    )
}

/// slowhttptest has no client certificate: heads are read before one is required.
fn slow_heads(network: &TestNetwork, timeouts: Timeouts) -> std::process::Child {
    let mut command = Command::new("slowhttptest");
    without_lizmon_env(&mut command);
    command.env("TERM", "dumb").args(["-H", "-i", "1"]);
    command.args(["-c", &SLOW.to_string(), "-r", &SLOW.to_string()]);
    command.args(["-l", &(timeouts.head + SLACK).as_secs().to_string()]);
    command.args(["-u", &format!("{}/healthz", network.url())]);
    command.stdout(std::process::Stdio::piped());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("slowhttptest: {error}: install the package slowhttptest"))
}

/// Certificate and token are valid, but the body never ends. Returns how long the last of them was
/// tolerated.
async fn slow_bodies(
    config: ClientConfig,
    address: String,
    token: String,
    timeouts: Timeouts,
) -> Duration {
    let connector = TlsConnector::from(Arc::new(config));
    let tasks = (0..SLOW).map(|_| {
        let (connector, address, token) = (connector.clone(), address.clone(), token.clone());
        tokio::spawn(async move {
            let tcp = TcpStream::connect(&address).await.unwrap();
            let (ip, _) = address.rsplit_once(':').unwrap();
            let name = ServerName::try_from(ip.to_owned()).unwrap();
            let stream = connector.connect(name, tcp).await.unwrap();
            let (read, mut write) = tokio::io::split(stream);
            let head = format!(
                "POST /api/perf/slow/{} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: 4096\r\n\r\n",
                epoch_now()
            );
            write.write_all(head.as_bytes()).await.unwrap();
            let begun = Instant::now();
            let is_cut = tokio::time::timeout(timeouts.body + SLACK, drip_until_cut(read, write));
            let answer = is_cut.await.expect("a slow body is cut");
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            begun.elapsed()
        })
    });
    let mut longest = Duration::ZERO;
    for task in tasks.collect::<Vec<_>>() {
        longest = longest.max(task.await.unwrap());
    }
    longest
}

/// Sends slowly until the receiver closes; returns its response.
async fn drip_until_cut(
    mut read: ReadHalf<TlsStream<TcpStream>>,
    mut write: WriteHalf<TlsStream<TcpStream>>,
) -> String {
    let drip = async {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(DRIP_EVERY).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        // A reset connection has ended as well.
        _closed = read.read_to_end(&mut answer) => (),
        () = drip => (),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn tls_config(network: &TestNetwork) -> ClientConfig {
    let credentials = network.credentials(Role::Node, "slow");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&credentials.ca).unwrap())
        .unwrap();
    let chain = CertificateDer::pem_file_iter(&credentials.cert)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain,
            PrivateKeyDer::from_pem_file(&credentials.key).unwrap(),
        )
        .unwrap()
}
