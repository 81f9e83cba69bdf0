//! Single samples over HTTP/2: several streams of each connection at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use lizmon_protocol::route;
use lizmon_protocol::sample::Epoch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bare::TOKEN_BYTES;
use crate::link::{Link, bearer, check_stored, open_http2, uri};
use crate::posts::BODY;
use crate::run::{Figures, Run, measure};
use crate::scene::{Identity, Scene, now};
use crate::server::{Kind, Server};

pub(crate) const CONNECTIONS: usize = 8;
pub(crate) const STREAMS: usize = 32;

/// Posts, measures, and checks that what was acknowledged is stored.
pub(crate) async fn post(scene: &Scene, server: &Server) -> Result<Figures> {
    let run = Run::new()?;
    let mut tasks = JoinSet::new();
    for node in scene.nodes(CONNECTIONS) {
        let token = match server.kind {
            Kind::Ours => Link::open(node, server.address).await?.token().await?,
            _ => "x".repeat(TOKEN_BYTES),
        };
        let mut template = Request::new(());
        *template.method_mut() = Method::POST;
        template
            .headers_mut()
            .insert(AUTHORIZATION, bearer(&token)?);
        let sender = open_http2(node, server.address).await?;
        for _ in 0..STREAMS {
            let stream = Stream {
                sender: sender.clone(),
                node: node.clone(),
                template: template.clone(),
                epoch: 0,
                prefix: uri(server.address, "")?.to_string(),
            };
            tasks.spawn(stream.post(run.clone()));
        }
    }
    let lasting = scene.options.lasting();
    let ([figures], sent) = measure(server, [&run], lasting, tasks).await?;
    let mut counts = BTreeMap::new();
    for (node, count) in &sent {
        counts.entry(&node.name).or_insert((&**node, 0)).1 += count;
    }
    let counts: Vec<_> = counts.into_values().collect();
    check_stored(scene, server, &counts).await?;
    Ok(figures)
}

struct Stream {
    sender: SendRequest<Full<Bytes>>,
    node: Arc<Identity>,
    template: Request<()>,
    epoch: u64,
    prefix: String,
}

impl Stream {
    /// By which node, and how many were acknowledged.
    async fn post(mut self, run: Arc<Run>) -> Result<(Arc<Identity>, u64)> {
        let (mut count, mut sent) = (0, Instant::now());
        while !run.is_over() {
            let epoch = now();
            if epoch != self.epoch {
                self.epoch = epoch;
                let epoch = Epoch::new(epoch).context("the time")?;
                let path = route::sample(&self.node.name, epoch);
                let prefix = self.prefix.trim_end_matches('/');
                *self.template.uri_mut() = format!("{prefix}{path}").parse().context("a URI")?;
            }
            let (head, ()) = self.template.clone().into_parts();
            let body = Full::new(Bytes::from_static(BODY.as_bytes()));
            self.sender.ready().await.context("a stream")?;
            let answer = self.sender.send_request(Request::from_parts(head, body));
            let status = answer.await.context("an answer")?.status();
            ensure!(status == StatusCode::NO_CONTENT, "{status}");
            let done = Instant::now();
            run.answered_after(done - sent);
            (count, sent) = (count + 1, done);
        }
        Ok((self.node, count))
    }
}
