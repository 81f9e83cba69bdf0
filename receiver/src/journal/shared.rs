//! The journal of a shared store: this process appends, and whoever owns the shard counts.

use std::sync::Arc;

use lizmon_protocol::sample::BatchAnswer;

use super::admission::Admitted;
use super::error::{AdmissionError, SubmitError};
use super::group_commit::GroupCommit;
use super::intake::{self, Intake, KnownRecords};
use crate::clock::{ClockReading, ClockStatus, StepDetector};
use crate::store::record::{ShardGroups, Submission};
use crate::store::status::{StoreStatus, Task};
use crate::store::{Position, SharedStore, StoreError};
use crate::summarize::SummaryTable;
use crate::watch::{HighWater, WatchStatus};

/// How often a failing store is probed, even if no requests come: seconds.
const PROBE_EVERY_SECS: u64 = 2;

/// Admits by the summaries as far as they were read, appends, and answers. No thread and no clock:
/// readings are arguments.
pub struct SharedCommitter {
    store: Box<dyn SharedStore>,
    table: Arc<SummaryTable>,
    intake: Intake,
    status: Arc<StoreStatus>,
    clock: StepDetector,
    probed_at: u64,
    /// Which of the journal's threads it is for.
    thread: usize,
    /// Without one every request is taken that the store takes.
    watch: Option<Arc<WatchStatus>>,
}

impl SharedCommitter {
    /// A committer on an opened store. Another connection to it keeps `table` up to date.
    pub fn new(store: Box<dyn SharedStore>, table: Arc<SummaryTable>, at: ClockReading) -> Self {
        let status = Arc::new(StoreStatus::default());
        status.set_warnings(store.warnings());
        Self {
            intake: Intake::new(store.shard_count(), KnownRecords::Append),
            clock: StepDetector::new(None, at),
            probed_at: at.wall,
            thread: 0,
            store,
            table,
            status,
            watch: None,
        }
    }

    /// Refuses what this says the servers have too little memory for.
    #[must_use]
    pub fn watched_by(mut self, watch: Arc<WatchStatus>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// One more for the same journal, for another of its threads. It appends to other shards, over
    /// connections of its own.
    #[must_use]
    pub fn beside(&self, store: Box<dyn SharedStore>, thread: usize, at: ClockReading) -> Self {
        let mut other = Self::new(store, self.table.clone(), at);
        other.intake.clock_status = self.intake.clock_status.clone();
        Self {
            status: self.status.clone(),
            watch: self.watch.clone(),
            thread,
            ..other
        }
    }

    fn high_water(&self) -> Option<&HighWater> {
        self.watch.as_ref().map(|watch| watch.high_water())
    }

    /// Which of these requests the servers have memory for.
    fn fitting(&self, requests: &[(&Submission, u64)]) -> Vec<bool> {
        let Some(high_water) = self.high_water() else {
            return vec![true; requests.len()];
        };
        high_water.admit(requests.iter().map(|(submission, _)| {
            let host = submission.view().map(|view| view.host).unwrap_or_default();
            (self.table.shard_of(host), submission.as_bytes().len())
        }))
    }

    fn append(&mut self, groups: &mut ShardGroups) -> Vec<Result<Position, StoreError>> {
        intake::append(groups, |groups| {
            let appended = self.status.sync(self.thread, || self.store.append(groups));
            if let Some(high_water) = self.watch.as_ref().map(|watch| watch.high_water()) {
                for ((shard, group), result) in groups.iter().zip(&appended) {
                    high_water.appended(*shard, group.len());
                    if result.as_ref().is_err_and(StoreError::is_full) {
                        high_water.has_no_memory(*shard);
                    }
                }
            }
            appended
        })
    }
}

impl GroupCommit for SharedCommitter {
    fn status(&self) -> Arc<StoreStatus> {
        self.status.clone()
    }

    fn clock_status(&self) -> Arc<ClockStatus> {
        self.intake.clock_status.clone()
    }

    /// An answer says which records are duplicates as far as this process knows; the shard's owner
    /// counts exactly.
    fn take<'a>(
        &mut self,
        requests: impl Iterator<Item = (&'a Submission, u64)>,
        at: ClockReading,
    ) -> Vec<Result<BatchAnswer, SubmitError>> {
        let clock = self.clock.look(at);
        let requests: Vec<_> = requests.collect();
        let fits = self.fitting(&requests);
        let fitting = requests.into_iter().zip(&fits);
        let fitting = fitting
            .filter(|(_, fits)| **fits)
            .map(|(request, _)| request);
        let verdicts = self.intake.admit(&self.table, fitting, clock);
        let mut groups = self.intake.take_groups();
        let appended = self.append(&mut groups);
        let appended = self.intake.put_back(groups, verdicts.len(), appended);
        let answer = |(submission, verdict): (&Submission, Result<Admitted, AdmissionError>)| {
            let admitted = verdict?;
            let view = submission.view().map_err(|_| AdmissionError::Unreadable)?;
            let is_stored = appended
                .iter()
                .any(|(shard, position)| *shard == admitted.shard && position.is_some());
            // Which points are duplicates is known where they are counted alone.
            let points = view
                .has_points
                .then(|| view.records().map(|of| of.len() as u64).sum());
            match (is_stored, points) {
                (true, Some(accepted)) => Ok(BatchAnswer {
                    accepted,
                    duplicate: 0,
                }),
                (true, None) => Ok(BatchAnswer {
                    accepted: admitted.new_records,
                    duplicate: (view.len() as u64).saturating_sub(admitted.new_records),
                }),
                (false, _) => Err(SubmitError::Unavailable),
            }
        };
        let mut answers = verdicts.into_iter().map(answer);
        let mut next = || answers.next().unwrap_or(Err(SubmitError::Unavailable));
        fits.iter()
            .map(|fits| match fits {
                true => next(),
                false => Err(SubmitError::StoreFull),
            })
            .collect()
    }

    /// Notes the state of the clock, and probes a store that failed.
    fn maintain(&mut self, at: ClockReading) -> bool {
        let judged = self.clock.look(at);
        // They all see the same steps.
        if self.thread == 0 {
            self.intake.clock_status.set(judged);
        }
        self.intake.prune(&self.table);
        self.probed_at = self.probed_at.min(at.wall);
        let task = Task::Journal(self.thread);
        if self.status.has_failed(task) && at.wall - self.probed_at >= PROBE_EVERY_SECS {
            self.probed_at = at.wall;
            match self.store.probe() {
                Ok(()) => self.status.works(task),
                Err(error) => self.status.fails(task, &error),
            }
        }
        false
    }

    /// Nothing waits: what was acknowledged is in the journal.
    fn finish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
