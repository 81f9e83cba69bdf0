//! `audit`: which of a host's records arrived.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use lizmon_client::{Client, Error};
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::Code;

use crate::context::Context;
use crate::delivery_report::DeliveryReport;
use crate::flags::connection::ConnectionFlags;
use crate::flags::output::OutputFlags;
use crate::{output, runtime};

/// The pause between two questions of `--wait`: a monitor publishes each second.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Tell what arrived of a host's records, and whether any is lost
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl audit web1 --wait 10s\n\n\
                  Exit code 1 where a record is missing: its number has not arrived, a higher one has, and its\n\
                  producer has not given it up. It is lost, or still on the way. What is above the highest\n\
                  number that arrived, no receiver knows.")]
pub(crate) struct AuditArgs {
    /// Whose records
    host: NodeName,
    /// Ask again until nothing is missing, for as long as this: records may be on the way
    #[arg(long, env = "LIZMON_WAIT", value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Settle what is missing, for this reason: from then on it is told as that and not as lost. An operator's right
    #[arg(long, env = "LIZMON_ACKNOWLEDGE", value_name = "WHY", value_parser = NonEmptyStringValueParser::new())]
    acknowledge: Option<String>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl audit`. Fails where anything is lost.
pub(crate) fn run(args: &AuditArgs, context: &Context) -> anyhow::Result<()> {
    let client = args.connection.client((context.clock)())?;
    let delivery = runtime::current_thread()?.block_on(async {
        let delivery = ask(args, &client, context).await?;
        let Some(why) = &args.acknowledge else {
            return Ok::<_, Error>(delivery);
        };
        let now = (context.clock)();
        let settled = client.acknowledge(&args.host, why, now).await?;
        output::note(format_args!(
            "acknowledged: {settled} numbers of {}",
            args.host
        ));
        client.delivery(&args.host, now).await
    })?;
    let report = DeliveryReport::new(&args.host, &delivery);
    if args.output.is_json() {
        output::json(&report)?;
    } else {
        report.show()?;
    }
    if delivery.producers.is_empty() {
        output::note(format_args!(
            "no record of {} is numbered: nothing could be missed",
            args.host
        ));
    }
    if report.lost == 0 {
        return Ok(());
    }
    let records = if report.lost == 1 {
        "record"
    } else {
        "records"
    };
    let next = match args.wait {
        None => "or still on the way, which --wait 10s tells".to_owned(),
        Some(wait) => format!("still missing after {}", humantime::format_duration(wait)),
    };
    bail!("{} {records} of {} lost, {next}", report.lost, args.host)
}

/// The answer; with `--wait` the first in which nothing is missing, or else the last.
async fn ask(args: &AuditArgs, client: &Client, context: &Context) -> Result<Delivery, Error> {
    let mut answer = client.delivery(&args.host, (context.clock)()).await;
    let Some(wait) = args.wait else {
        return answer;
    };
    let until_complete = async {
        while may_mend(&answer) {
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
            answer = client.delivery(&args.host, (context.clock)()).await;
        }
    };
    // Out of time, the last answer stands.
    let _in_time = tokio::time::timeout(wait, until_complete).await;
    answer
}

/// Whether waiting can change the answer: something is missing, the host is not known yet, the receiver is away or busy.
fn may_mend(answer: &Result<Delivery, Error>) -> bool {
    match answer {
        Ok(delivery) => delivery
            .producers
            .iter()
            .any(|producer| !producer.missing.is_empty()),
        Err(Error::Unreachable { .. }) => true,
        Err(error) => matches!(
            error.code(),
            Some(Code::UnknownHost | Code::Overloaded | Code::StoreUnavailable | Code::RateLimited)
        ),
    }
}
