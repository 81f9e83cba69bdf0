//! Waiting for servers.

use std::time::{Duration, Instant};

/// Longest wait: far more than a server needs, so that a slow machine does not fail.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Tries until it works; otherwise panics with what was awaited and the last reason.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let by = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) if Instant::now() > by => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// `Err` with these words unless it is so.
pub(crate) fn ensure(is: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is { Ok(()) } else { Err(otherwise()) }
}
