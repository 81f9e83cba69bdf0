//! Group commit: a thread takes all waiting requests, makes them durable with one sync, counts
//! them, and answers them. Where several servers share the shards, each server's have a thread and
//! a queue of their own: one server that does not answer holds up no other's requests.
//!
//! This is the one place where a POST is answered with success, after the sync. It is also the one
//! place for checks that depend on earlier requests: known numbers, a host's labels, a producer's
//! ranges.
//!
//! ```text
//!  requests ──> queue (bounded) ──> admit ──> append + sync ──> apply ──> answers
//!                                     │            │
//!                                  refused      failed: 503 to all of the group, nothing counted
//! ```

mod admission;
mod committer;
mod error;
mod group_commit;
mod intake;
mod shared;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::select_all;
use lizmon_protocol::sample::BatchAnswer;
use tokio::sync::oneshot;

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
/// reserved, and [`crate::body`] limits that.
const QUEUE_MAX: usize = 16_384;
/// How many requests one sync serves at most.
const GROUP_REQUESTS_MAX: usize = 4_096;
/// How many bytes one group has at most, not counting its last request.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// A group waits for more requests only if the last one had at least so many.
const GROUP_MIN: usize = 3;
/// In how many steps the gather window passes: after each the queue is read.
const GATHER_STEPS: u32 = 8;
/// How often the thread checks whether maintenance is due.
const TICK: Duration = Duration::from_secs(1);

/// A request that waits to be made durable.
struct Waiting {
    submission: Submission,
    /// When the request was judged: epoch seconds.
    now: u64,
    reply: oneshot::Sender<Result<BatchAnswer, SubmitError>>,
}

/// Handle to the journal's threads. Cheap to clone; the journal ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Journal {
    /// One for each thread.
    queues: Arc<[SyncSender<Waiting>]>,
    status: Arc<StoreStatus>,
    clock_status: Arc<ClockStatus>,
    watch: Option<Arc<WatchStatus>>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
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
        // A server that does not answer takes no more than its share.
        let queue_max = QUEUE_MAX / committers.len().max(1);
        let (mut queues, mut threads, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for committer in committers {
            let (queue, waiting) = sync_channel(queue_max);
            let writer = Writer {
                committer,
                waiting,
                gather_window,
                clocks: clocks.clone(),
                previous_requests: 0,
            };
            let (alive, is_over) = oneshot::channel::<Infallible>();
            let thread = std::thread::Builder::new()
                .name("journal".to_owned())
                .spawn(move || {
                    let _until_the_end = alive;
                    writer.run()
                })?;
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

    /// Makes a submission durable and counts it. Returns when that is done or was refused.
    pub async fn submit(
        &self,
        submission: Submission,
        now: u64,
    ) -> Result<BatchAnswer, SubmitError> {
        let (reply, answered) = oneshot::channel();
        let Some(queue) = self.queue_of(&submission) else {
            return Err(SubmitError::Unavailable);
        };
        match queue.try_send(Waiting {
            submission,
            now,
            reply,
        }) {
            Ok(()) => answered.await.unwrap_or(Err(SubmitError::Unavailable)),
            Err(TrySendError::Full(_)) => Err(SubmitError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Unavailable),
        }
    }

    /// The queue of the thread that appends to this host's shard.
    fn queue_of(&self, submission: &Submission) -> Option<&SyncSender<Waiting>> {
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

    /// Waits for all of them. They end when the last [`Journal`] is dropped.
    pub fn join(self) -> Result<(), JournalError> {
        let mut ended = Ok(());
        for thread in self.threads {
            let joined = thread.join().map_err(|_| JournalError::Panicked);
            ended = ended.and(joined.and_then(|ended| Ok(ended?)));
        }
        ended
    }
}

/// A group on its way to the journal.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    requests: usize,
    /// How many of them arrived in the last step.
    arrived: usize,
    /// How many steps of the gather window have passed.
    steps: u32,
}

impl Gathered {
    /// Whether to wait for another step. The clients of the last group's `previous_requests`
    /// requests may send again now; so not once as many have arrived, nor when no more arrive.
    fn waits_for_more(self, previous_requests: usize) -> bool {
        previous_requests >= GROUP_MIN
            && self.requests < previous_requests
            && self.arrived > 0
            && self.steps < GATHER_STEPS
    }
}

struct Writer<C> {
    committer: C,
    waiting: Receiver<Waiting>,
    gather_window: Duration,
    clocks: Clocks,
    /// How many requests the last group had, if this one arrived right after it.
    previous_requests: usize,
}

impl<C: GroupCommit> Writer<C> {
    fn run(mut self) -> Result<(), StoreError> {
        loop {
            match self.next() {
                Ok(first) => {
                    let group = self.gather(first);
                    self.previous_requests = group.len();
                    self.process(group);
                }
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.committer.maintain(self.clocks.read());
        }
        self.committer.finish()
    }

    /// The next request. If none follows the last group within the gather window, the next one does
    /// not wait for more.
    fn next(&mut self) -> Result<Waiting, RecvTimeoutError> {
        if self.previous_requests > 0 {
            match self.waiting.recv_timeout(self.gather_window) {
                Err(RecvTimeoutError::Timeout) => self.previous_requests = 0,
                other => return other,
            }
        }
        self.waiting.recv_timeout(TICK)
    }

    /// All waiting requests, and where many arrive one by one those of the next moment, so that one
    /// sync serves them. A lone request never waits.
    #[expect(
        clippy::disallowed_methods,
        reason = "the gather window of the group commit, on the journal's own thread"
    )]
    fn gather(&self, first: Waiting) -> Vec<Waiting> {
        let mut bytes = first.submission.as_bytes().len();
        let mut group = vec![first];
        let mut steps = 0;
        loop {
            let before = group.len();
            while group.len() < GROUP_REQUESTS_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(next) = self.waiting.try_recv() else {
                    break;
                };
                bytes += next.submission.as_bytes().len();
                group.push(next);
            }
            let is_full = group.len() >= GROUP_REQUESTS_MAX || bytes >= GROUP_BYTES_MAX;
            let gathered = Gathered {
                requests: group.len(),
                arrived: if steps == 0 {
                    group.len()
                } else {
                    group.len() - before
                },
                steps,
            };
            if is_full
                || self.gather_window.is_zero()
                || !gathered.waits_for_more(self.previous_requests)
            {
                return group;
            }
            std::thread::sleep(self.gather_window / GATHER_STEPS);
            steps += 1;
        }
    }

    fn process(&mut self, group: Vec<Waiting>) {
        let requests = group
            .iter()
            .map(|waiting| (&waiting.submission, waiting.now));
        let answers = self.committer.take(requests, self.clocks.read());
        for (waiting, answer) in group.into_iter().zip(answers) {
            let _gone_meanwhile = waiting.reply.send(answer);
        }
    }
}

#[cfg(test)]
mod tests;
