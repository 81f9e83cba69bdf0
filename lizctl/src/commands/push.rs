//! `push`: sends one sample of a host, for scripts and for trials.

use anyhow::anyhow;
use clap::Args;
use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::route;
use lizmon_protocol::sample::{Epoch, IdempotencyKey, SampleSet, Value};

use crate::context::Context;
use crate::failure::Exit;
use crate::flags::connection::ConnectionFlags;
use crate::{output, runtime};

/// Send one sample of a host, with that host's certificate
#[derive(Debug, Args)]
#[command(
    after_help = "Example, with LIZMON_RECEIVER, LIZMON_CERT, LIZMON_KEY and LIZMON_CA set:\n  \
                  lizctl push web1 cpu=4.98 mem=61.2"
)]
pub(crate) struct PushArgs {
    /// The host: the one that your certificate names
    host: NodeName,
    /// Labels and values: cpu=4.98
    #[arg(value_name = "LABEL=VALUE", required = true, value_parser = parse_pair)]
    values: Vec<(Label<'static>, Value)>,
    /// Time of the sample, in seconds since 1970 UTC [default: now]
    #[arg(long, env = "LIZMON_EPOCH", value_name = "SECONDS", value_parser = route::parse_epoch)]
    epoch: Option<Epoch>,
    /// PRODUCER/SEQ, a lower-case UUID and a number: a sample that is sent again counts once
    #[arg(long, env = "LIZMON_IDEMPOTENCY_KEY", value_name = "KEY")]
    idempotency_key: Option<IdempotencyKey>,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl push`. Returns when the sample is durable.
pub(crate) fn run(args: PushArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let epoch = match args.epoch {
        Some(epoch) => epoch,
        None => Epoch::new(now).ok_or_else(|| anyhow!("this machine's clock is wrong: set it"))?,
    };
    if let Some(label) = find_repeated(&args.values) {
        return Err(anyhow!("`{label}` is given twice").context(Exit::Usage));
    }
    let client = args.connection.client(context)?;
    let values = SampleSet::new(args.values);
    let sent = client.publish(&args.host, epoch, &values, args.idempotency_key, now);
    runtime::current_thread()?.block_on(sent)?;
    let (host, count) = (&args.host, values.len());
    let values = if count == 1 { "value" } else { "values" };
    output::line(format_args!("{host} at {epoch}: {count} {values} kept"))
}

/// Parses `LABEL=VALUE`. A label may contain `=`, a value never does.
fn parse_pair(text: &str) -> Result<(Label<'static>, Value), String> {
    let (label, number) = text
        .rsplit_once('=')
        .ok_or("it should look like cpu=4.98")?;
    // Spaces around the sign are not part of the label.
    let label = Label::new(label.trim().to_owned()).map_err(|error| error.to_string())?;
    // The grammar of JSON, as at the receiver: no inf, no hexadecimal, no leading +.
    let value = serde_json::from_str(number.trim())
        .ok()
        .and_then(Value::new);
    let value = value.ok_or("the value is no number, or too large: it should look like 4.98")?;
    Ok((label, value))
}

fn find_repeated<'v>(values: &'v [(Label<'_>, Value)]) -> Option<&'v str> {
    let mut labels: Vec<_> = values.iter().map(|(label, _)| label.as_str()).collect();
    labels.sort_unstable();
    let repeated = labels.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(repeated[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let cases = [
            ("cpu=4.98", Some(("cpu", 4.98))),
            ("a=b=1", Some(("a=b", 1.0))),
            ("t=-1e3", Some(("t", -1000.0))),
            ("disk:/=61", Some(("disk:/", 61.0))),
            ("cpu = 5", Some(("cpu", 5.0))),
            (" cpu =5 ", Some(("cpu", 5.0))),
            ("fan speed\t= 5", Some(("fan speed", 5.0))),
            (" = 5", None),
            ("cpu", None),
            ("cpu=", None),
            ("=1", None),
            ("cpu=x", None),
            ("cpu=inf", None),
            ("cpu=NaN", None),
            ("cpu=+1", None),
            ("cpu=.5", None),
            ("cpu=0x10", None),
            ("cpu=true", None),
            ("cpu=1e291", None),
            ("cpu=1e999", None),
            ("summary:x=1", None),
            ("a\nb=1", None),
        ];
        for (text, expected) in cases {
            let got = parse_pair(text).ok();
            let got = got
                .as_ref()
                .map(|(label, value)| (label.as_str(), value.get()));
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn labels_differ() {
        let check = |pairs: &[&str], expected: Option<&str>| {
            let values: Vec<_> = pairs.iter().map(|pair| parse_pair(pair).unwrap()).collect();
            assert_eq!(find_repeated(&values), expected, "{pairs:?}");
        };
        check(&["a=1", "b=1", "A=1"], None);
        check(&["a=1", "b=1", "a=2"], Some("a"));
    }
}
