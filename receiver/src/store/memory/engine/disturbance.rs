//! What a test does to requests, and what it is told.

use std::sync::Arc;

use uuid::Uuid;

use super::super::super::error::{ErrorKind, StoreError};
use super::super::super::shard::{Position, Shard};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Groups are appended.
    Append,
    /// Journals are read on.
    Read,
    /// A state is read.
    Load,
    /// A lease is taken, kept or given up.
    Lease,
    /// A state is committed.
    Commit,
    /// Members attend, or leave.
    Attend,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFate {
    /// It is done and answered.
    Answered,
    /// It does not reach the engine, and the caller knows.
    Refused,
    /// The connection breaks: the caller does not know whether it was done.
    Unknown {
        /// Whether it was.
        is_done: bool,
    },
    /// The same, and groups that were to be appended arrive some time later.
    Delayed,
    /// It is done, and too few replicas confirm it.
    Unconfirmed,
}

/// What a test does to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disturbance {
    /// So much time passes before the engine has it: milliseconds.
    pub late_millis: u64,
    /// Before that the primary of these shards fails over: how much of the past each of them
    /// forgets, in milliseconds.
    pub forgets: Vec<(Shard, u64)>,
    /// What becomes of it then.
    pub fate: RequestFate,
}

impl Disturbance {
    /// Nothing is wrong.
    pub const NONE: Self = Self {
        late_millis: 0,
        forgets: Vec::new(),
        fate: RequestFate::Answered,
    };
}

/// What has happened to a shard, in order.
#[derive(Debug, Clone)]
pub struct EngineEvent {
    /// Which one.
    pub shard: Shard,
    /// The engine's clock: milliseconds.
    pub at_millis: u64,
    /// Greater than that of every earlier event.
    pub revision: u64,
    /// What has happened.
    pub change: EngineChange,
}

/// What has happened to a shard.
#[derive(Debug, Clone)]
pub enum EngineChange {
    /// A group was appended.
    Appended {
        /// Where.
        position: Position,
        /// Who appended it.
        writer: Uuid,
        /// Its number among those of that writer.
        number: u64,
        /// What was appended.
        group: Arc<[u8]>,
    },
    /// A lease was taken, kept or given up.
    Leased {
        /// Whose it is.
        owner: Uuid,
        /// The fencing epoch.
        epoch: u64,
        /// How long it lasts from now on; 0 if it was given up.
        millis: u64,
    },
    /// A state was committed.
    Committed {
        /// By whom.
        owner: Uuid,
        /// The fencing epoch.
        epoch: u64,
        /// The last position whose effect is in it.
        cursor: Position,
    },
    /// Everything after the event with this revision was forgotten.
    Forgot {
        /// The last one that is left; 0 if none is.
        left: u64,
    },
}

/// A fault that a test asked for, or what it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::store::memory) enum EngineFault {
    #[error("the engine cannot be reached")]
    Away,
    #[error("the connection broke: whether it was done is unknown")]
    Unknown,
    #[error("too few replicas have confirmed it")]
    Unconfirmed,
    #[error(
        "another process has the shard, or the engine has lost its last commit or its journal's end"
    )]
    Fenced,
    #[error("an engine is not rebuilt from memory")]
    NotRebuilt,
}

impl EngineFault {
    /// Whether it may be sent once more.
    pub(in crate::store::memory) fn is_worth_another(self) -> bool {
        matches!(self, Self::Away | Self::Unknown)
    }
}

impl From<EngineFault> for StoreError {
    fn from(fault: EngineFault) -> Self {
        let kind = match fault {
            EngineFault::Fenced => ErrorKind::Fenced,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, fault)
    }
}

/// What was asked for, if it was done.
pub(in crate::store::memory) type Asked<T> = Result<T, EngineFault>;
