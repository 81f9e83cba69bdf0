//! `issue-node`: issues certificates for hosts.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use lizmon_ca::authority::Request;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::failure::Exit;
use crate::flags::attributes::TagFlags;
use crate::flags::leaf::LeafFlags;
use crate::{input, issuance, output};

/// Progress is printed after each this many certificates.
const PROGRESS_EVERY: usize = 100;

/// Issue certificates for hosts that report metrics
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl issue-node web1 web2\n  lizctl issue-node --from hosts.txt --days 30 --tag env=prod\n  \
                  lizctl issue-node web1 --csr web1.csr"
)]
pub(crate) struct IssueNodeArgs {
    /// Names of the hosts
    #[arg(value_name = "NAME", required_unless_present = "from")]
    names: Vec<NodeName>,
    /// Read names from this file, one per line; # starts a comment; - is stdin
    #[arg(long, env = "LIZMON_FROM", value_name = "FILE", conflicts_with = "csr")]
    from: Option<PathBuf>,
    #[command(flatten)]
    tags: TagFlags,
    #[command(flatten)]
    leaf: LeafFlags,
}

/// `lizctl issue-node`.
pub(crate) fn run(args: IssueNodeArgs, context: &Context) -> anyhow::Result<()> {
    let mut names = args.names;
    if let Some(file) = &args.from {
        names.extend(input::node_names(file)?);
    }
    if names.is_empty() {
        bail!("no names: give at least one");
    }
    if args.leaf.csr.is_some() && names.len() > 1 {
        return Err(anyhow!("a signing request is for one name").context(Exit::Usage));
    }
    let key = issuance::key_source(&args.leaf)?;
    let attributes = args.tags.attributes();
    let now = (context.clock)();
    let authority = context.authority(now)?;
    authority.check_names(Role::Node, &names)?;
    let count = names.len();
    let mut last = None;
    for (done, name) in names.into_iter().enumerate() {
        if let Some(present) = args.leaf.present(&name) {
            issuance::note_present(&present);
            continue;
        }
        let request = Request {
            lifetime: args.leaf.lifetime(),
            key: key.clone(),
            attributes: attributes.clone(),
            ..Request::new(Role::Node, name.clone())
        };
        let issued = authority
            .issue(request, now)
            .with_context(|| format!("{name}, after {done} of {count} were issued"))?;
        issuance::show(&issued)?;
        issuance::deliver(&issued, &authority, &args.leaf)?;
        if (done + 1) % PROGRESS_EVERY == 0 {
            output::note(format_args!("issued {} of {count}", done + 1));
        }
        last = Some(issued);
    }
    if let Some(issued) = last {
        output::note(format_args!(
            "next, on {}: liz-monitor --this-host {} --publish https://RECEIVER:8443/api/perf {} --spool spool",
            issued.spiffe_id.name,
            issued.spiffe_id.name,
            issuance::credential_flags(&issued, &authority),
        ));
    }
    Ok(())
}
