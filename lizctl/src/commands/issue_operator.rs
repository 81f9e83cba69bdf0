//! `issue-operator`: issues the certificate of an administrator.

use clap::Args;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::flags::leaf::LeafFlags;
use crate::issuance;

/// Issue the certificate of an operator, who reads summaries and changes what receivers trust
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl issue-operator alice --hours 12")]
pub(crate) struct IssueOperatorArgs {
    /// Name of the operator
    name: NodeName,
    #[command(flatten)]
    leaf: LeafFlags,
}

/// `lizctl issue-operator`.
pub(crate) fn run(args: IssueOperatorArgs, context: &Context) -> anyhow::Result<()> {
    let request = issuance::request(Role::Operator, args.name, &args.leaf)?;
    issuance::issue(request, &args.leaf, context, issuance::next_for_reader).map(drop)
}
