//! The receiver beside other servers, and every goal of docs/performance.md, in one run.
//!
//! ```text
//! cargo build --profile dist --workspace --bins
//! cargo bench --workspace --profile dist --bench compare -- [--json FILE] [--svg FILE]
//! ```
//!
//! Every server is a process of its own, the receiver the built program; this one is the load. Where
//! a row counts the server's CPU time, each has a core. The loads run in turn on the baseline and on
//! ours, round after round. What the receiver acknowledged is read back after each run. Progress is
//! on stderr. Linux only.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark runs in real time, and prints"
)]

mod bare;
mod batches;
mod foreign;
#[path = "../full_store.rs"]
mod full_store;
mod goal;
mod handshakes;
mod link;
mod options;
mod others;
mod plot;
mod posts;
mod protocols;
mod queries;
mod report;
mod rows;
mod run;
#[path = "../sample_cost.rs"]
mod sample_cost;
mod scene;
mod server;
mod stores;
mod streams;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use time::OffsetDateTime;

use self::options::Options;
use self::report::Report;
use self::rows::ROWS;
use self::scene::Scene;

/// The first arguments of processes that this program starts of itself.
const SERVE_BARE: &str = "serve-bare";
const FILL: &str = "fill-store";
const COST: &str = "cost-in-store";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [SERVE_BARE, certs] => bare::serve(Path::new(certs)),
        [FILL, folder, hosts] => {
            stores::fill(Path::new(folder), hosts.parse().context("hosts")?);
            Ok(())
        }
        [COST, folder, hosts] => {
            println!(
                "{}",
                stores::cost(Path::new(folder), hosts.parse().context("hosts")?)?
            );
            Ok(())
        }
        _ => compare(Options::parse()),
    }
}

fn compare(options: Options) -> Result<()> {
    let (json, svg) = (options.json.clone(), options.svg.clone());
    let report = match options.from.is_empty() {
        true => measure(options)?,
        false => read(&options)?,
    };
    println!("{}", report.table());
    if let Some(file) = json {
        std::fs::write(&file, report.json()?).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = svg {
        std::fs::write(&file, plot::svg(&report)).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// What earlier runs have written.
fn read(options: &Options) -> Result<Report> {
    let report = |file: &std::path::PathBuf| {
        let text = std::fs::read(file).with_context(|| file.display().to_string())?;
        serde_json::from_slice::<Report>(&text).with_context(|| file.display().to_string())
    };
    let reports = options.from.iter().map(report).collect::<Result<_>>()?;
    Report::joined(reports).context("no report")
}

fn measure(options: Options) -> Result<Report> {
    allow_connections()?;
    let is_asked = |id: &str| options.only.is_empty() || options.only.iter().any(|only| only == id);
    let asked: Vec<_> = ROWS.iter().filter(|row| is_asked(row.id)).collect();
    let scene = Scene::new(options)?;
    let mut rows = Vec::new();
    for row in asked {
        rows.extend((row.run)(&scene, row.id).with_context(|| row.id.to_owned())?);
    }
    Ok(Report {
        date: OffsetDateTime::now_utc().date().to_string(),
        commit: commit(),
        machine: machine(),
        profile: lizmon_benches::program::profile()?,
        rounds: scene.options.rounds(),
        secs: scene.options.lasting().as_secs(),
        rows,
    })
}

/// Each connection is an open file, here and in the server, which inherits the limit.
fn allow_connections() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("the limit of open files")
}

fn commit() -> String {
    let folder = env!("CARGO_MANIFEST_DIR");
    let git = Command::new("git")
        .args(["-C", folder, "rev-parse", "--short", "HEAD"])
        .output();
    let text = git
        .ok()
        .filter(|output| output.status.success())
        .map(|output| output.stdout);
    text.map_or_else(
        || "unknown".to_owned(),
        |text| String::from_utf8_lossy(&text).trim().to_owned(),
    )
}

/// The processor and how many cores it has.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let name = name.map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {name}")
}
