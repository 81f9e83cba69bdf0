//! `liz-ca`: flags, clock and signals; the rest is in the library.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use lizmon_ca::files::LeafFiles;
use lizmon_ca::pki::{Passphrase, San, Unlock};
use lizmon_ca::service::{Config, Service, ServiceCertificate};
use lizmon_daemon::args::{CommaList, Items, items};
use lizmon_daemon::{ConfigFlags, DAEMON_HELP, Liveness, LivenessFlags, LogFlags, verbs};
use lizmon_mtls::TlsMin;
use lizmon_mtls::proxies::Network;
use lizmon_protocol::name::NodeName;

/// Issue and renew certificates over the network with RFC 7030 (EST), for the CA in a folder.
///
/// A machine joins with a token and renews with its current certificate:
///
///   lizctl init-ca
///   liz-ca --listen 0.0.0.0:8444 --san ca.example
///   lizctl join-token web1                      prints the token and the command for web1
#[derive(Debug, Parser)]
#[command(name = "liz-ca", version, verbatim_doc_comment, after_help = DAEMON_HELP)]
struct Cli {
    /// Address and port to listen on
    #[arg(
        long,
        env = "LIZMON_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8444"
    )]
    listen: SocketAddr,
    /// Folder of the CA, created by `lizctl init-ca`
    #[arg(
        long,
        env = "LIZMON_CERTS",
        value_name = "DIR",
        default_value = "certs"
    )]
    certs: PathBuf,
    /// A DNS name or IP address by which clients reach it [default: this host's name, localhost and
    /// the listen address]
    #[arg(long = "san", env = "LIZMON_SAN", value_name = "DNS-OR-IP", num_args = 1.., value_parser = Items(San::from_str), conflicts_with = "cert")]
    sans: Vec<CommaList<San>>,
    /// Name of its own certificate, certs/cas/NAME.crt, which it issues and renews
    #[arg(
        long,
        env = "LIZMON_NAME",
        value_name = "NAME",
        default_value = "liz-ca",
        conflicts_with = "cert"
    )]
    name: NodeName,
    /// Use this certificate of the role `ca` instead (PEM)
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of that certificate (PKCS#8 PEM)
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// File with the passphrase of the issuing CA's key, if it is encrypted
    #[arg(long, env = "LIZMON_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Load balancers that pass TLS through: networks, or addresses, whose connections begin with a
    /// PROXY protocol header, version 1 or 2; connections from elsewhere begin without one
    #[arg(long, env = "LIZMON_PROXY_PROTOCOL", value_name = "CIDR", num_args = 1.., value_parser = Items(Network::from_str))]
    proxy_protocol: Vec<CommaList<Network>>,
    /// The minimum TLS version: 1.2 or 1.3
    #[arg(long, env = "LIZMON_TLS_MIN", value_name = "VERSION", default_value_t)]
    tls_min: TlsMin,
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
    let open_files = lizmon_daemon::raise_open_files();
    lizmon_daemon::exit_code("liz-ca", run(cli, open_files))
}

fn run(cli: Cli, open_files: u64) -> anyhow::Result<()> {
    // Before there are threads.
    let listener = lizmon_daemon::listener(cli.listen)?;
    let liveness = Liveness::new(cli.liveness.clone());
    let mut config = config(cli)?;
    config.limits = config.limits.within_open_files(open_files);
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    runtime.block_on(async {
        // Before READY: from now on a signal stops the service cleanly.
        let stop = lizmon_daemon::stop().context("cannot listen for signals")?;
        // Nothing to do on SIGHUP: the files are checked every second.
        lizmon_daemon::reload_at_hang_up(|| ()).context("cannot listen for signals")?;
        let clock = Arc::new(lizmon_daemon::epoch_secs);
        let service = Service::start(listener, config, clock).await?;
        tracing::info!("READY on {}, {}", service.address(), service.url());
        lizmon_daemon::tell_ready();
        let service = service.telling_alive(Arc::new(move || liveness.alive()));
        service.run(stop).await.context("liz-ca failed")
    })
}

fn config(cli: Cli) -> anyhow::Result<Config> {
    let certificate = match (cli.cert, cli.key) {
        (Some(certificate), Some(key)) => {
            ServiceCertificate::Provided(LeafFiles { certificate, key })
        }
        _ => {
            let sans = if cli.sans.is_empty() {
                default_sans(cli.listen.ip())
            } else {
                items(cli.sans)
            };
            ServiceCertificate::Issued {
                name: cli.name,
                sans,
            }
        }
    };
    let mut config = Config::new(cli.certs, certificate);
    config.tls_min = cli.tls_min;
    config.proxy_protocol = items(cli.proxy_protocol);
    if let Some(file) = &cli.passphrase_file {
        config.unlock = Unlock::with(Passphrase::from_file(file)?);
    }
    Ok(config)
}

/// The default names. The first one is in the URL that is logged.
fn default_sans(listen: IpAddr) -> Vec<San> {
    let mut sans = Vec::new();
    if !listen.is_unspecified() && !listen.is_loopback() {
        sans.push(San::Ip(listen));
    }
    let host = rustix::system::uname();
    let host = host.nodename().to_str().ok();
    let host: Option<San> = host.and_then(|host| host.parse().ok());
    let local = ["localhost", "127.0.0.1", "::1"].map(|name| name.parse().ok());
    let ordered = if listen.is_loopback() {
        local.into_iter().chain([host]).collect::<Vec<_>>()
    } else {
        [host].into_iter().chain(local).collect()
    };
    for san in ordered.into_iter().flatten() {
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
    sans
}
