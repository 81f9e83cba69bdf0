//! `audit`: what arrived of a host's numbered records, and what did not.
//!
//! A number counts once, however often it comes, because the receiver keeps which ones it has: so nothing is twice, and
//! what came again is only shown. A number that has not arrived and was not given up by its producer is lost, or still on
//! the way: the receiver cannot tell which, only time can. Of numbers above the highest that arrived nothing is known.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use lizmon_client::{Client, Error};
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::Code;
use serde::Serialize;

use crate::ask::runtime;
use crate::cli::{Context, Json};
use crate::connect::Connect;
use crate::output;

/// The pause between two questions of `--wait`: a monitor publishes each second.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Whose records
    host: NodeName,
    /// Ask again until nothing is missing, for as long as this: records may be on the way
    #[arg(long, env = "LIZMON_WAIT", value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    connect: Connect,
}

/// `lizctl audit`. Fails where anything is lost.
pub(crate) fn audit(args: &Audit, context: &Context) -> anyhow::Result<()> {
    let client = args.connect.client((context.clock)())?;
    let delivery = runtime()?.block_on(ask(args, &client, context))?;
    let account = Account::of(&args.host, &delivery);
    if args.json.is_on() {
        output::json(&account)?;
    } else {
        account.show()?;
    }
    if delivery.producers.is_empty() {
        output::note(format_args!(
            "no record of {} is numbered: nothing could be missed",
            args.host
        ));
    }
    if account.lost == 0 {
        return Ok(());
    }
    let records = if account.lost == 1 {
        "record"
    } else {
        "records"
    };
    let next = match args.wait {
        None => "or still on the way, which --wait 10s tells".to_owned(),
        Some(wait) => format!("still missing after {}", humantime::format_duration(wait)),
    };
    bail!("{} {records} of {} lost, {next}", account.lost, args.host)
}

/// The answer; with `--wait` the first in which nothing is missing, or else the last.
async fn ask(args: &Audit, client: &Client, context: &Context) -> Result<Delivery, Error> {
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

/// The answer with its sums. As JSON its keys are promised; more may follow.
#[derive(Debug, PartialEq, Serialize)]
struct Account<'a> {
    host: &'a str,
    /// Numbers that have not arrived and were not given up.
    lost: u64,
    /// Numbers that counted more than once: none, because the receiver asks which it has before it counts.
    twice: u64,
    /// Different numbers that have arrived.
    received: u64,
    /// Records that came again and changed nothing.
    duplicate: u64,
    /// Numbers that their producer gave up.
    dropped: u64,
    #[serde(flatten)]
    delivery: &'a Delivery,
}

impl<'a> Account<'a> {
    fn of(host: &'a NodeName, delivery: &'a Delivery) -> Self {
        let mut account = Self {
            host: host.as_str(),
            lost: 0,
            twice: 0,
            received: 0,
            duplicate: 0,
            dropped: 0,
            delivery,
        };
        for producer in &delivery.producers {
            account.received += producer.received;
            account.duplicate += producer.duplicate;
            account.lost += numbers_in(producer.missing.iter().copied());
            account.dropped +=
                numbers_in(producer.dropped.iter().map(|(from, to, _)| (*from, *to)));
        }
        account
    }

    fn show(&self) -> anyhow::Result<()> {
        let producers = &self.delivery.producers;
        if !producers.is_empty() {
            let rows = producers.iter().map(|producer| {
                let dropped = producer.dropped.iter().map(|(from, to, _)| (*from, *to));
                [
                    producer.producer.to_string(),
                    producer.received.to_string(),
                    producer.duplicate.to_string(),
                    numbers_in(producer.missing.iter().copied()).to_string(),
                    numbers_in(dropped).to_string(),
                ]
            });
            let head = ["PRODUCER", "RECEIVED", "CAME AGAIN", "MISSING", "DROPPED"];
            output::table(head, rows.collect())?;
        }
        self.ranges().iter().try_for_each(output::line)?;
        output::line(self.verdict())
    }

    /// A line a range.
    fn ranges(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for of in &self.delivery.producers {
            let producer = of.producer;
            for (from, to) in &of.missing {
                lines.push(format!("missing  {producer}  {}", range(*from, *to)));
            }
            for (from, to, why) in &of.dropped {
                let range = range(*from, *to);
                lines.push(format!(
                    "dropped  {producer}  {range}  {}",
                    why.escape_debug()
                ));
            }
        }
        lines
    }

    fn verdict(&self) -> String {
        let Self {
            lost,
            twice,
            received,
            duplicate,
            dropped,
            ..
        } = self;
        format!(
            "lost {lost}, twice {twice} up to each producer's highest number: {received} received, \
             {duplicate} came again and changed nothing, {dropped} dropped"
        )
    }
}

/// How many numbers are in inclusive ranges. Those of one producer are disjoint and at most 2^53.
fn numbers_in(ranges: impl Iterator<Item = (u64, u64)>) -> u64 {
    ranges
        .map(|(from, to)| to.saturating_sub(from).saturating_add(1))
        .fold(0, u64::saturating_add)
}

fn range(from: u64, to: u64) -> String {
    if from == to {
        from.to_string()
    } else {
        format!("{from}-{to}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

    #[track_caller]
    fn check(
        producers: &str,
        expected_json: &str,
        expected_ranges: &[&str],
        expected_verdict: &str,
    ) {
        let host = "web1".parse().unwrap();
        let answer = format!(r#"{{"producers":[{producers}]}}"#).replace("P1", PRODUCER);
        let delivery = serde_json::from_str(&answer).unwrap();
        let account = Account::of(&host, &delivery);
        let json = serde_json::to_string(&account).unwrap();
        assert_eq!(json.replace(PRODUCER, "P1"), expected_json);
        let ranges = account.ranges().join("\n").replace(PRODUCER, "P1");
        assert_eq!(ranges, expected_ranges.join("\n"));
        assert_eq!(account.verdict(), expected_verdict);
    }

    #[test]
    fn sums() {
        check(
            "",
            r#"{"host":"web1","lost":0,"twice":0,"received":0,"duplicate":0,"dropped":0,"producers":[]}"#,
            &[],
            "lost 0, twice 0 up to each producer's highest number: 0 received, 0 came again and changed nothing, 0 dropped",
        );
        let complete = r#"{"producer":"P1","received":9,"duplicate":3,"missing":[],"dropped":[[4,5,"the disk was full"]]}"#;
        check(
            complete,
            &format!(
                r#"{{"host":"web1","lost":0,"twice":0,"received":9,"duplicate":3,"dropped":2,"producers":[{complete}]}}"#
            ),
            &["dropped  P1  4-5  the disk was full"],
            "lost 0, twice 0 up to each producer's highest number: 9 received, 3 came again and changed nothing, 2 dropped",
        );
        let gaps =
            r#"{"producer":"P1","received":2,"duplicate":0,"missing":[[2,2],[4,9]],"dropped":[]}"#;
        check(
            &format!("{gaps},{complete}"),
            &format!(
                r#"{{"host":"web1","lost":7,"twice":0,"received":11,"duplicate":3,"dropped":2,"producers":[{gaps},{complete}]}}"#
            ),
            &[
                "missing  P1  2",
                "missing  P1  4-9",
                "dropped  P1  4-5  the disk was full",
            ],
            "lost 7, twice 0 up to each producer's highest number: 11 received, 3 came again and changed nothing, 2 dropped",
        );
    }

    /// Nothing that a receiver says moves the cursor of whoever reads it.
    #[test]
    fn reasons_are_shown_as_text() {
        check(
            r#"{"producer":"P1","received":1,"duplicate":0,"missing":[],"dropped":[[2,2,"\u001b[2J"]]}"#,
            r#"{"host":"web1","lost":0,"twice":0,"received":1,"duplicate":0,"dropped":1,"producers":[{"producer":"P1","received":1,"duplicate":0,"missing":[],"dropped":[[2,2,"\u001b[2J"]]}]}"#,
            &[r"dropped  P1  2  \u{1b}[2J"],
            "lost 0, twice 0 up to each producer's highest number: 1 received, 0 came again and changed nothing, 1 dropped",
        );
    }
}
