//! What happens, and when.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use lizmon_protocol::route;
use serde::Serialize;
use serde_json::{Map, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::Flags;
use super::link::{Link, Message};
use super::load::{Shot, Stream, What, label, sample};
use super::process::{Kind, Server, Setting, Special, Syncs};
use super::site::{Identity, Site, now};
use super::tally::{Key, Tally, When};

/// What happens during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Case {
    /// A sync takes 200 ms now and then
    SlowSync,
    /// Every sync takes 200 ms
    SlowDisk,
    /// A minute turns, with full windows; control: the middle of one
    Minute,
    /// An hour turns, with full windows; control: the middle of one
    Hour,
    /// A long revocation list is put in force
    Crl,
    /// A token key is replaced, on a disk whose syncs take 200 ms; control: that disk alone
    TokenKey,
    /// Metrics of many series are read, again and again
    Metrics,
    /// A host with ten full labels is read beside 10,000 POSTs a second; control: beside 100
    Get,
    /// All monitors come back after a restart; control: after their connections were cut
    Restart,
}

/// Connections are in use for so long before anything counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// The clock must be known to be steady before windows move: a minute.
const STEADY_SECS: u64 = 75;
/// Everything is connected by then.
const SET_UP_SECS: u64 = 40;
/// A token key's life where none is replaced.
const LONG_SECS: u64 = 30 * 86_400;
const HOUR: u64 = 3_600;
/// What a record may have.
const LABELS_A_RECORD: usize = 256;

/// Connections of clients that just arrive, and their rate.
const ARRIVING: usize = 10;
const ARRIVALS: f64 = 10.0;
/// GETs and `/healthz` a second.
const READS: f64 = 20.0;

/// What it is run with.
struct Plan {
    case: Case,
    has_event: bool,
    kind: Kind,
    ahead_secs: u64,
    /// When the event is, if it is not now: seconds since 1970.
    at: Option<u64>,
    rate: f64,
    phase: Duration,
    series: usize,
    crl: Option<Bytes>,
}

impl Plan {
    fn new(case: Case, has_event: bool, flags: &Flags, site: &Site) -> Result<Self> {
        let begun = now();
        let special = |ahead_secs, key_life_secs| {
            Kind::Special(Special {
                ahead_secs,
                key_life_secs,
            })
        };
        let plan = Self {
            case,
            has_event,
            kind: Kind::Shipped,
            ahead_secs: 0,
            at: None,
            rate: flags.rate,
            phase: Duration::from_secs(flags.secs),
            series: 0,
            crl: None,
        };
        // The next time that is a multiple of `every`, or half of it where nothing is to happen.
        let turn = |after: u64, every: u64| {
            let half = if has_event { 0 } else { every / 2 };
            (after - half).next_multiple_of(every) + half
        };
        Ok(match (case, has_event) {
            (Case::Minute, _) => Self {
                at: Some(turn(begun + STEADY_SECS, 60)),
                ..plan
            },
            (Case::Hour, _) => {
                let at = begun + STEADY_SECS;
                let ahead_secs = turn(at, HOUR) - at;
                Self {
                    at: Some(at),
                    ahead_secs,
                    kind: special(ahead_secs, LONG_SECS),
                    ..plan
                }
            }
            (Case::TokenKey, _) => {
                let key_life_secs = if has_event { SET_UP_SECS } else { LONG_SECS };
                Self {
                    // A key is replaced within a second of when it is due.
                    at: Some(begun + SET_UP_SECS - 1),
                    kind: special(0, key_life_secs),
                    ..plan
                }
            }
            (Case::Metrics, _) => Self {
                series: flags.series,
                ..plan
            },
            (Case::Crl, true) => Self {
                crl: Some(site.long_crl(flags.serials)?.into()),
                ..plan
            },
            (Case::Get, _) => Self {
                rate: if has_event { 10_000.0 } else { 100.0 },
                ..plan
            },
            _ => plan,
        })
    }

    fn syncs(&self) -> Option<Syncs> {
        match (self.case, self.has_event) {
            (Case::SlowSync, true) => Some(Syncs::SomeSlow),
            (Case::SlowDisk, true) | (Case::TokenKey, _) => Some(Syncs::AllSlow),
            (Case::SlowSync | Case::SlowDisk, false) => Some(Syncs::Traced),
            _ => None,
        }
    }

    /// When a request that was due then was due, if the event took so long.
    fn when(&self, due: Duration, took: Duration) -> When {
        let begins = WARM_UP + self.phase;
        match due {
            // The disk is so from the start.
            _ if matches!(self.case, Case::SlowSync | Case::SlowDisk) => When::During,
            due if due < begins => When::Before,
            due if due < begins + took => When::During,
            _ => When::After,
        }
    }

    /// Whether every host has full windows.
    fn has_full_windows(&self) -> bool {
        matches!(self.case, Case::Minute | Case::Hour)
    }
}

/// Runs a case or its control once. Returns what is to be said of it.
pub(super) async fn run(
    case: Case,
    has_event: bool,
    flags: &Flags,
    site: &Site,
    tally: &mut Tally,
) -> Result<String> {
    let data = tempfile::tempdir_in(site.folder()).context("a folder")?;
    if case == Case::Restart {
        return restart(has_event, flags, site, data.path(), tally).await;
    }
    let plan = Plan::new(case, has_event, flags, site)?;
    let setting = Setting {
        kind: plan.kind,
        syncs: plan.syncs(),
        yields: false,
    };
    let server = Server::start(site, data.path(), setting, 0)?;
    let mut streams = streams(&plan, &server, site)?;
    for stream in &mut streams {
        stream.connect().await?;
    }
    fill(&plan, &server, site).await?;
    let lasting = WARM_UP + 3 * plan.phase;
    if let Some(at) = plan.at {
        let begins = at.saturating_sub((WARM_UP + plan.phase).as_secs());
        ensure!(begins > now(), "it took too long to connect all hosts");
        sleep(Duration::from_secs(begins - now() - 1)).await;
        while now() < begins {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let start = Instant::now();
    let mut running = JoinSet::new();
    for stream in streams {
        running.spawn(stream.run(start, lasting));
    }
    sleep_until(start + WARM_UP + plan.phase).await;
    let note = happen(&plan, &server, site).await?;
    let took = start.elapsed() - WARM_UP - plan.phase;
    while let Some(ended) = running.join_next().await {
        let (what, shots) = ended.context("a stream")??;
        add(&plan, what, &shots, took.max(plan.phase), tally)?;
    }
    Ok(note)
}

fn add(plan: &Plan, what: What, shots: &[Shot], took: Duration, tally: &mut Tally) -> Result<()> {
    for of in [When::Before, When::During, When::After] {
        let shots = shots.iter();
        let shots = shots.filter(|shot| shot.due >= WARM_UP && plan.when(shot.due, took) == of);
        let key = Key {
            case: plan.case,
            what,
            when: of,
            has_event: plan.has_event,
        };
        tally.add(key, shots)?;
    }
    Ok(())
}

fn streams(plan: &Plan, server: &Server, site: &Site) -> Result<Vec<Stream>> {
    let links = |of: &[Arc<Identity>]| {
        let each = of.iter().map(|one| Link::new(server.address, one.clone()));
        each.collect::<Vec<_>>()
    };
    let stream = |what, rate, links| Stream {
        what,
        rate,
        links,
        host: site.nodes[0].name.clone(),
        ahead_secs: plan.ahead_secs,
    };
    let readers = vec![site.reader.clone(); 4];
    Ok(vec![
        stream(What::Post, plan.rate, links(&site.nodes)),
        stream(What::Get, READS, links(&readers)),
        stream(What::Health, READS, links(&readers[..1])),
        stream(
            What::Arrive,
            ARRIVALS,
            links(&site.more_nodes("new", ARRIVING)?),
        ),
    ])
}

/// What happens, until it is over, or for as long as it is looked at.
async fn happen(plan: &Plan, server: &Server, site: &Site) -> Result<String> {
    let until = Instant::now() + plan.phase;
    let note = match (plan.case, plan.has_event) {
        (Case::Crl, true) => put_crl(plan, server, site).await?,
        (Case::Metrics, true) => scrape(server, site, until).await?,
        _ => String::new(),
    };
    sleep_until(until).await;
    Ok(note)
}

async fn put_crl(plan: &Plan, server: &Server, site: &Site) -> Result<String> {
    let mut link = Link::new(server.address, site.operator.clone());
    let message = Message {
        method: Method::PUT,
        path: route::CRL.to_owned(),
        body: plan.crl.clone().context("a list to push")?,
    };
    let begun = Instant::now();
    let answer = link.send(&message).await.map_err(anyhow::Error::msg)?;
    let said = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status.is_success(), "{}: {said}", answer.status);
    let (bytes, took) = (message.body.len(), begun.elapsed());
    Ok(format!("a list of {bytes} bytes in force after {took:.1?}"))
}

async fn scrape(server: &Server, site: &Site, until: Instant) -> Result<String> {
    let mut link = Link::new(server.address, site.reader.clone());
    let mut scrapes = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        let answer = link.send(&metrics()).await.map_err(anyhow::Error::msg)?;
        ensure!(answer.status.is_success(), "{}", answer.status);
        scrapes.push(format!(
            "{} bytes in {:.1?}",
            answer.body.len(),
            begun.elapsed()
        ));
    }
    Ok(scrapes.join(", "))
}

/// Gives the hosts what they need to have before: full windows, or many series.
async fn fill(plan: &Plan, server: &Server, site: &Site) -> Result<()> {
    let full = if plan.has_full_windows() {
        &site.nodes[..]
    } else {
        &site.nodes[..1]
    };
    let now = now() + plan.ahead_secs;
    let hours = (1..24).rev().map(|ago| now - ago * HOUR - 60);
    let minutes = (0..60).rev().map(|ago| now - ago * 60);
    let epochs: Vec<_> = hours.chain(minutes).collect();
    let values: Map<_, _> = (0..10).map(|at| (label(at), json!(61.25))).collect();
    fill_with(server, full, &epochs, &values).await?;
    if plan.series > 0 {
        let each = plan.series / site.nodes.len();
        let labels: Vec<_> = (0..each).map(|at| format!("series{at:04}")).collect();
        for some in labels.chunks(LABELS_A_RECORD) {
            let values: Map<_, _> = some.iter().map(|of| (of.clone(), json!(4.98))).collect();
            fill_with(server, &site.nodes, &[now], &values).await?;
        }
    }
    Ok(())
}

async fn fill_with(
    server: &Server,
    nodes: &[Arc<Identity>],
    epochs: &[u64],
    values: &Map<String, serde_json::Value>,
) -> Result<()> {
    let records = (1..).zip(epochs);
    let records = records.map(|(seq, epoch)| json!({"seq": seq, "epoch": epoch, "values": values}));
    let records: Vec<_> = records.collect();
    for some in nodes.chunks(16) {
        let mut filling = JoinSet::new();
        for node in some {
            let mut link = Link::new(server.address, node.clone());
            let batch = json!({"producer": Uuid::new_v4(), "records": &records});
            let message = Message {
                method: Method::POST,
                path: format!("{}/{}", route::PERF, node.name),
                body: batch.to_string().into(),
            };
            filling.spawn(async move { link.send(&message).await });
        }
        for answer in filling.join_all().await {
            let answer = answer.map_err(anyhow::Error::msg)?;
            let said = String::from_utf8_lossy(&answer.body);
            ensure!(answer.status.is_success(), "{}: {said}", answer.status);
        }
    }
    Ok(())
}

/// All monitors come back at once: each goes on as a monitor does until a sample is taken.
async fn restart(
    has_event: bool,
    flags: &Flags,
    site: &Site,
    data: &Path,
    tally: &mut Tally,
) -> Result<String> {
    let setting = Setting {
        kind: Kind::Shipped,
        syncs: None,
        yields: true,
    };
    let server = Server::start(site, data, setting, 0)?;
    let port = server.address.port();
    let identities = site.more_nodes("monitor", flags.monitors)?;
    let links = identities.into_iter();
    let mut stream = Stream {
        what: What::Return,
        rate: 0.0,
        links: links.map(|one| Link::new(server.address, one)).collect(),
        host: String::new(),
        ahead_secs: 0,
    };
    stream.connect().await?;
    let server = match has_event {
        true => {
            server.stop()?;
            Server::start(site, data, setting, port)?
        }
        false => server,
    };
    let start = Instant::now();
    let mut returning = JoinSet::new();
    for mut link in stream.links {
        link.cut();
        returning.spawn(come_back(link, start));
    }
    let shots = returning.join_all().await;
    let key = Key {
        case: Case::Restart,
        what: What::Return,
        when: When::During,
        has_event,
    };
    tally.add(key, shots.iter())?;
    let took = start.elapsed();
    let rejected = rejected(&server, site).await?;
    Ok(format!(
        "all were back after {took:.1?}; connections rejected: {rejected}"
    ))
}

/// The connections that the receiver has rejected, by cause.
async fn rejected(server: &Server, site: &Site) -> Result<String> {
    const METRIC: &str = "lizmon_connections_rejected_total";
    let mut link = Link::new(server.address, site.reader.clone());
    let answer = link.send(&metrics()).await.map_err(anyhow::Error::msg)?;
    let text = String::from_utf8_lossy(&answer.body);
    let of = text.lines().filter_map(|line| line.strip_prefix(METRIC));
    let some: Vec<_> = of.filter(|count| !count.ends_with(" 0")).collect();
    Ok(some.join(", "))
}

fn metrics() -> Message {
    Message {
        method: Method::GET,
        path: route::METRICS.to_owned(),
        body: Bytes::new(),
    }
}

/// The waits are those of `monitor/src/retry.rs`.
async fn come_back(mut link: Link, start: Instant) -> Shot {
    let (mut errors, mut failures) = (Vec::new(), 0);
    let sample = sample();
    loop {
        let message = What::Return.message(&link.identity.name, now(), &sample);
        let chance = fastrand::f64();
        let backoff = Duration::from_secs(1 << failures.min(5)).min(Duration::from_secs(30));
        let backoff = backoff.mul_f64(chance).max(Duration::from_millis(100));
        let wait = match link.send(&message).await {
            Ok(answer) if answer.status.is_success() => {
                let took = start.elapsed();
                return Shot {
                    due: Duration::ZERO,
                    took,
                    errors,
                };
            }
            Ok(answer) => {
                errors.push(answer.status.as_u16().to_string());
                let after = answer.retry_after;
                let spread = |after: Duration| {
                    after + after.max(Duration::from_secs(1)).mul_f64(chance / 2.0)
                };
                after.map_or(backoff, spread)
            }
            Err(why) => {
                errors.push(why.to_owned());
                backoff
            }
        };
        failures += 1;
        sleep(wait).await;
    }
}
