//! Nodes that start: a TCP connection, a full TLS handshake, a token, and the first sample.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use hyper::body::Bytes;
use lizmon_protocol::route;
use lizmon_protocol::sample::Epoch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::link::{Link, check_stored};
use crate::posts::BODY;
use crate::run::{Figures, Run, measure};
use crate::scene::{Identity, Scene, now};
use crate::server::Server;

/// So many nodes at once.
const NODES: usize = 16;

/// Starts over and over, measures, and checks that what was acknowledged is stored.
pub(crate) async fn start(scene: &Scene, server: &Server) -> Result<Figures> {
    let run = Run::new()?;
    let mut tasks = JoinSet::new();
    for node in scene.nodes(NODES) {
        let (node, run, address) = (node.clone(), run.clone(), server.address);
        tasks.spawn(async move {
            let mut count = 0_u64;
            while !run.is_over() {
                let began = Instant::now();
                let mut link = Link::open(&node, address).await?;
                let token = link.token().await?;
                link.use_token(&token)?;
                let epoch = Epoch::new(now()).context("the time")?;
                let body = Bytes::from_static(BODY.as_bytes());
                link.post(&route::sample(&node.name, epoch), body).await?;
                run.answered_after(began.elapsed());
                count += 1;
            }
            Ok::<_, anyhow::Error>((node, count))
        });
    }
    let lasting = scene.options.lasting();
    let ([figures], sent) = measure(server, [&run], lasting, tasks).await?;
    let sent: Vec<(Arc<Identity>, u64)> = sent;
    let counts: Vec<_> = sent.iter().map(|(node, count)| (&**node, *count)).collect();
    check_stored(scene, server, &counts).await?;
    Ok(figures)
}
