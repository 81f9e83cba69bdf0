//! `issue-summarizer`: issues the certificate of a summarizer.

use clap::Args;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::{Context, quoted};
use crate::flags::leaf::LeafFlags;
use crate::issuance;

/// Issue the certificate of a summarizer of a store that receivers share
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl issue-summarizer sum1")]
pub(crate) struct IssueSummarizerArgs {
    /// Name of the summarizer
    name: NodeName,
    #[command(flatten)]
    leaf: LeafFlags,
}

/// `lizctl issue-summarizer`.
pub(crate) fn run(args: IssueSummarizerArgs, context: &Context) -> anyhow::Result<()> {
    let request = issuance::request(Role::Summarizer, args.name, &args.leaf)?;
    issuance::issue(request, &args.leaf, context, |issued, authority| {
        format!(
            "next: liz-summarizer --store redis://HOST:6379 {} --crl {}",
            issuance::credential_flags(issued, authority),
            quoted(&authority.files().crl),
        )
    })
    .map(drop)
}
