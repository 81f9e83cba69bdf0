//! `issue-receiver`: issues the certificate of a receiver.

use std::str::FromStr;

use clap::Args;
use lizmon_ca::authority::Request;
use lizmon_ca::pki::San;
use lizmon_daemon::args::{self, Items, items};
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::flags::leaf::LeafFlags;
use crate::issuance;

/// Issue the certificate of a receiver
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lizctl issue-receiver metrics --san metrics.example --san 10.0.0.5"
)]
pub(crate) struct IssueReceiverArgs {
    /// Name of the receiver
    name: NodeName,
    /// DNS name or IP address by which clients reach it
    #[arg(long = "san", env = "LIZMON_SAN", value_name = "DNS-OR-IP", required = true, num_args = 1.., value_parser = Items(San::from_str))]
    sans: Vec<args::CommaList<San>>,
    #[command(flatten)]
    leaf: LeafFlags,
}

/// `lizctl issue-receiver`.
pub(crate) fn run(args: IssueReceiverArgs, context: &Context) -> anyhow::Result<()> {
    let request = Request {
        sans: items(args.sans),
        ..issuance::request(Role::Receiver, args.name, &args.leaf)?
    };
    issuance::issue(request, &args.leaf, context, |issued, authority| {
        format!(
            "next: liz-receiver --listen 0.0.0.0:8443 {} --crl {}",
            issuance::credential_flags(issued, authority),
            authority.files().crl.display(),
        )
    })
    .map(drop)
}
