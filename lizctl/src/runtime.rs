//! The event loop of a verb that asks a server.

use anyhow::Context as _;

/// One request at a time needs one thread.
pub(crate) fn current_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}
