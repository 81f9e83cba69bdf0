//! The signals that end a verb which runs until it is told to stop.

use anyhow::Context;

/// Resolves at the first SIGINT (Ctrl-C) or SIGTERM after this call.
#[cfg(unix)]
pub(crate) fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot = "cannot listen for signals";
    let mut interrupt = signal(SignalKind::interrupt()).context(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).context(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}

/// Resolves at the first Ctrl-C after this call.
#[cfg(not(unix))]
pub(crate) fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        let listening = tokio::signal::ctrl_c()
            .await
            .context("cannot listen for Ctrl-C");
        if listening.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
