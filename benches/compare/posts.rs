//! Single samples over keep-alive HTTP/1.1 connections, as cheaply as they can be sent: each request
//! is the one before, with the time put in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::client::TlsStream;

use crate::bare::TOKEN_BYTES;
use crate::link::{Link, check_stored, connect};
use crate::run::{Figures, Run, measure};
use crate::scene::{Identity, Scene, now};
use crate::server::{Kind, Server};

pub(crate) const BODY: &str = r#"{"cpu":4.98,"mem":61.2}"#;
/// So many handshakes at once.
const CONNECTING_MAX: usize = 32;
/// How long all of them may take.
const CONNECTED_WITHIN: Duration = Duration::from_secs(180);
/// The same node has this many connections at most, or there are no more nodes.
const NODES_MAX: usize = 512;

/// How many connections post, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Posts {
    pub(crate) connections: usize,
    /// Requests a second of all of them; `None` for as fast as they are answered.
    pub(crate) rate: Option<f64>,
    pub(crate) lasting: Duration,
}

/// Posts, measures, and checks that what was acknowledged is stored.
pub(crate) async fn post(scene: &Scene, server: &Server, posts: Posts) -> Result<Figures> {
    let started = start(scene, server, posts).await?;
    let run = started.run.clone();
    let ([figures], sent) = measure(server, [&run], posts.lasting, started.tasks).await?;
    check(scene, server, sent).await?;
    Ok(figures)
}

/// A load that is running.
pub(crate) struct Started {
    pub(crate) run: Arc<Run>,
    pub(crate) tasks: JoinSet<Result<Sent>>,
}

/// By which node, and how many samples were acknowledged.
pub(crate) type Sent = (Arc<Identity>, u64);

/// Connects, and starts to post.
pub(crate) async fn start(scene: &Scene, server: &Server, posts: Posts) -> Result<Started> {
    let run = Run::new()?;
    let nodes = scene.nodes(posts.connections.min(NODES_MAX));
    let mut tokens = Vec::with_capacity(nodes.len());
    for node in nodes {
        tokens.push(match server.kind {
            Kind::Ours => Link::open(node, server.address).await?.token().await?,
            _ => "x".repeat(TOKEN_BYTES),
        });
    }
    let (go, went) = watch::channel(posts.rate.is_some());
    let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
    let connected = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for at in 0..posts.connections {
        let node = nodes[at % nodes.len()].clone();
        let token = tokens[at % nodes.len()].clone();
        let pace = posts.rate.map(|rate| Pace {
            next: began + Duration::from_secs_f64(at as f64 / rate),
            every: Duration::from_secs_f64(posts.connections as f64 / rate),
        });
        let (run, mut went, address) = (run.clone(), went.clone(), server.address);
        let (connecting, connected) = (connecting.clone(), connected.clone());
        tasks.spawn(async move {
            let permit = connecting.acquire().await.context("a turn")?;
            let stream = connect(&node, address, None).await?;
            drop(permit);
            connected.fetch_add(1, Ordering::Relaxed);
            went.wait_for(|went| *went).await.context("the start")?;
            let mut connection = Connection::new(stream, &node, &token)?;
            let count = match pace {
                None => connection.post_flat_out(&run).await?,
                Some(pace) => connection.post_paced(&run, pace).await?,
            };
            Ok((node, count))
        });
    }
    while connected.load(Ordering::Relaxed) < posts.connections {
        if let Some(ended) = tasks.try_join_next() {
            ended.context("a task")??;
        }
        if began.elapsed() > CONNECTED_WITHIN {
            bail!("not all are connected: {connected:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    go.send(true).context("the start")?;
    Ok(Started { run, tasks })
}

/// Whether the receiver has all of it.
pub(crate) async fn check(scene: &Scene, server: &Server, sent: Vec<Sent>) -> Result<()> {
    let mut counts = BTreeMap::new();
    for (node, count) in &sent {
        counts.entry(&node.name).or_insert((&**node, 0)).1 += count;
    }
    let counts: Vec<_> = counts.into_values().collect();
    check_stored(scene, server, &counts).await
}

/// When a connection sends.
struct Pace {
    next: Instant,
    every: Duration,
}

struct Connection {
    stream: TlsStream<TcpStream>,
    request: Vec<u8>,
    epoch: u64,
    /// Where the request has it.
    epoch_at: Range<usize>,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, node: &Identity, token: &str) -> Result<Self> {
        let path = format!("POST /api/perf/{}/", node.name);
        let epoch = now();
        let digits = epoch.to_string();
        let request = format!(
            "{path}{digits} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        Ok(Self {
            stream,
            request: request.into_bytes(),
            epoch,
            epoch_at: path.len()..path.len() + digits.len(),
        })
    }

    /// How many were acknowledged.
    async fn post_flat_out(&mut self, run: &Run) -> Result<u64> {
        let (mut count, mut sent) = (0, Instant::now());
        while !run.is_over() {
            self.post().await?;
            let done = Instant::now();
            run.answered_after(done - sent);
            (count, sent) = (count + 1, done);
        }
        Ok(count)
    }

    /// A request whose turn comes while the one before is not answered is late by the server's
    /// doing, and counts from its turn. Else it counts from when it is sent: that timers are a
    /// millisecond coarse is the load's doing.
    async fn post_paced(&mut self, run: &Run, mut pace: Pace) -> Result<u64> {
        let (mut count, mut free) = (0, Instant::now());
        while pace.next < free {
            pace.next += pace.every;
        }
        loop {
            if pace.next > free {
                sleep_until(pace.next).await;
            }
            if run.is_over() {
                return Ok(count);
            }
            let from = if pace.next > free {
                Instant::now()
            } else {
                pace.next
            };
            self.post().await?;
            free = Instant::now();
            run.answered_after(free - from);
            (count, pace.next) = (count + 1, pace.next + pace.every);
        }
    }

    async fn post(&mut self) -> Result<()> {
        let epoch = now();
        if epoch != self.epoch {
            self.epoch = epoch;
            let digits = epoch.to_string();
            self.request[self.epoch_at.clone()].copy_from_slice(digits.as_bytes());
        }
        self.stream.write_all(&self.request).await.context("sent")?;
        let mut answer = [0; 1_024];
        let read = self.stream.read(&mut answer).await.context("an answer")?;
        ensure!(
            answer[..read].starts_with(b"HTTP/1.1 204 "),
            "{}",
            String::from_utf8_lossy(&answer[..read])
        );
        Ok(())
    }
}
