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
//! signing.rs                        who may append to a journal that others can write to
//! damage.rs, error.rs, status.rs    what could not be read; what failed; what is shown of it
//!
//! embedded.rs   SQLite, in a folder that one process uses: the default
//! redis.rs      Redis or Valkey, for any number of processes
//! memory.rs     in memory, for tests: fails and forgets as it is told
//! contract.rs   what every store must do
//! ```
//!
//! Callers know [`JournalStore`], [`StateStore`] and [`Store`], and [`SharedStore`] where several
//! processes share one; [`open`] alone knows which store it is. A new store is a module here, a
//! variant of [`Config`], a line in [`open`], and passes the contract suite (`contract.rs`).

pub mod damage;
mod embedded;
mod engine;
mod error;
mod journal;
mod members;
pub mod memory;
pub mod record;
pub mod redis;
mod shard;
pub mod signing;
mod state;
pub mod status;

#[cfg(test)]
pub(crate) mod contract;

use std::path::PathBuf;

pub use self::embedded::backup;
pub use self::engine::{SharedStore, Store, StoreUsage};
pub use self::error::{ErrorKind, StoreError};
pub use self::journal::{JournalRead, JournalStore};
pub use self::members::{MemberRole, Members};
pub use self::shard::{Fence, Position, Shard, ShardCount};
pub use self::state::{
    RemovedSamples, ShardChanges, ShardState, StateStore, StoredBucket, StoredHost, StoredProducer,
};

/// Which store, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// SQLite in a folder that one process uses.
    Embedded {
        /// The data folder.
        folder: PathBuf,
    },
}

/// Opens a store, or creates it.
pub fn open(config: &Config, now: u64) -> Result<Box<dyn Store>, StoreError> {
    match config {
        Config::Embedded { folder } => Ok(Box::new(embedded::EmbeddedStore::open(folder, now)?)),
    }
}
