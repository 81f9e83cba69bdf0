//! `hosts`: lists the hosts that report to a receiver.

use clap::Args;

use crate::context::Context;
use crate::flags::connection::ConnectionFlags;
use crate::flags::output::OutputFlags;
use crate::{output, runtime, view};

/// List the hosts that report to a receiver
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl hosts --json")]
pub(crate) struct HostsArgs {
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl hosts`.
pub(crate) fn run(args: &HostsArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let client = args.connection.client(context)?;
    let runtime = runtime::current_thread()?;
    if args.output.is_json() {
        return output::json_as_received(&runtime.block_on(client.hosts_json(now))?);
    }
    let hosts = runtime.block_on(client.hosts(now))?;
    if hosts.hosts.is_empty() {
        output::note("no host has reported in the last day");
        return Ok(());
    }
    view::table::hosts(&hosts, now)
        .iter()
        .try_for_each(output::line)
}
