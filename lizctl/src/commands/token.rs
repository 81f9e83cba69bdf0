//! `token`: prints a bearer token for other programs.

use clap::Args;
use lizmon_protocol::token::{Scopes, UnknownScope};

use crate::context::Context;
use crate::flags::connection::ConnectionFlags;
use crate::{output, runtime};

/// Get a bearer token from a receiver and print only that
#[derive(Debug, Args)]
#[command(
    after_help = "Example: curl … -H \"Authorization: Bearer $(lizctl token)\" https://HOST:8443/api/perf\n\
                  with LIZMON_RECEIVER, LIZMON_CERT, LIZMON_KEY and LIZMON_CA set"
)]
pub(crate) struct TokenArgs {
    /// Request fewer scopes than your certificate allows: metrics:write, metrics:read or admin,
    /// separated by spaces
    #[arg(long, env = "LIZMON_SCOPE", value_name = "SCOPES", value_parser = parse_scopes)]
    scope: Option<Scopes>,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl token`: prints only the token, for a shell's `$(…)`.
pub(crate) fn run(args: &TokenArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let client = args.connection.client(context)?;
    let response = runtime::current_thread()?.block_on(client.token(args.scope, now))?;
    output::line(response.access_token)
}

fn parse_scopes(text: &str) -> Result<Scopes, UnknownScope> {
    text.parse()
}
