//! What the journal's thread does, without the thread: one group after another, and maintenance
//! between them.

use std::sync::Arc;

use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_pki::date::rfc3339;
use lizmon_protocol::sample::BatchAnswer;

use super::admission::{Admitted, Dedup};
use super::error::{AdmissionError, SubmitError};
use super::group_commit::GroupCommit;
use super::intake::{self, Intake, KnownRecords};
use crate::alarms::AlarmEvaluator;
use crate::clock::{ClockReading, ClockStatus, ClockVerdict, EndingClock, StepDetector};
use crate::store::record::Submission;
use crate::store::status::{StoreStatus, Task};
use crate::store::{Position, Shard, Store, StoreError};
use crate::summarize::{SHARDS_AT_ONCE_MAX, Summarizer};

/// Length of a round of commits. What changed in one round is committed in the next, so a restart
/// replays two.
const COMMIT_AFTER_SECS: u64 = 20;
/// A change is also committed after so many more appends.
const COMMIT_AFTER_APPENDS: u64 = 20_000;
/// In what time every shard is swept of ended series and hosts once, a few of them every second.
const SWEEP_ROUND_SECS: u64 = 640;
/// How often the state of the clock is stored, even if no requests come.
const STORE_CLOCK_EVERY_SECS: u64 = 60;
/// How often the store gives back unused space: a step of a MiB each time.
const RECLAIM_EVERY_SECS: u64 = 2;

/// How often a failing store is probed, even if no requests come.
const PROBE_EVERY_SECS: u64 = 2;

/// How fast the shards of a round are committed: one after the other, each would hold up a group of
/// requests.
#[derive(Debug, Clone, Copy)]
struct CommitPace {
    each_sec: usize,
    /// When the round began.
    began: u64,
    /// The second at which a commit was last asked for.
    sec: u64,
    /// How many more may come in it.
    left: usize,
}

/// A store, its summaries, and the one order in which they change. No thread and no clock: readings
/// are arguments.
pub struct Committer {
    store: Box<dyn Store>,
    summarizer: Summarizer,
    intake: Intake,
    status: Arc<StoreStatus>,
    /// When everything had last been committed.
    complete_at: u64,
    probed_at: u64,
    /// When the store's file was last looked at.
    checked_at: Option<u64>,
    committed_at: u64,
    committed_appends: u64,
    /// While a round of commits lasts.
    pace: Option<CommitPace>,
    swept_at: u64,
    reclaimed_at: u64,
    /// When the clock was last read.
    seen_at: u64,
    clock: StepDetector,
    ending_clock: EndingClock,
    /// By the monotonic clock.
    clock_stored_at: u64,
    /// While nothing can be stored every group fails, and the log may be on the same disk.
    unstored: RateLimitedLog,
    /// A wrong clock may have stamped the samples of every host.
    removed: RateLimitedLog,
    alarms: Option<AlarmEvaluator>,
    /// Shards whose alarms are new: each is told once it is committed.
    to_tell: Vec<Shard>,
}

impl Committer {
    /// A committer on an opened store.
    pub fn new(store: Box<dyn Store>, summarizer: Summarizer, at: ClockReading) -> Self {
        let now = at.wall;
        let status = Arc::new(StoreStatus::default());
        status.set_damage(store.damage(), now);
        if let Some(usage) = store.usage() {
            status.set_usage(usage);
        }
        let mut clock = StepDetector::new(summarizer.stored_clock(), at);
        let intake = Intake::new(store.shard_count(), KnownRecords::Skip);
        // Before the first request asks for it.
        intake.clock_status.set(clock.look(at));
        Self {
            intake,
            store,
            status,
            complete_at: now,
            probed_at: now,
            checked_at: None,
            committed_at: now,
            committed_appends: summarizer.appends(),
            pace: None,
            swept_at: now,
            reclaimed_at: now,
            seen_at: now,
            clock,
            ending_clock: EndingClock::default(),
            clock_stored_at: at.monotonic,
            unstored: RateLimitedLog::default(),
            removed: RateLimitedLog::default(),
            alarms: None,
            to_tell: Vec::new(),
            summarizer,
        }
    }

    /// Judges hosts as well.
    pub fn judging(self, alarms: AlarmEvaluator) -> Self {
        Self {
            alarms: Some(alarms),
            ..self
        }
    }

    /// The writer of the summaries.
    pub fn summarizer(&self) -> &Summarizer {
        &self.summarizer
    }

    /// Whether the clock was steady at the last reading.
    pub fn is_clock_steady(&self) -> bool {
        self.intake.clock_status.is_steady()
    }
}

impl GroupCommit for Committer {
    /// The state of the store.
    fn status(&self) -> Arc<StoreStatus> {
        self.status.clone()
    }

    /// The state of the clock at the last reading.
    fn clock_status(&self) -> Arc<ClockStatus> {
        self.intake.clock_status.clone()
    }

    /// Takes the requests of one group, each with the moment it is judged by: admits or refuses
    /// each as a whole, makes what was admitted durable with one append, counts it, and gives the
    /// answers in the requests' order.
    fn take<'a>(
        &mut self,
        requests: impl Iterator<Item = (&'a Submission, u64)>,
        at: ClockReading,
    ) -> Vec<Result<BatchAnswer, SubmitError>> {
        let table = self.summarizer.table();
        let clock = self.clock.look(at);
        let verdicts = self.intake.admit(&table, requests, clock);
        let appended = self.append_groups(verdicts.len(), at.wall);
        let answer = |(submission, verdict): (&Submission, Result<Admitted, AdmissionError>)| {
            let Admitted { shard, dedup, .. } = verdict?;
            match (dedup, intake::position_in(&appended, shard)) {
                // The first copy of a known one may be in the group that failed.
                (_, Some(None)) => Err(SubmitError::Unavailable),
                (Dedup::Known, _) => self.count_duplicates(submission),
                (_, Some(Some(position))) => self.count(position, submission, dedup),
                (_, None) => Err(SubmitError::Unavailable),
            }
        };
        verdicts.into_iter().map(answer).collect()
    }

    /// Commits old changes, a shard at a time, so that requests do not wait long for it. To be
    /// called every second or so.
    fn maintain(&mut self, at: ClockReading) -> bool {
        let now = at.wall;
        let clock = self.clock.look(at);
        self.intake.clock_status.set(clock);
        self.seen_at = now;
        // One wrong hour must not delete a day's summaries.
        let table = self.summarizer.table();
        let newest = || table.newest_epoch();
        let ended = self.ending_clock.look(newest, now, at.monotonic);
        let expiry = ended.filter(|_| clock.expiry().is_some());
        self.check_store(now);
        self.store_clock_if_due(at);
        self.judge_alarms(clock, expiry);
        let mut is_more_due = !self.to_tell.is_empty();
        // A clock that was set back must not delay commits until it reaches the old time again.
        self.committed_at = self.committed_at.min(now);
        self.swept_at = self.swept_at.min(now);
        let appends = self.summarizer.appends();
        let is_due = now - self.committed_at >= COMMIT_AFTER_SECS
            || appends - self.committed_appends >= COMMIT_AFTER_APPENDS;
        let shards_max = if is_due { self.may_commit(now) } else { 0 };
        if shards_max > 0 {
            // Everything that had changed by the last round is committed before the next begins.
            // After a failure everything is due at once: only that shows whether commits work
            // again.
            let through = match self.status.is_in_trouble() {
                true => u64::MAX,
                false => self.committed_appends,
            };
            match self
                .summarizer
                .commit_oldest(&mut *self.store, through, expiry, shards_max)
            {
                Ok(committed @ 1..) => {
                    if let Some(pace) = &mut self.pace {
                        pace.left = pace.left.saturating_sub(committed);
                        is_more_due |= pace.left > 0;
                    }
                    self.status.committed();
                }
                Ok(_) => {
                    // The next round is due as long after the beginning of this one.
                    let began = self.pace.take().map_or(now, |pace| pace.began.min(now));
                    self.status.works(Task::Commit);
                    (self.committed_at, self.complete_at) = (began, now);
                    self.committed_appends = appends;
                }
                Err(error) => self.put_off(&error, now),
            }
        }
        self.sweep_if_due(now, expiry);
        self.reclaim_if_due(now, expiry);
        let lag = self.summarizer.uncommitted();
        let since = if lag == 0 { now } else { self.complete_at };
        self.status.set_lag(lag, now.saturating_sub(since));
        is_more_due
    }

    /// Commits everything, so that the next start has nothing to replay.
    fn finish(&mut self) -> Result<(), StoreError> {
        match self.store.check() {
            Err(error) if error.is_damage() => return self.rebuild(&error, self.seen_at),
            _ => (),
        }
        self.summarizer.commit_changed(&mut *self.store)
    }
}

impl Committer {
    /// How many shards may be committed now: the commits of a round are spread over as many seconds
    /// as the next round takes to come. Not while something fails: then one is.
    fn may_commit(&mut self, now: u64) -> usize {
        let changed = || self.summarizer.changed_shards();
        let begin = || CommitPace {
            each_sec: changed().div_ceil(COMMIT_AFTER_SECS as usize).max(1),
            began: now,
            sec: now,
            left: 0,
        };
        let mut pace = self.pace.unwrap_or_else(begin);
        if pace.sec != now || self.pace.is_none() {
            (pace.sec, pace.left) = (now, pace.each_sec);
        }
        self.pace = Some(pace);
        match self.status.is_in_trouble() {
            true => pace.left.max(1),
            false => pace.left,
        }
    }

    /// Appends what was admitted. For each shard that has some, its position; none if it could not
    /// be made durable.
    fn append_groups(&mut self, requests: usize, now: u64) -> Vec<(Shard, Option<Position>)> {
        let mut groups = self.intake.take_groups();
        let appended = intake::append(&mut groups, |groups| self.append(groups, now));
        let appended = self.intake.put_back(groups, requests, appended);
        if !appended.is_empty() {
            self.summarizer.begin_group();
        }
        appended
    }

    /// A damaged store is not tried again; a new one in its place is.
    fn append(&mut self, groups: &[(Shard, &[u8])], now: u64) -> Vec<Result<Position, StoreError>> {
        let appended = self.status.sync(0, || self.store.append(groups));
        let errors = appended.iter().filter_map(|result| result.as_ref().err());
        let Some(damage) = errors.clone().find(|error| error.is_damage()).cloned() else {
            return appended;
        };
        match self.rebuild(&damage, now) {
            Ok(()) => self.status.sync(0, || self.store.append(groups)),
            Err(error) => vec![Err(error); groups.len()],
        }
    }

    /// Memory has everything, so a new store made of it loses nothing.
    fn rebuild(&mut self, fault: &StoreError, now: u64) -> Result<(), StoreError> {
        let fault = fault.in_full();
        tracing::error!(fault, "the store is damaged: rebuilding it from memory");
        let replaced = self.summarizer.rebuild(&mut *self.store, &fault, now);
        if let Err(error) = &replaced {
            self.status.commit_failed(error);
        }
        replaced?;
        self.status.committed();
        self.status.replaced();
        self.status.works(Task::File);
        self.status.works(Task::Journal(0));
        self.status.set_damage(self.store.damage(), now);
        (self.committed_at, self.complete_at) = (now, now);
        self.committed_appends = self.summarizer.appends();
        Ok(())
    }

    fn count(
        &mut self,
        position: Position,
        submission: &Submission,
        dedup: Dedup,
    ) -> Result<BatchAnswer, SubmitError> {
        let mut view = submission.view().map_err(|_| AdmissionError::Unreadable)?;
        if dedup == Dedup::NewRemovingAhead {
            // As it is in the journal.
            view.removes_ahead = true;
            self.removed.say(|unsaid| {
                let now = rfc3339(view.taken_at);
                tracing::warn!(
                    host = view.host,
                    now,
                    unsaid,
                    "samples ahead of the clock removed"
                );
            });
        }
        Ok(self.summarizer.apply(position, &view))
    }

    fn count_duplicates(&mut self, submission: &Submission) -> Result<BatchAnswer, SubmitError> {
        let view = submission.view().map_err(|_| AdmissionError::Unreadable)?;
        self.summarizer.note_duplicates(&view);
        Ok(BatchAnswer {
            accepted: 0,
            duplicate: view.len() as u64,
        })
    }

    /// Checks that the store is in its place, and while something fails probes it, so that health
    /// is right even if no requests come.
    fn check_store(&mut self, now: u64) {
        self.complete_at = self.complete_at.min(now);
        self.probed_at = self.probed_at.min(now);
        // Not after each group: it asks the file system. A file that was removed is noticed a second
        // later; what went into it meanwhile is in memory, of which a new one is made.
        if self.checked_at.replace(now) == Some(now) {
            return;
        }
        match self.store.check() {
            Ok(()) => self.status.works(Task::File),
            Err(error) => {
                self.status.fails(Task::File, &error);
                if error.is_damage() && self.may_probe(now) {
                    self.probed_at = now;
                    let replaced = self.rebuild(&error, now);
                    self.tell_if_failed(replaced);
                }
                return;
            }
        }
        if self.status.is_in_trouble() && self.may_probe(now) {
            self.probed_at = now;
            match self.store.probe() {
                Ok(()) => {
                    self.status.works(Task::Journal(0));
                    // Retries failed commits at once.
                    self.committed_at = 0;
                }
                Err(error) => self.status.fails(Task::Journal(0), &error),
            }
        }
    }

    fn may_probe(&self, now: u64) -> bool {
        now - self.probed_at >= PROBE_EVERY_SECS
    }

    fn tell_if_failed(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            let error = &error as &dyn std::error::Error;
            self.unstored.say(|unsaid| {
                tracing::error!(error, unsaid, "the store cannot be rebuilt");
            });
        }
    }

    /// Sweeps the next shards in turn.
    fn sweep_if_due(&mut self, now: u64, expiry: Option<u64>) {
        let shards = self.store.shard_count().get() as u64;
        let every = (SWEEP_ROUND_SECS / shards).max(1);
        let Some(ended) = expiry.filter(|_| now - self.swept_at >= every) else {
            return;
        };
        self.swept_at = now;
        for _ in 0..(shards * every).div_ceil(SWEEP_ROUND_SECS) {
            if let Err(error) = self.summarizer.sweep_next(&mut *self.store, ended) {
                self.put_off(&error, now);
                return;
            }
        }
    }

    fn store_clock_if_due(&mut self, at: ClockReading) {
        if at.boot.is_none() {
            return;
        }
        self.summarizer.note_clock(self.clock.to_stored());
        if at.monotonic.abs_diff(self.clock_stored_at) < STORE_CLOCK_EVERY_SECS {
            return;
        }
        self.clock_stored_at = at.monotonic;
        if let Err(error) = self.summarizer.store_clock(&mut *self.store) {
            self.put_off(&error, at.wall);
        }
    }

    /// Hosts are judged while samples can come and be stored. What is new is told once it is
    /// committed.
    fn judge_alarms(&mut self, clock: ClockVerdict, expiry: Option<u64>) {
        let Some(mut alarms) = self.alarms.take() else {
            return;
        };
        // At the very first start no other time is known, and nothing says that it is wrong.
        let was_set = !clock.is_steady() && clock.other.is_some();
        let is_in_trouble = self.status.is_in_trouble();
        let prevented = match () {
            () if is_in_trouble => Some("nothing could be stored"),
            () if was_set => Some("the clock was set, or the machine had just started"),
            () => None,
        };
        let changed = alarms.judge(&mut self.summarizer, clock.now, expiry, &|_| prevented);
        // Judged once a second, and then all that are not committed are named again.
        if !changed.is_empty() || is_in_trouble {
            self.to_tell = changed;
        }
        if !is_in_trouble {
            let at_once = self.to_tell.len().min(SHARDS_AT_ONCE_MAX);
            let shards: Vec<_> = self.to_tell.drain(..at_once).collect();
            match self.summarizer.commit_shards(&mut *self.store, &shards) {
                Ok(()) => shards.iter().for_each(|shard| alarms.committed(*shard)),
                Err(error) => self.put_off(&error, clock.now),
            }
        }
        self.alarms = Some(alarms);
    }

    fn reclaim_if_due(&mut self, now: u64, expiry: Option<u64>) {
        if (self.reclaimed_at..self.reclaimed_at + RECLAIM_EVERY_SECS).contains(&now) {
            return;
        }
        self.reclaimed_at = now;
        self.status.set_now(now);
        if let Some(usage) = self.store.usage() {
            self.status.set_usage(usage);
        }
        let retention = *self.summarizer.retention();
        if let Some(ended) = expiry
            && let Err(error) = self.store.expire_history(&retention, ended)
        {
            self.put_off(&error, now);
        }
        if let Err(error) = self.store.reclaim() {
            let error = &error as &dyn std::error::Error;
            self.unstored.say(|unsaid| {
                tracing::warn!(error, unsaid, "cannot reclaim unused space of the store")
            });
        }
    }

    /// Nothing is lost: what was not committed is in the journal. Retries after a while, or with a
    /// new store.
    fn put_off(&mut self, error: &StoreError, now: u64) {
        self.status.commit_failed(error);
        self.committed_at = now;
        self.swept_at = now;
        if error.is_damage() {
            self.probed_at = now;
            let replaced = self.rebuild(error, now);
            self.tell_if_failed(replaced);
            return;
        }
        let error = error as &dyn std::error::Error;
        self.unstored
            .say(|unsaid| tracing::error!(error, unsaid, "summaries cannot be committed"));
    }
}
