//! A part of the terminal that is drawn again and again, with log lines passing above it.

use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossterm::cursor::{MoveToColumn, MoveUp};
use crossterm::queue;
use crossterm::terminal::{Clear, ClearType, DisableLineWrap, EnableLineWrap};

/// The lines that stand on the terminal now, the cursor just below them.
static DRAWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Columns and rows of the terminal; `None` where stdout is none.
pub(crate) fn size() -> Option<(usize, usize)> {
    if !stdout().is_terminal() {
        return None;
    }
    let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
    // Some terminals say 0 until they know.
    let known = |size: u16, usual| if size == 0 { usual } else { usize::from(size) };
    Some((known(columns, 80), known(rows, 24)))
}

/// Replaces what was drawn before. What does not fit on the terminal is left out.
pub(crate) fn draw(mut lines: Vec<String>) -> io::Result<()> {
    let rows = size().map_or(usize::MAX, |(_, rows)| rows);
    if lines.len() >= rows {
        lines.truncate(rows.saturating_sub(2));
        lines.push("…".to_owned());
    }
    let mut drawn = drawn();
    let mut out = stdout().lock();
    erase(&mut out, &drawn)?;
    paint(&mut out, &lines)?;
    *drawn = lines;
    Ok(())
}

/// Leaves on the terminal what is drawn.
pub(crate) fn leave() {
    drawn().clear();
}

/// stderr, for log lines: what is drawn makes room and comes back below them.
pub(crate) struct Aside;

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let drawn = drawn();
        if drawn.is_empty() || !stderr().is_terminal() {
            return stderr().write(bytes);
        }
        let mut out = stdout().lock();
        erase(&mut out, &drawn)?;
        let written = stderr().write(bytes);
        paint(&mut out, &drawn)?;
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

fn drawn() -> MutexGuard<'static, Vec<String>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn erase(out: &mut impl Write, drawn: &[String]) -> io::Result<()> {
    if !drawn.is_empty() {
        let up = u16::try_from(drawn.len()).unwrap_or(u16::MAX);
        queue!(
            out,
            MoveUp(up),
            MoveToColumn(0),
            Clear(ClearType::FromCursorDown)
        )?;
    }
    out.flush()
}

/// Without wrapping each line takes one row, however narrow the terminal is.
fn paint(out: &mut impl Write, lines: &[String]) -> io::Result<()> {
    queue!(out, DisableLineWrap)?;
    for line in lines {
        writeln!(out, "{line}")?;
    }
    queue!(out, EnableLineWrap)?;
    out.flush()
}
