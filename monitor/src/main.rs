//! `liz-monitor`: samples this machine every second and publishes over mutual TLS.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use lizmon_client::enrol::lists::ServerLists;
use lizmon_monitor::{Agent, Config, Edges, Flags};
use lizmon_protocol::sample::ProducerId;
use tracing::{info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Samples this machine every second and publishes to one or more receivers over mutual TLS.
///
/// A receiver that is away is tried again until it is back; what was sampled meanwhile is kept, on disk with --spool, and
/// delivered then.
/// RUST_LOG chooses what is logged, on stderr: RUST_LOG=lizmon_monitor=debug shows every sample and publish, trace every
/// record's number.
#[derive(Debug, Parser)]
#[command(name = "liz-monitor", version)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    /// How log lines look
    #[arg(
        long,
        env = "LIZMON_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format);
    match run(cli.flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("liz-monitor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: a sample a second needs no more, and each costs memory.
fn run(flags: Flags) -> anyhow::Result<()> {
    let seconds = || Arc::new(|| since_1970().as_secs());
    let renewer = flags.renewer(seconds(), Arc::new(fastrand::f64));
    let server_lists = ServerLists::default();
    let watch = flags.server_watch(server_lists.clone(), seconds(), Arc::new(fastrand::f64));
    let config = Config {
        server_lists,
        ..Config::from(flags)
    };
    let edges = Edges {
        clock: Arc::new(since_1970),
        chance: Arc::new(fastrand::f64),
        new_producer: Arc::new(|| ProducerId::new(uuid::Uuid::new_v4())),
    };
    let host = config.host.clone();
    let agent = Agent::new(config, edges)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let shutdown = stop_signal()?;
        tokio::spawn(renewer.run());
        if let Some(watch) = watch {
            tokio::spawn(watch.run());
        }
        agent.run(|| say_ready(&host), shutdown).await;
        info!("stopped");
        Ok(())
    })
}

fn say_ready(host: impl std::fmt::Display) {
    info!("READY: watching {host}");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!("systemd cannot be told that we are ready: {error}");
    }
}

#[cfg(unix)]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot = "cannot listen for signals";
    let mut terminate = signal(SignalKind::terminate()).context(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without Ctrl-C there is no other way to stop but to be ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

fn start_log(format: LogFormat) {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(false);
    let log = tracing_subscriber::registry();
    let (wanted, misread) = log_filter(std::env::var("RUST_LOG").ok().as_deref());
    match format {
        LogFormat::Text => log
            .with(layer.with_ansi(io::stderr().is_terminal()))
            .with(wanted)
            .init(),
        LogFormat::Json => log.with(layer.json()).with(wanted).init(),
    }
    if let Some(error) = misread {
        warn!("RUST_LOG is not understood, and left out: {error}");
    }
}

/// Targets and levels, rather than everything that RUST_LOG can say elsewhere: the regular expressions for that are half a megabyte of
/// program, and 0.2 MiB of memory.
fn log_filter(asked: Option<&str>) -> (Targets, Option<String>) {
    let asked = asked.filter(|text| !text.trim().is_empty());
    let (targets, misread) = match asked.map(str::parse::<Targets>) {
        None => (Targets::new(), None),
        Some(Ok(targets)) => (targets, None),
        Some(Err(error)) => (Targets::new(), Some(error.to_string())),
    };
    let targets = match targets.default_level() {
        None => targets.with_default(LevelFilter::INFO),
        Some(_) => targets,
    };
    (targets, misread)
}

#[expect(
    clippy::disallowed_methods,
    reason = "time enters the program here and is passed down"
)]
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_is_logged() {
        let cases = [
            (None, [true, false, true]),
            (Some(""), [true, false, true]),
            (Some("debug"), [true, true, true]),
            (Some("lizmon_monitor=debug"), [true, true, true]),
            (Some("warn,lizmon_monitor=debug"), [true, true, false]),
            (Some("off"), [false, false, false]),
            (Some("lizmon_monitor=loud"), [true, false, true]),
        ];
        for (asked, expected) in cases {
            let (targets, misread) = log_filter(asked);
            let logged = [
                targets.would_enable("lizmon_monitor::agent", &Level::INFO),
                targets.would_enable("lizmon_monitor::agent", &Level::DEBUG),
                targets.would_enable("rustls", &Level::INFO),
            ];
            assert_eq!(logged, expected, "{asked:?}");
            assert_eq!(misread.is_some(), asked == Some("lizmon_monitor=loud"));
        }
    }
}
