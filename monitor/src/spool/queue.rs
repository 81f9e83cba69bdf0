//! The spool itself: takes records, saves them, and gives batches.

use lizmon_protocol::sample::{
    Batch, EncodedSamples, Epoch, IdempotencyKey, ProducerId, SAFE_INTEGER_MAX,
};

use super::backend::{BackendError, LogChange, SpoolBackend, StoredRecord};
use super::drop_reason;
use super::event::Event;
use super::limits::{FAILED_RETRY_SECS, FULL_RETRY_SECS, GAPS_MAX, SpoolLimits};
use super::origin::Origin;
use super::producer_log::{LogKind, ProducerLog};
use super::ranges::Ranges;
use super::retention::Retention;
use super::selection::{Selected, Selection};

/// Records for one destination, and what it has not been told yet. They are given again until they
/// are acknowledged.
pub type StoredBatch = Batch<EncodedSamples>;

/// The backend stores nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackendFailure {
    /// When it was tried last, epoch seconds.
    tried_at: u64,
    /// When it is tried again.
    retry_secs: u64,
}

/// Everything that is not delivered yet.
pub struct Spool<B> {
    pub(super) backend: B,
    pub(super) retention: Retention,
    pub(super) origin: Option<Origin>,
    /// URLs.
    pub(super) destinations: Vec<String>,
    pub(super) new_producer: Box<dyn FnMut() -> ProducerId + Send>,
    /// Oldest first. One is active once the backend was read, and one may be volatile.
    pub(super) logs: Vec<ProducerLog>,
    /// Whether it is known what the backend holds.
    pub(super) is_loaded: bool,
    /// What records in the backend cost.
    pub(super) stored_bytes: u64,
    pub(super) failure: Option<BackendFailure>,
    saved_at: u64,
    /// The last error of a read, so that it is logged once.
    read_error: Option<String>,
    pub(super) events: Vec<Event>,
    pub(super) dropped_records: u64,
    /// Seconds that count against the time that acknowledged records are kept.
    pub(super) kept_clock: u64,
    /// Whether fewer are kept than should be, which is told once.
    pub(super) is_kept_limited: bool,
}

impl<B: SpoolBackend> Spool<B> {
    /// Continues with what is stored, as soon as that can be read. `new_producer` gives another
    /// unique one each time.
    pub fn open(
        backend: B,
        destinations: Vec<String>,
        limits: SpoolLimits,
        new_producer: impl FnMut() -> ProducerId + Send + 'static,
    ) -> Self {
        Self::open_at(None, backend, destinations, limits, new_producer)
    }

    /// The same where it is known where records are measured: those of another origin are set
    /// aside.
    pub fn open_at(
        origin: Option<Origin>,
        backend: B,
        destinations: Vec<String>,
        limits: SpoolLimits,
        new_producer: impl FnMut() -> ProducerId + Send + 'static,
    ) -> Self {
        let mut spool = Self {
            backend,
            retention: Retention::new(limits),
            origin,
            destinations,
            new_producer: Box::new(new_producer),
            logs: Vec::new(),
            is_loaded: false,
            stored_bytes: 0,
            failure: None,
            saved_at: 0,
            read_error: None,
            events: Vec::new(),
            dropped_records: 0,
            kept_clock: 0,
            is_kept_limited: false,
        };
        if let Err(error) = spool.load() {
            spool.backend_failed(&error, 0);
        }
        spool
    }

    /// Takes a record, for every destination. When this returns, it is stored, or in memory if that
    /// fails. Returns its number and producer; while the backend stores nothing at all, the
    /// producer is one in memory.
    pub fn push(
        &mut self,
        epoch: Epoch,
        values: EncodedSamples,
        now: u64,
    ) -> Option<IdempotencyKey> {
        self.push_to(None, epoch, values, now)
    }

    /// The same for one destination alone, or for all.
    pub(super) fn push_to(
        &mut self,
        only: Option<usize>,
        epoch: Epoch,
        values: EncodedSamples,
        now: u64,
    ) -> Option<IdempotencyKey> {
        let is_retry_due = self.is_retry_due(now);
        if is_retry_due && let Err(error) = self.load() {
            self.backend_failed(&error, now);
        }
        self.logs.retain(|log| log.is_dirty || !log.is_finished());
        self.drop_old(now);
        self.rotate_log_if_due(now);
        let at = match self.active_log() {
            // Before the record is written: after a crash, a write that failed may be found all the
            // same.
            Some(active) => match self.write_checkpoints(Some(active), !is_retry_due) {
                Ok(()) => active,
                Err(error) => {
                    self.backend_failed(&error, now);
                    self.volatile_log()
                }
            },
            None => self.volatile_log(),
        };
        let seq = self.logs[at].append(epoch, values)?;
        if let Some(only) = only {
            let progress = self.logs[at].destinations.iter_mut().enumerate();
            for (_, other) in progress.filter(|(destination, _)| *destination != only) {
                other.skip(seq.get(), seq.get());
            }
        }
        let is_number_safe = self.logs[at].kind == LogKind::Volatile
            || !is_retry_due
            || self.try_save(now)
            || self.write_checkpoints(None, true).is_ok();
        if is_number_safe {
            self.logs[at].sendable_below = self.logs[at].next;
        }
        let producer = self.logs[at].producer;
        self.limit_unsaved(at);
        self.drop_beyond_limit(now);
        Some(IdempotencyKey { producer, seq })
    }

    /// At most so many of the newest records, if the very newest is among them, and so many of the
    /// oldest; none where nothing is pending. A `newest_max` of 0 selects the oldest only: the same
    /// ones each time, until they are acknowledged.
    pub fn next_batch(
        &mut self,
        destination: usize,
        newest_max: usize,
        oldest_max: usize,
    ) -> Option<StoredBatch> {
        self.batch_of(Selection {
            destination,
            newest_max,
            oldest_max,
            is_newest_held: false,
        })
    }

    /// The same without the newest, which are to be sent later.
    pub fn backlog_batch(
        &mut self,
        destination: usize,
        newest_max: usize,
        oldest_max: usize,
    ) -> Option<StoredBatch> {
        self.batch_of(Selection {
            destination,
            newest_max,
            oldest_max,
            is_newest_held: true,
        })
    }

    fn batch_of(&mut self, selection: Selection) -> Option<StoredBatch> {
        selection.order(self.logs.len()).find_map(|(at, part)| {
            let selected = selection.select(&self.logs[at], part)?;
            let records = self.read_selected(at, selected);
            let log = &self.logs[at];
            let dropped = selection.reports(log);
            let is_empty = records.is_empty() && dropped.is_empty();
            (!is_empty).then_some(Batch {
                producer: log.producer,
                records,
                dropped,
                repair: false,
            })
        })
    }

    /// Writes the progress of all destinations, if that was not done in this second.
    pub fn save_if_due(&mut self, now: u64) {
        if self.failure.is_none() && self.saved_at != now {
            self.try_save(now);
        }
    }

    /// Writes new records and the progress of all destinations. Without it, a record that was
    /// delivered may be sent again after a crash; the receiver knows it then.
    pub fn save(&mut self) -> Result<(), BackendError> {
        self.load()?;
        let changes: Vec<LogChange<'_>> = self
            .logs
            .iter()
            .filter(|log| log.is_dirty)
            .map(|log| LogChange {
                state: log.state(&self.destinations, self.origin.as_ref()),
                is_finished: log.is_finished(),
                append: log.unsaved.iter().collect(),
            })
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let freed = self.backend.commit(&changes)?;
        self.stored_bytes = self.stored_bytes.saturating_sub(freed);
        for log in &mut self.logs {
            self.stored_bytes += log.unsaved_bytes();
            log.saved();
        }
        Ok(())
    }

    /// How many records this destination is not done with.
    pub fn pending(&self, destination: usize) -> u64 {
        let pending = self.logs.iter().map(|log| log.pending(destination));
        pending.sum()
    }

    /// Whether this destination has not acknowledged yet what was dropped.
    pub fn has_unreported_drops(&self, destination: usize) -> bool {
        let mut progress = self.logs.iter().map(|log| &log.destinations[destination]);
        progress.any(|progress| !progress.unreported_drops.is_empty())
    }

    /// How many records were dropped since the start, summed over the reasons.
    pub fn dropped_records(&self) -> u64 {
        self.dropped_records
    }

    /// What records in the backend cost, by [`super::backend::record_bytes`].
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// What happened since the last time.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The producer of new records; none before the backend could be read.
    pub fn producer(&self) -> Option<ProducerId> {
        self.active_log().map(|at| self.logs[at].producer)
    }

    /// The destinations' URLs.
    pub fn destinations(&self) -> &[String] {
        &self.destinations
    }

    /// Where it is stored.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Where it is stored, for a test that damages it.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Ends it, as a crash would: nothing more is written.
    pub fn into_backend(self) -> B {
        self.backend
    }

    /// Saves, which shows whether the backend works. Returns whether it does.
    pub(super) fn try_save(&mut self, now: u64) -> bool {
        self.saved_at = now;
        match self.save() {
            Ok(()) => {
                if self.failure.take().is_some() {
                    self.events.push(Event::BackendRecovered);
                }
                true
            }
            Err(error) => {
                self.backend_failed(&error, now);
                false
            }
        }
    }

    /// Whether the backend is to be tried.
    fn is_retry_due(&self, now: u64) -> bool {
        self.failure
            .is_none_or(|failure| now.abs_diff(failure.tried_at) >= failure.retry_secs)
    }

    fn backend_failed(&mut self, error: &BackendError, now: u64) {
        let retry_secs = match error {
            BackendError::Full(_) => FULL_RETRY_SECS,
            BackendError::Failed(_) => FAILED_RETRY_SECS,
        };
        let failure = BackendFailure {
            tried_at: now,
            retry_secs,
        };
        if self.failure.replace(failure).is_none() {
            self.events.push(Event::BackendFailed(error.to_string()));
        }
    }

    /// New records get a new producer before there are more gaps than a receiver keeps, and before
    /// the numbers run out.
    fn rotate_log_if_due(&mut self, now: u64) {
        let Some(at) = self.active_log() else {
            return;
        };
        let log = &self.logs[at];
        let gaps = log.destinations.iter().map(|progress| progress.gaps).max();
        // While the backend fails it can wait: what is more than a receiver keeps, it refuses until
        // later.
        if gaps.unwrap_or(0) >= GAPS_MAX || log.next >= SAFE_INTEGER_MAX {
            self.rotate_log(at, now);
        }
    }

    fn read_selected(&mut self, at: usize, selected: Selected) -> Vec<StoredRecord> {
        let mut left = selected.oldest_max;
        let mut records = Vec::new();
        for (from, to) in selected.oldest {
            if left == 0 {
                break;
            }
            let more = self.read_records(at, from, to, left);
            left -= more.len();
            records.extend(more);
        }
        if let Some((from, to)) = selected.newest {
            records.extend(self.read_records(at, from, to, usize::MAX));
        }
        records
    }

    /// The first so many of these numbers' records. Those that should be there and are not are
    /// dropped.
    fn read_records(
        &mut self,
        at: usize,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Vec<StoredRecord> {
        let log = &self.logs[at];
        if let Some(last) = &log.last_saved
            && (from, to) == (last.seq.get(), last.seq.get())
        {
            return vec![last.clone()];
        }
        let stored_to = to.min(log.first_unsaved() - 1);
        let mut records = Vec::new();
        if from <= stored_to {
            match self
                .backend
                .read(log.producer, from, stored_to, records_max)
            {
                Ok(found) => {
                    self.read_error = None;
                    let last = found.last().map_or(0, |record| record.seq.get());
                    let is_all = found.len() < records_max;
                    self.drop_missing(at, from, if is_all { stored_to } else { last }, &found);
                    records = found;
                }
                Err(error) => self.report_unreadable(&error.to_string()),
            }
        }
        let left = records_max - records.len();
        let unsaved = self.logs[at].unsaved.iter();
        let unsaved = unsaved.filter(|record| (from..=to).contains(&record.seq.get()));
        records.extend(unsaved.take(left).cloned());
        records
    }

    fn drop_missing(&mut self, at: usize, from: u64, to: u64, found: &[StoredRecord]) {
        let mut there = Ranges::default();
        for record in found {
            there.insert(record.seq.get(), record.seq.get());
        }
        let mut lost = 0;
        for (from, to) in there.gaps(from, to) {
            lost += self.logs[at].drop_everywhere(from, to, drop_reason::DAMAGED);
        }
        self.count_dropped(lost, drop_reason::DAMAGED);
        if lost > 0 {
            self.logs[at].trim();
        }
    }

    pub(super) fn report_unreadable(&mut self, error: &str) {
        if self.read_error.as_deref() != Some(error) {
            self.read_error = Some(error.to_owned());
            self.events.push(Event::Unreadable(error.to_owned()));
        }
    }

    pub(super) fn count_dropped(&mut self, records: u64, why: &'static str) {
        if records == 0 {
            return;
        }
        self.dropped_records += records;
        match self.events.last_mut() {
            Some(Event::RecordsDropped {
                records: known,
                why: reason,
            }) if *reason == why => *known += records,
            _ => self.events.push(Event::RecordsDropped { records, why }),
        }
    }
}
