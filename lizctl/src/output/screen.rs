//! The whole terminal, drawn as one picture, and put back afterwards however the program ends.

use std::io::{self, Stdout, Write, stdout};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::ThreadId;

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

use super::live;

/// Log lines that are shown at most.
const LOG_LINES_SHOWN: usize = 100;

/// The terminal, until this is dropped. Log lines are kept meanwhile, and printed then.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(crate) fn enter() -> io::Result<Self> {
        restore_at_a_panic();
        live::keep_log();
        // From here on, dropping it undoes what was done.
        let screen = Self {
            terminal: Terminal::with_options(CrosstermBackend::new(stdout()), options())?,
        };
        *drawing() = Some(std::thread::current().id());
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(screen)
    }

    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// The newest log lines.
    pub(crate) fn log(&self) -> Vec<String> {
        live::kept_log(LOG_LINES_SHOWN)
    }
}

/// Some terminals say that they have no size, serial lines above all.
fn options() -> TerminalOptions {
    let viewport = match crossterm::terminal::size() {
        Ok((1.., 1..)) => Viewport::Fullscreen,
        _ => Viewport::Fixed(Rect::new(0, 0, 80, 24)),
    };
    TerminalOptions { viewport }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
        live::print_log();
    }
}

/// The thread that draws, while the terminal is changed.
static DRAWING: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Once: a second time would put the cursor back to where it was at the start. On a terminal that was
/// hung up nothing of it works, and nothing is needed.
fn restore() {
    let was_drawing = drawing().take();
    if was_drawing.is_some() {
        let _hung_up = disable_raw_mode();
        let _hung_up = execute!(stdout(), LeaveAlternateScreen, Show);
    }
}

fn drawing() -> MutexGuard<'static, Option<ThreadId>> {
    DRAWING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message of a panic would be drawn over, and the terminal stay as it is. Where another thread
/// panics, the program goes on, and the message is a line of the log.
fn restore_at_a_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let drawing = *drawing();
            if drawing.is_some_and(|thread| thread != std::thread::current().id()) {
                let _kept = live::LogWriter.write_all(format!("{info}\n").as_bytes());
                return;
            }
            restore();
            before(info);
        }));
    });
}

/// Whether the terminal can be drawn on, and has a keyboard.
pub(crate) fn is_available() -> bool {
    use std::io::IsTerminal;
    live::size().is_some() && io::stdin().is_terminal()
}

/// Whether colours are wanted: <https://no-color.org>
pub(crate) fn uses_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
