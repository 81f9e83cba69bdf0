//! Looks again and again, on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::rate_limited_log::RateLimitedLog;

use super::status::{Change, WatchStatus};
use crate::clock::Clocks;
use crate::periodic::Periodic;
use crate::store::status::StoreStatus;
use crate::store::{Look, StoreError, StoreWatch};

/// How often the servers' memory is asked for: several receivers may append to one meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After how many looks shards and members are asked for, too: a second.
const LOOKS_BETWEEN: u32 = 4;
/// After how many looks the figures are logged, where they are: a minute.
const LOOKS_BETWEEN_LINES: u32 = 240;

/// Looks at a shared store.
pub struct Watch {
    store: Box<dyn StoreWatch>,
    status: Arc<WatchStatus>,
    /// Where a receiver's warnings and figures are shown.
    shown: Option<Arc<StoreStatus>>,
    looks: u32,
    failures: RateLimitedLog,
    /// The last line of figures.
    logged: String,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Looks through these connections, and tells `status`.
    pub fn new(store: Box<dyn StoreWatch>, status: Arc<WatchStatus>) -> Self {
        Self {
            store,
            status,
            shown: None,
            looks: 0,
            failures: RateLimitedLog::default(),
            logged: String::new(),
        }
    }

    /// Shows warnings and figures here, too.
    #[must_use]
    pub fn shown_in(mut self, status: Arc<StoreStatus>) -> Self {
        self.shown = Some(status);
        self
    }

    /// Looks once. `wall` is in epoch seconds, `monotonic` of a clock that does not step.
    pub fn look(&mut self, wall: u64, monotonic: u64) -> Result<(), StoreError> {
        let what = match self.looks % LOOKS_BETWEEN {
            0 => Look::Everything,
            _ => Look::Memory,
        };
        self.looks = self.looks.wrapping_add(1);
        let then = self.status.high_water().appended_then();
        let reading = self.store.look(what)?;
        log_change(&self.status.note(reading, &then, monotonic));
        if let Some(shown) = &self.shown {
            shown.set_watched(self.status.warnings(wall));
            let figures = self.status.figures();
            shown.set_lag(figures.waiting_groups(), figures.waiting_secs());
            let (bytes, free_bytes) = figures.memory();
            shown.set_usage(crate::store::StoreUsage { bytes, free_bytes });
        }
        Ok(())
    }

    fn look_and_log(&mut self, wall: u64, monotonic: u64) {
        if let Err(error) = self.look(wall, monotonic) {
            let error = &error as &dyn std::error::Error;
            self.failures.say(|unsaid| {
                tracing::warn!(error, unsaid, "the store does not say how full it is")
            });
        }
        // Who shows nothing says it in the log.
        if self.shown.is_none() && self.looks.is_multiple_of(LOOKS_BETWEEN_LINES) {
            self.log_figures();
        }
    }

    fn log_figures(&mut self) {
        let figures = self.status.figures();
        let counts = self.status.counts();
        let [acquired, lost, given_up] = counts.lease_changes();
        let (commits, failed_commits) = counts.commits();
        let refused: u64 = counts.refused().iter().map(|(_, groups)| groups).sum();
        let memory: Vec<_> = figures
            .servers
            .iter()
            .map(|(server, _)| {
                let limit = server.limit_bytes.unwrap_or(0) >> 20;
                let used = server.used_bytes >> 20;
                format!("{} {used} of {limit} MiB", server.name)
            })
            .collect();
        let memory = memory.join(", ");
        let (shards, groups_read) = (counts.owned(), counts.groups_read());
        let (waiting_groups, waiting_secs) = (figures.waiting_groups(), figures.waiting_secs());
        let line = format!(
            "{:?}",
            (
                (shards, groups_read, refused, commits, failed_commits),
                (acquired, lost, given_up, waiting_groups, &memory)
            )
        );
        if line != self.logged {
            self.logged = line;
            tracing::info!(
                shards,
                groups_read,
                refused,
                commits,
                failed_commits,
                acquired,
                lost,
                given_up,
                waiting_groups,
                waiting_secs,
                memory,
                "summarizing"
            );
        }
    }
}

fn log_change(change: &Change) {
    for full in &change.filled {
        tracing::warn!("{full}");
    }
    for full in &change.emptied {
        let what = full.name();
        tracing::info!("{what} is below its mark again: samples are taken");
    }
}

impl Periodic for Watch {
    const NAME: &'static str = "watch";
    const EVERY: Duration = LOOK_EVERY;

    fn act(&mut self, clocks: &Clocks) {
        self.look_and_log((clocks.wall)(), (clocks.monotonic)());
    }

    fn finish(self) -> Result<(), StoreError> {
        Ok(())
    }
}
