//! A live view: lines on the terminal that are redrawn, with log lines scrolling above them.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossterm::cursor::{MoveToColumn, MoveUp};
use crossterm::queue;
use crossterm::terminal::{Clear, ClearType, DisableLineWrap, EnableLineWrap};

/// The lines that are drawn now; the cursor is just below them.
static DRAWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Log lines that are kept while the whole terminal is drawn on.
const KEPT_LINES_MAX: usize = 1000;

/// Log lines that wait for the terminal; `None` while they are written at once.
static KEPT: Mutex<Option<VecDeque<String>>> = Mutex::new(None);

fn kept() -> MutexGuard<'static, Option<VecDeque<String>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, log lines are kept. They would be drawn over.
pub(super) fn keep_log() {
    *kept() = Some(VecDeque::new());
}

/// The newest so many of those that are kept, oldest first.
pub(super) fn kept_log(newest: usize) -> Vec<String> {
    let kept = kept();
    let lines = kept.iter().flatten();
    let skipped = kept
        .as_ref()
        .map_or(0, |lines| lines.len().saturating_sub(newest));
    lines.skip(skipped).cloned().collect()
}

/// Writes what was kept, and keeps no more.
pub(super) fn print_log() {
    let lines = kept().take();
    for line in lines.into_iter().flatten() {
        // If stderr is closed, nobody reads it.
        let _unread = writeln!(stderr(), "{line}");
    }
}

/// Columns and rows of the terminal; `None` if stdout is not a terminal, or a dumb one.
pub(crate) fn size() -> Option<(usize, usize)> {
    if !stdout().is_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return None;
    }
    let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
    // Some terminals report 0 until they know.
    let known = |size: u16, usual| if size == 0 { usual } else { usize::from(size) };
    Some((known(columns, 80), known(rows, 24)))
}

/// Replaces the lines that were drawn before. Lines that do not fit on the terminal are cut.
pub(crate) fn draw(mut lines: Vec<String>) -> io::Result<()> {
    let (columns, rows) = size().unwrap_or((usize::MAX, usize::MAX));
    fit(&mut lines, columns, rows);
    let mut drawn = drawn();
    let mut out = stdout().lock();
    erase(&mut out, &drawn)?;
    paint(&mut out, &lines)?;
    *drawn = lines;
    Ok(())
}

/// stderr for log lines: the live view is erased first and redrawn below them.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(lines) = kept().as_mut().filter(|_| stderr().is_terminal()) {
            let text = String::from_utf8_lossy(bytes);
            lines.extend(text.lines().map(str::to_owned));
            while lines.len() > KEPT_LINES_MAX {
                lines.pop_front();
            }
            return Ok(bytes.len());
        }
        let drawn = drawn();
        if drawn.is_empty() || !stderr().is_terminal() {
            return Ok(written_or_lost(bytes));
        }
        let mut out = stdout().lock();
        erase(&mut out, &drawn)?;
        let written = written_or_lost(bytes);
        paint(&mut out, &drawn)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

/// A terminal that was hung up takes no log lines. The logger would panic over that.
fn written_or_lost(bytes: &[u8]) -> usize {
    stderr().write(bytes).unwrap_or(bytes.len())
}

fn drawn() -> MutexGuard<'static, Vec<String>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts to one row per line and one row for the cursor; `…` marks a cut.
fn fit(lines: &mut Vec<String>, columns: usize, rows: usize) {
    if lines.len() >= rows {
        lines.truncate(rows.saturating_sub(2));
        lines.push("…".to_owned());
    }
    for line in lines {
        if let Some((at, _)) = line.char_indices().nth(columns)
            && let Some((last, _)) = line[..at].char_indices().next_back()
        {
            line.truncate(last);
            line.push('…');
        }
    }
}

/// How many rows the lines take on a terminal that became narrower after they were drawn.
fn rows_taken(lines: &[String], columns: usize) -> usize {
    let rows = |line: &String| line.chars().count().div_ceil(columns.max(1)).max(1);
    lines.iter().map(rows).sum()
}

fn erase(out: &mut impl Write, drawn: &[String]) -> io::Result<()> {
    if !drawn.is_empty() {
        let columns = size().map_or(usize::MAX, |(columns, _)| columns);
        let up = u16::try_from(rows_taken(drawn, columns)).unwrap_or(u16::MAX);
        queue!(
            out,
            MoveUp(up),
            MoveToColumn(0),
            Clear(ClearType::FromCursorDown)
        )?;
    }
    out.flush()
}

/// With line wrap disabled a line takes one row, even if some characters are two columns wide.
fn paint(out: &mut impl Write, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    queue!(out, DisableLineWrap)?;
    for line in lines {
        writeln!(out, "{line}")?;
    }
    queue!(out, EnableLineWrap)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_fit(lines: &[&str], columns: usize, rows: usize, expected: &[&str]) {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        fit(&mut lines, columns, rows);
        assert_eq!(lines, expected, "{columns} columns, {rows} rows");
    }

    #[test]
    fn lines_that_do_not_fit_are_cut() {
        check_fit(&["ab", "cd"], 2, 3, &["ab", "cd"]);
        check_fit(&["abc", "│●│"], 2, 9, &["a…", "│…"]);
        check_fit(&["abc"], 1, 9, &["…"]);
        check_fit(&["a", "b", "c"], 9, 3, &["a", "…"]);
        check_fit(&["a", "b", "c"], 9, 4, &["a", "b", "c"]);
        check_fit(&["a", "b"], 9, 1, &["…"]);
        check_fit(&[], 0, 0, &["…"]);
    }

    #[test]
    fn a_narrower_terminal_wraps() {
        let lines = ["", "abcd", "abcde"].map(str::to_owned);
        for (columns, rows) in [(80, 3), (5, 3), (4, 4), (2, 6), (0, 10)] {
            assert_eq!(rows_taken(&lines, columns), rows, "{columns}");
        }
    }
}
