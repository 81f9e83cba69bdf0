//! `liz-receiver`: flags, clock and signals; the library does the rest.

mod command;

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use lizmon_daemon::{ConfigFlags, DAEMON_HELP, Liveness, LivenessFlags, LogFlags, verbs};
use lizmon_enrol::renewer::Renewer;
use lizmon_receiver::alarms::AlarmsConfig;
use lizmon_receiver::config::ReceiverFlags;
use lizmon_receiver::{Clock, Clocks, Config, Receiver, ReceiverError, patience};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Accept samples over mutual TLS, make them durable, answer queries with summaries.
///
/// Certificate, key, root and CRLs come from `lizctl`:
///
///   lizctl init-ca
///   lizctl issue-receiver rx1 --san receiver.example --san 192.0.2.7
///   liz-receiver --listen 0.0.0.0:8443 --cert certs/receivers/rx1.crt --key certs/receivers/rx1.key --ca certs/root.crt --crl certs/crl.pem
#[derive(Debug, Parser)]
#[command(name = "liz-receiver", version, verbatim_doc_comment, after_help = DAEMON_HELP)]
struct Cli {
    #[command(flatten)]
    flags: ReceiverFlags,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    liveness: LivenessFlags,
    #[command(flatten)]
    log: LogFlags,
}

fn main() -> ExitCode {
    let command = command::DataCommand::augment_subcommands(Cli::command());
    let matches = lizmon_daemon::args::matches(verbs::with_verbs(command.clone()));
    if let Some(code) = verbs::run(&matches, &command) {
        return code;
    }
    let result = match matches.subcommand_name() {
        Some(_) => command::DataCommand::from_arg_matches(&matches)
            .map_err(anyhow::Error::from)
            .and_then(|command| command::run(command, lizmon_daemon::epoch_secs())),
        None => match Cli::from_arg_matches(&matches) {
            Ok(cli) => {
                cli.log.start();
                cli.config.log();
                run(cli.flags, Liveness::new(cli.liveness))
            }
            Err(error) => error.exit(),
        },
    };
    lizmon_daemon::exit_code("liz-receiver", result)
}

#[expect(
    clippy::disallowed_methods,
    reason = "randomness enters here and is passed down"
)]
fn run(flags: ReceiverFlags, liveness: Liveness) -> anyhow::Result<()> {
    let open_files = lizmon_daemon::raise_open_files();
    // Before there are threads.
    let listener = lizmon_daemon::listener(flags.listen)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    runtime.block_on(async {
        // Before READY: a signal from now on ends the receiver cleanly.
        let mut stop = pin!(lizmon_daemon::stop().context("cannot listen for signals")?);
        // The files are checked every second anyway.
        lizmon_daemon::reload_at_hang_up(|| ()).context("cannot listen for signals")?;
        let clock: Clock = Arc::new(lizmon_daemon::epoch_secs);
        let renewer = Renewer {
            tell: Arc::new(lizmon_daemon::tell_status),
            ..flags
                .credentials
                .renewer(clock.clone(), Arc::new(fastrand::f64))
        };
        renewer.finish_install()?;
        let clocks = Clocks {
            wall: clock,
            fine: Arc::new(lizmon_daemon::since_1970),
            monotonic: Arc::new(lizmon_daemon::since_boot_secs),
            boot: lizmon_daemon::boot_id(),
        };
        let crl_fetch = flags.crl_fetch(Arc::new(fastrand::f64));
        let config = Config::from(flags);
        let alarms = AlarmsConfig {
            chance: Arc::new(fastrand::f64),
            ..config.alarms.clone()
        };
        let config = Config {
            crl_fetch,
            alarms,
            limits: config.limits.within_open_files(open_files),
            ..config
        };
        // A full disk does not empty itself.
        let is_shared = config.shared.is_some();
        let attempt = async || {
            let listener = listener.try_clone()?;
            Receiver::start(listener, config.clone(), clocks.clone()).await
        };
        let may_pass = |error: &ReceiverError| is_shared && error.may_pass();
        let receiver = tokio::select! {
            started = patience::start(attempt, may_pass) => started?,
            () = &mut stop => return Ok(()),
        };
        drop(listener);
        tracing::info!(
            "READY on {}, issuer {}",
            receiver.address(),
            receiver.issuer()
        );
        lizmon_daemon::tell_ready();
        tokio::spawn(renewer.run());
        let receiver = receiver.telling_alive(Arc::new(move || liveness.alive()));
        receiver.run(stop).await.context("the receiver failed")
    })
}
