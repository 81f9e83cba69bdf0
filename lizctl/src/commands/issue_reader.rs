//! `issue-reader`: issues the certificate of a reader.

use clap::Args;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::flags::leaf::LeafFlags;
use crate::pkcs12::Pkcs12Flags;
use crate::{issuance, output};

/// Issue the certificate of a reader of summaries
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl issue-reader alice\n  lizctl issue-reader alice --p12 alice.p12"
)]
pub(crate) struct IssueReaderArgs {
    /// Name of the reader
    name: NodeName,
    #[command(flatten)]
    leaf: LeafFlags,
    #[command(flatten)]
    pkcs12: Pkcs12Flags,
}

/// `lizctl issue-reader`.
pub(crate) fn run(args: IssueReaderArgs, context: &Context) -> anyhow::Result<()> {
    let export = args.pkcs12.prepare()?;
    let request = issuance::request(Role::Reader, args.name, &args.leaf)?;
    let issued = issuance::issue(request, &args.leaf, context, issuance::next_for_reader)?;
    if let Some((export, issued)) = export.zip(issued) {
        let file = export.write(&issued)?;
        output::line(format_args!("for browsers: {}", file.display()))?;
    }
    Ok(())
}
