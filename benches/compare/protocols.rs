//! The same samples by each protocol: the server's CPU time for a sample.

mod bodies;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::HeaderValue;
use http::header::CONTENT_ENCODING;
use lizmon_protocol::route;
use lizmon_protocol::summary::Summaries;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::bodies::{Bodies, Division, SERIES};
use crate::foreign::has_victoria;
use crate::goal::{Round, Row};
use crate::link::Link;
use crate::scene::{Identity, Placing, Scene};
use crate::server::{Kind, Server};

/// Each with a connection.
const HOSTS: usize = 8;
/// After the last answer: what is in memory by then is written within this time, and counts.
const WRITTEN_WITHIN: Duration = Duration::from_secs(6);

/// As OTLP/HTTP has it.
const OTLP: &str = "/v1/metrics";

/// How samples are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Batches,
    RemoteWrite,
    Otlp,
    OtlpJson,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Batches, Self::RemoteWrite, Self::Otlp, Self::OtlpJson];

    fn id(self) -> &'static str {
        match self {
            Self::Batches => "batches",
            Self::RemoteWrite => "write",
            Self::Otlp => "otlp",
            Self::OtlpJson => "otlp-json",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Batches => "JSON batches",
            Self::RemoteWrite => "remote write",
            Self::Otlp => "OTLP, protobuf",
            Self::OtlpJson => "OTLP, JSON",
        }
    }

    /// Where a host's requests go, of which type, and how they are compressed.
    fn target(self, host: &Identity) -> (String, &'static str, Option<&'static str>) {
        match self {
            Self::Batches => (route::host(&host.name), "application/json", None),
            Self::RemoteWrite => (
                route::REMOTE_WRITE.to_owned(),
                "application/x-protobuf",
                Some("snappy"),
            ),
            Self::Otlp => (OTLP.to_owned(), "application/x-protobuf", None),
            Self::OtlpJson => (OTLP.to_owned(), "application/json", None),
        }
    }
}

/// A server, and what it is sent.
type Contender = (Kind, Protocol);
const VICTORIA: Contender = (Kind::Victoria, Protocol::RemoteWrite);

pub(crate) fn scrapes(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    rows(scene, id, Division::Scrapes)
}

pub(crate) fn steps(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    rows(scene, id, Division::Steps)
}

/// All contenders in turn, round after round.
fn rows(scene: &Scene, id: &str, division: Division) -> Result<Vec<Row>> {
    let mut costs: BTreeMap<(bool, Protocol), Vec<f64>> = BTreeMap::new();
    for round in 1..=scene.options.rounds() {
        let ours = Protocol::ALL.map(|protocol| (Kind::Ours, protocol));
        let victoria = has_victoria().then_some(VICTORIA);
        for (kind, protocol) in ours.into_iter().chain(victoria) {
            let cost = scene.load(kind, Placing::Apart, async |server| {
                cost(scene, server, protocol, division).await
            });
            let cost = cost.with_context(|| format!("{kind}, {}", protocol.name()))?;
            eprintln!(
                "{id} {round} {kind}, {}: {cost:.3} us a sample",
                protocol.name()
            );
            let is_ours = kind == Kind::Ours;
            costs.entry((is_ours, protocol)).or_default().push(cost);
        }
    }
    Ok(rows_of(id, division, &costs))
}

fn rows_of(id: &str, division: Division, costs: &BTreeMap<(bool, Protocol), Vec<f64>>) -> Vec<Row> {
    let of = |is_ours, protocol| costs.get(&(is_ours, protocol)).cloned().unwrap_or_default();
    let row = |end: &str, protocol: Protocol, baseline: Vec<f64>| {
        let baseline = baseline
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat(None));
        let rounds = of(true, protocol).into_iter().zip(baseline);
        let rounds = rounds.map(|(ours, baseline)| Round { baseline, ours });
        let what = format!("{division}, {}", protocol.name());
        let id = format!("{id}-{end}");
        Row::new(&id, (&what, "CPU a sample, us"), None, rounds.collect())
    };
    let batches = of(true, Protocol::Batches);
    let mut rows: Vec<Row> = Protocol::ALL
        .into_iter()
        .map(|protocol| match protocol {
            Protocol::Batches => row(protocol.id(), protocol, Vec::new()),
            other => row(other.id(), other, batches.clone()).beside("JSON batches"),
        })
        .collect();
    let victoria = of(false, Protocol::RemoteWrite);
    let is_there = !victoria.is_empty();
    let beside = row("victoria", Protocol::RemoteWrite, victoria);
    rows.push(match is_there {
        true => beside.beside("VictoriaMetrics"),
        false => beside.noted("victoria-metrics is not installed".to_owned()),
    });
    rows
}

/// The server's CPU time for a sample, in microseconds. Requests are made before.
async fn cost(
    scene: &Scene,
    server: &Server,
    protocol: Protocol,
    division: Division,
) -> Result<f64> {
    let hosts = scene.nodes(HOSTS);
    let steps = if scene.options.quick { 10 } else { 150 };
    let mut tasks = JoinSet::new();
    let (go, went) = tokio::sync::watch::channel(false);
    for host in hosts {
        let bodies = Bodies::of(host.name.as_str(), protocol, division, steps)?;
        let mut link = Link::open_with_token(host, server).await?;
        let (path, content_type, coding) = protocol.target(host);
        if let Some(coding) = coding {
            let coding = HeaderValue::from_static(coding);
            link.headers_mut().insert(CONTENT_ENCODING, coding);
        }
        let mut went = went.clone();
        tasks.spawn(async move {
            went.wait_for(|went| *went).await.context("the start")?;
            for body in bodies.0 {
                link.post_as(content_type, &path, body).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    let before = server.cpu_secs()?;
    go.send(true).context("the start")?;
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task")??;
    }
    sleep(WRITTEN_WITHIN).await;
    let used = server.cpu_secs()? - before;
    let of_host = SERIES as u64 * steps;
    check(scene, server, protocol, (hosts, of_host)).await?;
    Ok(used * 1e6 / (of_host * hosts.len() as u64) as f64)
}

/// Whether all of it is there.
async fn check(
    scene: &Scene,
    server: &Server,
    protocol: Protocol,
    (hosts, of_host): (&[Arc<Identity>], u64),
) -> Result<()> {
    let mut reader = Link::open_with_token(scene.reader(), server).await?;
    if server.kind == Kind::Victoria {
        let metrics = reader.get("/metrics").await?;
        let metrics = String::from_utf8_lossy(&metrics).into_owned();
        let name = "vm_rows_inserted_total{type=\"promremotewrite\"} ";
        let inserted = metrics.lines().find_map(|line| line.strip_prefix(name));
        let inserted: u64 = inserted.context(name)?.parse().context(name)?;
        ensure!(
            inserted == of_host * hosts.len() as u64,
            "{inserted} inserted"
        );
        return Ok(());
    }
    // The first value of a counter is no rate, unless it says when it was zero.
    let begun = match protocol {
        Protocol::Batches | Protocol::Otlp | Protocol::OtlpJson => 0,
        Protocol::RemoteWrite => bodies::counters() as u64,
    };
    for host in hosts {
        let body = reader.get(&route::host(&host.name)).await?;
        let summaries: Summaries = serde_json::from_slice(&body).context("summaries")?;
        let by_hour = summaries
            .iter()
            .filter(|(key, _)| key.starts_with("summary:by-hour:"));
        let averages = by_hour.flat_map(|(_, summary)| &summary.averages);
        let stored: u64 = averages.map(|hour| hour.num_samples).sum();
        ensure!(
            stored == of_host - begun,
            "{}: {stored} stored of {of_host}, {begun} of them beginnings",
            host.name
        );
    }
    Ok(())
}
