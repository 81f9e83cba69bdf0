//! Where a spool is kept: the seam between what the spool decides and what holds it.

use std::collections::BTreeMap;
use std::error::Error;

use lizmon_protocol::sample::ProducerId;
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use super::ranges::Ranges;

/// A record as it is kept. Its values are JSON, as they will travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number within its tape.
    pub seq: u64,
    /// The second it was measured at.
    pub epoch: u64,
    /// What was measured.
    pub values: Box<[u8]>,
}

/// What a record costs besides its values, roughly and in any keep.
const RECORD_BYTES: u64 = 40;

impl StoredRecord {
    /// What it counts against a spool's limit.
    pub fn bytes(&self) -> u64 {
        Self::bytes_of(self.values.len() as u64)
    }

    /// The same for values of so many bytes.
    pub(super) fn bytes_of(values: u64) -> u64 {
        values + RECORD_BYTES
    }
}

/// All of a tape but its records: small, and written whole when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// Whose numbers these are.
    pub producer: ProducerId,
    /// Whether new records still go on it.
    pub active: bool,
    /// Numbers below are settled everywhere, and forgotten.
    pub first: u64,
    /// The number the next record gets.
    pub next: u64,
    /// When the newest of its records was measured.
    pub newest_epoch: u64,
    /// How far each destination is, by its URL.
    pub destinations: BTreeMap<String, DestinationProgress>,
    /// Where its records are from. None where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// When a tape's newest record was measured, where only its note was found.
pub(super) const UNKNOWN_EPOCH: u64 = u64::MAX;

/// How far one destination is on one tape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationProgress {
    /// Numbers that were delivered or given up.
    pub done: Ranges,
    /// What was given up and why, as far as the destination has not been told.
    pub unreported_drops: Vec<(u64, u64, String)>,
    /// How many separate ranges were given up.
    pub gaps: u32,
}

/// A tape that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLog {
    /// As it was committed last.
    pub state: LogState,
    /// The numbers whose records are there and sound.
    pub stored: Ranges,
    /// What they cost, by [`StoredRecord::bytes`].
    pub bytes: u64,
    /// Numbers below stand in the tape's own state; what `state` says beyond, a note told.
    pub stored_next: u64,
}

/// Notes that are kept at once: as many as tapes that wait to be delivered.
pub const CHECKPOINTS_MAX: usize = super::PRODUCER_LOGS_MAX;

/// Numbers below `next` of this producer are taken. Written before a record is committed, and apart from it, so that a keep that
/// comes back older than it was is noticed and no number is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqCheckpoint {
    /// Whose numbers.
    pub producer: ProducerId,
    /// The number the next record gets.
    pub next: u64,
}

impl SeqCheckpoint {
    /// The tape of which nothing else is known.
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

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendContents {
    /// Oldest first.
    pub logs: Vec<StoredLog>,
    /// Those that were written last, and can be read.
    pub checkpoints: Vec<SeqCheckpoint>,
}

impl BackendContents {
    /// Believes a note where it knows more than the tapes. A tape without one gets no more records: which number would be its
    /// next is not certain.
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
        let unknown = self.checkpoints.iter().filter_map(|note| {
            let next = checkpoints.remove(&note.producer)?;
            (next > 1).then(|| StoredLog {
                state: SeqCheckpoint { next, ..*note }.to_state(),
                stored: Ranges::default(),
                bytes: 0,
                stored_next: 1,
            })
        });
        self.logs.extend(unknown);
    }
}

/// What is to change on one tape.
#[derive(Debug)]
pub struct LogChange<'a> {
    /// As it is to be kept; with `ended`, what is to be removed with all its records.
    pub state: LogState,
    /// Nothing of it is needed any more.
    pub ended: bool,
    /// To be added. A record that is there already is written again.
    pub append: Vec<&'a StoredRecord>,
}

/// Why something was not kept, or not read.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no room.
    #[error("the disk is full")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// The disk refuses to read or write.
    #[error("the disk fails: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Holds a spool's tapes. Nothing here decides.
pub trait SpoolBackend {
    /// What is stored. Records that are damaged are left out.
    fn load(&mut self) -> Result<BackendContents, BackendError>;

    /// Remembers which numbers are taken, and nothing of earlier notes: where it says so `durable`ly, against a power failure
    /// too; otherwise as soon as the process can be killed. Needs no more room than it had. At most [`CHECKPOINTS_MAX`].
    fn note(&mut self, checkpoints: &[SeqCheckpoint], durable: bool) -> Result<(), BackendError>;

    /// Makes all of these changes durable, or none; records below each tape's `first` go. The bytes that became free. After an error it is
    /// unknown, until the next commit or load, whether the changes will be found.
    fn commit(&mut self, changes: &[LogChange<'_>]) -> Result<u64, BackendError>;

    /// The first so many sound records from `from` to `to`, ascending.
    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<StoredRecord>, BackendError>;

    /// Puts everything that is stored where nobody delivers it, and nobody loses it, and begins with these tapes without records.
    /// All of it, or nothing. Where that is, for a person.
    fn set_aside(&mut self, logs: &[LogState]) -> Result<String, BackendError>;

    /// Whether it outlives the process.
    fn is_persistent(&self) -> bool;
}

impl<K: SpoolBackend + ?Sized> SpoolBackend for Box<K> {
    fn load(&mut self) -> Result<BackendContents, BackendError> {
        (**self).load()
    }

    fn note(&mut self, checkpoints: &[SeqCheckpoint], durable: bool) -> Result<(), BackendError> {
        (**self).note(checkpoints, durable)
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
