//! `open`: the receiver's page in a browser that has no certificate.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::authority::Authority;
use lizmon_client::{BaseUrl, Error};
use lizmon_protocol::name::NodeName;

use crate::context::Context;
use crate::flags::connection::ConnectionFlags;
use crate::flags::renewal::RenewalFlags;
use crate::loopback::{self, KEY_LIFETIME_SECS, Listener, Loopback, Machines, Session, Upstream};
use crate::{browser, output, profile, runtime};

/// Open the receiver's page in a browser, through a server on this machine that has your certificate
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct OpenArgs {
    /// The host whose page is opened [default: the overview]
    host: Option<NodeName>,
    /// Where the server listens: a loopback address, as only this machine may reach it
    #[arg(
        long,
        env = "LIZMON_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:0",
        value_parser = parse_listen
    )]
    listen: SocketAddr,
    /// Listen at this Unix socket instead, of mode 0600, for programs: the API and the page, without
    /// a cookie
    #[arg(long, env = "LIZMON_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the address, and start no browser
    #[arg(long, env = "LIZMON_PRINT", value_parser = FalseyValueParser::new())]
    print: bool,
    #[command(flatten)]
    connection: ConnectionFlags,
    #[command(flatten)]
    renewal: RenewalFlags,
}

const EXAMPLES: &str = "\
Examples:
  lizctl open
  lizctl open web1 --print
  lizctl open --socket lizmon.sock & curl --unix-socket lizmon.sock http://localhost/api/perf

The address that is printed works once, in one browser, within ten minutes. The server ends with this
command: keep it running. Other users of this machine are kept out, and so are pages of other sites.
From another machine: ssh -L 8080:127.0.0.1:8080 HOST lizctl open --print --listen 127.0.0.1:8080";

/// `lizctl open`. Runs until Ctrl-C.
pub(crate) fn run(args: &OpenArgs, context: &Context) -> anyhow::Result<()> {
    let connection = args.connection.connection(context)?;
    let renewer = connection.renewer(&args.renewal, context)?;
    let upstream = Upstream::new(connection.clone(), context.clock)?;
    runtime::current_thread()?.block_on(async {
        let stop = lizmon_daemon::stop_or_hang_up().context("cannot listen for signals")?;
        let upstream = Arc::new(upstream);
        check_access(&upstream, context).await?;
        let (listener, session) = match &args.socket {
            Some(path) => (loopback::bind_socket(path)?, None),
            None => {
                let (listener, address) = loopback::bind(args.listen).with_context(|| {
                    format!(
                        "cannot listen on {}: choose another with --listen",
                        args.listen
                    )
                })?;
                (
                    listener,
                    Some(Arc::new(Session::new(address, context.new_secret))),
                )
            }
        };
        match (&session, &args.socket) {
            (Some(session), _) => show(session, args, context)?,
            (None, path) => output::note(format_args!(
                "listening at {}; Ctrl-C ends it",
                path.as_deref().unwrap_or(Path::new("")).display()
            )),
        }
        let first_page = match &args.host {
            Some(host) => format!("/hosts/{host}"),
            None => "/".to_owned(),
        };
        let machines = machines(&connection.receiver, context);
        let served = serve(listener, upstream, session, first_page, machines, async {
            stop.await;
        });
        tokio::select! {
            served = served => served,
            () = renewer.run() => Ok(()),
        }
    })
}

/// Serves until `stop`, and takes renewed certificates into use.
pub(crate) async fn serve(
    listener: Listener,
    upstream: Arc<Upstream>,
    session: Option<Arc<Session>>,
    first_page: String,
    machines: Option<Machines>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let loopback = Arc::new(Loopback {
        session,
        upstream: upstream.clone(),
        first_page,
        machines: machines.map(Arc::new),
    });
    tokio::select! {
        served = loopback::serve(listener, loopback, stop) => {
            served.context("the server for browsers failed")
        }
        () = upstream.keep_current() => Ok(()),
    }
}

/// Adds and revokes machines, if the CA is in `--certs`.
pub(crate) fn machines(receiver: &BaseUrl, context: &Context) -> Option<Machines> {
    if !Authority::exists(&context.certs) {
        return None;
    }
    let local = profile::read_local(&context.certs).ok().flatten();
    Some(Machines {
        certs: context.certs.clone(),
        keys: context.keys.clone(),
        ca_url: local.and_then(|profile| profile.ca_url),
        receiver: receiver.clone(),
        clock: context.clock,
        stopwatch: context.stopwatch,
    })
}

/// A certificate that is refused is told at once; a receiver that is away may come back.
async fn check_access(upstream: &Upstream, context: &Context) -> anyhow::Result<()> {
    match upstream.client().token(None, (context.clock)()).await {
        Err(error @ Error::Connect(_)) if !error.is_identity_refused() => {
            output::note(format_args!(
                "{}; the page asks again",
                lizmon_pki::error_chain::in_one_line(&error)
            ));
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_token) => Ok(()),
    }
}

fn show(session: &Session, args: &OpenArgs, context: &Context) -> anyhow::Result<()> {
    let url = session.url((context.clock)());
    output::line(&url)?;
    output::note(format_args!(
        "this address works once, within {} minutes; Ctrl-C ends it",
        KEY_LIFETIME_SECS / 60
    ));
    if !args.print
        && let Err(why) = browser::start(&url)
    {
        output::note(format_args!(
            "{why}: paste the address into one on this machine"
        ));
    }
    Ok(())
}

/// Only a loopback address: whoever reaches the server reads what the certificate may read.
fn parse_listen(text: &str) -> Result<SocketAddr, &'static str> {
    let address: Result<SocketAddr, _> = text.parse();
    match address {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        _ => Err("it must be a loopback address and a port, like 127.0.0.1:0 or [::1]:8080"),
    }
}
