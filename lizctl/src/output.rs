//! The only place that writes to stdout; also notes and the failure line on stderr.

pub(crate) mod live;
pub(crate) mod screen;

use std::io::{ErrorKind, Write, stderr, stdout};

use comfy_table::{Table, presets};
use serde::Serialize;

/// stdout cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
struct StdoutError(#[from] std::io::Error);

/// Prints `lizctl: what failed: why`, always on one line.
pub(crate) fn failure(error: &anyhow::Error) {
    let text = lizmon_pki::error_chain::in_one_line(error.as_ref());
    let line: Vec<&str> = text.lines().map(str::trim).collect();
    // If stderr is closed, the exit code still reports the failure.
    let _unread = writeln!(stderr(), "lizctl: {}", line.join(" "));
}

/// Whether the failure is only that the reader of our stdout has closed it.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StdoutError(source)) if source.kind() == ErrorKind::BrokenPipe)
}

/// Whether the failure is that our terminal was hung up.
pub(crate) fn is_terminal_hangup(error: &anyhow::Error) -> bool {
    let causes = || {
        error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
    };
    causes().any(|source| source.raw_os_error() == Some(EIO))
}

/// The error of a terminal that was hung up: the same number on every Unix.
const EIO: i32 = 5;

/// Prints one line of the answer.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(stdout(), "{text}").map_err(StdoutError)?)
}

/// Prints text that has its line ends.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    Ok(stdout().write_all(text.as_bytes()).map_err(StdoutError)?)
}

/// Prints the answer as one JSON value.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints JSON as the receiver wrote it, so that keys of later receivers are kept.
pub(crate) fn json_as_received(json: &[u8]) -> anyhow::Result<()> {
    line(String::from_utf8_lossy(json).trim_end())
}

/// Prints the answer as columns without rules, fit for `grep` and `awk`.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in table.lines() {
        line(row.trim_end())?;
    }
    Ok(())
}

/// Prints progress or advice on stderr. A closed stderr is ignored.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _closed = live::LogWriter.write_all(format!("{text}\n").as_bytes());
}

/// Epoch seconds as RFC 3339 UTC.
pub(crate) use lizmon_pki::date::rfc3339 as date;
