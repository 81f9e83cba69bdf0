//! Log lines, on stderr alone: stdout belongs to what was asked for.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::LogFormat;
use crate::output::live::Aside;

/// Starts logging at `info` unless `RUST_LOG` says otherwise.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Aside);
    match format {
        LogFormat::Text => lines.with_ansi(colours()).init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// On a terminal that has them, unless the user wants none: <https://no-color.org>.
fn colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stderr().is_terminal() && !unwanted && !dumb
}
