//! The signals that end a program which runs until it is told to stop.

use std::io;

use sd_notify::NotifyState;

/// Resolves at the first SIGTERM or SIGINT (elsewhere: Ctrl-C) after this call, and tells systemd that we are about to
/// end.
pub fn stop() -> io::Result<impl Future<Output = ()>> {
    let signal = signal()?;
    Ok(async {
        signal.await;
        crate::tell(NotifyState::Stopping);
    })
}

#[cfg(unix)]
fn signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    })
}

#[cfg(not(unix))]
fn signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without it there is no other way to stop but to be ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}
