//! What is known of a shared store: warnings for the operator, figures for metrics and log.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::high_water::{AppendedThen, Full, HighWater};
use super::placement::Placement;
use super::progress::ShardProgress;
use crate::store::damage::REPORTED_SECS;
use crate::store::{MemberRole, ServerReading, ShardCount, ShardReading, StoreReading};
use crate::summarize::group::GroupCounts;

/// A shard that no process has a lease for is taken over within seconds, if a summarizer runs.
const UNOWNED_SECS: u64 = 15;
/// An owner commits what has changed within 20 s.
const WAITING_SECS: u64 = 60;

/// The state of a shared store: written by the watch's thread, read by everyone.
#[derive(Debug)]
pub struct WatchStatus {
    high_water: HighWater,
    placement: Placement,
    counts: Arc<GroupCounts>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the clock that does not step, when the shards were read last.
    now: u64,
    servers: Vec<ServerReading>,
    shards: Vec<Option<ShardProgress>>,
    members: Vec<(MemberRole, u64)>,
    full: Vec<Full>,
}

/// A shard's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WatchedShard {
    pub(crate) reading: ShardReading,
    /// For how long groups have waited, without one that was committed: seconds.
    pub(crate) waiting_secs: u64,
}

/// Figures of a store, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoreFigures {
    /// Each server, and whether it is above the mark.
    pub(crate) servers: Vec<(ServerReading, bool)>,
    pub(crate) shards: Vec<WatchedShard>,
    pub(crate) members: Vec<(MemberRole, u64)>,
}

impl StoreFigures {
    /// How many groups wait for a commit.
    pub(crate) fn waiting_groups(&self) -> u64 {
        let shards = self.shards.iter();
        shards.map(|shard| shard.reading.waiting_groups).sum()
    }

    /// For how long those have that wait longest: seconds.
    pub(crate) fn waiting_secs(&self) -> u64 {
        let shards = self.shards.iter();
        shards.map(|shard| shard.waiting_secs).max().unwrap_or(0)
    }

    /// Memory of all servers: in use, and of those with a limit what is left to it.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let servers = || self.servers.iter().map(|(server, _)| server);
        let left = |server: &ServerReading| {
            let limit = server.limit_bytes?;
            Some(limit.saturating_sub(server.used_bytes))
        };
        let used = servers().map(|server| server.used_bytes).sum();
        (used, servers().filter_map(left).sum())
    }
}

/// What has changed since the last reading.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Above the mark.
    pub(super) filled: Vec<Full>,
    /// Not any more.
    pub(super) emptied: Vec<Full>,
}

impl WatchStatus {
    /// Nothing is known yet.
    pub fn new(high_water: u8, shards: ShardCount, counts: Arc<GroupCounts>) -> Self {
        let known = Known {
            shards: vec![None; shards.get()],
            ..Known::default()
        };
        Self {
            high_water: HighWater::new(high_water, shards),
            placement: Placement::new(shards),
            counts,
            known: Mutex::new(known),
        }
    }

    /// Which requests are taken.
    pub fn high_water(&self) -> &HighWater {
        &self.high_water
    }

    /// Which thread of the journal appends to which shard.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// What this process has done with the summaries.
    pub fn counts(&self) -> &GroupCounts {
        &self.counts
    }

    /// Takes up what the servers said, at this second of a clock that does not step.
    pub(super) fn note(&self, reading: StoreReading, then: &AppendedThen, now: u64) -> Change {
        let full = self.high_water.note(&reading, then);
        self.placement.note(&reading.servers);
        let mut known = self.lock();
        known.servers = reading.servers;
        for shard in reading.shards {
            known.now = now;
            if let Some(progress) = known.shards.get_mut(shard.shard.index()) {
                *progress = Some(ShardProgress::after(progress.take(), shard, now));
            }
        }
        if !reading.members.is_empty() {
            known.members = reading.members;
        }
        let before = std::mem::replace(&mut known.full, full.clone());
        let without = |these: Vec<Full>, others: &[Full]| {
            let others: Vec<_> = others.iter().map(Full::name).collect();
            let mut these = these;
            these.retain(|one| !others.contains(&one.name()));
            these
        };
        Change {
            filled: without(full.clone(), &before),
            emptied: without(before, &full),
        }
    }

    /// Warnings for the operator; `now` is in epoch seconds.
    pub(crate) fn warnings(&self, now: u64) -> Vec<String> {
        let known = self.lock();
        let mut warnings: Vec<_> = known.full.iter().map(ToString::to_string).collect();
        warnings.extend(known.unowned());
        warnings.extend(known.waiting());
        drop(known);
        warnings.extend(self.refused(now));
        warnings
    }

    /// Refused groups, for as long as queries could have asked for what is in them.
    fn refused(&self, now: u64) -> Option<String> {
        let at = self.counts.refused_at()?;
        if now >= at.saturating_add(REPORTED_SECS) {
            return None;
        }
        let mut words = String::new();
        for (refusal, groups) in self.counts.refused() {
            let between = if words.is_empty() { "" } else { ", " };
            // Writing into a String does not fail.
            let _written = write!(words, "{between}{groups} because {refusal}");
        }
        Some(format!(
            "journal groups were not counted, so somebody else writes to the store, or a receiver's certificate is not trusted: {words}"
        ))
    }

    /// The present figures.
    pub(crate) fn figures(&self) -> StoreFigures {
        let known = self.lock();
        let is_full = |server: &ServerReading| {
            let mut full = known.full.iter();
            full.any(|full| full.name() == server.name)
        };
        let servers = known.servers.iter();
        let shards = known.shards.iter().flatten();
        StoreFigures {
            servers: servers
                .map(|server| (server.clone(), is_full(server)))
                .collect(),
            shards: shards
                .map(|progress| WatchedShard {
                    reading: progress.reading,
                    waiting_secs: progress.waiting_secs(known.now),
                })
                .collect(),
            members: known.members.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each number that a panic left is valid by itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn unowned(&self) -> Option<String> {
        let shards = self.shards.iter().flatten();
        let secs = shards.map(|shard| shard.unowned_secs(self.now));
        let long: Vec<_> = secs.filter(|secs| *secs >= UNOWNED_SECS).collect();
        let (shards, of) = (long.len(), self.shards.len());
        let secs = long.into_iter().max()?;
        Some(format!(
            "no summarizer has {shards} of {of} shards, for up to {secs} s: their samples are taken, and their journals grow until the servers are full: start liz-summarizer"
        ))
    }

    fn waiting(&self) -> Option<String> {
        let shards = self.shards.iter().flatten();
        let owned = shards.filter(|shard| shard.reading.is_owned);
        let secs = owned.map(|shard| shard.waiting_secs(self.now));
        let long: Vec<_> = secs.filter(|secs| *secs >= WAITING_SECS).collect();
        let (shards, of) = (long.len(), self.shards.len());
        let secs = long.into_iter().max()?;
        Some(format!(
            "nothing of {shards} of {of} shards was committed for up to {secs} s, though groups wait: see the log of the summarizers"
        ))
    }
}

#[cfg(test)]
mod tests;
