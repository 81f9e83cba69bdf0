//! `liz-monitor`: samples this machine every second and publishes over mutual TLS.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use lizmon_daemon::{ConfigFlags, DAEMON_HELP, Liveness, LivenessFlags, LogFlags, verbs};
use lizmon_enrol::renewer::Renewer;
use lizmon_monitor::{Agent, Config, Environment, MonitorFlags};
use lizmon_pki::server_crls::ServerCrls;
use lizmon_protocol::sample::ProducerId;
use tracing::info;

/// Where `--help` is asked for, and in the manual page.
const LONG_ABOUT: &str = "\
Samples this machine every second and publishes to one or more receivers over mutual TLS.

While a receiver cannot be reached, records wait, on disk with --spool, and are delivered when
it is back. RUST_LOG selects what is logged to stderr: RUST_LOG=lizmon_monitor=debug shows each
sample and publish, trace the number of each record. Certificate, key and root come from
`lizctl join`:

  lizctl join https://ca.example:8444 --token TOKEN --ca-fingerprint HEX --out .
  liz-monitor --this-host web1 --publish https://rx1.example:8443/api/perf --cert web1.crt --key web1.key --ca root.crt --ca-url https://ca.example:8444 --spool spool";

/// Samples this machine every second and publishes to one or more receivers over mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "liz-monitor", version, long_about = LONG_ABOUT, after_help = DAEMON_HELP)]
struct Cli {
    #[command(flatten)]
    flags: MonitorFlags,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    liveness: LivenessFlags,
    #[command(flatten)]
    log: LogFlags,
}

fn main() -> ExitCode {
    let cli: Cli = match verbs::parse_or_run() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli.log.start();
    cli.config.log();
    lizmon_daemon::exit_code("liz-monitor", run(cli.flags, Liveness::new(cli.liveness)))
}

/// One thread for everything but sampling: more are not needed, and each costs memory.
#[expect(
    clippy::disallowed_methods,
    reason = "randomness enters here and is passed down"
)]
fn run(flags: MonitorFlags, liveness: Liveness) -> anyhow::Result<()> {
    let seconds = || Arc::new(lizmon_daemon::epoch_secs);
    let renewer = Renewer {
        tell: Arc::new(lizmon_daemon::tell_status),
        ..flags
            .credentials
            .renewer(seconds(), Arc::new(fastrand::f64))
    };
    let server_crls = ServerCrls::default();
    let watch = flags.crl_refresher(server_crls.clone(), seconds(), Arc::new(fastrand::f64));
    let config = Config {
        server_crls,
        ..Config::from(flags)
    };
    let environment = Environment {
        clock: Arc::new(lizmon_daemon::since_1970),
        monotonic: Arc::new(lizmon_daemon::since_boot),
        chance: Arc::new(fastrand::f64),
        new_producer: Arc::new(|| ProducerId::new(uuid::Uuid::new_v4())),
    };
    let host = config.host.clone();
    let agent = Agent::new(config, environment)?;
    let agent = agent.telling_alive(Arc::new(move || liveness.alive()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let stop = lizmon_daemon::stop().context("cannot listen for signals")?;
        let look = agent.file_check();
        lizmon_daemon::reload_at_hang_up(move || look.send_replace(()))
            .context("cannot listen for signals")?;
        tokio::spawn(renewer.run());
        if let Some(watch) = watch {
            tokio::spawn(watch.run());
        }
        let ready = || {
            info!("READY: watching {host}");
            lizmon_daemon::tell_ready();
        };
        agent.run(ready, stop).await?;
        info!("stopped");
        Ok(())
    })
}
