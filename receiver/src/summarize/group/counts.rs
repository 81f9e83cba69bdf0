//! What a member of a group has done: for metrics and for the log.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::signing::GroupRefusal;

type Label = [(&'static str, &'static str); 1];

/// Written by the thread of the summaries, read by everyone.
#[derive(Debug)]
pub struct GroupCounts {
    pub(super) owned: Gauge,
    pub(super) acquired: Counter,
    pub(super) lost: Counter,
    pub(super) given_up: Counter,
    pub(super) groups_read: Counter,
    pub(super) commits: Counter,
    pub(super) commit_failures: Counter,
    lease_changes: Family<Label, Counter>,
    refused: Family<Label, Counter>,
    /// When a group was refused last: epoch seconds; 0 if none was.
    refused_at: AtomicU64,
}

impl Default for GroupCounts {
    fn default() -> Self {
        let lease_changes = Family::<Label, Counter>::default();
        let change = |what| lease_changes.get_or_create(&[("change", what)]).clone();
        let refused = Family::<Label, Counter>::default();
        for refusal in GroupRefusal::ALL {
            let _shown_at_zero = refused.get_or_create(&[("reason", refusal.name())]).clone();
        }
        Self {
            owned: Gauge::default(),
            acquired: change("acquired"),
            lost: change("lost"),
            given_up: change("given_up"),
            groups_read: Counter::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            lease_changes,
            refused,
            refused_at: AtomicU64::new(0),
        }
    }
}

impl GroupCounts {
    /// How many shards it owns.
    pub fn owned(&self) -> u64 {
        u64::try_from(self.owned.get()).unwrap_or(0)
    }

    /// How many groups it has read since the start.
    pub fn groups_read(&self) -> u64 {
        self.groups_read.get()
    }

    /// How many commits it has made since the start, and how many failed.
    pub fn commits(&self) -> (u64, u64) {
        (self.commits.get(), self.commit_failures.get())
    }

    /// How many leases it acquired, lost and gave up since the start.
    pub fn lease_changes(&self) -> [u64; 3] {
        [&self.acquired, &self.lost, &self.given_up].map(Counter::get)
    }

    /// How many groups it refused since the start, by reason: those that occurred.
    pub fn refused(&self) -> Vec<(GroupRefusal, u64)> {
        let all = GroupRefusal::ALL.into_iter();
        let counted = all.map(|refusal| (refusal, self.refused_for(refusal).get()));
        counted.filter(|(_, groups)| *groups > 0).collect()
    }

    /// When it refused one last, if it did: epoch seconds.
    pub fn refused_at(&self) -> Option<u64> {
        Some(self.refused_at.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// So many were refused since the start.
    pub(crate) fn note_refused(&self, totals: &[(GroupRefusal, u64)], now: u64) {
        for (refusal, total) in totals {
            let counter = self.refused_for(*refusal);
            let new = total.saturating_sub(counter.get());
            if new > 0 {
                counter.inc_by(new);
                self.refused_at.store(now, Ordering::Relaxed);
            }
        }
    }

    fn refused_for(&self, refusal: GroupRefusal) -> Counter {
        let label = [("reason", refusal.name())];
        self.refused.get_or_create(&label).clone()
    }

    /// Registers these metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "shards_owned",
            "Shards that this process summarizes",
            self.owned.clone(),
        );
        registry.register(
            "shard_lease_changes",
            "Shards that this process acquired, lost and gave up",
            self.lease_changes.clone(),
        );
        let counters = [
            (
                "shard_commits",
                "Commits of shards that this process owns",
                &self.commits,
            ),
            (
                "shard_commit_failures",
                "Commits of shards that failed",
                &self.commit_failures,
            ),
            (
                "journal_groups_read",
                "Groups read from the journals",
                &self.groups_read,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "journal_groups_refused",
            "Groups of the journals that are not counted, by reason",
            self.refused.clone(),
        );
    }
}
