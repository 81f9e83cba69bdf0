//! `issue-node`: issues certificates for hosts.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, IssueError, Issued, LeafTerms, Request};
use lizmon_protocol::name::{Attributes, NodeName, Role};

use crate::context::Context;
use crate::failure::Exit;
use crate::flags::attributes::TagFlags;
use crate::flags::leaf::LeafFlags;
use crate::{input, issuance, output};
use many::IssueLoop;

mod many;

/// Issue certificates for hosts that report metrics
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl issue-node web1 web2\n  lizctl issue-node --from hosts.txt --days 30 --tag env=prod\n  \
                  lizctl issue-node --from hosts.txt --if-missing\n  lizctl issue-node web1 --csr web1.csr"
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
pub(crate) fn run(mut args: IssueNodeArgs, context: &Context) -> anyhow::Result<()> {
    let mut names = std::mem::take(&mut args.names);
    let listed = match &args.from {
        Some(file) => input::node_names(file)?,
        None => Vec::new(),
    };
    names.extend(listed.iter().map(|(name, _)| name.clone()));
    if names.is_empty() {
        bail!("no names: give at least one");
    }
    let (leaf, attributes) = (&args.leaf, args.tags.attributes());
    if leaf.csr.is_some() {
        let [name] = names.as_slice() else {
            return Err(anyhow!("a signing request is for one name").context(Exit::Usage));
        };
        let request = Request {
            attributes,
            ..issuance::request(Role::Node, name.clone(), leaf)?
        };
        return issuance::issue(request, leaf, context, next).map(drop);
    }
    let now = (context.clock)();
    let authority = context.authority(now)?;
    if let Err(error) = authority.check_names(Role::Node, &names) {
        let line = args.from.as_ref().zip(line_of(&error, &listed));
        return match line {
            Some((file, line)) => {
                Err(error).with_context(|| format!("{}, line {line}", file.display()))
            }
            None => Err(error.into()),
        };
    }
    let missing = issuance::missing(names, Role::Node, leaf, context)?;
    let last = IssueLoop {
        authority: &authority,
        terms: terms(leaf, attributes),
        out: leaf.out.as_deref(),
        context,
    }
    .run(&missing, now)?;
    if let Some(issued) = last {
        output::note(next(&issued, &authority));
    }
    Ok(())
}

fn terms(leaf: &LeafFlags, attributes: Attributes) -> LeafTerms {
    LeafTerms {
        role: Role::Node,
        attributes,
        lifetime: leaf.lifetime(),
        key_alg: leaf.key_alg.unwrap_or_default(),
    }
}

/// The line with the name that the error is about. Of a name that is listed twice, the second.
fn line_of(error: &Error, listed: &[(NodeName, usize)]) -> Option<usize> {
    let Error::Issue(
        IssueError::NamedTwice(culprit) | IssueError::CaseConflict { name: culprit, .. },
    ) = error
    else {
        return None;
    };
    let mut newest_first = listed.iter().rev();
    let found = newest_first.find(|(name, _)| name.as_str() == culprit);
    found.map(|(_, line)| *line)
}

fn next(issued: &Issued, authority: &Authority) -> String {
    let name = &issued.spiffe_id.name;
    format!(
        "next, on {name}: liz-monitor --this-host {name} --publish https://RECEIVER:8443/api/perf {} --spool spool",
        issuance::credential_flags(issued, authority),
    )
}
