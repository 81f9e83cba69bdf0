//! The state of the store: written by the journal's thread, read by health checks and metrics.
//! Reading it needs no disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Appends to the journal, by this thread of it.
    Journal(usize),
    /// Commits of summaries.
    Commit,
    /// The database is no longer in its place.
    File,
}

impl Task {
    fn as_str(self) -> &'static str {
        match self {
            Self::Journal(_) => "journal",
            Self::Commit => "commit",
            Self::File => "file",
        }
    }
}

/// The state of the store.
#[derive(Debug)]
pub struct StoreStatus {
    trouble: Mutex<BTreeMap<Task, String>>,
    /// How many threads append to the journal, each to servers of its own.
    journal_threads: AtomicUsize,
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
            journal_threads: AtomicUsize::new(1),
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
    /// Why the receiver is not ready; `None` if the store works, or a part of its servers does: no
    /// other receiver could do more.
    pub fn refusal(&self) -> Option<String> {
        let trouble = locked(&self.trouble);
        (!self.is_ready(&trouble)).then(|| in_words(&trouble))
    }

    fn is_ready(&self, trouble: &BTreeMap<Task, String>) -> bool {
        let is_journal = |task: &&Task| matches!(task, Task::Journal(_));
        let journals = trouble.keys().filter(is_journal).count();
        journals == trouble.len() && journals < self.journal_threads.load(Ordering::Relaxed)
    }

    /// Warnings for the operator.
    pub fn warnings(&self, now: u64) -> Vec<String> {
        let damage = locked(&self.damage);
        let reported = damage.iter().filter(|damage| damage.is_reported(now));
        let more = reported.clone().count().saturating_sub(WARNINGS_MAX);
        let words = reported.take(WARNINGS_MAX).map(ToString::to_string);
        let rest = (more > 0).then(|| format!("and {more} more; `liz-receiver check` lists them"));
        let trouble = locked(&self.trouble);
        (!trouble.is_empty())
            .then(|| in_words(&trouble))
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

    /// Times the sync of an append by this thread of the journal, and notes what became of it.
    pub(crate) fn sync(
        &self,
        thread: usize,
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
                self.works(Task::Journal(thread));
            }
            Some(error) => {
                self.sync_failures.inc();
                self.fails(Task::Journal(thread), error);
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
        if trouble.remove(&task).is_some() {
            tracing::info!(task = task.as_str(), "the store works again");
        }
        self.ready.set(self.is_ready(&trouble).into());
    }

    pub(crate) fn fails(&self, task: Task, error: &StoreError) {
        let what = match task {
            Task::Journal(_) => "the journal cannot be written",
            Task::Commit => "summaries cannot be committed",
            Task::File => "the database file was removed or replaced",
        };
        let mut trouble = locked(&self.trouble);
        trouble.insert(task, format!("{what}: {}", error.in_full()));
        self.ready.set(self.is_ready(&trouble).into());
    }

    pub(crate) fn is_in_trouble(&self) -> bool {
        !locked(&self.trouble).is_empty()
    }

    pub(crate) fn has_failed(&self, task: Task) -> bool {
        locked(&self.trouble).contains_key(&task)
    }

    pub(crate) fn set_journal_threads(&self, threads: usize) {
        self.journal_threads.store(threads, Ordering::Relaxed);
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

/// Each once: servers may fail alike.
fn in_words(trouble: &BTreeMap<Task, String>) -> String {
    let mut words: Vec<_> = trouble.values().map(String::as_str).collect();
    words.dedup();
    words.join("; ")
}

/// A thread that panicked leaves texts and numbers, each valid by itself.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_works_is_enough() {
        let status = StoreStatus::default();
        let error = |words: &'static str| StoreError::new(ErrorKind::Unreachable, words);
        let check = |ready: bool, warnings: &[&str]| {
            assert_eq!(status.refusal().is_none(), ready, "{warnings:?}");
            assert_eq!(status.ready.get(), i64::from(ready), "{warnings:?}");
            assert_eq!(status.warnings(0), warnings);
        };
        check(true, &[]);
        status.fails(Task::Journal(0), &error("a is away"));
        check(false, &["the journal cannot be written: a is away"]);
        status.set_journal_threads(2);
        status.fails(Task::Journal(0), &error("a is away"));
        check(true, &["the journal cannot be written: a is away"]);
        status.fails(Task::Journal(1), &error("a is away"));
        check(false, &["the journal cannot be written: a is away"]);
        status.fails(Task::Journal(1), &error("b is away"));
        let both =
            "the journal cannot be written: a is away; the journal cannot be written: b is away";
        check(false, &[both]);
        status.works(Task::Journal(0));
        assert!(!status.has_failed(Task::Journal(0)) && status.has_failed(Task::Journal(1)));
        check(true, &["the journal cannot be written: b is away"]);
        status.fails(Task::Commit, &error("c"));
        assert!(status.refusal().is_some());
    }
}
