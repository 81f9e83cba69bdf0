//! `silence`: alarms of a host are not told for a while.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use lizmon_pki::date::rfc3339;
use lizmon_protocol::alarm::{SilenceRequest, Silenced};
use lizmon_protocol::name::NodeName;

use crate::context::Context;
use crate::flags::connection::ConnectionFlags;
use crate::flags::output::OutputFlags;
use crate::{output, runtime};

/// Do not tell of a host's alarms for a while; they are still listed
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  lizctl silence web1 --for 2h --why 'new disks'\n  \
                  lizctl silence web1 --end --why 'disks are in'\n\n\
                  Needs an operator's certificate. An alarm that begins meanwhile, and still holds at the end,\n\
                  is told then. The receiver logs who silenced what, and why.")]
pub(crate) struct SilenceArgs {
    /// The host
    host: NodeName,
    /// For how long from now on: 2h, 3d; at most 31d
    #[arg(long = "for", env = "LIZMON_FOR", value_name = "TIME", value_parser = humantime::parse_duration, required_unless_present = "end")]
    duration: Option<Duration>,
    /// End a silence now
    #[arg(long, env = "LIZMON_END", conflicts_with = "duration")]
    end: bool,
    /// Why: for those who wonder
    #[arg(long, env = "LIZMON_WHY", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    why: String,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl silence`.
pub(crate) fn run(args: &SilenceArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let client = args.connection.client(context)?;
    let request = SilenceRequest {
        for_secs: args.duration.map_or(0, |duration| duration.as_secs()),
        why: args.why.clone(),
    };
    let silenced = client.silence(&args.host, &request, now);
    let silenced: Silenced = runtime::current_thread()?.block_on(silenced)?;
    if args.output.is_json() {
        return output::json(&silenced);
    }
    match silenced.silenced_until {
        Some(until) => output::note(format_args!(
            "{} is silenced until {}",
            args.host,
            rfc3339(until)
        )),
        None => output::note(format_args!("{} is not silenced", args.host)),
    }
    Ok(())
}
