//! `issue-proxy`: issues the certificate of a load balancer that ends its clients' TLS connections.

use clap::Args;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::flags::leaf::LeafFlags;
use crate::issuance;

/// Issue the certificate by which receivers trust a load balancer that ends TLS
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl issue-proxy edge1")]
pub(crate) struct IssueProxyArgs {
    /// Name of the load balancer
    name: NodeName,
    #[command(flatten)]
    leaf: LeafFlags,
}

/// `lizctl issue-proxy`.
pub(crate) fn run(args: IssueProxyArgs, context: &Context) -> anyhow::Result<()> {
    let request = issuance::request(Role::Proxy, args.name, &args.leaf)?;
    issuance::issue(request, &args.leaf, context, |_, _| {
        "next: give certificate and key to the load balancer, which passes client certificates on \
         (docs/balancers.md), and start receivers with --trusted-proxy"
            .to_owned()
    })
    .map(drop)
}
