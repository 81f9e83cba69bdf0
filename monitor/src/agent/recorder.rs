//! Records what was sampled.

use std::sync::{Arc, Mutex, PoisonError};

use lizmon_protocol::sample::Epoch;
use tracing::debug;

use super::sampling::Sample;
use super::shared::Shared;
use crate::collect::SelfStats;
use crate::environment::TimeSource;

/// How often the status is logged.
const STATUS_SECS: u64 = 3600;

/// Puts samples into the spool.
pub(super) struct Recorder {
    clock: TimeSource,
    shared: Arc<Shared>,
    /// For the next sample.
    stats: Arc<Mutex<SelfStats>>,
    status_logged_at: Option<u64>,
}

impl Recorder {
    pub(super) fn new(clock: TimeSource, shared: Arc<Shared>) -> Self {
        let now = clock().as_secs();
        let recorder = Self {
            clock,
            shared,
            stats: Arc::default(),
            status_logged_at: None,
        };
        recorder.update_stats(now);
        recorder
    }

    /// What the monitor knows about itself, as of the last record.
    pub(super) fn stats(&self) -> Arc<Mutex<SelfStats>> {
        self.stats.clone()
    }

    pub(super) fn record(&mut self, sample: Sample) {
        let Sample { epoch, values } = sample;
        if let Some(at) = Epoch::new(epoch).filter(|_| !values.is_empty()) {
            let now = (self.clock)();
            let key = self.shared.scheduler().record(at, values, now);
            // Where a log has `sampled` without this, the process ended in between.
            debug!(epoch, key = key.map(|key| key.to_string()), "recorded");
            self.shared.new_records.send_replace(());
        }
        self.update_stats(epoch);
        self.shared.log_events();
        let last = *self.status_logged_at.get_or_insert(epoch);
        if epoch.abs_diff(last) >= STATUS_SECS {
            self.status_logged_at = Some(epoch);
            self.shared.log_status(epoch);
        }
    }

    fn update_stats(&self, now: u64) {
        let scheduler = self.shared.scheduler();
        let stats = SelfStats {
            clock_ahead_secs: scheduler.clock_ahead_secs(),
            pending_records: scheduler.pending_records_max(),
            dropped_records: scheduler.spool().dropped_records(),
            repaired_records: scheduler.repaired_records_total(),
            certificate_days: self.shared.certificate_days(now),
        };
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}
