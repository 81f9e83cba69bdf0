//! Group commit: a task collects all waiting requests, and a thread makes them durable with one
//! sync, counts them, and answers them. Where several servers share the shards, each server's have
//! a task, a queue and a thread of their own: one server that does not answer holds up no other's
//! requests.
//!
//! This is the one place where a POST is answered with success, after the sync. It is also the one
//! place for checks that depend on earlier requests: known numbers, a host's labels, a producer's
//! ranges.
//!
//! ```text
//!           task                                  thread                               task
//!  requests ──> queue (bounded) ──> group ──> admit ──> append + sync ──> apply ──> answers
//!                                               │            │
//!                                            refused      failed: 503 to all of the group, nothing counted
//! ```

mod admission;
mod committer;
mod error;
mod group_collector;
mod group_commit;
mod intake;
mod shared;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{self as thread_queue, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::select_all;
use lizmon_protocol::sample::BatchAnswer;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use self::group_collector::{CollectedGroup, GroupCollector, WaitingRequest};
use crate::alarms::AlarmEvaluator;
use crate::clock::{ClockStatus, Clocks};
use crate::store::record::Submission;
use crate::store::status::StoreStatus;
use crate::store::{SharedStore, Store, StoreError};
use crate::summarize::{Summarizer, SummaryTable};
use crate::watch::WatchStatus;

pub use admission::{HOST_LABELS_MAX, HOST_PRODUCERS_MAX, PRODUCER_RANGES_MAX};
pub use committer::Committer;
pub use error::{AdmissionError, SubmitError, ValueFault};
pub use group_commit::GroupCommit;
pub use shared::SharedCommitter;

/// Maximum wait for more requests if `--gather-window` does not say.
pub const GATHER_WINDOW: Duration = Duration::from_millis(2);
/// How many requests may wait for the journal, over all its threads. Each keeps its body's memory
/// reserved, which [`crate::body`] limits; tiny bodies reserve none, and are limited by this alone.
pub(crate) const QUEUE_MAX: usize = 16_384;
/// How often the thread checks whether maintenance is due.
const TICK: Duration = Duration::from_secs(1);
/// How long the next group is waited for between two steps of maintenance.
const PAUSE_WHILE_MORE_IS_DUE: Duration = Duration::from_millis(2);

/// Handle to the journal's threads. Cheap to clone; the journal ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Journal {
    /// One for each thread.
    queues: Arc<[mpsc::Sender<WaitingRequest>]>,
    status: Arc<StoreStatus>,
    clock_status: Arc<ClockStatus>,
    watch: Option<Arc<WatchStatus>>,
}

impl Journal {
    /// Starts the journal's thread. It ends, with everything committed, when the last [`Journal`]
    /// is dropped.
    pub fn start(
        store: Box<dyn Store>,
        summarizer: Summarizer,
        gather_window: Duration,
        clocks: Clocks,
    ) -> std::io::Result<(Self, JournalThreads)> {
        let committer = Committer::new(store, summarizer, clocks.read());
        Self::start_with(vec![committer], gather_window, clocks)
    }

    /// The same, and judges hosts.
    pub fn start_judging(
        store: Box<dyn Store>,
        summarizer: Summarizer,
        alarms: AlarmEvaluator,
        gather_window: Duration,
        clocks: Clocks,
    ) -> std::io::Result<(Self, JournalThreads)> {
        let committer = Committer::new(store, summarizer, clocks.read()).judging(alarms);
        Self::start_with(vec![committer], gather_window, clocks)
    }

    /// The same on a store that other processes use as well: they, or another thread of this one,
    /// count what is appended here. There is a thread for each of these connections to it.
    pub fn start_shared(
        stores: Vec<Box<dyn SharedStore>>,
        table: &Arc<SummaryTable>,
        watch: Arc<WatchStatus>,
        gather_window: Duration,
        clocks: Clocks,
    ) -> std::io::Result<(Self, JournalThreads)> {
        let at = clocks.read();
        let mut committers = Vec::<SharedCommitter>::with_capacity(stores.len());
        for (thread, store) in stores.into_iter().enumerate() {
            committers.push(match committers.first() {
                Some(first) => first.beside(store, thread, at),
                None => SharedCommitter::new(store, table.clone(), at).watched_by(watch.clone()),
            });
        }
        watch.placement().divide(committers.len());
        let (journal, threads) = Self::start_with(committers, gather_window, clocks)?;
        journal.status.set_journal_threads(journal.queues.len());
        let watch = Some(watch);
        Ok((Self { watch, ..journal }, threads))
    }

    fn start_with<C: GroupCommit + Send + 'static>(
        committers: Vec<C>,
        gather_window: Duration,
        clocks: Clocks,
    ) -> std::io::Result<(Self, JournalThreads)> {
        let first = committers.first();
        let (status, clock_status) = first
            .map(|first| (first.status(), first.clock_status()))
            .unwrap_or_default();
        let runtime = tokio::runtime::Handle::current();
        // A server that does not answer takes no more than its share.
        let queue_max = QUEUE_MAX / committers.len().max(1);
        let (mut queues, mut threads, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for committer in committers {
            let (queue, waiting) = mpsc::channel(queue_max);
            let (collected, groups) = thread_queue::channel();
            let writer = Writer {
                committer,
                groups,
                clocks: clocks.clone(),
            };
            let (alive, is_over) = oneshot::channel::<Infallible>();
            let thread = std::thread::Builder::new()
                .name("journal".to_owned())
                .spawn(move || {
                    let _until_the_end = alive;
                    writer.run()
                })?;
            runtime.spawn(GroupCollector::new(waiting, collected, gather_window).run());
            queues.push(queue);
            threads.push(thread);
            ended.push(is_over);
        }
        let journal = Self {
            queues: queues.into(),
            status,
            clock_status,
            watch: None,
        };
        Ok((journal, JournalThreads { threads, ended }))
    }

    /// The state of the store.
    pub fn status(&self) -> Arc<StoreStatus> {
        self.status.clone()
    }

    /// The state of the servers, if the store is shared.
    pub fn watch(&self) -> Option<&Arc<WatchStatus>> {
        self.watch.as_ref()
    }

    /// The state of this machine's clock.
    pub fn clock_status(&self) -> &Arc<ClockStatus> {
        &self.clock_status
    }

    /// Makes a submission durable and counts it. The future returns when that is done or was
    /// refused; it is queued before.
    pub fn submit(
        &self,
        submission: Submission,
        now: u64,
    ) -> impl Future<Output = Result<BatchAnswer, SubmitError>> + Send + use<> {
        let queued = self.queue(submission, now);
        async { queued?.await.unwrap_or(Err(SubmitError::Unavailable)) }
    }

    /// Whether submissions of several hosts would all be taken, as far as is known before. A clock
    /// that is not known to be steady is no reason here.
    pub fn check_together(
        table: &SummaryTable,
        submissions: &[Submission],
        now: u64,
    ) -> Result<(), AdmissionError> {
        admission::check_together(table, submissions, now)
    }

    fn queue(
        &self,
        submission: Submission,
        now: u64,
    ) -> Result<oneshot::Receiver<Result<BatchAnswer, SubmitError>>, SubmitError> {
        let (reply, answered) = oneshot::channel();
        let queue = self.queue_of(&submission);
        let queue = queue.ok_or(SubmitError::Unavailable)?;
        let waiting = WaitingRequest {
            submission,
            now,
            reply,
        };
        match queue.try_send(waiting) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_)) => Err(SubmitError::Overloaded),
            Err(TrySendError::Closed(_)) => Err(SubmitError::Unavailable),
        }
    }

    /// The queue of the thread that appends to this host's shard.
    fn queue_of(&self, submission: &Submission) -> Option<&mpsc::Sender<WaitingRequest>> {
        let several = self.watch.as_ref().filter(|_| self.queues.len() > 1);
        let thread = several.map_or(0, |watch| {
            let host = submission.view().map(|view| view.host).unwrap_or_default();
            watch.placement().thread_of(host)
        });
        self.queues.get(thread)
    }
}

/// The journal's threads, to wait for.
#[derive(Debug)]
pub struct JournalThreads {
    threads: Vec<JoinHandle<Result<(), StoreError>>>,
    ended: Vec<oneshot::Receiver<Infallible>>,
}

/// Why a journal failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// What was not committed is in the journal and is counted at the next start.
    #[error(
        "the last summaries could not be committed; the next start counts them from the journal"
    )]
    Uncommitted(#[from] StoreError),
    /// A defect of ours. Nothing acknowledged is lost: the next start counts it from the journal.
    #[error(
        "a thread of the journal panicked; start the receiver again, nothing that was acknowledged is lost"
    )]
    Panicked,
}

impl JournalThreads {
    /// Returns when one of them is about to end, for any reason.
    pub async fn ended(&mut self) {
        let _closed = select_all(self.ended.iter_mut()).await;
    }

    /// Waits for all of them. They end when the last [`Journal`] is dropped and the runtime has run
    /// the tasks before them, so it must go on: this belongs on a blocking thread.
    pub fn join(self) -> Result<(), JournalError> {
        let mut ended = Ok(());
        for thread in self.threads {
            let joined = thread.join().map_err(|_| JournalError::Panicked);
            ended = ended.and(joined.and_then(|ended| Ok(ended?)));
        }
        ended
    }
}

/// The journal's thread: one group after another.
struct Writer<C> {
    committer: C,
    groups: thread_queue::Receiver<CollectedGroup>,
    clocks: Clocks,
}

impl<C: GroupCommit> Writer<C> {
    fn run(mut self) -> Result<(), StoreError> {
        let mut pause = TICK;
        loop {
            match self.groups.recv_timeout(pause) {
                Ok(group) => self.process(group),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            pause = match self.committer.maintain(self.clocks.read()) {
                true => PAUSE_WHILE_MORE_IS_DUE,
                false => TICK,
            };
        }
        self.committer.finish()
    }

    fn process(&mut self, group: CollectedGroup) {
        let requests = group.requests.iter();
        let requests = requests.map(|(submission, now)| (submission, *now));
        let answers = self.committer.take(requests, self.clocks.read());
        let _runtime_ended = group.answers.send(answers);
    }
}

#[cfg(test)]
mod tests;
