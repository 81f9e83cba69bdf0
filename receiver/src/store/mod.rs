//! Where the journal, the summaries and the delivery sets are kept. One trait; nobody outside knows which store it is.
//!
//! A store has two kinds of contents. The **journal**: groups of submissions, appended and made durable before anyone
//! is answered. The **state**: what summarizing the journal up to a shard's cursor has come to. State and cursor change
//! in one transaction; the journal after the cursor, applied to the state, gives the present numbers. So a crash at any
//! moment loses nothing and counts nothing twice.

pub mod damage;
pub mod embedded;
pub mod memory;
pub mod record;
pub mod status;

#[cfg(test)]
pub(crate) mod contract;

use lizmon_protocol::sample::ProducerId;
use lizmon_summary::Bucket;

use self::damage::Damage;
use crate::clock::KeptClock;

/// Into how many shards hosts are divided. Fixed when a store is made; a shard is what is committed at once.
pub const SHARDS: u16 = 64;

/// The place of a group in the journal: rising, beginning with 1.
pub type Position = u64;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused: a full disk, a failed read or write.
    #[error("the database cannot be used")]
    Database(#[from] rusqlite::Error),
    /// The database cannot be opened.
    #[error("cannot open {file}: {cure}", file = file.display())]
    Open {
        /// Which database.
        file: std::path::PathBuf,
        /// What to do about it.
        cure: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The folder or its lock cannot be used.
    #[error("{file}: {what}", file = file.display())]
    Folder {
        /// Which file or folder.
        file: std::path::PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// Why it could not.
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error("{folder}: another receiver is using this folder; stop it, or give this one a --data of its own", folder = folder.display())]
    Locked {
        /// Which folder.
        folder: std::path::PathBuf,
    },
    /// A file system on which a database cannot be written ahead.
    #[error(
        "{file}: SQLite cannot write ahead here, its journal mode stays `{mode}`: put --data on a local file system", file = file.display()
    )]
    NotWrittenAhead {
        /// Which database.
        file: std::path::PathBuf,
        /// What SQLite says instead of `wal`.
        mode: String,
    },
    /// A store of another version. It is left alone.
    #[error(
        "{file}: the store has version {found}, this program reads {known}: use the program that wrote it, or move the file away to begin anew",
        file = file.display()
    )]
    Version {
        /// Which database.
        file: std::path::PathBuf,
        /// What the store says.
        found: i64,
        /// What this program reads.
        known: i64,
    },
    /// A database of something else. It is left alone.
    #[error(
        "{file}: another program's database; move it away, or give the receiver a --data of its own", file = file.display()
    )]
    Foreign {
        /// Which database.
        file: std::path::PathBuf,
    },
    /// A database that says what it cannot be.
    #[error("{file} is damaged: {what}", file = file.display())]
    Damaged {
        /// Which database.
        file: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A store that was told to fail, by a test.
    #[error("the store was told to fail")]
    Injected,
}

impl StoreError {
    /// Whether what is stored is at fault, and not the disk or another program: then a new store in its place helps.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Database(error) => embedded::read::is_damage(error),
            _ => false,
        }
    }

    /// With its cause, in one line.
    pub fn in_full(&self) -> String {
        match std::error::Error::source(self) {
            None => self.to_string(),
            Some(source) => format!("{self}: {source}"),
        }
    }
}

/// How much room a store takes, and how much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What it takes: bytes.
    pub bytes: u64,
    /// What is left for it: bytes.
    pub free_bytes: u64,
}

/// A journal and a state.
pub trait Store: Send {
    /// Appends a group that [`record::Group::seal`] made. It is durable when this returns; after an error it is not there.
    fn append(&mut self, group: &[u8]) -> Result<Position, StoreError>;

    /// Gives every group after `after`, in order.
    fn read_after(
        &mut self,
        after: Position,
        each: &mut dyn FnMut(Position, &[u8]),
    ) -> Result<(), StoreError>;

    /// Gives everything that was committed, and can be read: [`Store::damage`] is what cannot.
    fn load(&mut self, now: u64) -> Result<State, StoreError>;

    /// Replaces what has changed in one shard since the last commit, and its cursor, and drops what of the journal no shard
    /// needs any more: in one transaction.
    fn commit(&mut self, changes: &ShardChanges) -> Result<(), StoreError>;

    /// Gives back what it takes up and does not need, a little at a time. To be called every second or so.
    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Puts a whole new store in the place of one that is damaged, for `fault`. `state` is all there is; the journal up to its
    /// cursors, which are all the same, is in it.
    fn replace(&mut self, state: &State, fault: &str, now: u64) -> Result<(), StoreError>;

    /// An error if what is stored would not be there at the next start, as far as that shows without a write. To be called
    /// every second or so.
    fn look(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// A small write, synced: whether anything can be stored.
    fn probe(&mut self) -> Result<(), StoreError>;

    /// What could not be read any more, of late.
    fn damage(&self) -> &[Damage] {
        &[]
    }

    /// How much room it takes and has, if that is known.
    fn room(&self) -> Option<Room> {
        None
    }
}

/// Everything that was committed.
#[derive(Debug, Default, PartialEq)]
pub struct State {
    /// For each shard, the last position whose effect is in the state.
    pub cursors: Vec<Position>,
    /// Every host.
    pub hosts: Vec<HostState>,
    /// What was known of the clock.
    pub clock: Option<KeptClock>,
}

/// What is kept of one host, or has changed of it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct HostState {
    /// Its node name.
    pub name: String,
    /// The greatest epoch of its samples.
    pub last_epoch: u64,
    /// When the certificate it last reported with ends.
    pub certificate_end: u64,
    /// Samples that were taken out because they lay ahead of a steady clock, and when that was last.
    pub removed: Removed,
    /// Intervals of its series.
    pub buckets: Vec<KeptBucket>,
    /// Whether these are all there are: any others that are kept go.
    pub is_whole: bool,
    /// Who numbered its records.
    pub producers: Vec<KeptProducer>,
}

/// What was taken out of a host's summaries because it lay ahead of a steady clock.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// How many samples, over all labels.
    pub samples: u64,
    /// When that was last: epoch seconds; 0 if it never was.
    pub at: u64,
}

/// One interval of one series of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptBucket {
    /// Which series.
    pub label: Box<str>,
    /// Which tier: an index into [`lizmon_summary::TIERS`].
    pub tier: usize,
    /// Its place in the tier's ring. A later interval at the same place replaces it.
    pub slot: usize,
    /// What it holds.
    pub bucket: Bucket,
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptProducer {
    /// Who it is.
    pub producer: ProducerId,
    /// The numbers that have arrived, as inclusive ranges.
    pub ranges: Vec<(u64, u64)>,
    /// The numbers that were given up, and why.
    pub dropped: Vec<(u64, u64, Box<str>)>,
    /// How many records came again.
    pub duplicate: u64,
    /// When it was last heard of.
    pub last_taken: u64,
}

/// What has changed in one shard.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct ShardChanges {
    /// Which shard.
    pub shard: u16,
    /// The last position whose effect is in the state, with these changes.
    pub cursor: Position,
    /// The last position that, with these changes, no shard needs any more.
    pub drop_through: Position,
    /// For every changed host its new particulars, its changed intervals, and all its producers.
    pub hosts: Vec<HostState>,
    /// Series with nothing left in any window: host and label.
    pub ended_series: Vec<(String, Box<str>)>,
    /// Hosts of which nothing is left.
    pub ended_hosts: Vec<String>,
    /// What is known of the clock, if that is to be kept.
    pub clock: Option<KeptClock>,
}

/// Which shard keeps a host. FNV-1a over the name: fixed for ever, for it says where things are.
pub fn shard_of(host: &str) -> u16 {
    let hash = host.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % u64::from(SHARDS)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stays_in_its_shard() {
        assert_eq!(["web1", "db1", "a"].map(shard_of), [0, 22, 12]);
        let mut hosts = [0; SHARDS as usize];
        for at in 0..64_000 {
            hosts[usize::from(shard_of(&format!("node-{at}")))] += 1;
        }
        assert!(
            hosts.iter().all(|count| (700..1300).contains(count)),
            "{hosts:?}"
        );
    }
}
