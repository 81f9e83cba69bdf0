//! A run: prepares the workers, lets them work until the time is over, and asks the receiver what
//! it has.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lizmon_ca::authority::Authority;
use lizmon_protocol::name::Role;
use lizmon_protocol::sample::ProducerId;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http_version::HttpVersion;
use super::link::{Link, LoadTarget};
use super::nodes::{self, TlsOptions};
use super::pace::{self, RunClock, Schedule};
use super::server::{self, ProcessUsage};
use super::tally::{Tallies, Tally};
use super::verdict::{self, Comparison};
use super::worker::{Before, Job, Producer, RunState, Worker, pause};
use crate::output;

/// How often the run looks at the time.
const TICK: Duration = Duration::from_millis(50);
/// Progress is printed this many times, but not more often than each second.
const PROGRESS_LINES: u32 = 20;

/// How long the first sample of each node may take.
const FIRST_SAMPLE_MAX: Duration = Duration::from_secs(30);

/// What the load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Samples,
    Handshakes,
    Reconnect,
    Queries,
}

/// A load, ready to start.
pub(crate) struct Plan {
    pub(crate) load: Load,
    pub(crate) prefix: String,
    pub(crate) nodes: u32,
    /// Connections of each node.
    pub(crate) connections: u32,
    /// Streams of each connection.
    pub(crate) streams: u32,
    pub(crate) http: HttpVersion,
    /// Requests a second of all together.
    pub(crate) rate: Option<f64>,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) job: Job,
    /// The values of a record, JSON.
    pub(crate) values: Box<RawValue>,
    /// The receiver's process, if it is on this machine.
    pub(crate) pid: Option<u32>,
}

/// What came of it.
pub(crate) struct RunOutcome {
    pub(crate) tally: Tally,
    /// The part of the run that was measured.
    pub(crate) measured: Duration,
    pub(crate) is_interrupted: bool,
    /// What the server's process used in that part.
    pub(crate) server: Option<(ProcessUsage, ProcessUsage)>,
    pub(crate) verdict: Comparison,
}

/// Where time and chance come from.
#[derive(Clone, Copy)]
pub(crate) struct Sources {
    pub(crate) epoch: fn() -> u64,
    pub(crate) new_producer: fn() -> ProducerId,
}

/// Runs the load until its end, or until `stop` resolves.
pub(crate) async fn run(
    plan: &Plan,
    (authority, target): (&Authority, Arc<LoadTarget>),
    sources: Sources,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<RunOutcome> {
    let crew = Crew::hire(plan, authority, &target, sources)?;
    let host = &crew.producers[0].host;
    verdict::check_access(&crew.reader, host).await?;
    if plan.load != Load::Samples && plan.load != Load::Handshakes {
        // There has to be something to ask for, or connections to cut.
        crew.send_one_each(plan, sources.epoch).await?;
    }
    let shared = Arc::new(RunState {
        clock: RunClock::new(Instant::now(), plan.warm_up + plan.duration),
        epoch: sources.epoch,
        tallies: Tallies::new()?,
        measured_from: plan.warm_up,
        values: plan.values.clone(),
        job: plan.job,
        before: match plan.load {
            Load::Handshakes => Before::Forget,
            _ => Before::Nothing,
        },
        due: crew.workers.iter().map(|_| Notify::new()).collect(),
    });
    output::note(format_args!(
        "sending over {} connections",
        plan.nodes * plan.connections
    ));
    let working = crew.start(plan, &shared);
    let (server, is_interrupted) = watch(plan, &shared, stop).await;
    working.await.context("a worker failed")?;
    output::note("asking the receiver what it has");
    Ok(RunOutcome {
        tally: shared.tallies.sum(),
        measured: shared.clock.end().saturating_sub(plan.warm_up),
        is_interrupted,
        server,
        verdict: verdict::compare(&crew.reader, &crew.producers).await?,
    })
}

/// All that takes part.
struct Crew {
    workers: Vec<Worker>,
    producers: Vec<Arc<Producer>>,
    /// Who asks what the receiver has.
    reader: Link,
    /// Who sends the samples of [`Self::send_one_each`].
    nodes: Vec<Worker>,
}

impl Crew {
    fn hire(
        plan: &Plan,
        authority: &Authority,
        target: &Arc<LoadTarget>,
        sources: Sources,
    ) -> anyhow::Result<Self> {
        let options = TlsOptions {
            http: plan.http,
            is_resumed: plan.load == Load::Reconnect,
        };
        let now = (sources.epoch)();
        let issue = |role, count| {
            let holders = (role, plan.prefix.as_str(), count);
            let issued = nodes::issue(authority, holders, options, now)?;
            Ok::<_, anyhow::Error>(issued.into_iter().map(Arc::new).collect::<Vec<_>>())
        };
        output::note(format_args!("issuing {} certificates", plan.nodes));
        let nodes = issue(Role::Node, plan.nodes)?;
        let readers = match plan.load {
            Load::Queries => issue(Role::Reader, plan.nodes)?,
            _ => issue(Role::Reader, 1)?,
        };
        let producer = |node: &Arc<nodes::LoadIdentity>| {
            let id = (sources.new_producer)();
            Arc::new(Producer::new(id, node.name.clone()))
        };
        let producers: Vec<_> = nodes.iter().map(producer).collect();
        let senders = match plan.load {
            Load::Queries => &readers,
            _ => &nodes,
        };
        let mut workers = Vec::new();
        for (sender, producer) in senders.iter().zip(&producers) {
            for _ in 0..plan.connections {
                let link = Arc::new(Link::new(target.clone(), sender.clone()));
                for _ in 0..plan.streams {
                    workers.push(Worker {
                        at: workers.len(),
                        link: link.clone(),
                        producer: producer.clone(),
                    });
                }
            }
        }
        let nodes = match plan.load {
            Load::Queries => {
                let node = |(at, (node, producer)): (usize, (&Arc<_>, &Arc<_>))| Worker {
                    at,
                    link: Arc::new(Link::new(target.clone(), Arc::clone(node))),
                    producer: Arc::clone(producer),
                };
                nodes.iter().zip(&producers).enumerate().map(node).collect()
            }
            _ => workers.clone(),
        };
        Ok(Self {
            workers,
            producers,
            reader: Link::new(target.clone(), readers[0].clone()),
            nodes,
        })
    }

    /// A sample of each, which is not measured.
    async fn send_one_each(&self, plan: &Plan, epoch: fn() -> u64) -> anyhow::Result<()> {
        let shared = Arc::new(RunState {
            clock: RunClock::new(Instant::now(), FIRST_SAMPLE_MAX),
            epoch,
            tallies: Tallies::new()?,
            measured_from: Duration::MAX,
            values: plan.values.clone(),
            job: Job::Sample,
            before: Before::Nothing,
            due: Vec::new(),
        });
        all_at_once(&self.nodes, &shared).await
    }

    /// Starts all workers; the future ends with the last of them.
    fn start(&self, plan: &Plan, shared: &Arc<RunState>) -> tokio::task::JoinHandle<()> {
        let workers = self.workers.clone();
        let shared = shared.clone();
        if plan.load == Load::Reconnect {
            return tokio::spawn(async move {
                while !shared.clock.is_over() {
                    for worker in &workers {
                        worker.link.cut().await;
                    }
                    if all_at_once(&workers, &shared).await.is_err() {
                        return;
                    }
                }
            });
        }
        if let Some(rate) = plan.rate {
            let shared = shared.clone();
            std::thread::spawn(move || pace::wake_workers(&shared.clock, rate, &shared.due));
        }
        let (rate, count) = (plan.rate, workers.len());
        tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            for worker in workers {
                let schedule = rate.map(|rate| Schedule::new(rate, worker.at, count));
                let shared = shared.clone();
                tasks.spawn(async move { worker.run(&shared, schedule).await });
            }
            tasks.join_all().await;
        })
    }
}

/// One request of each, all due now.
async fn all_at_once(workers: &[Worker], shared: &Arc<RunState>) -> anyhow::Result<()> {
    let due = shared.clock.now();
    let mut tasks = JoinSet::new();
    for worker in workers {
        let (worker, shared) = (worker.clone(), shared.clone());
        tasks.spawn(async move { worker.request(due, &shared).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a worker failed")?;
    }
    Ok(())
}

/// Until the run is over: what the server's process uses in the measured part, progress, and
/// whether it was stopped.
async fn watch(
    plan: &Plan,
    shared: &RunState,
    stop: impl Future<Output = ()>,
) -> (Option<(ProcessUsage, ProcessUsage)>, bool) {
    let usage = || plan.pid.and_then(server::usage);
    let every = (plan.duration / PROGRESS_LINES).max(Duration::from_secs(1));
    let mut stop = std::pin::pin!(stop);
    let (mut before, mut is_interrupted) = (None, false);
    let (mut told_at, mut told) = (plan.warm_up, 0);
    while !shared.clock.is_over() {
        tokio::select! {
            () = &mut stop, if !is_interrupted => {
                is_interrupted = true;
                shared.clock.stop();
                shared.due.iter().for_each(Notify::notify_one);
            }
            () = pause(TICK) => (),
        }
        let now = shared.clock.now();
        if before.is_none() && now >= plan.warm_up {
            before = usage();
        }
        if now >= told_at + every {
            let done = shared.tallies.requests();
            let rate = (done - told) as f64 / (now - told_at).as_secs_f64();
            let at = (now.saturating_sub(plan.warm_up)).as_secs();
            output::note(format_args!("{at} s: {rate:.0} requests/s"));
            (told_at, told) = (now, done);
        }
    }
    (before.zip(usage()), is_interrupted)
}
