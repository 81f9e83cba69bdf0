//! Where journal and state are kept.
//!
//! A store has two kinds of contents, both divided into shards. The **journal**: groups of
//! submissions, appended and made durable before anyone is answered. The **state**: what
//! summarizing a shard's journal up to its cursor has come to. State and cursor change in one
//! transaction; the journal after the cursor, applied to the state, gives the present summaries. So
//! a crash at any moment loses nothing and counts nothing twice.
//!
//! ```text
//! journal.rs, state.rs, engine.rs   the traits of every store
//! members.rs                        the trait of a store that several processes share
//! shard.rs                          how hosts are divided, and who owns a part
//! record.rs                         the journal's binary format, the same in every store
//! history.rs                        what is kept longer than the summaries
//! watch.rs                          what a shared store says of itself while it is used
//! document.rs                       what is kept of a host beside its summaries
//! signing.rs                        who may append to a journal that others can write to
//! reader.rs, writers.rs             reading a journal that others append to, and may be forgotten
//! damage.rs, error.rs, status.rs    what could not be read; what failed; what is shown of it
//!
//! embedded.rs   SQLite, in a folder that one process uses: the default
//! redis.rs      Redis or Valkey, for any number of processes
//! memory.rs     in memory, for tests: fails and forgets as it is told
//! contract.rs   what every store must do
//! copy.rs       copies one store into another, of whatever kind
//! ```
//!
//! Callers know [`JournalStore`], [`StateStore`] and [`Store`], and [`SharedStore`] where several
//! processes share one; [`open`], [`open_shared`] and [`copy`] alone know which store it is. A new
//! store is a module here, made by one of these, and passes the contract suite (`contract.rs`).

pub mod copy;
pub mod damage;
mod document;
mod embedded;
mod engine;
mod error;
pub mod history;
mod journal;
mod members;
pub mod memory;
mod reader;
pub mod record;
pub mod redis;
mod shard;
pub mod signing;
mod state;
pub mod status;
mod watch;
mod writers;

#[cfg(test)]
pub(crate) mod contract;

use std::path::{Path, PathBuf};

use uuid::Uuid;

pub use self::document::{DOCUMENT_BYTES_MAX, DocumentKind, StoredDocument};
pub use self::embedded::backup;
pub use self::engine::{SharedStore, Store, StoreUsage};
pub use self::error::{ErrorKind, StoreError};
pub use self::history::{EvictedHour, HistoryReader, HistoryRetention};
pub use self::journal::{JournalRead, JournalStore};
pub use self::members::{Member, MemberRole, Members, SharedTrust};
pub use self::shard::{Fence, Position, Shard, ShardCount};
pub use self::state::{
    RemovedSamples, SeriesSink, ShardChanges, ShardState, StateStore, StoredHost, StoredProducer,
    StoredSeries,
};
pub use self::watch::{Look, ServerReading, ShardReading, StoreReading, StoreWatch};

/// A data folder that no other process uses: it is locked for as long as this lives.
#[derive(Debug)]
pub struct LockedFolder {
    path: PathBuf,
    lock: std::fs::File,
}

impl LockedFolder {
    /// Makes the folder if it is missing, and locks it.
    pub fn lock(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            lock: embedded::lock(path)?,
            path: path.to_owned(),
        })
    }
}

/// Opens the store of one process, or creates it: SQLite in the data folder.
pub fn open(folder: LockedFolder, now: u64) -> Result<Box<dyn Store>, StoreError> {
    let LockedFolder { path, lock } = folder;
    let store = embedded::EmbeddedStore::open_in(&path, lock, now)?;
    Ok(Box::new(store))
}

/// Opens a store that other processes use, or creates it, for one thread. Blocks while servers are
/// asked.
pub fn open_shared(
    servers: redis::config::RedisConfig,
    keys: signing::GroupKeys,
    owner: Uuid,
) -> Result<Box<dyn SharedStore>, StoreError> {
    Ok(Box::new(redis::RedisStore::open(servers, owner, keys)?))
}

/// Connects to a shared store to look at it, for one thread. Blocks while servers are asked.
pub fn open_watch(
    servers: redis::config::RedisConfig,
    shards: ShardCount,
) -> Result<Box<dyn StoreWatch>, StoreError> {
    Ok(Box::new(redis::open_watch(servers, shards)?))
}
