//! Copies a whole store into an empty one, of the same or another kind, and verifies the copy.
//!
//! ```text
//!  source ──load──> summaries in memory ──commit──> target, marked as incomplete
//!          journal ──apply──┘     └────compare────── load ──┘     └─> the mark goes
//! ```
//!
//! The source is read as a receiver reads it at its start: the committed state, and the journal
//! after each cursor. All of that becomes committed state of the target, whose journal is empty and
//! whose cursors are at its start, so nothing can be counted twice. A number that a producer has
//! used is known in the target as in the source.
//!
//! Until everything is there and compared, the target is marked, and receivers refuse it. A copy
//! that was interrupted is begun again: what an earlier one left is replaced.

mod history;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::embedded::{self, EmbeddedStore};
use super::engine::{CopyTarget, Store};
use super::error::StoreError;
use super::redis::RedisStore;
use super::redis::config::RedisConfig;
use super::redis::status;
use super::shard::{Fence, Shard, ShardCount};
use super::state::{ShardChanges, StoredHost, StoredProducer, StoredSeries};
use crate::summarize::Summarizer;

/// How many intervals and ranges of numbers one commit writes: some 2 MB, which a server takes in
/// milliseconds.
const WEIGHT_PER_COMMIT: usize = 40_000;
/// How often a shard is tried that the last copy still owns, and in between. Its lease ends in 5 s.
const ACQUIRE_ATTEMPTS: usize = 40;
const ACQUIRE_PAUSE: Duration = Duration::from_millis(200);

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// SQLite in a data folder.
    Folder(PathBuf),
    /// Redis or Valkey.
    Servers(Box<RedisConfig>),
}

impl StorePlace {
    /// The shards that are read at once. SQLite reads its file as a whole, however few are asked
    /// for.
    fn batches(&self, count: ShardCount) -> Vec<Vec<Shard>> {
        match self {
            Self::Folder(_) => vec![count.all().collect()],
            Self::Servers(_) => count.all().map(|shard| vec![shard]).collect(),
        }
    }
}

impl std::fmt::Display for StorePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Servers(servers) => servers.url.fmt(f),
        }
    }
}

/// What a copy is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStep {
    /// Reading the source.
    Read,
    /// Writing shards of the target.
    Write,
    /// Comparing them with the source.
    Verify,
}

/// What was copied.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CopyTotals {
    /// Hosts.
    pub hosts: u64,
    /// Their series.
    pub series: u64,
    /// Intervals of the series.
    pub intervals: u64,
    /// Hours and days of the history.
    pub history: u64,
    /// Producers, each with its delivery set.
    pub producers: u64,
    /// Groups of the source's journal that were counted for it.
    pub groups: u64,
    /// What could not be read in the source, and is not in the copy.
    pub damage: Vec<String>,
}

/// Why there is no complete copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source and the target are one.
    #[error("{0} is both source and target: name another target")]
    SamePlace(String),
    /// There is nothing to copy.
    #[error("{0}: there is no store in this folder: name the receiver's --data folder")]
    NoSource(String),
    /// Processes use the source.
    #[error("{place} is in use by {members}: stop them first")]
    InUse {
        /// The source.
        place: String,
        /// How many there are of each.
        members: String,
    },
    /// The source's journal holds what nobody has counted. Only a summarizer can tell what of it a
    /// trusted receiver signed.
    #[error(
        "the journal of {place} holds groups that are not committed yet, {groups} of them: run \
         liz-summarizer until `lizctl store status` shows none, and stop it"
    )]
    Uncommitted {
        /// The source.
        place: String,
        /// How many groups.
        groups: u64,
    },
    /// The source was written to.
    #[error("{0} was written to while it was copied: stop its receivers, and copy again")]
    Changed(String),
    /// Another process writes to the target.
    #[error("shard {0} of the target is owned by another process: is another copy running?")]
    Owned(u16),
    /// The same of the history.
    #[error(
        "the history that was copied differs from the source's: copy again; if it stays so, report it"
    )]
    HistoryDiffers,
    /// What was read back is not what was written.
    #[error(
        "the copy differs from the source in {what} of {host}: copy again; if it stays so, report it"
    )]
    Differs {
        /// Which host.
        host: String,
        /// Which part of it.
        what: &'static str,
    },
}

/// Copies everything. `owner` is unlike that of every other process; `progress` gets how many
/// shards of how many are done. Blocks meanwhile.
pub fn copy(
    from: &StorePlace,
    to: &StorePlace,
    owner: Uuid,
    now: u64,
    progress: &mut dyn FnMut(CopyStep, usize, usize),
) -> Result<CopyTotals, CopyError> {
    refuse_same(from, to)?;
    let mut source = Source::open(from, owner, now, progress)?;
    let mut target = open_target(to, owner, now)?;
    let target = &mut *target;
    let count = target.shard_count();
    let mut totals = CopyTotals {
        groups: source.summaries.appends(),
        damage: source
            .store
            .damage()
            .iter()
            .map(ToString::to_string)
            .collect(),
        ..CopyTotals::default()
    };
    let batches = to.batches(count);
    let mut done = 0;
    let mut histories = Vec::with_capacity(batches.len());
    for batch in &batches {
        let fences = acquire(target, batch)?;
        for (fence, old) in fences.iter().zip(target.load(batch, now)?) {
            let old = old.hosts.into_iter().map(|host| host.name);
            let hosts = source.summaries.hosts_of(count, fence.shard());
            totals.add(&hosts);
            write(
                target,
                *fence,
                hosts,
                old.collect(),
                source.summaries.stored_clock(),
            )?;
            done += 1;
            progress(CopyStep::Write, done, count.get());
        }
        let copied = history::copy(&mut *source.store, target, &fences, &mut totals.damage)?;
        totals.history += copied.intervals;
        histories.push(copied);
        target.release(&fences)?;
    }
    done = 0;
    for (batch, copied) in batches.iter().zip(histories) {
        if history::digest(target, batch)? != copied {
            return Err(CopyError::HistoryDiffers);
        }
        for state in target.load(batch, now)? {
            compare(source.summaries.hosts_of(count, state.shard), state.hosts)?;
            done += 1;
            progress(CopyStep::Verify, done, count.get());
        }
    }
    for batch in &batches {
        write_evicted(target, &source.summaries, batch)?;
    }
    if !source.is_as_read() {
        return Err(CopyError::Changed(from.to_string()));
    }
    target.complete_copy()?;
    Ok(totals)
}

fn refuse_same(from: &StorePlace, to: &StorePlace) -> Result<(), CopyError> {
    let is_same = match (from, to) {
        (StorePlace::Folder(from), StorePlace::Folder(to)) => {
            let whole = |folder: &Path| folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
            whole(from) == whole(to)
        }
        (StorePlace::Servers(from), StorePlace::Servers(to)) => from.url == to.url,
        _ => false,
    };
    match is_same {
        true => Err(CopyError::SamePlace(from.to_string())),
        false => Ok(()),
    }
}

/// A store that is only read: all of it in memory.
struct Source {
    store: Box<dyn Store>,
    summaries: Summarizer,
}

impl Source {
    fn open(
        place: &StorePlace,
        owner: Uuid,
        now: u64,
        progress: &mut dyn FnMut(CopyStep, usize, usize),
    ) -> Result<Self, CopyError> {
        let mut store: Box<dyn Store> = match place {
            StorePlace::Folder(folder) => {
                if !embedded::is_there(folder) {
                    return Err(CopyError::NoSource(place.to_string()));
                }
                let lock = embedded::lock(folder)?;
                Box::new(EmbeddedStore::open_in(folder, lock, now)?)
            }
            StorePlace::Servers(servers) => {
                refuse_in_use(place, servers)?;
                Box::new(RedisStore::open_source((**servers).clone(), owner)?)
            }
        };
        let count = store.shard_count();
        let mut summaries = Summarizer::empty(count);
        let mut done = 0;
        for batch in place.batches(count) {
            summaries.load(&mut *store, &batch, now)?;
            done += batch.len();
            progress(CopyStep::Read, done, count.get());
        }
        let read = summaries.read_on(&mut *store);
        // What is in a shared journal by now came after it was found to be empty.
        let is_late = matches!(place, StorePlace::Servers(_)) && !read.through.is_empty();
        if is_late || !read.rewound.is_empty() {
            return Err(CopyError::Changed(place.to_string()));
        }
        read.complete()?;
        Ok(Self { store, summaries })
    }

    /// Whether nobody has written to it meanwhile.
    fn is_as_read(&mut self) -> bool {
        let before = self.summaries.appends();
        let read = self.summaries.read_on(&mut *self.store);
        let is_quiet = read.through.is_empty() && read.rewound.is_empty() && read.unread.is_empty();
        is_quiet && self.summaries.appends() == before
    }
}

/// Who uses a shared store, or has left something in its journal.
fn refuse_in_use(place: &StorePlace, servers: &RedisConfig) -> Result<(), CopyError> {
    let status = status::status(servers.clone())?;
    let mut groups = 0;
    let mut owners = BTreeSet::new();
    for (_, figures) in status.shards {
        let figures = figures?;
        groups += figures.uncommitted;
        owners.extend(figures.owner.map(|(owner, _)| owner));
    }
    let members = status.members.iter();
    let mut members: Vec<_> = members
        .filter(|(_, members)| !members.is_empty())
        .map(|(role, members)| format!("{} {}", members.len(), role.name()))
        .collect();
    if members.is_empty() && !owners.is_empty() {
        members.push(format!("{} owners of shards", owners.len()));
    }
    let place = place.to_string();
    if !members.is_empty() {
        let members = members.join(" and ");
        return Err(CopyError::InUse { place, members });
    }
    match groups {
        0 => Ok(()),
        groups => Err(CopyError::Uncommitted { place, groups }),
    }
}

fn open_target(
    place: &StorePlace,
    owner: Uuid,
    now: u64,
) -> Result<Box<dyn CopyTarget>, StoreError> {
    Ok(match place {
        StorePlace::Folder(folder) => {
            let lock = embedded::lock(folder)?;
            Box::new(EmbeddedStore::open_target(folder, lock, now)?)
        }
        StorePlace::Servers(servers) => {
            Box::new(RedisStore::open_target((**servers).clone(), owner)?)
        }
    })
}

/// Owns these shards: a copy that was interrupted may own one for some seconds yet.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for the end of another's lease"
)]
fn acquire(target: &mut dyn CopyTarget, shards: &[Shard]) -> Result<Vec<Fence>, CopyError> {
    let mut fences = Vec::with_capacity(shards.len());
    for _ in 0..ACQUIRE_ATTEMPTS {
        let owned: BTreeSet<_> = fences.iter().map(|fence: &Fence| fence.shard()).collect();
        let missing = shards
            .iter()
            .copied()
            .filter(|shard| !owned.contains(shard));
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            fences.sort_by_key(|fence| fence.shard());
            return Ok(fences);
        }
        fences.extend(target.acquire(&missing)?);
        if fences.len() < shards.len() {
            std::thread::sleep(ACQUIRE_PAUSE);
        }
    }
    let first = shards.first().map_or(0, |shard| shard.number());
    Err(CopyError::Owned(first))
}

/// Puts these hosts in the place of what is there, in parts that are not too large.
fn write(
    target: &mut dyn CopyTarget,
    fence: Fence,
    hosts: Vec<StoredHost>,
    old: BTreeSet<String>,
    clock: Option<crate::clock::StoredClock>,
) -> Result<(), CopyError> {
    let new: BTreeSet<_> = hosts.iter().map(|host| host.name.as_str()).collect();
    let gone = old.into_iter().filter(|host| !new.contains(host.as_str()));
    let mut changes = ShardChanges {
        ended_hosts: gone.collect(),
        clock,
        ..ShardChanges::default()
    };
    let mut weight = 0;
    for host in hosts {
        let ranges = |producer: &StoredProducer| 1 + producer.ranges.len() + producer.dropped.len();
        let intervals = host.series.iter().map(intervals_of);
        weight += 1 + intervals.sum::<usize>() + host.producers.iter().map(ranges).sum::<usize>();
        changes.hosts.push(StoredHost {
            is_whole: true,
            ..host
        });
        if weight >= WEIGHT_PER_COMMIT {
            weight = 0;
            commit(target, fence, &std::mem::take(&mut changes))?;
        }
    }
    commit(target, fence, &changes)
}

/// Hours that left their rings while the source's journal was counted: its history does not have
/// them yet.
fn write_evicted(
    target: &mut dyn CopyTarget,
    summaries: &Summarizer,
    shards: &[Shard],
) -> Result<(), CopyError> {
    let count = target.shard_count();
    for shard in shards {
        let evicted = summaries.evicted_of(count, *shard);
        if evicted.is_empty() {
            continue;
        }
        let changes = ShardChanges {
            evicted,
            ..ShardChanges::default()
        };
        for fence in acquire(target, &[*shard])? {
            commit(target, fence, &changes)?;
            target.release(&[fence])?;
        }
    }
    Ok(())
}

fn commit(
    target: &mut dyn CopyTarget,
    fence: Fence,
    changes: &ShardChanges,
) -> Result<(), CopyError> {
    if target.renew(&[fence])?.is_empty() {
        return Err(CopyError::Owned(fence.shard().number()));
    }
    Ok(target.commit(fence, changes)?)
}

impl CopyTotals {
    fn add(&mut self, hosts: &[StoredHost]) {
        self.hosts += hosts.len() as u64;
        for host in hosts {
            self.series += host.series.len() as u64;
            self.intervals += host.series.iter().map(intervals_of).sum::<usize>() as u64;
            self.producers += host.producers.len() as u64;
        }
    }
}

/// An error if the hosts of a shard are not the same, to the bit.
fn compare(source: Vec<StoredHost>, target: Vec<StoredHost>) -> Result<(), CopyError> {
    let differs = |host: &str, what| CopyError::Differs {
        host: host.to_owned(),
        what,
    };
    let (source, target) = (in_order(source), in_order(target));
    for (one, other) in source.iter().zip(&target) {
        if one.name != other.name {
            return Err(differs((&one.name).min(&other.name), "the existence"));
        }
        if let Some(what) = difference(one, other) {
            return Err(differs(&one.name, what));
        }
    }
    let more = source.len().min(target.len());
    match source.get(more).or(target.get(more)) {
        Some(host) => Err(differs(&host.name, "the existence")),
        None => Ok(()),
    }
}

fn in_order(mut hosts: Vec<StoredHost>) -> Vec<StoredHost> {
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    for host in &mut hosts {
        host.documents.sort_by_key(|document| document.kind);
        host.producers
            .sort_by_key(|producer| *producer.producer.as_bytes());
        host.series
            .sort_by(|one, other| one.label.cmp(&other.label));
    }
    hosts
}

fn difference(one: &StoredHost, other: &StoredHost) -> Option<&'static str> {
    let properties = |host: &StoredHost| (host.last_epoch, host.certificate_end, host.removed);
    if properties(one) != properties(other) {
        return Some("the properties");
    }
    if one.producers != other.producers {
        return Some("the delivery sets");
    }
    let are_same = one.series.len() == other.series.len() && { one.series.iter() }
        .zip(&other.series)
        .all(|(one, other)| is_same(one, other));
    if one.documents != other.documents {
        return Some("the documents");
    }
    (!are_same).then_some("the intervals")
}

fn intervals_of(stored: &StoredSeries) -> usize {
    stored.series.intervals().count()
}

/// Zeros of either sign are equal as numbers.
fn is_same(one: &StoredSeries, other: &StoredSeries) -> bool {
    one.label == other.label && one.series.encode() == other.series.encode()
}

#[cfg(test)]
mod tests;
