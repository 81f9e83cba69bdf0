//! Where journal and state are kept.
//!
//! A store has two kinds of contents, both divided into shards. The **journal**: groups of
//! submissions, appended and made durable before anyone is answered. The **state**: what
//! summarizing a shard's journal up to its cursor has come to. State and cursor change in one
//! transaction; the journal after the cursor, applied to the state, gives the present numbers. So a
//! crash at any moment loses nothing and counts nothing twice.
//!
//! Callers know [`JournalStore`], [`StateStore`] and [`Store`]; [`open`] alone knows which store it
//! is. A new store is a module here, a variant of [`Config`], a line in [`open`], and passes the
//! contract suite (`contract.rs`).

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
