//! Signals that stop a program, and signals that do not.
//!
//! | signal | daemons | `lizctl up` and other programs with a terminal |
//! | --- | --- | --- |
//! | SIGTERM, SIGINT, SIGQUIT | exit cleanly | the same |
//! | SIGHUP | reload their files at once | exit cleanly, because the terminal is gone; with `nohup`: ignored |
//! | SIGUSR1, SIGUSR2, SIGPIPE | ignored | the same |

use std::io;

use sd_notify::NotifyState;

/// Why a program with a terminal stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It received a signal to stop.
    Told,
    /// Its terminal is gone, so its output is lost.
    HungUp,
}

/// Resolves at the first SIGTERM, SIGINT or SIGQUIT (on other systems: Ctrl-C) after this call, and
/// tells systemd that the program is stopping.
pub fn stop() -> io::Result<impl Future<Output = ()>> {
    let signal = signal()?;
    Ok(async {
        signal.await;
        crate::tell(NotifyState::Stopping);
    })
}

/// Like [`stop`], for a program with a terminal. It also stops when the terminal closes, unless it
/// was started with `nohup`.
pub fn stop_or_hang_up() -> io::Result<impl Future<Output = Ended>> {
    let stop = stop()?;
    let hang_up = hang_up()?;
    Ok(async {
        tokio::select! {
            () = stop => Ended::Told,
            () = hang_up => Ended::HungUp,
        }
    })
}

/// From now on, SIGHUP does not stop the program. Each SIGHUP calls `reload` while the event loop
/// runs.
#[cfg(unix)]
pub fn reload_at_hang_up(reload: impl Fn() + Send + 'static) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            tracing::info!("SIGHUP: checking certificates, roots and CRLs for changes");
            reload();
        }
    });
    Ok(())
}

/// This system has no such signal.
#[cfg(not(unix))]
pub fn reload_at_hang_up(_reload: impl Fn() + Send + 'static) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    // By default these signals kill the process without a flush. A handler prevents that for the
    // rest of the process.
    for unused in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        let _listened_for = signal(unused)?;
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
            _ = quit.recv() => (),
        }
    })
}

#[cfg(not(unix))]
fn signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without Ctrl-C, the process can only be killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

#[cfg(unix)]
fn hang_up() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let listened_for = match is_hang_up_ignored() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    Ok(async {
        match listened_for {
            Some(mut hang_up) => {
                hang_up.recv().await;
            }
            None => std::future::pending().await,
        }
    })
}

#[cfg(not(unix))]
fn hang_up() -> io::Result<impl Future<Output = ()>> {
    Ok(std::future::pending())
}

/// Whether SIGHUP is ignored, as `nohup` sets it, so that the program outlives its terminal. False
/// if the system does not report it.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hang_up(&status))
}

/// `SigIgn:` is a mask of 16 hexadecimal digits; SIGHUP is 1, its lowest bit. proc_pid_status(5).
#[cfg(unix)]
fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn whether_the_terminal_is_to_be_outlived() {
        let cases = [
            ("Name:\tx\nSigIgn:\t0000000000000001\n", true),
            ("Name:\tx\nSigIgn:\t0000000000001001\n", true),
            ("Name:\tx\nSigIgn:\t0000000000001000\n", false),
            ("Name:\tx\nSigBlk:\t0000000000000001\n", false),
            ("SigIgn:\n", false),
            ("", false),
        ];
        for (status, expected) in cases {
            assert_eq!(ignores_hang_up(status), expected, "{status:?}");
        }
    }
}
