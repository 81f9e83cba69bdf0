//! The only place that writes to stdout, and the one line on stderr that a failure gets.

pub(crate) mod live;

use std::io::{ErrorKind, Write, stderr, stdout};

use comfy_table::{Table, presets};
use serde::Serialize;

/// stdout that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
struct StdoutError(#[from] std::io::Error);

/// `lizctl: what failed: because of what`, on one line whatever the causes say.
pub(crate) fn complain(error: &anyhow::Error) {
    let text = lizmon_client::error::in_one_line(error.as_ref());
    let line: Vec<&str> = text.lines().map(str::trim).collect();
    // Where nobody can read it, the exit code says so still.
    let _unread = writeln!(stderr(), "lizctl: {}", line.join(" "));
}

/// Whether the failure is only that nobody reads our stdout any more.
pub(crate) fn reader_is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StdoutError(source)) if source.kind() == ErrorKind::BrokenPipe)
}

/// Whether the failure is that the terminal we print to has gone.
pub(crate) fn terminal_is_gone(error: &anyhow::Error) -> bool {
    let causes = || {
        error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
    };
    causes().any(|source| source.raw_os_error() == Some(EIO))
}

/// What a terminal that was hung up answers: the same number on every Unix.
const EIO: i32 = 5;

/// A line of the answer.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(stdout(), "{text}").map_err(StdoutError)?)
}

/// The answer for a program: one JSON value.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// The answer as the receiver wrote it, so that what a later receiver adds comes through.
pub(crate) fn json_as_received(json: &[u8]) -> anyhow::Result<()> {
    line(String::from_utf8_lossy(json).trim_end())
}

/// The answer as columns without lines between them, fit for `grep` and `awk`.
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

/// A sign of life or advice, on stderr. Nobody misses it where that is closed.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _closed = live::LogWriter.write_all(format!("{text}\n").as_bytes());
}

/// Epoch seconds as RFC 3339 UTC.
pub(crate) use lizmon_pki::date::rfc3339 as date;
