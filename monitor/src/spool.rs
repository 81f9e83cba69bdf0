//! Records that are not delivered yet: numbered, bounded, and read by each destination at its own pace.
//!
//! ```text
//! push -> tape: 1 2 3 … next      one producer's numbers; new records go on the open one
//!           │ destination A: settled 1-7, 9
//!           │ destination B: settled 1-2
//!           └ Keep: note, commit, read      where it is kept: disk, memory, or a test's
//! ```
//!
//! What holds:
//!
//! - A number is never given twice, whatever the disk does: it may be sent only once it cannot be given again.
//! - A record is forgotten when every destination has settled it: it was delivered, or given up and counted.
//! - What is given up is reported to the destination that misses it, with the reason, until that says it knows.
//! - Oldest go first when the spool is full, and when they are so old that no receiver takes them.
//! - While the disk takes nothing, records are kept in memory, sent from there, and go to the disk as soon as it has room. Their
//!   numbers are noted, which needs no room, so that after a crash they are reported. Only where not even that can be
//!   written, a crash takes them without a word.

mod ack;
pub mod backend;
pub mod disk;
mod duplicates;
mod load;
pub mod memory;
mod origin;
mod producer_log;
mod ranges;
mod retention;
mod selection;
#[cfg(test)]
mod tests;

pub use backend::{BackendError, SpoolBackend};
pub use origin::{Machine, Origin};
pub use ranges::Ranges;

use lizmon_protocol::sample::{
    Batch, Epoch, IdempotencyKey, ProducerId, SAFE_INTEGER_MAX, SampleSet, Seq,
};

use self::backend::{CHECKPOINTS_MAX, LogChange, SeqCheckpoint};
use self::producer_log::{LogKind, ProducerLog};
pub(crate) use self::retention::ClockSteadiness;

/// Most bytes of records on disk: at the usual two labels, ten days of one a second.
pub const DISK_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of records where they are kept in memory: some six hours at one a second.
pub const MEMORY_BYTES_MAX: u64 = 1536 << 10;
/// What is kept in memory for a disk that takes nothing: as much as without one.
pub const UNSAVED_BYTES_MAX: u64 = MEMORY_BYTES_MAX;
/// No receiver takes older ones: its longest window is a day, rounded down to a whole hour.
pub const AGE_SECS_MAX: u64 = 25 * 3600;
/// A keep that is full is tried again with the next record: it says so at once.
pub const FULL_RETRY_SECS: u64 = 1;
/// A keep that fails is left alone for so long: it may take its time to say so, while nothing is measured.
pub const FAILED_RETRY_SECS: u64 = 10;
/// A receiver keeps 1,024 ranges of a producer's numbers: before that many gaps, new records get a new producer.
pub const GAPS_MAX: u32 = 512;
/// Tapes that still wait to be delivered: half the producers that a receiver keeps of one host. Beyond it the oldest is given up.
pub const PRODUCER_LOGS_MAX: usize = 32;

/// Why records are given up, in the words that receivers are told.
pub mod drop_reason {
    /// They are too old for any receiver.
    pub const TOO_OLD: &str = "too old to be taken";
    /// Newer ones needed the room.
    pub const SPOOL_FULL: &str = "the spool was full";
    /// The disk took nothing, and memory had no more room.
    pub const DISK_FAILED: &str = "the disk took nothing for too long";
    /// They were on a damaged part of the disk, or never got there.
    pub const DAMAGED: &str = "not on the disk any more";
    /// They are of a host by another name, and set aside.
    pub const OTHER_HOST: &str = "other_host";
    /// They were measured on another machine by the same name, and set aside.
    pub const OTHER_MACHINE: &str = "other_machine";
    /// They were settled before this receiver was among those to publish to.
    pub const BEFORE_ASKED: &str = lizmon_protocol::delivery::BEFORE_ASKED;
    /// The receiver had them, and has lost them: its data began anew, or is older than it was.
    pub const BEFORE_DATA: &str = lizmon_protocol::delivery::BEFORE_DATA;
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of records in the keep.
    pub bytes_max: u64,
    /// Most bytes of records that the keep has not taken.
    pub unsaved_bytes_max: u64,
    /// Older records are given up.
    pub age_secs_max: u64,
}

impl Limits {
    /// So many bytes in the keep, and the rest as usual.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            unsaved_bytes_max: UNSAVED_BYTES_MAX,
            age_secs_max: AGE_SECS_MAX,
        }
    }
}

/// Records for one destination, and what it has not been told yet. It is given again until it is acknowledged.
pub type StoredBatch = Batch<'static>;

/// Something that a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// So many records were given up, for at least one destination.
    RecordsDropped {
        /// How many.
        records: u64,
        /// One of [`drop_reason`].
        why: &'static str,
    },
    /// The keep takes nothing from now on.
    BackendFailed(String),
    /// What is kept cannot be read at present.
    Unreadable(String),
    /// The keep works again.
    BackendRecovered,
    /// Tapes were found from which it cannot be told which number comes next: new records have a new producer.
    NewProducer(ProducerId),
    /// A destination knew numbers that were never sent to it: somebody else has them too. New records have a new producer.
    UnexpectedDuplicates {
        /// Its URL.
        destination: String,
        /// How many records are sent to it again, under new numbers.
        records: u64,
    },
    /// What was found is not this host's, or not this machine's. It is not delivered, and new records have a new producer.
    SetAside {
        /// [`drop_reason::OTHER_HOST`] or [`drop_reason::OTHER_MACHINE`].
        why: &'static str,
        /// Whose it is.
        host: String,
        /// How many records waited there.
        records: u64,
        /// Where they are now.
        place: String,
    },
}

/// The keep takes nothing.
#[derive(Debug, Clone, Copy)]
struct BackendFailure {
    /// When it was tried last, epoch seconds.
    tried_at: u64,
    /// How long it is left alone.
    retry_secs: u64,
}

/// Everything that is not delivered yet.
pub struct Spool<K> {
    backend: K,
    limits: Limits,
    origin: Option<Origin>,
    /// URLs.
    destinations: Vec<String>,
    new_producer: Box<dyn FnMut() -> ProducerId + Send>,
    /// Oldest first; one of them is open once the keep was read, and one may be spare.
    logs: Vec<ProducerLog>,
    /// Whether it is known what the keep holds.
    is_loaded: bool,
    /// What records in the keep cost.
    stored_bytes: u64,
    failure: Option<BackendFailure>,
    steadiness: ClockSteadiness,
    saved_at: u64,
    /// What was said about a keep that cannot be read, so that it is said once.
    unreadable: Option<String>,
    events: Vec<Event>,
    dropped_records: u64,
}

impl<K: SpoolBackend> Spool<K> {
    /// Goes on with what is kept, as soon as that can be read. `new_producer` gives another unique one each time.
    pub fn open(
        backend: K,
        destinations: Vec<String>,
        limits: Limits,
        new_producer: impl FnMut() -> ProducerId + Send + 'static,
    ) -> Self {
        Self::open_at(None, backend, destinations, limits, new_producer)
    }

    /// The same where it is known whose records these are: what is another's is set aside.
    pub fn open_at(
        origin: Option<Origin>,
        backend: K,
        destinations: Vec<String>,
        limits: Limits,
        new_producer: impl FnMut() -> ProducerId + Send + 'static,
    ) -> Self {
        let mut spool = Self {
            backend,
            limits,
            origin,
            destinations,
            new_producer: Box::new(new_producer),
            logs: Vec::new(),
            is_loaded: false,
            stored_bytes: 0,
            failure: None,
            steadiness: ClockSteadiness::default(),
            saved_at: 0,
            unreadable: None,
            events: Vec::new(),
            dropped_records: 0,
        };
        if let Err(error) = spool.load() {
            spool.backend_failed(&error, 0);
        }
        spool
    }

    /// Takes a record, for every destination. It is in the keep, or where that fails in memory, when this returns. Its number, and whose that is:
    /// while the keep takes nothing at all, that of a producer in memory.
    pub fn push(
        &mut self,
        epoch: Epoch,
        values: &SampleSet<'_>,
        now: u64,
    ) -> Option<IdempotencyKey> {
        // A set of ours is a map of texts to finite numbers: there is no such set that cannot be written.
        let values = serde_json::to_vec(values).ok()?.into_boxed_slice();
        self.push_to(None, epoch, values, now)
    }

    /// The same for one destination alone, or for all.
    fn push_to(
        &mut self,
        only: Option<usize>,
        epoch: Epoch,
        values: Box<[u8]>,
        now: u64,
    ) -> Option<IdempotencyKey> {
        let is_due = self.is_retry_due(now);
        if is_due && let Err(error) = self.load() {
            self.backend_failed(&error, now);
        }
        self.logs.retain(|log| log.is_dirty || !log.is_finished());
        self.drop_old(now);
        self.rotate_log_if_due(now);
        let at = match self.active_log() {
            // Before the record is written: a write that fails may be found all the same after a crash.
            Some(open) => match self.backend.note(&self.checkpoints(Some(open)), !is_due) {
                Ok(()) => open,
                Err(error) => {
                    self.backend_failed(&error, now);
                    self.volatile_log()
                }
            },
            None => self.volatile_log(),
        };
        let seq = self.logs[at].append(epoch.secs(), values);
        if let Some(only) = only {
            let destinations = self.logs[at].destinations.iter_mut().enumerate();
            for (_, other) in destinations.filter(|(progress, _)| *progress != only) {
                other.ack(seq, seq);
            }
        }
        let is_number_safe = self.logs[at].kind == LogKind::Volatile
            || !is_due
            || self.try_save(now)
            || self.backend.note(&self.checkpoints(None), true).is_ok();
        if is_number_safe {
            self.logs[at].sendable_below = self.logs[at].next;
        }
        let producer = self.logs[at].producer;
        self.limit_unsaved(at);
        self.drop_beyond_limit(now);
        let seq = Seq::new(seq)?;
        Some(IdempotencyKey { producer, seq })
    }

    /// Writes down how far everyone is, if that was not done in this second.
    pub fn save_if_due(&mut self, now: u64) {
        if self.failure.is_none() && self.saved_at != now {
            self.try_save(now);
        }
    }

    /// Writes down how far everyone is. Without it, a record that was delivered may be sent again after a crash, and is known then.
    pub fn save(&mut self) -> Result<(), BackendError> {
        self.load()?;
        let changes: Vec<LogChange<'_>> = self
            .logs
            .iter()
            .filter(|log| log.is_dirty)
            .map(|log| LogChange {
                state: log.state(&self.destinations, self.origin.as_ref()),
                ended: log.is_finished(),
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

    /// How many records this destination has not settled.
    pub fn pending(&self, destination: usize) -> u64 {
        let pending = self.logs.iter().map(|log| log.pending(destination));
        pending.sum()
    }

    /// How many records were given up since the start, summed over the reasons.
    pub fn dropped_records(&self) -> u64 {
        self.dropped_records
    }

    /// What records in the keep cost, by [`backend::StoredRecord::bytes`].
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// What happened since the last time.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Who numbers new records; none before the keep could be read.
    pub fn producer(&self) -> Option<ProducerId> {
        self.active_log().map(|at| self.logs[at].producer)
    }

    /// The destinations, by their URLs.
    pub fn destinations(&self) -> &[String] {
        &self.destinations
    }

    /// Where it is kept.
    pub fn backend(&self) -> &K {
        &self.backend
    }

    /// Where it is kept, to break it.
    pub fn backend_mut(&mut self) -> &mut K {
        &mut self.backend
    }

    /// Ends it, as a crash would: nothing more is written.
    pub fn into_backend(self) -> K {
        self.backend
    }

    /// Saves, and sees whether the keep works. Whether it does.
    fn try_save(&mut self, now: u64) -> bool {
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

    /// Whether the keep is to be tried.
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

    /// The numbers that are taken and that the keep may not know of: always the open tape's, for a keep may come back older
    /// than it was. With one more of the tape that is about to take a record.
    fn checkpoints(&self, about_to_take: Option<usize>) -> Vec<SeqCheckpoint> {
        let open = self.active_log();
        let unsaved = (0..self.logs.len())
            .filter(|at| Some(*at) != open && self.logs[*at].has_unsaved_numbers());
        let noted = open.into_iter().chain(unsaved);
        noted
            .take(CHECKPOINTS_MAX)
            .map(|at| SeqCheckpoint {
                producer: self.logs[at].producer,
                next: self.logs[at].next + u64::from(about_to_take == Some(at)),
            })
            .collect()
    }

    /// New records get a new producer before its gaps are more than a receiver keeps, and before it has no more numbers.
    fn rotate_log_if_due(&mut self, now: u64) {
        let Some(at) = self.active_log() else {
            return;
        };
        let log = &mut self.logs[at];
        let gaps = log.destinations.iter().map(|progress| progress.gaps).max();
        let is_due = gaps.unwrap_or(0) >= GAPS_MAX || log.next >= SAFE_INTEGER_MAX;
        // In trouble it can wait: what is more than a receiver keeps, it refuses until later.
        if is_due {
            self.rotate_log(at, now);
        }
    }

    /// Ends the open tape and begins another, if the keep takes that now.
    fn rotate_log(&mut self, at: usize, now: u64) {
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

    fn start_log(&mut self) -> ProducerId {
        let producer = (self.new_producer)();
        let log = ProducerLog::new(producer, LogKind::Active, self.destinations.len());
        self.logs.push(log);
        // Durably, so that a power failure leaves some note of this tape: the tape itself knows the rest then. If this
        // fails, so does the note before the first record, and that matters.
        let _unimportant = self.backend.note(&self.checkpoints(None), true);
        producer
    }

    /// There always is one once the keep was read.
    fn active_log(&self) -> Option<usize> {
        let open = |log: &ProducerLog| log.kind == LogKind::Active;
        self.logs.iter().position(open)
    }

    /// One for the whole process, so that it does not use up producers.
    fn volatile_log(&mut self) -> usize {
        let volatile = |log: &ProducerLog| log.kind == LogKind::Volatile;
        self.logs.iter().position(volatile).unwrap_or_else(|| {
            let producer = (self.new_producer)();
            let log = ProducerLog::new(producer, LogKind::Volatile, self.destinations.len());
            self.logs.push(log);
            self.logs.len() - 1
        })
    }

    fn log_of(&mut self, producer: ProducerId) -> Option<&mut ProducerLog> {
        self.logs.iter_mut().find(|log| log.producer == producer)
    }

    fn count_dropped(&mut self, records: u64, why: &'static str) {
        if records == 0 {
            return;
        }
        self.dropped_records += records;
        match self.events.last_mut() {
            Some(Event::RecordsDropped {
                records: known,
                why: said,
            }) if *said == why => *known += records,
            _ => self.events.push(Event::RecordsDropped { records, why }),
        }
    }
}
