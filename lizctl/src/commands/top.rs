//! `top`: the hosts of a receiver on a terminal, kept up to date.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use lizmon_protocol::name::NodeName;

use crate::context::Context;
use crate::failure::Exit;
use crate::flags::attributes::TagFilterFlags;
use crate::flags::connection::ConnectionFlags;
use crate::flags::renewal::RenewalFlags;
use crate::loopback::Upstream;
use crate::output::{self, screen};
use crate::runtime;
use crate::top::{self, TopState};

/// Show the hosts of a receiver on the terminal, kept up to date, with plots
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl top\n  lizctl top web1\n  lizctl top --tag env=prod\n\n\
                  ? lists the keys. With NO_COLOR set there are no colours."
)]
pub(crate) struct TopArgs {
    /// The host to begin with [default: all]
    host: Option<NodeName>,
    #[command(flatten)]
    tags: TagFilterFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
    #[command(flatten)]
    renewal: RenewalFlags,
}

/// `lizctl top`. Runs until `q` or Ctrl-C.
pub(crate) fn run(args: &TopArgs, context: &Context) -> anyhow::Result<()> {
    if !screen::is_available() {
        let text = "top needs a terminal: `lizctl hosts` prints the hosts once";
        return Err(anyhow::anyhow!(text).context(Exit::Usage));
    }
    let connection = args.connection.connection(context)?;
    let receiver = connection.receiver.to_string();
    let renewer = connection.renewer(&args.renewal, context)?;
    let upstream = Arc::new(Upstream::new(connection, context.clock)?);
    let mut state = TopState::new(receiver, None, screen::uses_color()).of(args.tags.filter());
    if let Some(host) = &args.host {
        state = state.looking_at(host.clone());
    }
    runtime::current_thread()?.block_on(async {
        let stop =
            std::pin::pin!(lizmon_daemon::stop_or_hang_up().context("cannot listen for signals")?);
        let ended = tokio::select! {
            _ = stop => return Ok(()),
            () = renewer.run() => return Ok(()),
            ended = top::run(state, upstream, None, context) => ended,
        };
        match ended {
            Err(error) if output::is_terminal_hangup(&error) => Ok(()),
            ended => ended.context("cannot draw on the terminal"),
        }
    })
}
