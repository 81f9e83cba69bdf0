//! The state of the store: written by the journal's thread, read by health checks and metrics.
//! Reading it needs no disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::damage::Damage;
use super::engine::StoreUsage;
use super::error::{ErrorKind, StoreError};
use super::shard::Position;

/// Bounds of the histogram of syncs: seconds.
const SYNC_SECONDS: [f64; 8] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];
/// How many damaged things one answer names.
const WARNINGS_MAX: usize = 20;

/// What may be failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Appends to the journal.
    Journal,
    /// Commits of summaries.
    Commit,
    /// The database is no longer in its place.
    File,
}

const TASKS: usize = 3;

impl Task {
    fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Commit => "commit",
            Self::File => "file",
        }
    }
}

/// The state of the store.
#[derive(Debug)]
pub struct StoreStatus {
    trouble: Mutex<[Option<String>; TASKS]>,
    damage: Mutex<Vec<Damage>>,
    /// What is wrong with the store, and was accepted at the start.
    accepted: Mutex<Vec<String>>,
    /// What is wrong with a shared store for now.
    watched: Mutex<Vec<String>>,
    appended_groups: Counter,
    unconfirmed_groups: Counter,
    syncs: Counter,
    sync_failures: Counter,
    sync_seconds: Histogram,
    commits: Counter,
    commit_failures: Counter,
    replaced: Counter,
    uncommitted_groups: Gauge,
    uncommitted_secs: Gauge,
    bytes: Gauge,
    free_bytes: Gauge,
    ready: Gauge,
    damaged: Gauge,
}

impl Default for StoreStatus {
    fn default() -> Self {
        let status = Self {
            trouble: Mutex::default(),
            damage: Mutex::default(),
            accepted: Mutex::default(),
            watched: Mutex::default(),
            appended_groups: Counter::default(),
            unconfirmed_groups: Counter::default(),
            syncs: Counter::default(),
            sync_failures: Counter::default(),
            sync_seconds: Histogram::new(SYNC_SECONDS),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            replaced: Counter::default(),
            uncommitted_groups: Gauge::default(),
            uncommitted_secs: Gauge::default(),
            bytes: Gauge::default(),
            free_bytes: Gauge::default(),
            ready: Gauge::default(),
            damaged: Gauge::default(),
        };
        status.ready.set(1);
        status
    }
}

impl StoreStatus {
    /// Why the receiver is not ready; `None` if the store works.
    pub fn refusal(&self) -> Option<String> {
        let trouble = locked(&self.trouble);
        let words: Vec<_> = trouble.iter().flatten().cloned().collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// Warnings for the operator.
    pub fn warnings(&self, now: u64) -> Vec<String> {
        let damage = locked(&self.damage);
        let reported = damage.iter().filter(|damage| damage.is_reported(now));
        let more = reported.clone().count().saturating_sub(WARNINGS_MAX);
        let words = reported.take(WARNINGS_MAX).map(ToString::to_string);
        let rest = (more > 0).then(|| format!("and {more} more; `liz-receiver check` lists them"));
        self.refusal()
            .into_iter()
            .chain(locked(&self.watched).clone())
            .chain(words)
            .chain(locked(&self.accepted).clone())
            .chain(rest)
            .collect()
    }

    /// Registers these metrics.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "journal_syncs",
            "Groups of requests that were made durable",
            &self.syncs,
        );
        counter(
            "journal_sync_failures",
            "Groups of requests that could not be made durable",
            &self.sync_failures,
        );
        counter(
            "journal_groups_appended",
            "Groups appended to the journals: one for each shard of a sync",
            &self.appended_groups,
        );
        counter(
            "journal_groups_unconfirmed",
            "Groups that too few replicas have confirmed",
            &self.unconfirmed_groups,
        );
        counter("store_commits", "Commits of summaries", &self.commits);
        counter(
            "store_commit_failures",
            "Commits of summaries that failed",
            &self.commit_failures,
        );
        counter(
            "store_replacements",
            "Damaged databases that were replaced while the receiver ran",
            &self.replaced,
        );
        let help = "Time to make a group durable";
        registry.register_with_unit(
            "journal_sync_duration",
            help,
            Unit::Seconds,
            self.sync_seconds.clone(),
        );
        let mut gauge = |name: &str, help: &str, unit: Option<Unit>, gauge: &Gauge| match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, gauge.clone()),
            None => registry.register(name, help, gauge.clone()),
        };
        gauge(
            "store_uncommitted_groups",
            "Groups of the journal that are not in the committed summaries",
            None,
            &self.uncommitted_groups,
        );
        gauge(
            "store_uncommitted_age",
            "Time since everything was committed",
            Some(Unit::Seconds),
            &self.uncommitted_secs,
        );
        gauge(
            "store_size",
            "Size of the store",
            Some(Unit::Bytes),
            &self.bytes,
        );
        gauge(
            "store_free",
            "Free space on the store's disk",
            Some(Unit::Bytes),
            &self.free_bytes,
        );
        gauge(
            "store_ready",
            "1 while the store works, 0 while writes fail",
            None,
            &self.ready,
        );
        gauge(
            "store_damaged",
            "Damaged items found in the store in the last day",
            None,
            &self.damaged,
        );
    }

    /// Times the sync of an append, and notes what became of it.
    pub(crate) fn sync(
        &self,
        append: impl FnOnce() -> Vec<Result<Position, StoreError>>,
    ) -> Vec<Result<Position, StoreError>> {
        let begun = Instant::now();
        let appended = append();
        for result in &appended {
            match result {
                Ok(_) => self.appended_groups.inc(),
                Err(error) if error.kind() == ErrorKind::Unconfirmed => {
                    self.unconfirmed_groups.inc()
                }
                Err(_) => 0,
            };
        }
        match appended.iter().find_map(|result| result.as_ref().err()) {
            None => {
                self.syncs.inc();
                self.sync_seconds.observe(begun.elapsed().as_secs_f64());
                self.works(Task::Journal);
            }
            Some(error) => {
                self.sync_failures.inc();
                self.fails(Task::Journal, error);
            }
        }
        appended
    }

    pub(crate) fn committed(&self) {
        self.commits.inc();
        self.works(Task::Commit);
    }

    pub(crate) fn commit_failed(&self, error: &StoreError) {
        self.commit_failures.inc();
        self.fails(Task::Commit, error);
    }

    pub(crate) fn works(&self, task: Task) {
        let mut trouble = locked(&self.trouble);
        if trouble[task as usize].take().is_some() {
            tracing::info!(task = task.as_str(), "the store works again");
        }
        self.ready
            .set(i64::from(trouble.iter().all(Option::is_none)));
    }

    pub(crate) fn fails(&self, task: Task, error: &StoreError) {
        let what = match task {
            Task::Journal => "the journal cannot be written",
            Task::Commit => "summaries cannot be committed",
            Task::File => "the database file was removed or replaced",
        };
        locked(&self.trouble)[task as usize] = Some(format!("{what}: {}", error.in_full()));
        self.ready.set(0);
    }

    pub(crate) fn is_in_trouble(&self) -> bool {
        locked(&self.trouble).iter().any(Option::is_some)
    }

    pub(crate) fn replaced(&self) {
        self.replaced.inc();
    }

    pub(crate) fn set_warnings(&self, warnings: &[String]) {
        warnings.clone_into(&mut locked(&self.accepted));
    }

    pub(crate) fn set_watched(&self, warnings: Vec<String>) {
        *locked(&self.watched) = warnings;
    }

    pub(crate) fn set_damage(&self, damage: &[Damage], now: u64) {
        damage.clone_into(&mut locked(&self.damage));
        self.set_now(now);
    }

    /// Damage is reported for a while.
    pub(crate) fn set_now(&self, now: u64) {
        let reported = locked(&self.damage)
            .iter()
            .filter(|damage| damage.is_reported(now))
            .count();
        self.damaged.set(reported as i64);
    }

    pub(crate) fn set_lag(&self, groups: u64, secs: u64) {
        self.uncommitted_groups
            .set(groups.min(i64::MAX as u64) as i64);
        self.uncommitted_secs.set(secs.min(i64::MAX as u64) as i64);
    }

    pub(crate) fn set_usage(&self, usage: StoreUsage) {
        self.bytes.set(usage.bytes.min(i64::MAX as u64) as i64);
        self.free_bytes
            .set(usage.free_bytes.min(i64::MAX as u64) as i64);
    }
}

/// A thread that panicked leaves texts and numbers, each valid by itself.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
