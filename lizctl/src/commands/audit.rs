//! `audit`: which records of a host arrived.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use lizmon_client::{Client, ConnectError, Error};
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::Code;

use crate::context::Context;
use crate::delivery_report::DeliveryReport;
use crate::flags::connection::ConnectionFlags;
use crate::flags::output::OutputFlags;
use crate::{output, runtime};

/// Interval of the queries of `--wait`. A monitor publishes every second.
const QUERY_INTERVAL: Duration = Duration::from_millis(500);

/// Show which records of a host arrived, and whether any is lost
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl audit web1 --wait 10s\n\n\
                  Exit code 1 if a record is missing: its number has not arrived, a higher one has, and its\n\
                  producer has not dropped it. It is lost or still in transit. Nothing is known of numbers\n\
                  above the highest that arrived.\n\n\
                  Repaired records arrived again because the receiver had lost them, after a restore for example;\n\
                  they are among the received ones, and count once.")]
pub(crate) struct AuditArgs {
    /// The host
    host: NodeName,
    /// Query again until nothing is missing, for at most this long: records may be in transit
    #[arg(long, env = "LIZMON_WAIT", value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Acknowledge the missing records with this reason, so that they no longer count as lost;
    /// needs an operator's certificate
    #[arg(long, env = "LIZMON_ACKNOWLEDGE", value_name = "WHY", value_parser = NonEmptyStringValueParser::new())]
    acknowledge: Option<String>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl audit`. Fails if any record is lost.
pub(crate) fn run(args: &AuditArgs, context: &Context) -> anyhow::Result<()> {
    let client = args.connection.client(context)?;
    let delivery = runtime::current_thread()?.block_on(async {
        let delivery = query(args, &client, context).await?;
        let Some(why) = &args.acknowledge else {
            return Ok::<_, Error>(delivery);
        };
        let now = (context.clock)();
        let count = client.acknowledge(&args.host, why, now).await?;
        output::note(format_args!(
            "acknowledged: {count} numbers of {}",
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
            "no record of {} is numbered: missing ones cannot be found",
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
        None => "or still in transit: check with --wait 10s".to_owned(),
        Some(wait) => format!("still missing after {}", humantime::format_duration(wait)),
    };
    bail!("{} {records} of {} lost, {next}", report.lost, args.host)
}

/// Queries once; with `--wait`, until nothing is missing or the time is over.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for as long as pure code has decided"
)]
async fn query(args: &AuditArgs, client: &Client, context: &Context) -> Result<Delivery, Error> {
    let mut answer = client.delivery(&args.host, (context.clock)()).await;
    let Some(wait) = args.wait else {
        return answer;
    };
    let until_complete = async {
        while may_improve(&answer) {
            tokio::time::sleep(QUERY_INTERVAL).await;
            answer = client.delivery(&args.host, (context.clock)()).await;
        }
    };
    // On a timeout the last answer counts.
    let _in_time = tokio::time::timeout(wait, until_complete).await;
    answer
}

/// Whether waiting can change the answer: a record is missing, the host is not known yet, or the
/// receiver is unreachable or busy.
fn may_improve(answer: &Result<Delivery, Error>) -> bool {
    match answer {
        Ok(delivery) => delivery
            .producers
            .iter()
            .any(|producer| !producer.missing.is_empty()),
        Err(Error::Connect(ConnectError::Unreachable { .. })) => true,
        Err(error) => matches!(
            error.code(),
            Some(Code::UnknownHost | Code::Overloaded | Code::StoreUnavailable | Code::RateLimited)
        ),
    }
}
