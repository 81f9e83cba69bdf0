//! `liz-receiver`: flags, clock, signals and the log; the rest is the library's.

use std::io::IsTerminal;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use lizmon_receiver::config::Flags;
use lizmon_receiver::{Clock, Config, Receiver};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Take samples from machines that prove who they are, make them durable, answer summaries.
///
/// Everything it shows and trusts comes from `lizctl`:
///
///   lizctl init-ca
///   lizctl issue-receiver rx1 --san receiver.example --san 192.0.2.7
///   liz-receiver --listen 0.0.0.0:8443 --cert certs/receivers/rx1.crt --key certs/receivers/rx1.key --ca certs/root.crt --crl certs/crl.pem
#[derive(Debug, Parser)]
#[command(name = "liz-receiver", version, verbatim_doc_comment)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    /// How the log on stderr is written; RUST_LOG says how much of it
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
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format);
    match run(cli.flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("liz-receiver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    raise_open_files();
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    runtime.block_on(async {
        let listen = flags.listen;
        let listener = TcpListener::bind(listen)
            .with_context(|| format!("cannot listen on {listen}: choose another with --listen"))?;
        // Before anything is promised: a signal from now on ends the receiver cleanly.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let renewer = flags.renewer(clock(), Arc::new(fastrand::f64));
        renewer.settle()?;
        let config = Config {
            lists_from: flags.lists_from(Arc::new(fastrand::f64)),
            ..Config::from(flags)
        };
        let receiver = Receiver::start(listener, config, clock()).await?;
        tracing::info!(
            "READY on {}, issuer {}",
            receiver.address(),
            receiver.issuer()
        );
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::debug!(%error, "systemd was not told");
        }
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
            let _nobody_listens = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        };
        tokio::spawn(renewer.run());
        receiver.run(shutdown).await.context("the receiver failed")
    })
}

/// The system's clock: the one place where it is read.
fn clock() -> Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the process: from here it is passed down"
    )]
    Arc::new(|| {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    })
}

/// As many connections as the system lets us have: each one is an open file.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        tracing::warn!(%error, "the number of open files stays at {:?}", limit.current);
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
