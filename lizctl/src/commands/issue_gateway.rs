//! `issue-gateway`: issues the certificate of a program that reports samples of several hosts.

use clap::Args;
use lizmon_ca::authority::Request;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::flags::attributes::GatewayFlags;
use crate::flags::leaf::LeafFlags;
use crate::issuance;

/// Issue the certificate of a gateway, which reports samples of the hosts that it names
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl issue-gateway prom1 --hosts 'web*'\n  \
                  lizctl issue-gateway prom1 --hosts web1 web2 'db-?'"
)]
pub(crate) struct IssueGatewayArgs {
    /// Name of the gateway
    name: NodeName,
    #[command(flatten)]
    limits: GatewayFlags,
    #[command(flatten)]
    leaf: LeafFlags,
}

/// `lizctl issue-gateway`.
pub(crate) fn run(args: IssueGatewayArgs, context: &Context) -> anyhow::Result<()> {
    let request = Request {
        attributes: args.limits.attributes(),
        ..issuance::request(Role::Gateway, args.name, &args.leaf)?
    };
    issuance::issue(request, &args.leaf, context, |issued, authority| {
        format!(
            "next: lizctl push HOST label=value --receiver https://RECEIVER:8443 {}",
            issuance::credential_flags(issued, authority)
        )
    })
    .map(drop)
}
