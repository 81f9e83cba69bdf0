//! `query`: shows the summaries of a host.

mod history;

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use lizmon_client::{Client, ConnectError, Error};
use lizmon_protocol::history::{History, HistoryTier};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::summary::Summaries;

use self::history::HistoryQuery;
use crate::context::Context;
use crate::flags::connection::ConnectionFlags;
use crate::output::{self, live};
use crate::{runtime, view};

/// The width of charts if stdout is not a terminal.
const COLUMNS_WITHOUT_TERMINAL: usize = 80;

/// Show the summaries of a host
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  lizctl query web1\n  lizctl query web1 by-minute:cpu --output chart --watch 2s\n  \
                  lizctl query web1 --output json\n  lizctl query web1 cpu --since 7d\n  lizctl query web1 by-hour --output csv > web1.csv\n\n\
                  In CSV a name that a spreadsheet would take for a formula gets an apostrophe before it.")]
pub(crate) struct QueryArgs {
    /// The host
    host: NodeName,
    /// Only summaries whose name contains this, ignoring case: cpu, by-hour. With --since the exact
    /// label
    label: Option<String>,
    /// Show hours, or days, further back than the summaries go: 7d, 400d
    #[arg(long, env = "LIZMON_SINCE", value_name = "TIME", value_parser = humantime::parse_duration, requires = "label")]
    since: Option<Duration>,
    /// The intervals of --since: by-hour or by-day [default: by-hour up to 31d]
    #[arg(long, env = "LIZMON_TIER", value_name = "TIER", value_parser = HistoryTier::from_str, requires = "since")]
    tier: Option<HistoryTier>,
    /// Output format
    #[arg(
        long,
        env = "LIZMON_OUTPUT",
        value_name = "FORM",
        default_value = "table"
    )]
    output: OutputForm,
    /// Print JSON; the same as --output json
    #[arg(long, env = "LIZMON_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    /// Repeat the query, this long after each answer, until Ctrl-C
    #[arg(long, env = "LIZMON_WATCH", value_name = "TIME", value_parser = parse_watch)]
    watch: Option<Duration>,
    #[command(flatten)]
    connection: ConnectionFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputForm {
    /// One line per interval.
    Table,
    /// The receiver's answer, unchanged.
    Json,
    /// A plot per summary, as wide as the terminal.
    Chart,
    /// One line per interval, for spreadsheets.
    Csv,
}

/// `lizctl query`.
pub(crate) fn run(args: &QueryArgs, context: &Context) -> anyhow::Result<()> {
    let mut client = args.connection.client(context)?;
    runtime::current_thread()?.block_on(async {
        let Some(pause) = args.watch else {
            return args.show(&args.ask(&client, context).await?, false);
        };
        let stop =
            std::pin::pin!(lizmon_daemon::stop_or_hang_up().context("cannot listen for signals")?);
        tokio::select! {
            _ = stop => Ok(()),
            ended = watch(args, pause, &mut client, context) => ended,
        }
    })
}

/// Repeats the query until an error that waiting does not fix. A receiver that has answered before
/// and is unreachable now is waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for as long as pure code has decided"
)]
async fn watch(
    args: &QueryArgs,
    pause: Duration,
    client: &mut Client,
    context: &Context,
) -> anyhow::Result<()> {
    let mut answered = false;
    let mut is_unreachable = false;
    loop {
        match args.ask(client, context).await {
            Ok(answer) => {
                args.show(&answer, true)?;
                (answered, is_unreachable) = (true, false);
            }
            Err(error @ Error::Connect(ConnectError::Unreachable { .. })) if answered => {
                if !is_unreachable {
                    output::note(format!("{error}; trying again"));
                }
                is_unreachable = true;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause).await;
        if let Err(error) = client.reload((context.clock)()) {
            let why = lizmon_pki::error_chain::in_one_line(&error);
            tracing::warn!("cannot reload the certificate files, keeping the previous ones: {why}");
        }
    }
}

enum Answer {
    Json(Vec<u8>),
    History(History),
    Summaries(Summaries),
}

impl QueryArgs {
    fn form(&self) -> OutputForm {
        if self.json {
            OutputForm::Json
        } else {
            self.output
        }
    }

    async fn ask(&self, client: &Client, context: &Context) -> Result<Answer, Error> {
        let now = (context.clock)();
        let label = self.label.as_deref();
        if let Some((label, since)) = label.zip(self.since) {
            let series = HistoryQuery::new(&self.host, label, since, self.tier, now);
            let history = history::read(client, &series, now).await?;
            return Ok(match self.form() {
                OutputForm::Json => Answer::History(history),
                _ => Answer::Summaries(series.as_summaries(history)),
            });
        }
        Ok(match self.form() {
            OutputForm::Json => Answer::Json(client.summaries_json(&self.host, label, now).await?),
            OutputForm::Table | OutputForm::Chart | OutputForm::Csv => {
                Answer::Summaries(client.summaries(&self.host, label, now).await?)
            }
        })
    }

    fn show(&self, answer: &Answer, again: bool) -> anyhow::Result<()> {
        let summaries = match answer {
            Answer::Json(json) => return output::json_as_received(json),
            Answer::History(history) => return output::json(history),
            Answer::Summaries(summaries) => summaries,
        };
        if self.form() == OutputForm::Csv {
            let csv = view::csv::summaries(&self.host, summaries)?;
            return output::text(&String::from_utf8_lossy(&csv));
        }
        let size = live::size();
        let redrawn = size.filter(|_| again);
        let columns = size.map_or(COLUMNS_WITHOUT_TERMINAL, |(columns, _)| columns);
        let mut lines = match self.form() {
            OutputForm::Chart if self.can_chart(columns, again) => {
                view::chart::charts(summaries, columns)
            }
            _ => view::table::summaries(
                summaries,
                redrawn.map(|(_, rows)| view::table::lines_per_series(summaries, rows)),
            ),
        };
        if summaries.is_empty() {
            let nothing = match self.since {
                Some(_) => format!("nothing of {} with exactly this label is kept", self.host),
                None => format!("no summary of {} has that in its name", self.host),
            };
            match redrawn {
                Some(_) => lines = vec![nothing],
                None => {
                    output::note(nothing);
                    return Ok(());
                }
            }
        }
        if redrawn.is_some() {
            return live::draw(lines).context("cannot draw on the terminal");
        }
        if again {
            lines.push(String::new());
        }
        lines.iter().try_for_each(output::line)
    }

    /// A chart that cannot be shown is a table, with a note that says why.
    fn can_chart(&self, columns: usize, again: bool) -> bool {
        let is_utf8 = view::chart::is_utf8(|name| std::env::var(name).ok());
        match view::chart::check(columns, is_utf8) {
            Ok(()) => true,
            // Told once is enough, and a live view has no place for it.
            Err(_) if again && live::size().is_some() => false,
            Err(why) => {
                output::note(format_args!("{why}: this is the table"));
                false
            }
        }
    }
}

/// Parses the pause of `--watch`, which has a minimum.
fn parse_watch(text: &str) -> Result<Duration, String> {
    const WATCH_MIN: Duration = Duration::from_millis(100);
    let pause =
        humantime::parse_duration(text).map_err(|error| format!("{error}: write 2s or 1m"))?;
    if pause < WATCH_MIN {
        return Err("at least 100ms".to_owned());
    }
    Ok(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        for (text, expected) in [
            ("2s", Some(2000)),
            ("100ms", Some(100)),
            ("99ms", None),
            ("0s", None),
            ("2", None),
            ("", None),
        ] {
            let got = parse_watch(text).ok();
            assert_eq!(got, expected.map(Duration::from_millis), "{text}");
        }
    }
}
