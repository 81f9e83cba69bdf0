//! `bench`: loads a receiver, and shows what it can do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use lizmon_ca::authority::Authority;
use lizmon_client::BaseUrl;
use lizmon_protocol::sample::ProducerId;
use serde_json::value::RawValue;

use crate::bench::http_version::HttpVersion;
use crate::bench::link::LoadTarget;
use crate::bench::local::LocalReceiver;
use crate::bench::nodes;
use crate::bench::report::BenchReport;
use crate::bench::run::{self, Load, Plan, Sources};
use crate::bench::server;
use crate::bench::worker::Job;
use crate::context::Context;
use crate::failure::Exit;
use crate::flags::output::OutputFlags;
use crate::output;
use crate::receiver_url::parse_receiver;

/// Most nodes: their names have six digits.
const NODES_MAX: i64 = 100_000;
/// Most connections of a node, and requests at once on one of them.
const OF_A_NODE_MAX: i64 = 1_000;
/// Most records of a batch, and values of a record.
const BATCH_MAX: i64 = 10_000;
const VALUES_MAX: i64 = 256;

/// Load a receiver, and show what it can do
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl bench\n  lizctl bench --nodes 500 --rate 500 --duration 60s --json\n  \
                  lizctl bench handshakes\n  lizctl bench --batch 1000 --zstd --nodes 4\n  \
                  lizctl bench --target https://test1.example:8443 --rate 2000\n\n\
                  Without --target it starts a receiver of its own in a temporary folder, and leaves nothing behind.\n\n\
                  With --target it sends made-up samples to that receiver, for hosts that are named after --prefix: they\n\
                  stay there as long as the receiver keeps hosts. Use a receiver that serves no site. Its CA must be in\n\
                  --certs, which issues the certificates of nodes and readers: for two hours, their keys in memory only,\n\
                  recorded in ledger and audit log as all are.\n\n\
                  Latency is measured from when a request was due, so that what waited behind a slow one counts as slow\n\
                  as well; service time from when it was sent.\n\n\
                  Exit code 1 if the receiver has not exactly the records that it took."
)]
pub(crate) struct BenchArgs {
    /// What is sent
    #[arg(value_name = "LOAD", default_value = "samples")]
    load: LoadName,
    /// Receiver to load: https://HOST:8443 [default: one of its own]. LIZMON_RECEIVER is ignored
    #[arg(long, env = "LIZMON_TARGET", value_name = "URL", value_parser = parse_receiver)]
    target: Option<BaseUrl>,
    /// Number of nodes, each with its own certificate and token
    #[arg(long, env = "LIZMON_NODES", value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=NODES_MAX))]
    nodes: u32,
    /// Names of the nodes: PREFIX-000001 and so on
    #[arg(
        long,
        env = "LIZMON_PREFIX",
        value_name = "NAME",
        default_value = "bench",
        value_parser = parse_prefix
    )]
    prefix: String,
    /// Connections of each node
    #[arg(long, env = "LIZMON_CONNECTIONS", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=OF_A_NODE_MAX))]
    connections: u32,
    /// Requests at once on each connection; more than one needs --http 2
    #[arg(long, env = "LIZMON_STREAMS", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=OF_A_NODE_MAX))]
    streams: u32,
    /// Version of HTTP
    #[arg(long, env = "LIZMON_HTTP", value_name = "VERSION", default_value = "1")]
    http: HttpVersion,
    /// Requests per second of all nodes together [default: as many as are answered]
    #[arg(long, env = "LIZMON_RATE", value_name = "COUNT", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long it is measured
    #[arg(long, env = "LIZMON_DURATION", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long requests are sent before they are measured
    #[arg(long, env = "LIZMON_WARM_UP", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Send batches of this many records instead of single samples
    #[arg(long, env = "LIZMON_BATCH", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    batch: Option<u32>,
    /// Compress batches with zstd
    #[arg(long, env = "LIZMON_ZSTD", value_parser = FalseyValueParser::new())]
    zstd: bool,
    /// Values of each record
    #[arg(long, env = "LIZMON_VALUES", value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=VALUES_MAX))]
    values: u32,
    /// Process of the receiver on this machine, whose CPU time and memory are shown [default: the
    /// one that listens on the port of a loopback target]
    #[arg(long, env = "LIZMON_PID", value_name = "PID")]
    pid: Option<u32>,
    #[command(flatten)]
    output: OutputFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LoadName {
    /// Samples over connections that stay
    Samples,
    /// A full handshake, a token and a sample, each time anew
    Handshakes,
    /// All connections are cut at once and made again with the token that is left, each followed by
    /// a sample; as soon as all are back, again
    Reconnect,
    /// The summaries of a host, by readers
    Queries,
}

/// Longest run: certificates and clocks are made for it.
const DURATION_MAX: Duration = Duration::from_secs(3_600);

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match duration <= DURATION_MAX {
        true => Ok(duration),
        false => Err("at most an hour".to_owned()),
    }
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let first = nodes::name(text, 1).map_err(|error| error.to_string());
    first.map(|_| text.to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 10000000".to_owned()),
    }
}

impl BenchArgs {
    fn plan(&self, pid: Option<u32>) -> anyhow::Result<Plan> {
        let load = match self.load {
            LoadName::Samples => Load::Samples,
            LoadName::Handshakes => Load::Handshakes,
            LoadName::Reconnect => Load::Reconnect,
            LoadName::Queries => Load::Queries,
        };
        let streams = self.streams;
        let wrong = match load {
            _ if streams > 1 && self.http == HttpVersion::One => "--streams needs --http 2",
            Load::Handshakes | Load::Reconnect if streams > 1 => {
                "--streams is for samples and queries: these are about connections"
            }
            Load::Reconnect if self.rate.is_some() => {
                "reconnect has no --rate: all come back at once"
            }
            Load::Queries if self.batch.is_some() => "queries have no --batch",
            _ if self.zstd && self.batch.is_none() => "--zstd needs --batch",
            _ if self.duration.is_zero() => "--duration is nothing",
            _ => "",
        };
        if !wrong.is_empty() {
            return Err(anyhow!(wrong).context(Exit::Usage));
        }
        Ok(Plan {
            load,
            prefix: self.prefix.clone(),
            nodes: self.nodes,
            connections: self.connections,
            streams,
            http: self.http,
            rate: self.rate,
            warm_up: self.warm_up,
            duration: self.duration,
            job: match (load, self.batch) {
                (Load::Queries, _) => Job::Query,
                (_, None) => Job::Sample,
                (_, Some(records)) => Job::Batch {
                    records,
                    is_packed: self.zstd,
                },
            },
            values: values(self.values)?,
            pid,
        })
    }
}

/// The values of a record: those of a real one, and more like them.
fn values(count: u32) -> anyhow::Result<Box<RawValue>> {
    let label = |at: u32| match at {
        0 => ("cpu".to_owned(), 4.98),
        1 => ("mem".to_owned(), 61.2),
        more => (format!("value{more}"), f64::from(more) + 0.25),
    };
    let values: serde_json::Map<_, _> = (0..count)
        .map(label)
        .map(|(label, value)| (label, value.into()))
        .collect();
    Ok(serde_json::value::to_raw_value(&values)?)
}

/// `lizctl bench`. Fails if the receiver has not what it took.
pub(crate) fn run(
    args: &BenchArgs,
    context: &Context,
    new_producer: fn() -> ProducerId,
) -> anyhow::Result<()> {
    let mut plan = args.plan(args.pid)?;
    lizmon_daemon::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    // Before there is anything that a signal must not leave behind.
    let stop = {
        let _entered = runtime.enter();
        lizmon_daemon::stop_or_hang_up().context("cannot listen for signals")?
    };
    let local = match args.target {
        Some(_) => None,
        None => Some(LocalReceiver::start(args.warm_up + args.duration)?),
    };
    let now = (context.clock)();
    let (url, authority) = match (&args.target, &local) {
        (Some(url), _) => (url, context.authority(now)?),
        (None, Some(local)) => (&local.url, Authority::open(&local.certs(), now)?),
        (None, None) => bail!("no receiver"),
    };
    let target = Arc::new(LoadTarget::new(url, args.http)?);
    let local_pid = local.as_ref().map(LocalReceiver::pid);
    let listening = || target.loopback_port().and_then(server::listening_on);
    plan.pid = args.pid.or(local_pid).or_else(listening);
    let sources = Sources {
        epoch: context.clock,
        new_producer,
    };
    let stop = async {
        let _either = stop.await;
    };
    let running = run::run(&plan, (&authority, target.clone()), sources, stop);
    let outcome = runtime.block_on(running)?;
    let report = BenchReport::new(&plan, target.url().to_string(), outcome);
    match args.output.is_json() {
        true => output::json(&report)?,
        false => report.show()?,
    }
    match report.differing_nodes() {
        0 => Ok(()),
        nodes => bail!("of {nodes} nodes the receiver has not exactly what it took"),
    }
}
