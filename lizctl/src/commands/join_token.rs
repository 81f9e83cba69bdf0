//! `join-token`: creates a token with which a machine joins once.

use std::io::{IsTerminal, stdout};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use lizmon_ca::pki::San;
use lizmon_client::BaseUrl;
use lizmon_daemon::args::{self, Items, items};
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::flags::attributes::AttributeFlags;
use crate::output;
use crate::profile::{self, ConnectionProfile};

/// Create a join token, with which a machine joins once; only the token goes to stdout
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lizctl join-token web1 --ca-url https://ca.example:8444\n\n\
                  A receiver: lizctl join-token rx1 --role receiver --san metrics.example\n\
                  A tagged host: lizctl join-token web1 --tag env=prod"
)]
pub(crate) struct JoinTokenArgs {
    /// Name of the machine, person or program that may join
    name: NodeName,
    /// Its role: node, reader, operator, summarizer, proxy, gateway or receiver
    #[arg(long, env = "LIZMON_ROLE", value_name = "ROLE", default_value = "node")]
    role: Role,
    /// DNS name or IP address by which clients reach a receiver: its certificate gets these and no
    /// others. Only with --role receiver, which needs one
    #[arg(long = "san", env = "LIZMON_SAN", value_name = "DNS-OR-IP", num_args = 1.., value_parser = Items(San::from_str))]
    sans: Vec<args::CommaList<San>>,
    #[command(flatten)]
    attributes: AttributeFlags,
    /// Lifetime of the token, at most 7 days
    #[arg(long, env = "LIZMON_TTL", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// URL of liz-ca for the command that is printed
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    ca_url: Option<BaseUrl>,
}

/// `lizctl join-token`. Only the token goes to stdout.
pub(crate) fn run(args: JoinTokenArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let authority = context.authority(now)?;
    let sans = items(args.sans);
    let attributes = args.attributes.attributes();
    let token =
        authority.make_join_token(args.role, &args.name, &sans, &attributes, args.ttl, now)?;
    output::line(token.as_str())?;
    let local = profile::read_local(&context.certs).ok().flatten();
    let ConnectionProfile {
        ca_url, receiver, ..
    } = local.unwrap_or_default();
    let ca_url = args.ca_url.or(ca_url);
    let url = ca_url
        .as_ref()
        .map_or("https://CA-HOST:8444", BaseUrl::as_str);
    // On a terminal the command is printed with the token; stderr of a script may be logged.
    let shown = if stdout().is_terminal() {
        token.as_str()
    } else {
        "TOKEN"
    };
    let fingerprint = authority.root_fingerprint();
    output::note(format_args!(
        "{} {} may join once, until {}",
        args.role,
        args.name,
        output::date(now.saturating_add(args.ttl.as_secs())),
    ));
    output::note(format_args!("CA fingerprint {fingerprint}"));
    output::note(format_args!(
        "next, on {}: lizctl join {url} --token {shown} --ca-fingerprint {fingerprint}{}",
        args.name,
        receiver.map_or_else(String::new, |url| format!(" --receiver {url}")),
    ));
    Ok(())
}
