//! SQLite's own check of a database's structure: in place, or in the background.

use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, InterruptHandle};

use super::connection::connect_read_only;
use super::error::{EmbeddedError, is_damage};
use super::files;

/// What SQLite says of the file's structure; `None` if nothing is wrong. `pragma` is `quick_check`
/// or `integrity_check`.
pub(super) fn structure(database: &Connection, pragma: &str) -> rusqlite::Result<Option<String>> {
    let sql = format!("PRAGMA {pragma}(1)");
    match database.query_row(&sql, [], |row| row.get::<_, String>(0)) {
        Ok(verdict) if verdict == "ok" => Ok(None),
        Ok(verdict) => Ok(Some(
            verdict.split_whitespace().collect::<Vec<_>>().join(" "),
        )),
        Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// A check of a large database while it is used.
pub(super) struct BackgroundCheck {
    verdict: Receiver<Option<String>>,
    interrupt: InterruptHandle,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for BackgroundCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackgroundCheck").finish_non_exhaustive()
    }
}

impl BackgroundCheck {
    /// Starts it in a thread of its own.
    pub(super) fn start(file: &Path) -> Result<Self, EmbeddedError> {
        let connection = connect_read_only(file)?;
        let interrupt = connection.get_interrupt_handle();
        let (sender, verdict) = sync_channel(1);
        let check = move || {
            // A check that fails, because the disk does, is noticed by the writer.
            if let Ok(found) = structure(&connection, "quick_check") {
                let _receiver_may_be_gone = sender.send(found);
            }
        };
        let thread = std::thread::Builder::new()
            .name("check".to_owned())
            .spawn(check)
            .map_err(files::failed(file, "cannot be checked"))?;
        Ok(Self {
            verdict,
            interrupt,
            thread: Some(thread),
        })
    }

    /// What is wrong, if anything is; an error while it is not known, or if it will not be.
    pub(super) fn verdict(&self) -> Result<Option<String>, TryRecvError> {
        self.verdict.try_recv()
    }
}

impl Drop for BackgroundCheck {
    fn drop(&mut self) {
        self.interrupt.interrupt();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the check of the database panicked");
        }
    }
}
