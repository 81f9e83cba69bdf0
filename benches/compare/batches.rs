//! Batches of records over HTTP/1.1.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use http::HeaderValue;
use http::header::CONTENT_ENCODING;
use hyper::body::Bytes;
use lizmon_protocol::route;
use lizmon_protocol::sample::BatchAnswer;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::link::{Link, check_stored};
use crate::run::{Figures, Run, measure};
use crate::scene::{Identity, Scene, now};
use crate::server::{Kind, Server};

const CONNECTIONS: usize = 8;
pub(crate) const RECORDS: u64 = 5_000;
pub(crate) const VALUES: u64 = 2;
/// As monitors compress.
const ZSTD_LEVEL: i32 = 3;

/// Posts, measures, and checks that what was acknowledged is stored.
pub(crate) async fn post(scene: &Scene, server: &Server, is_packed: bool) -> Result<Figures> {
    let run = Run::new()?;
    let mut tasks = JoinSet::new();
    for node in scene.nodes(CONNECTIONS) {
        let mut link = Link::open_with_token(node, server).await?;
        if is_packed {
            let zstd = HeaderValue::from_static("zstd");
            link.headers_mut().insert(CONTENT_ENCODING, zstd);
        }
        let producer = Producer {
            id: Uuid::new_v4(),
            node: node.clone(),
            next: 1,
        };
        let is_ours = server.kind == Kind::Ours;
        tasks.spawn(producer.post(link, (is_packed, is_ours), run.clone()));
    }
    let lasting = scene.options.lasting();
    let ([figures], sent) = measure(server, [&run], lasting, tasks).await?;
    let counts: Vec<_> = sent.iter().map(|(node, count)| (&**node, *count)).collect();
    check_stored(scene, server, &counts).await?;
    Ok(figures)
}

struct Producer {
    id: Uuid,
    node: Arc<Identity>,
    next: u64,
}

impl Producer {
    async fn post(
        mut self,
        mut link: Link,
        (is_packed, is_ours): (bool, bool),
        run: Arc<Run>,
    ) -> Result<(Arc<Identity>, u64)> {
        let path = route::host(&self.node.name);
        while !run.is_over() {
            let mut body = self.batch()?.into_bytes();
            if is_packed {
                body = zstd::bulk::compress(&body, ZSTD_LEVEL).context("zstd")?;
            }
            let sent = Instant::now();
            let answer = link.post(&path, Bytes::from(body)).await?;
            run.answered_after(sent.elapsed());
            if is_ours {
                let answer: BatchAnswer = serde_json::from_slice(&answer).context("an answer")?;
                ensure!(answer.accepted == RECORDS, "{answer:?}");
            }
        }
        Ok((self.node, self.next - 1))
    }

    /// The next records, of as many seconds until now.
    fn batch(&mut self) -> Result<String> {
        let mut body = format!(r#"{{"producer":"{}","records":["#, self.id);
        let now = now();
        for at in 0..RECORDS {
            let (seq, epoch) = (self.next + at, now - (RECORDS - 1 - at) % 60);
            let (cpu, mem) = (seq * 37 % 10_000, 6_000 + seq / 7 % 400);
            let comma = if at == 0 { "" } else { "," };
            write!(
                body,
                r#"{comma}{{"seq":{seq},"epoch":{epoch},"values":{{"cpu":{}.{:02},"mem":{}.{:02}}}}}"#,
                cpu / 100,
                cpu % 100,
                mem / 100,
                mem % 100
            )
            .context("a record")?;
        }
        self.next += RECORDS;
        body.push_str("]}");
        Ok(body)
    }
}
