//! Which log new records are appended to, and the checkpoints of its numbers.

use lizmon_protocol::sample::ProducerId;

use super::backend::{BackendError, CHECKPOINTS_MAX, SeqCheckpoint, SpoolBackend};
use super::producer_log::{LogKind, ProducerLog};
use super::queue::Spool;

impl<B: SpoolBackend> Spool<B> {
    /// The active log's index. There always is one once the backend was read.
    pub(super) fn active_log(&self) -> Option<usize> {
        let is_active = |log: &ProducerLog| log.kind == LogKind::Active;
        self.logs.iter().position(is_active)
    }

    /// The log in memory: one for the whole process, so that it does not use up producers.
    pub(super) fn volatile_log(&mut self) -> usize {
        let is_volatile = |log: &ProducerLog| log.kind == LogKind::Volatile;
        let known = self.logs.iter().position(is_volatile);
        known.unwrap_or_else(|| {
            let producer = (self.new_producer)();
            let log = ProducerLog::new(
                producer,
                LogKind::Volatile,
                self.destinations.len(),
                self.keeps(),
            );
            self.logs.push(log);
            self.logs.len() - 1
        })
    }

    pub(super) fn log_of(&mut self, producer: ProducerId) -> Option<&mut ProducerLog> {
        self.logs.iter_mut().find(|log| log.producer == producer)
    }

    /// Closes the active log and starts another, if the backend stores that now.
    pub(super) fn rotate_log(&mut self, at: usize, now: u64) {
        if self.failure.is_some() {
            return;
        }
        let log = &mut self.logs[at];
        log.kind = LogKind::Closed;
        log.is_dirty = true;
        if self.try_save(now) {
            self.start_log();
        } else {
            self.logs[at].kind = LogKind::Active;
        }
    }

    pub(super) fn start_log(&mut self) -> ProducerId {
        let producer = (self.new_producer)();
        let log = ProducerLog::new(
            producer,
            LogKind::Active,
            self.destinations.len(),
            self.keeps(),
        );
        self.logs.push(log);
        // Durably, so that a power failure leaves some checkpoint of this log; the log itself has
        // the rest then. If this fails, so does the checkpoint before the first record, and that
        // one matters.
        let _unimportant = self.write_checkpoints(None, true);
        producer
    }

    /// Writes the numbers that are assigned and that the backend may not know: always the active
    /// log's, for a backend may be rolled back. The log that is `about_to_append` gets one number
    /// more.
    pub(super) fn write_checkpoints(
        &mut self,
        about_to_append: Option<usize>,
        durable: bool,
    ) -> Result<(), BackendError> {
        let active = self.active_log();
        let unsaved = (0..self.logs.len())
            .filter(|at| Some(*at) != active && self.logs[*at].has_unsaved_numbers());
        let checkpoints: Vec<_> = active
            .into_iter()
            .chain(unsaved)
            .take(CHECKPOINTS_MAX)
            .map(|at| SeqCheckpoint {
                producer: self.logs[at].producer,
                next: self.logs[at].next + u64::from(about_to_append == Some(at)),
            })
            .collect();
        self.backend.checkpoint(&checkpoints, durable)
    }
}
