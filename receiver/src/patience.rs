//! Starts that wait for a shared store whose servers are away.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longer than a failover takes. A service manager tries a few times in a row, and then gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Tries to start, again while the reason may pass, but not for ever.
#[expect(clippy::disallowed_methods, reason = "paces attempts")]
pub async fn start<T, E: Error + 'static>(
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
    may_pass: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let by = Instant::now() + PATIENCE;
    let mut is_told = false;
    loop {
        match attempt().await {
            Err(error) if may_pass(&error) && Instant::now() < by => {
                if !is_told {
                    let error = &error as &dyn Error;
                    let secs = PATIENCE.as_secs();
                    tracing::warn!(error, "cannot start yet, trying again for {secs} s");
                }
                is_told = true;
            }
            result => return result,
        }
        sleep(TRY_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    async fn attempts(fails: usize, may_pass: bool) -> (usize, bool) {
        let mut attempts = 0;
        let attempt = async || {
            attempts += 1;
            match attempts > fails {
                true => Ok(()),
                false => Err(io::Error::other("away")),
            }
        };
        let started = start(attempt, |_| may_pass).await.is_ok();
        (attempts, started)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_waited_for() {
        for (fails, may_pass, expected) in [
            (0, true, (1, true)),
            (20, true, (21, true)),
            (1, false, (1, false)),
            (1_000, true, (61, false)),
        ] {
            assert_eq!(attempts(fails, may_pass).await, expected, "{fails}");
        }
    }
}
