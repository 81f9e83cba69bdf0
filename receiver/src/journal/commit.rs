//! What the journal's thread does, without the thread: one group after another, and what is due between them.

use std::sync::Arc;

use lizmon_mtls::bounded_log::BoundedLog;
use lizmon_pki::date::rfc3339;
use lizmon_protocol::problem::Code;
use lizmon_protocol::sample::BatchAnswer;

use super::admit::{Admission, Marks, Novelty};
use crate::clock::{ClockJudge, ClockStatus, Reading};
use crate::problem::Rejection;
use crate::store::record::{Group, Submission};
use crate::store::status::{StoreStatus, Task};
use crate::store::{Position, Store, StoreError};
use crate::summarize::Summarizer;

/// How long a round of commits is. What has changed in one round is committed in the next, so a restart replays two.
const COMMIT_AFTER_SECS: u64 = 20;
/// A change is also committed when so many groups came after it.
const COMMIT_AFTER_GROUPS: u64 = 20_000;
/// How often one shard is swept of what has ended: all of them in about ten minutes.
const SWEEP_EVERY_SECS: u64 = 10;
/// How often what is known of the clock is kept, though nobody sends anything.
const KEEP_CLOCK_EVERY_SECS: u64 = 60;
/// How often the store gives back what it does not need: a step of a MiB each time.
const TIDY_EVERY_SECS: u64 = 2;

/// How often a store that fails is tried, though nobody sends anything.
const PROBE_EVERY_SECS: u64 = 2;

/// A store, its numbers, and the one order in which they change. No thread, no clock: what clocks say is an argument.
pub struct Committer {
    store: Box<dyn Store>,
    summarizer: Summarizer,
    status: Arc<StoreStatus>,
    /// When everything had last been committed.
    complete_at: u64,
    probed_at: u64,
    committed_at: u64,
    committed_position: Position,
    swept_at: u64,
    tidied_at: u64,
    /// When the clock was last looked at.
    seen_at: u64,
    clock: ClockJudge,
    clock_status: Arc<ClockStatus>,
    /// By the monotonic clock.
    clock_kept_at: u64,
    marks: Marks,
    /// While nothing can be stored, every group fails: the log may be on the same disk.
    unstored: BoundedLog,
    /// While the clock is not known to be steady, every request may be refused.
    unsteady: BoundedLog,
    /// Every host may have been written to by a wrong clock.
    cut: BoundedLog,
}

impl Committer {
    /// A committer on an opened store.
    pub fn new(store: Box<dyn Store>, summarizer: Summarizer, at: Reading) -> Self {
        let committed_position = summarizer.position();
        let now = at.wall;
        let status = Arc::new(StoreStatus::default());
        status.set_damage(store.damage(), now);
        if let Some(room) = store.room() {
            status.set_room(room);
        }
        Self {
            store,
            status,
            complete_at: now,
            probed_at: now,
            committed_at: now,
            committed_position,
            swept_at: now,
            tidied_at: now,
            seen_at: now,
            clock: ClockJudge::new(summarizer.kept_clock(), at),
            clock_status: Arc::default(),
            clock_kept_at: at.monotonic,
            marks: Marks::default(),
            unstored: BoundedLog::default(),
            unsteady: BoundedLog::default(),
            cut: BoundedLog::default(),
            summarizer,
        }
    }

    /// The numbers and their writer.
    pub fn summarizer(&self) -> &Summarizer {
        &self.summarizer
    }

    /// How the store is.
    pub fn status(&self) -> Arc<StoreStatus> {
        self.status.clone()
    }

    /// Whether windows moved on by the clock when it was looked at last.
    pub fn is_clock_steady(&self) -> bool {
        self.clock_status.is_steady()
    }

    /// How the clock was when it was looked at last.
    pub fn clock_status(&self) -> Arc<ClockStatus> {
        self.clock_status.clone()
    }

    /// Takes the requests of one group, each with the moment it is judged by: admits or refuses each as a whole, makes
    /// what was admitted durable with one append, counts it, and gives the answers in the requests' order.
    pub fn take<'a>(
        &mut self,
        requests: impl Iterator<Item = (&'a Submission, u64)>,
        at: Reading,
    ) -> Vec<Result<BatchAnswer, Rejection>> {
        let summaries = self.summarizer.summaries();
        let clock = self.clock.look(at);
        let mut admission = Admission::new(&summaries, clock, &mut self.marks);
        let mut group = Group::default();
        let mut verdicts = Vec::new();
        for (submission, now) in requests {
            let verdict = admission.admit(submission, now);
            match &verdict {
                Ok(Novelty::New) => group.push(submission),
                Ok(Novelty::NewCutting) => group.push_cutting(submission),
                Ok(Novelty::Known) => (),
                Err(rejection) if rejection.code() == Code::ClockUnsteady => {
                    self.clock_status.has_refused();
                    let steady_secs = clock.steady_secs;
                    self.unsteady.say(|unsaid| {
                        tracing::warn!(
                            steady_secs,
                            unsaid,
                            "not taken: the clock is not known to be right yet"
                        );
                    });
                }
                Err(_) => (),
            }
            verdicts.push((submission, verdict));
        }
        let position = if group.is_empty() {
            Ok(self.summarizer.position())
        } else {
            self.append(&group.seal(), at.wall)
        };
        if let Err(error) = &position {
            let (error, requests) = (error as &dyn std::error::Error, verdicts.len());
            self.unstored
                .say(|unsaid| tracing::error!(error, requests, unsaid, "nothing can be stored"));
        }
        let answer = |(submission, verdict): (&Submission, Result<Novelty, Rejection>)| {
            let novelty = verdict?;
            match &position {
                Ok(position) => self.count(*position, submission, novelty),
                Err(_) => Err(Code::StoreUnavailable.into()),
            }
        };
        verdicts.into_iter().map(answer).collect()
    }

    /// A damaged store gets no second try, but a new one in its place does.
    fn append(&mut self, group: &[u8], now: u64) -> Result<Position, StoreError> {
        let appended = self.status.sync(|| self.store.append(group));
        match appended {
            Err(error) if error.is_damage() => {
                self.replace(&error, now)?;
                self.status.sync(|| self.store.append(group))
            }
            done => done,
        }
    }

    /// What is in memory is all there is: a new store of it loses nothing.
    fn replace(&mut self, fault: &StoreError, now: u64) -> Result<(), StoreError> {
        let fault = fault.in_full();
        tracing::error!(
            fault,
            "the store is damaged: a new one is made of what is in memory"
        );
        let replaced = self.summarizer.rewrite(&mut *self.store, &fault, now);
        if let Err(error) = &replaced {
            self.status.commit_failed(error);
        }
        replaced?;
        self.status.committed();
        self.status.replaced();
        self.status.works(Task::File);
        self.status.works(Task::Journal);
        self.status.set_damage(self.store.damage(), now);
        (self.committed_at, self.complete_at) = (now, now);
        self.committed_position = self.summarizer.position();
        Ok(())
    }

    fn count(
        &mut self,
        position: Position,
        submission: &Submission,
        novelty: Novelty,
    ) -> Result<BatchAnswer, Rejection> {
        let mut view = submission
            .view()
            .map_err(|_| Rejection::from(Code::InternalError))?;
        if novelty == Novelty::NewCutting {
            // As it stands in the journal.
            view.cuts_ahead = true;
            self.cut.say(|unsaid| {
                let now = rfc3339(view.taken_at);
                tracing::warn!(
                    host = view.host,
                    now,
                    unsaid,
                    "samples that lie ahead of the clock are taken out"
                );
            });
        }
        if novelty != Novelty::Known {
            return Ok(self.summarizer.apply(position, &view));
        }
        self.summarizer.note_duplicates(&view);
        Ok(BatchAnswer {
            accepted: 0,
            duplicate: view.len() as u64,
        })
    }

    /// Commits what has become old, a shard at a time, so that nobody waits long behind it. To be called every second
    /// or so.
    pub fn upkeep(&mut self, at: Reading) {
        let now = at.wall;
        let clock = self.clock.look(at);
        self.clock_status.set(clock);
        self.seen_at = now;
        // One wrong hour must not delete a day's numbers.
        let expiry = clock.expiry();
        self.look(now);
        self.keep_clock_if_due(at);
        // A clock that was set back must not put things off until it has come as far again.
        self.committed_at = self.committed_at.min(now);
        self.swept_at = self.swept_at.min(now);
        let position = self.summarizer.position();
        let is_due = now - self.committed_at >= COMMIT_AFTER_SECS
            || position - self.committed_position >= COMMIT_AFTER_GROUPS;
        if is_due {
            // Everything that had changed by then is committed before the next round begins.
            // After a failure all of it at once: only that shows whether it works again.
            let before = match self.status.is_in_trouble() {
                true => Position::MAX,
                false => self.committed_position + 1,
            };
            match self
                .summarizer
                .commit_oldest(&mut *self.store, before, expiry)
            {
                Ok(true) => self.status.committed(),
                Ok(false) => {
                    self.status.works(Task::Commit);
                    (self.committed_at, self.complete_at) = (now, now);
                    self.committed_position = position;
                }
                Err(error) => self.put_off(&error, now),
            }
        }
        if let Some(now) = expiry.filter(|now| now - self.swept_at >= SWEEP_EVERY_SECS) {
            self.swept_at = now;
            if let Err(error) = self.summarizer.sweep_next(&mut *self.store, now) {
                self.put_off(&error, now);
            }
        }
        self.tidy_if_due(now);
        let lag = self.summarizer.uncommitted();
        let since = if lag == 0 { now } else { self.complete_at };
        self.status.set_lag(lag, now.saturating_sub(since));
    }

    /// Whether the store is in its place; and while something fails, whether it still does, so that who asks is told
    /// though nobody sends anything.
    fn look(&mut self, now: u64) {
        self.complete_at = self.complete_at.min(now);
        self.probed_at = self.probed_at.min(now);
        match self.store.look() {
            Ok(()) => self.status.works(Task::File),
            Err(error) => {
                self.status.fails(Task::File, &error);
                if error.is_damage() && self.may_probe(now) {
                    self.probed_at = now;
                    let replaced = self.replace(&error, now);
                    self.tell_if_failed(replaced);
                }
                return;
            }
        }
        if self.status.is_in_trouble() && self.may_probe(now) {
            self.probed_at = now;
            match self.store.probe() {
                Ok(()) => {
                    self.status.works(Task::Journal);
                    // What could not be committed is tried again at once.
                    self.committed_at = 0;
                }
                Err(error) => self.status.fails(Task::Journal, &error),
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
                tracing::error!(error, unsaid, "no new store can be made");
            });
        }
    }

    fn keep_clock_if_due(&mut self, at: Reading) {
        if at.boot.is_none() {
            return;
        }
        self.summarizer.note_clock(self.clock.kept());
        if at.monotonic.abs_diff(self.clock_kept_at) < KEEP_CLOCK_EVERY_SECS {
            return;
        }
        self.clock_kept_at = at.monotonic;
        if let Err(error) = self.summarizer.keep_clock(&mut *self.store) {
            self.put_off(&error, at.wall);
        }
    }

    fn tidy_if_due(&mut self, now: u64) {
        if (self.tidied_at..self.tidied_at + TIDY_EVERY_SECS).contains(&now) {
            return;
        }
        self.tidied_at = now;
        self.status.set_now(now);
        if let Some(room) = self.store.room() {
            self.status.set_room(room);
        }
        if let Err(error) = self.store.tidy() {
            let error = &error as &dyn std::error::Error;
            self.unstored.say(|unsaid| {
                tracing::warn!(error, unsaid, "the store keeps room that it does not need")
            });
        }
    }

    /// Nothing is lost: what was not committed is in the journal. Tried again after a while, or with a new store.
    fn put_off(&mut self, error: &StoreError, now: u64) {
        self.status.commit_failed(error);
        self.committed_at = now;
        self.swept_at = now;
        if error.is_damage() {
            self.probed_at = now;
            let replaced = self.replace(error, now);
            self.tell_if_failed(replaced);
            return;
        }
        let error = error as &dyn std::error::Error;
        self.unstored
            .say(|unsaid| tracing::error!(error, unsaid, "summaries cannot be committed"));
    }

    /// Commits everything, so that the next start has nothing to replay.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        match self.store.look() {
            Err(error) if error.is_damage() => return self.replace(&error, self.seen_at),
            _ => (),
        }
        while self
            .summarizer
            .commit_oldest(&mut *self.store, Position::MAX, None)?
        {}
        Ok(())
    }
}
