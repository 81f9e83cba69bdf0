//! Queries of a host of ten labels whose windows are full: alone, and beside samples.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::body::Bytes;
use lizmon_protocol::route;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::bare::BYTES;
use crate::link::Link;
use crate::posts::{self, Posts};
use crate::run::{Figures, Run, measure};
use crate::scene::{Scene, now};
use crate::server::{Kind, Server};

const CONNECTIONS: usize = 8;
/// A receiver's answer to the query: a little more or less for the digits of the time.
const ANSWER_BYTES: usize = 104_000;
/// Beside samples, so many queries a second over one connection.
const RATE: u32 = 200;

/// As fast as they are answered; the baseline answers with as many bytes.
pub(crate) async fn query(scene: &Scene, server: &Server) -> Result<Figures> {
    let run = Run::new()?;
    let path = prepare(scene, server).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let link = Link::open_with_token(scene.reader(), server).await?;
        tasks.spawn(ask(link, path.clone(), (run.clone(), None)));
    }
    let ([figures], _) = measure(server, [&run], scene.options.lasting(), tasks).await?;
    Ok(figures)
}

/// Figures of samples at this rate, and of queries beside them.
pub(crate) async fn query_beside(
    scene: &Scene,
    server: &Server,
    posts: Posts,
) -> Result<[Figures; 2]> {
    let path = prepare(scene, server).await?;
    let mut started = posts::start(scene, server, posts).await?;
    let (queries, every) = (Run::new()?, Duration::from_secs(1) / RATE);
    let link = Link::open_with_token(scene.reader(), server).await?;
    let asking = ask(link, path, (queries.clone(), Some(every)));
    // Nothing of it is for the check of what is stored.
    let node = scene.nodes(1)[0].clone();
    started
        .tasks
        .spawn(async move { asking.await.map(|()| (node, 0)) });
    let runs = [&*started.run, &*queries];
    let (figures, sent) = measure(server, runs, posts.lasting, started.tasks).await?;
    posts::check(scene, server, sent).await?;
    Ok(figures)
}

/// Fills the windows of a host, and says which path shows it.
async fn prepare(scene: &Scene, server: &Server) -> Result<String> {
    if server.kind != Kind::Ours {
        return Ok(format!("{BYTES}/{ANSWER_BYTES}"));
    }
    // A host that no samples are posted for.
    let node = scene.nodes(usize::MAX).last().context("a node")?;
    let path = route::host(&node.name);
    let mut link = Link::open_with_token(node, server).await?;
    link.post(&path, Bytes::from(filling()?)).await?;
    let mut reader = Link::open_with_token(scene.reader(), server).await?;
    let bytes = reader.get(&path).await?.len();
    let is_full = bytes.abs_diff(ANSWER_BYTES) < ANSWER_BYTES / 10;
    ensure!(is_full, "{bytes} bytes, not {ANSWER_BYTES}");
    Ok(path)
}

/// A sample of ten labels in each minute of the last hour and each hour of the last day.
fn filling() -> Result<String> {
    let now = now();
    let hours = (1..24).rev().map(|ago| now - ago * 3_600);
    let minutes = (0..60).rev().map(|ago| now - ago * 60);
    let producer = uuid::Uuid::new_v4();
    let mut body = format!(r#"{{"producer":"{producer}","records":["#);
    for (at, epoch) in hours.chain(minutes).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let values =
            (0..10).map(|label| format!(r#""label-{label}":{}.25"#, 10 + (at + label) % 80));
        let values = values.collect::<Vec<_>>().join(",");
        write!(
            body,
            r#"{comma}{{"seq":{},"epoch":{epoch},"values":{{{values}}}}}"#,
            at + 1
        )
        .context("a record")?;
    }
    Ok(body + "]}")
}

async fn ask(
    mut link: Link,
    path: String,
    (run, every): (Arc<Run>, Option<Duration>),
) -> Result<()> {
    let mut next = Instant::now();
    while !run.is_over() {
        let free = Instant::now();
        let mut from = free;
        if let Some(every) = every {
            next += every;
            if next > free {
                sleep_until(next).await;
                from = Instant::now();
            } else {
                from = next;
            }
        }
        link.get(&path).await?;
        run.answered_after(from.elapsed());
    }
    Ok(())
}
