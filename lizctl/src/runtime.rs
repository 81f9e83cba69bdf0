//! The tokio runtime of a verb that talks to a server.

use anyhow::Context as _;

/// A runtime of one thread: there is one request at a time.
pub(crate) fn current_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}
