//! What a store that several processes share says about itself while it is used: how much memory
//! its servers have left, and how far the shards' journals are ahead of what is committed.

use super::error::StoreError;
use super::members::MemberRole;
use super::shard::{Position, Shard};

/// Looks at a shared store, on connections of its own. It changes nothing there.
pub trait StoreWatch: Send {
    /// Asks the servers. Those that do not answer are left out; an error if none does.
    fn look(&mut self, what: Look) -> Result<StoreReading, StoreError>;
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The servers' memory.
    Memory,
    /// That, the shards and the members.
    Everything,
}

/// What the servers said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreReading {
    /// The servers that shards are on.
    pub servers: Vec<ServerReading>,
    /// The shards of these servers, in order; none if only the memory was asked for.
    pub shards: Vec<ShardReading>,
    /// How many processes share the store, by what they do there.
    pub members: Vec<(MemberRole, u64)>,
}

/// What one server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReading {
    /// HOST:PORT.
    pub name: String,
    /// Its shards.
    pub shards: Vec<Shard>,
    /// Memory in use that counts against the limit: bytes.
    pub used_bytes: u64,
    /// More it does not take: bytes. None if that is not known.
    pub limit_bytes: Option<u64>,
}

/// What a server said of one of its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardReading {
    /// The shard.
    pub shard: Shard,
    /// The last position that is committed.
    pub cursor: Position,
    /// How many groups of the journal are behind it.
    pub waiting_groups: u64,
    /// What the journal takes up, if that is known: bytes.
    pub journal_bytes: Option<u64>,
    /// Whether a process has its lease.
    pub is_owned: bool,
}
