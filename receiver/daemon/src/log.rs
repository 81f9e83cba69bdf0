//! Logging to stderr only: stdout is reserved for output.

use std::io::{IsTerminal, stderr};

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The flag that every program has for its log.
#[derive(Debug, Clone, Copy, Args)]
pub struct LogFlags {
    /// Format of the log on stderr; RUST_LOG sets its level
    #[arg(
        long,
        global = true,
        env = "LIZMON_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFlags {
    /// Starts logging, at level `info` unless `RUST_LOG` is set.
    pub fn start(self) {
        self.start_on(stderr);
    }

    /// Starts logging to a custom writer for stderr.
    pub fn start_on<W>(self, writer: W)
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(writer)
            // Do not report a failed write to stderr on stderr: that would panic.
            .log_internal_errors(false);
        let (wanted, misread) = filter(std::env::var("RUST_LOG").ok().as_deref());
        let log = tracing_subscriber::registry();
        match self.log_format {
            LogFormat::Text => log.with(lines.with_ansi(colours())).with(wanted).init(),
            LogFormat::Json => log.with(lines.json()).with(wanted).init(),
        }
        if let Some(error) = misread {
            tracing::warn!("ignoring RUST_LOG, which is invalid: {error}");
        }
    }
}

/// Whether to use colors: only on a terminal that supports them, unless the user disables them:
/// <https://no-color.org>.
fn colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stderr().is_terminal() && !unwanted && !dumb
}

/// Supports targets and levels, not the full syntax of `RUST_LOG`. The regular expressions for the
/// full syntax add half a megabyte to the binary and 0.2 MiB to the memory of a monitor.
fn filter(asked: Option<&str>) -> (Targets, Option<String>) {
    let asked = asked.filter(|text| !text.trim().is_empty());
    let (targets, misread) = match asked.map(str::parse::<Targets>) {
        None => (Targets::new(), None),
        Some(Ok(targets)) => (targets, None),
        Some(Err(error)) => (Targets::new(), Some(error.to_string())),
    };
    let targets = match targets.default_level() {
        None => targets.with_default(LevelFilter::INFO),
        Some(_) => targets,
    };
    (targets, misread)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_is_logged() {
        let cases = [
            (None, [true, false, true]),
            (Some(""), [true, false, true]),
            (Some("debug"), [true, true, true]),
            (Some("DEBUG"), [true, true, true]),
            (Some("lizmon_monitor=debug"), [true, true, true]),
            (Some("warn,lizmon_monitor=debug"), [true, true, false]),
            (Some("off"), [false, false, false]),
            (Some("lizmon_monitor=loud"), [true, false, true]),
        ];
        for (asked, expected) in cases {
            let (targets, misread) = filter(asked);
            let logged = [
                targets.would_enable("lizmon_monitor::agent", &Level::INFO),
                targets.would_enable("lizmon_monitor::agent", &Level::DEBUG),
                targets.would_enable("rustls", &Level::INFO),
            ];
            assert_eq!(logged, expected, "{asked:?}");
            assert_eq!(misread.is_some(), asked == Some("lizmon_monitor=loud"));
        }
    }
}
