//! `liz-summarizer`: flags, clock and signals; the library does the rest.

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use lizmon_daemon::{ConfigFlags, DAEMON_HELP, Liveness, LivenessFlags, LogFlags, verbs};
use lizmon_enrol::CredentialFlags;
use lizmon_enrol::renewer::Renewer;
use lizmon_mtls::trust::TrustFiles;
use lizmon_receiver::alarms::AlarmsConfig;
use lizmon_receiver::config::{RetentionFlags, StoreFlags};
use lizmon_receiver::patience;
use lizmon_receiver::store::redis::config::StoreUrl;
use lizmon_receiver::summarizer::{ShardSummarizer, SummarizerError};
use lizmon_receiver::{Clock, Clocks};

/// Summarize a share of the samples that receivers keep in Redis or Valkey.
///
/// Any number of summarizers share the work evenly. One that stops hands its share over at once;
/// that of one that died is taken over within seconds. Certificate, key, root and CRLs come from
/// `lizctl`:
///
///   lizctl issue-summarizer sum1
///   liz-summarizer --store redis://redis.example --cert certs/summarizers/sum1.crt --key certs/summarizers/sum1.key --ca certs/root.crt --crl certs/crl.pem
#[derive(Debug, Parser)]
#[command(name = "liz-summarizer", version, verbatim_doc_comment, after_help = DAEMON_HELP)]
struct Cli {
    /// The receivers' store: redis://HOST:PORT, or rediss:// for TLS; HOST:PORT,HOST:PORT for nodes
    /// of a cluster, with /MASTER for Sentinels and the name of their master
    #[arg(long, env = "LIZMON_STORE", value_name = "URL")]
    store: StoreUrl,
    #[command(flatten)]
    store_flags: StoreFlags,
    #[command(flatten)]
    retention: RetentionFlags,
    /// The certificate, and where it is renewed.
    #[command(flatten)]
    credentials: CredentialFlags,
    /// Current CRLs of root and issuing CA (PEM), as in certs/crl.pem
    #[arg(long, env = "LIZMON_CRL", value_name = "FILE")]
    crl: PathBuf,
    /// Alarm rules and where alarms are told (TOML), over those that are built in; read again when
    /// the file changes
    #[arg(long, env = "LIZMON_RULES", value_name = "FILE")]
    rules: Option<PathBuf>,
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
    lizmon_daemon::exit_code("liz-summarizer", run(cli))
}

#[expect(
    clippy::disallowed_methods,
    reason = "randomness enters here and is passed down"
)]
fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    runtime.block_on(async {
        // Before READY: a signal from now on ends the summarizer cleanly.
        let mut stop = pin!(lizmon_daemon::stop().context("cannot listen for signals")?);
        // The files are checked every second anyway.
        lizmon_daemon::reload_at_hang_up(|| ()).context("cannot listen for signals")?;
        let clock: Clock = Arc::new(lizmon_daemon::epoch_secs);
        let renewer = Renewer {
            tell: Arc::new(lizmon_daemon::tell_status),
            ..cli
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
        let (cert, key) = (cli.credentials.cert, cli.credentials.key);
        let servers = cli
            .store_flags
            .redis(cli.store, (cert.clone(), key.clone()));
        let trust = TrustFiles {
            cert,
            key,
            ca: cli.credentials.ca,
            crl: cli.crl,
        };
        let alarms = AlarmsConfig {
            rules: cli.rules,
            chance: Arc::new(fastrand::f64),
        };
        let retention = cli.retention.into();
        let attempt = async || {
            let (trust, servers) = (trust.clone(), servers.clone());
            ShardSummarizer::start(trust, servers, retention, alarms.clone(), clocks.clone()).await
        };
        let summarizer = tokio::select! {
            started = patience::start(attempt, SummarizerError::may_pass) => started?,
            () = &mut stop => return Ok(()),
        };
        tracing::info!("READY");
        lizmon_daemon::tell_ready();
        tokio::spawn(renewer.run());
        let liveness = Liveness::new(cli.liveness);
        let summarizer = summarizer.telling_alive(Arc::new(move || liveness.alive()));
        summarizer.run(stop).await.context("the summarizer failed")
    })
}
