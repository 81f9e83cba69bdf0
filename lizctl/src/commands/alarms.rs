//! `alarms`: which alarms there are, and whether a channel works.

use anyhow::{anyhow, bail};
use clap::Args;
use lizmon_protocol::alarm::{AlarmEntry, AlarmList};
use lizmon_protocol::name::NodeName;

use crate::context::Context;
use crate::flags::attributes::TagFilterFlags;
use crate::flags::connection::ConnectionFlags;
use crate::flags::output::OutputFlags;
use crate::{output, runtime, view};

/// List the alarms that are pending or firing, or ended in the last hour
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  lizctl alarms\n  \
                  lizctl alarms web1 --json\n  \
                  lizctl alarms --tag env=prod\n  \
                  lizctl alarms --test ops\n\n\
                  A silenced host's alarms are listed and not told: see lizctl silence.")]
pub(crate) struct AlarmsArgs {
    /// Only this host's
    host: Option<NodeName>,
    /// Send a test message by this channel of the receiver's rules, and say what came of it; needs
    /// an operator's certificate
    #[arg(
        long,
        env = "LIZMON_TEST",
        value_name = "CHANNEL",
        conflicts_with = "host"
    )]
    test: Option<String>,
    #[command(flatten)]
    tags: TagFilterFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl alarms`.
pub(crate) fn run(args: &AlarmsArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let client = args.connection.client(context)?;
    let runtime = runtime::current_thread()?;
    if let Some(channel) = &args.test {
        let tested = runtime.block_on(client.test_channel(channel, now))?;
        if let Some(failure) = tested.failure {
            bail!("the channel {channel} did not accept the test message: {failure}");
        }
        output::note(format_args!(
            "the channel {channel} accepted a test message"
        ));
        return Ok(());
    }
    let json = runtime.block_on(client.alarms_json(&args.tags.filter(), now))?;
    let Some(host) = &args.host else {
        if args.output.is_json() {
            return output::json_as_received(&json);
        }
        let list: AlarmList = serde_json::from_slice(&json)?;
        return show(&list.alarms, now);
    };
    // With all keys, also those of later receivers.
    let mut all: serde_json::Value = serde_json::from_slice(&json)?;
    let alarms = all["alarms"]
        .as_array_mut()
        .ok_or_else(|| anyhow!("the receiver's answer has no alarms"))?;
    alarms.retain(|alarm| alarm["host"] == host.as_str());
    if args.output.is_json() {
        return output::json(&all);
    }
    let list: AlarmList = serde_json::from_value(all)?;
    show(&list.alarms, now)
}

fn show(alarms: &[AlarmEntry], now: u64) -> anyhow::Result<()> {
    if alarms.is_empty() {
        output::note("no alarm is pending or firing, and none ended in the last hour");
        return Ok(());
    }
    view::table::alarms(alarms, now)
        .iter()
        .try_for_each(output::line)
}
