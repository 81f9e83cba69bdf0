//! `up`: runs everything on this machine, in one process.

mod all_in_one;
mod browser_server;
mod curl;
mod enrolment_service;
mod local_endpoint;
mod local_pki;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use lizmon_monitor::Environment;
use lizmon_mtls::TlsMin;
use lizmon_protocol::name::NodeName;

use self::all_in_one::{AllInOne, AllInOneConfig};
use crate::context::Context;

/// Run everything on this machine: CA, certificates, receiver, monitor, live view
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl up\n  lizctl up --for 20s --listen 127.0.0.1:9443 --data /tmp/data\n  lizctl up --this-host web1"
)]
pub(crate) struct UpArgs {
    /// Stop after this long
    #[arg(long = "for", env = "LIZMON_FOR", value_name = "TIME", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,
    /// Where the receiver listens; if the port is in use, the next free one
    #[arg(
        long,
        env = "LIZMON_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8443",
        value_parser = local_endpoint::parse_listen
    )]
    listen: SocketAddr,
    /// Name of this machine in the fleet [default: its host name, with invalid characters replaced]
    #[arg(long, env = "LIZMON_THIS_HOST", value_name = "NAME")]
    this_host: Option<NodeName>,
    /// Folder for all persistent data; locked by one process
    #[arg(long, env = "LIZMON_DATA", value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Lowest TLS version that the receiver accepts: 1.2 or 1.3
    #[arg(long, env = "LIZMON_TLS_MIN", value_name = "VERSION", default_value_t)]
    tls_min: TlsMin,
}

/// `lizctl up`. Runs until Ctrl-C, or for as long as `--for` says.
pub(crate) fn run(
    args: &UpArgs,
    context: &Context,
    environment: Environment,
) -> anyhow::Result<()> {
    let config = AllInOneConfig {
        listen: args.listen,
        this_host: args.this_host.clone(),
        data: args.data.clone(),
        tls_min: args.tls_min,
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(async {
            let stop = lizmon_daemon::stop_or_hang_up().context("cannot listen for signals")?;
            let all = AllInOne::start(&config, context, environment).await?;
            all.run(args.run_for, stop, context).await
        })
}
