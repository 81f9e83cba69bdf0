//! The summaries of all hosts in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lizmon_protocol::name::{NodeName, Tag};

use super::host::HostSummaries;
use super::metric_kinds::MetricKinds;
use super::reads::JournalReads;
use super::reporters::Reporters;
use crate::store::{Position, Shard, ShardCount};

/// A shard that was read so many seconds ago is not called late.
const LAG_SECS: u64 = 2;

/// One shard's hosts.
pub type HostMap = HashMap<Box<str>, HostSummaries>;

/// The summaries of all hosts, shared by one writer and any number of readers.
#[derive(Debug)]
pub struct SummaryTable {
    count: ShardCount,
    shards: Vec<RwLock<HostMap>>,
    /// By shard, until when its journal was read: epoch seconds. [`ALWAYS`] where what is
    /// acknowledged is here.
    read_until: Vec<AtomicU64>,
    /// By shard, the position through which its journal was read on. Not kept where each group is
    /// counted by the thread that appends it.
    read_through: Vec<AtomicU64>,
    /// By shard, how often it was loaded again.
    reloads: Vec<AtomicU64>,
    /// Where another thread reads the journals on.
    reads: OnceLock<JournalReads>,
    host_series_max: AtomicUsize,
}

/// Most series of points of one host, if `--host-series` does not say: node_exporter has some 5,000
/// on a machine of 128 cores.
pub const HOST_SERIES_MAX: usize = 10_000;

/// How far a shard's journal was read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMark {
    /// The position through which it was read.
    pub through: Position,
    /// How often the shard was loaded again: a store may have forgotten what was appended before.
    pub reloads: u64,
}

/// No lag.
const ALWAYS: u64 = u64::MAX;

impl SummaryTable {
    pub(super) fn new(count: ShardCount) -> Self {
        Self {
            count,
            shards: count.all().map(|_| RwLock::default()).collect(),
            read_until: count.all().map(|_| AtomicU64::new(ALWAYS)).collect(),
            read_through: count.all().map(|_| AtomicU64::new(0)).collect(),
            reloads: count.all().map(|_| AtomicU64::new(0)).collect(),
            reads: OnceLock::new(),
            host_series_max: AtomicUsize::new(HOST_SERIES_MAX),
        }
    }

    /// A host has so many series of points at most.
    pub fn limit_host_series(&self, max: usize) {
        self.host_series_max.store(max, Ordering::Relaxed);
    }

    /// How many series of points a host may have.
    pub fn host_series_max(&self) -> usize {
        self.host_series_max.load(Ordering::Relaxed)
    }

    /// A thread begins to read the journals on.
    pub(super) fn begin_read(&self) {
        self.reads
            .get_or_init(|| JournalReads::new(self.count))
            .begin();
    }

    /// The journals were read at this moment, but for those that lag.
    pub(super) fn end_read(&self, now: u64, lags: &dyn Fn(Shard) -> bool) {
        if let Some(reads) = self.reads.get() {
            reads.end(lags);
        }
        for (shard, read_until) in (0..).map(Shard::new).zip(&self.read_until) {
            if !lags(shard) {
                read_until.store(now, Ordering::Relaxed);
            }
        }
    }

    /// A shard's journal was read on through this position.
    pub(crate) fn set_read_through(&self, shard: Shard, position: Position) {
        if let Some(through) = self.read_through.get(shard.index()) {
            // What was applied before is seen by whoever sees this.
            through.store(position.get(), Ordering::Release);
        }
    }

    /// A shard was loaded again, and read on through this position. What was appended behind it is
    /// forgotten, or is read next.
    pub(crate) fn set_reloaded(&self, shard: Shard, through: Position) {
        self.set_read_through(shard, through);
        if let Some(reloads) = self.reloads.get(shard.index()) {
            reloads.fetch_add(1, Ordering::Release);
        }
    }

    /// How far a shard's journal was read on.
    pub fn read_mark(&self, shard: Shard) -> ReadMark {
        let of = |all: &[AtomicU64]| all.get(shard.index()).map(|of| of.load(Ordering::Acquire));
        ReadMark {
            reloads: of(&self.reloads).unwrap_or(0),
            through: Position::new(of(&self.read_through).unwrap_or(0)),
        }
    }

    /// Until when a shard's journal was read, if that is longer ago than what one reading takes:
    /// epoch seconds. A clock that was set back is no lag.
    pub fn as_of(&self, shard: Shard, now: u64) -> Option<u64> {
        let read_until = self.read_until.get(shard.index())?.load(Ordering::Relaxed);
        (read_until.saturating_add(LAG_SECS) < now).then_some(read_until)
    }

    /// The same of the shard that was read longest ago.
    pub fn oldest_as_of(&self, now: u64) -> Option<u64> {
        let shards = self.count.all();
        shards.filter_map(|shard| self.as_of(shard, now)).min()
    }

    /// Returns once the summaries of a host have what was acknowledged before now; at once where
    /// the answer will say that they lag.
    pub async fn read_now(&self, host: &str, now: u64) {
        let shard = self.shard_of(host);
        if let Some(reads) = self.reads.get()
            && self.as_of(shard, now).is_none()
        {
            reads.read_now(shard).await;
        }
    }

    /// The shard of a host.
    pub fn shard_of(&self, host: &str) -> Shard {
        self.count.shard_of(host)
    }

    /// The shard of this host, locked for reading.
    pub fn shard_with(&self, host: &str) -> RwLockReadGuard<'_, HostMap> {
        self.read(self.shard_of(host))
    }

    /// The tags of a host; none if it is unknown.
    pub fn tags(&self, host: &NodeName) -> BTreeSet<Tag> {
        let hosts = self.shard_with(host.as_str());
        hosts
            .get(host.as_str())
            .map(|host| host.tags().clone())
            .unwrap_or_default()
    }

    /// Who reports a host; nobody where no gateway ever did.
    pub fn reporters(&self, host: &NodeName) -> Reporters {
        let hosts = self.shard_with(host.as_str());
        let host = hosts.get(host.as_str());
        host.map(HostSummaries::reporters).unwrap_or_default()
    }

    /// Which metrics of a host are counters, where metadata says otherwise than names.
    pub fn metric_kinds(&self, host: &NodeName) -> Arc<MetricKinds> {
        let hosts = self.shard_with(host.as_str());
        let host = hosts.get(host.as_str());
        host.map(|host| host.metric_kinds().clone())
            .unwrap_or_default()
    }

    /// The epoch of the newest sample of any host.
    pub fn newest_epoch(&self) -> Option<u64> {
        let newest = |hosts: RwLockReadGuard<'_, HostMap>| {
            let hosts = hosts.values();
            hosts.map(|host| host.last_epoch).max()
        };
        self.shards().filter_map(newest).max()
    }

    /// Every shard in turn, locked for reading.
    pub fn shards(&self) -> impl Iterator<Item = RwLockReadGuard<'_, HostMap>> {
        self.count.all().map(|shard| self.read(shard))
    }

    /// Notes by how much a host's clock is ahead of the time its monitor stamps samples with.
    pub fn note_clock(&self, host: &str, ahead_secs: i64, now: u64) {
        let mut hosts = self.write(self.shard_of(host));
        if let Some(host) = hosts.get_mut(host) {
            host.clock = Some((ahead_secs, now));
        }
    }

    // A panic under the lock ended its request alone; each number it left is valid by itself.
    pub(super) fn read(&self, shard: Shard) -> RwLockReadGuard<'_, HostMap> {
        self.shards[shard.index()]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, shard: Shard) -> RwLockWriteGuard<'_, HostMap> {
        self.shards[shard.index()]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
