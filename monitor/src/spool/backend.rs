//! Where a spool is stored: the seam between what the spool decides and what stores it.

use std::collections::BTreeMap;
use std::error::Error;

use lizmon_protocol::sample::{EncodedSamples, ProducerId, Record};
use serde::{Deserialize, Serialize};

use super::limits::PRODUCER_LOGS_MAX;
use super::origin::Origin;
use super::ranges::Ranges;

/// A record as it is stored: its values are the JSON that is sent.
pub type StoredRecord = Record<EncodedSamples>;

/// What a record costs besides its values, roughly and in any backend.
const RECORD_BYTES: u64 = 40;

/// What a record counts against a spool's limit.
pub fn record_bytes(record: &StoredRecord) -> u64 {
    values_bytes(record.values.as_str().len() as u64)
}

/// The same for values of so many bytes.
pub(super) fn values_bytes(values: u64) -> u64 {
    values + RECORD_BYTES
}

/// All of a producer log but its records: small, and written whole when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The producer of its numbers.
    pub producer: ProducerId,
    /// Whether new records are still appended to it.
    pub active: bool,
    /// Every destination is done with the numbers below, and their records are removed. Records
    /// from here on that no destination waits for are kept for a while.
    pub first: u64,
    /// The number of the next record.
    pub next: u64,
    /// When the newest of its records was measured.
    pub newest_epoch: u64,
    /// The progress of each destination, by its URL.
    pub destinations: BTreeMap<String, DestinationProgress>,
    /// Where its records were measured, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The [`LogState::newest_epoch`] of a log of which only the checkpoint was found.
pub(super) const UNKNOWN_EPOCH: u64 = u64::MAX;

/// How far one destination is in one log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationProgress {
    /// Numbers that were delivered or dropped.
    pub done: Ranges,
    /// What was dropped and why, as far as the destination has not acknowledged the report.
    pub unreported_drops: Vec<(u64, u64, String)>,
    /// How many separate ranges were dropped.
    pub gaps: u32,
    /// Numbers that the destination has acknowledged and whose records are here: these alone are
    /// sent again if it loses them.
    #[serde(default, skip_serializing_if = "Ranges::is_empty")]
    pub acknowledged: Ranges,
    /// The destination knew a number of this log before it was sent: another process uses the same
    /// numbers. Nothing of it is sent again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shared: bool,
    /// What the destination has acknowledged of reports of drops, oldest first, for as long as
    /// acknowledged records are kept: it is told again if it forgets that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reported_drops: Vec<ReportedDrop>,
}

/// Numbers that a destination knows to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedDrop {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Why they were dropped.
    pub why: String,
    /// At which second of the spool's own time it has acknowledged that. The time begins with the
    /// process.
    #[serde(skip)]
    pub at: u64,
}

/// A log that was found in a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLog {
    /// As it was committed last.
    pub state: LogState,
    /// The numbers whose records are there and sound.
    pub stored: Ranges,
    /// What they cost, by [`record_bytes`].
    pub bytes: u64,
    /// The next number by the log's own state; `state` may know a later one from a checkpoint.
    pub stored_next: u64,
}

/// Checkpoints that are kept at once: as many as logs that wait to be delivered.
pub const CHECKPOINTS_MAX: usize = PRODUCER_LOGS_MAX;

/// Numbers below `next` of this producer are assigned. Written before a record is committed, and
/// apart from it, so that a backend that was rolled back is noticed and no number is assigned
/// twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqCheckpoint {
    /// The producer of the numbers.
    pub producer: ProducerId,
    /// The number of the next record.
    pub next: u64,
}

impl SeqCheckpoint {
    /// A log of which nothing else is known.
    pub(super) fn to_state(self) -> LogState {
        LogState {
            producer: self.producer,
            active: false,
            first: 1,
            next: self.next,
            newest_epoch: UNKNOWN_EPOCH,
            destinations: BTreeMap::new(),
            origin: None,
        }
    }
}

/// Everything that a backend holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendContents {
    /// Oldest first.
    pub logs: Vec<StoredLog>,
    /// The readable ones of those that were written last.
    pub checkpoints: Vec<SeqCheckpoint>,
}

impl BackendContents {
    /// Where a checkpoint knows a later number than the log, the checkpoint is right. A log without
    /// a checkpoint gets no more records: its next number is not certain.
    pub(super) fn apply_checkpoints(&mut self) {
        let mut checkpoints: BTreeMap<ProducerId, u64> = BTreeMap::new();
        for SeqCheckpoint { producer, next } in &self.checkpoints {
            let known = checkpoints.entry(*producer).or_insert(*next);
            *known = (*known).max(*next);
        }
        for StoredLog { state, .. } in &mut self.logs {
            match checkpoints.remove(&state.producer) {
                Some(next) if next > state.next => {
                    state.next = next;
                    state.newest_epoch = UNKNOWN_EPOCH;
                }
                Some(_) => (),
                None => state.active = false,
            }
        }
        let unknown = self.checkpoints.iter().filter_map(|checkpoint| {
            let next = checkpoints.remove(&checkpoint.producer)?;
            let checkpoint = SeqCheckpoint {
                next,
                ..*checkpoint
            };
            (next > 1).then(|| StoredLog {
                state: checkpoint.to_state(),
                stored: Ranges::default(),
                bytes: 0,
                stored_next: 1,
            })
        });
        self.logs.extend(unknown);
    }
}

/// What is to change in one log.
#[derive(Debug)]
pub struct LogChange<'a> {
    /// The state to be stored; if `is_finished`, of the log to be removed with all its records.
    pub state: LogState,
    /// Nothing of it is needed any more.
    pub is_finished: bool,
    /// To be added. A record that is there already is written again.
    pub append: Vec<&'a StoredRecord>,
}

/// Why something was not stored, or not read.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no free space.
    #[error("the disk is full")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// Reading or writing fails.
    #[error("the disk fails: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Stores a spool's logs. It decides nothing.
pub trait SpoolBackend {
    /// What is stored. Damaged records are left out.
    fn load(&mut self) -> Result<BackendContents, BackendError>;

    /// Replaces the checkpoints. If `durable`, they survive a power failure; otherwise they survive
    /// the end of the process. It needs no more space than before. At most [`CHECKPOINTS_MAX`].
    fn checkpoint(
        &mut self,
        checkpoints: &[SeqCheckpoint],
        durable: bool,
    ) -> Result<(), BackendError>;

    /// Makes all of these changes durable, or none; records below each log's `first` are removed.
    /// Returns the bytes that were freed. After an error it is unknown, until the next commit or
    /// load, whether the changes will be found.
    fn commit(&mut self, changes: &[LogChange<'_>]) -> Result<u64, BackendError>;

    /// The first so many sound records from `from` to `to`, ascending.
    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<StoredRecord>, BackendError>;

    /// Moves everything to a place from which nothing is delivered or removed, and starts with
    /// these logs, without records: all of it, or nothing. Returns that place, for an operator.
    fn set_aside(&mut self, logs: &[LogState]) -> Result<String, BackendError>;

    /// Whether it outlives the process.
    fn is_persistent(&self) -> bool;
}

impl<B: SpoolBackend + ?Sized> SpoolBackend for Box<B> {
    fn load(&mut self) -> Result<BackendContents, BackendError> {
        (**self).load()
    }

    fn checkpoint(
        &mut self,
        checkpoints: &[SeqCheckpoint],
        durable: bool,
    ) -> Result<(), BackendError> {
        (**self).checkpoint(checkpoints, durable)
    }

    fn commit(&mut self, changes: &[LogChange<'_>]) -> Result<u64, BackendError> {
        (**self).commit(changes)
    }

    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<StoredRecord>, BackendError> {
        (**self).read(producer, from, to, records_max)
    }

    fn set_aside(&mut self, logs: &[LogState]) -> Result<String, BackendError> {
        (**self).set_aside(logs)
    }

    fn is_persistent(&self) -> bool {
        (**self).is_persistent()
    }
}
