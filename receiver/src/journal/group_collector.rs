//! Collects the requests that wait into a group, and gives out the group's answers.
//!
//! It is a task beside those that serve the requests. The journal's thread is woken once for each
//! group, and wakes nobody but this task: a request that waits is woken on the worker it runs on.

use std::sync::mpsc as thread_queue;
use std::time::Duration;

use lizmon_protocol::sample::BatchAnswer;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::SubmitError;
use crate::store::record::Submission;

/// How many requests one sync serves at most.
const GROUP_REQUESTS_MAX: usize = 4_096;
/// How many bytes one group has at most, not counting its last request.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// A group waits for more requests only if the last one had at least so many.
const GROUP_MIN: usize = 3;
/// How often a group is left to wait at most: each time all tasks that are ready have run, and the
/// sockets were looked at once.
const TURNS_MAX: u32 = 16;

type Answer = Result<BatchAnswer, SubmitError>;

/// A request that waits to be made durable.
pub(super) struct WaitingRequest {
    pub(super) submission: Submission,
    /// When the request was judged: epoch seconds.
    pub(super) now: u64,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Requests for the journal's thread, in the order in which they came.
pub(super) struct CollectedGroup {
    /// Each with the moment it is judged by.
    pub(super) requests: Vec<(Submission, u64)>,
    /// Takes their answers, in the same order.
    pub(super) answers: oneshot::Sender<Vec<Answer>>,
}

/// A group on its way to the journal.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    /// How many of its requests arrived in the last turn.
    arrived: usize,
    /// How many turns have passed.
    turns: u32,
}

impl Gathered {
    /// Whether to wait for another turn. The clients of the last group's `previous_requests`
    /// requests may send again now; so for as long as more arrive in each turn, however many came
    /// before: the larger a group, the less of a sync each of its requests pays for.
    fn waits_for_more(self, previous_requests: usize) -> bool {
        previous_requests >= GROUP_MIN && self.arrived > 0 && self.turns < TURNS_MAX
    }
}

pub(super) struct GroupCollector {
    waiting: mpsc::Receiver<WaitingRequest>,
    groups: thread_queue::Sender<CollectedGroup>,
    gather_window: Duration,
    /// How many requests the last group had, if this one arrived right after it.
    previous_requests: usize,
}

impl GroupCollector {
    pub(super) fn new(
        waiting: mpsc::Receiver<WaitingRequest>,
        groups: thread_queue::Sender<CollectedGroup>,
        gather_window: Duration,
    ) -> Self {
        Self {
            waiting,
            groups,
            gather_window,
            previous_requests: 0,
        }
    }

    /// Ends when the last sender of requests is dropped, or with the journal's thread. Requests
    /// that have no answer then get none: their senders see that the reply is gone.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.next().await {
            let (requests, replies) = self.gather(first).await;
            self.previous_requests = requests.len();
            let (answers, answered) = oneshot::channel();
            if self
                .groups
                .send(CollectedGroup { requests, answers })
                .is_err()
            {
                return;
            }
            let Ok(answers) = answered.await else {
                return;
            };
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _gone_meanwhile = reply.send(answer);
            }
        }
    }

    /// The next request. If none follows the last group within the gather window, the next one does
    /// not wait for more.
    async fn next(&mut self) -> Option<WaitingRequest> {
        let idle_since = Instant::now();
        let next = self.waiting.recv().await;
        if idle_since.elapsed() >= self.gather_window {
            self.previous_requests = 0;
        }
        next
    }

    /// All waiting requests, and where many arrive one by one those of the next moment, so that one
    /// sync serves them. A lone request never waits.
    async fn gather(
        &mut self,
        first: WaitingRequest,
    ) -> (Vec<(Submission, u64)>, Vec<oneshot::Sender<Answer>>) {
        let begun = Instant::now();
        let mut bytes = first.submission.as_bytes().len();
        let mut requests = vec![(first.submission, first.now)];
        let mut replies = vec![first.reply];
        let mut turns = 0;
        loop {
            let before = if turns == 0 { 0 } else { requests.len() };
            while requests.len() < GROUP_REQUESTS_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(next) = self.waiting.try_recv() else {
                    break;
                };
                bytes += next.submission.as_bytes().len();
                requests.push((next.submission, next.now));
                replies.push(next.reply);
            }
            let is_full = requests.len() >= GROUP_REQUESTS_MAX || bytes >= GROUP_BYTES_MAX;
            let gathered = Gathered {
                arrived: requests.len() - before,
                turns,
            };
            if is_full
                || !gathered.waits_for_more(self.previous_requests)
                || begun.elapsed() >= self.gather_window
            {
                return (requests, replies);
            }
            tokio::task::yield_now().await;
            turns += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector() -> (
        mpsc::Sender<WaitingRequest>,
        thread_queue::Receiver<CollectedGroup>,
        GroupCollector,
    ) {
        let (queue, waiting) = mpsc::channel(16);
        let (collected, groups) = thread_queue::channel();
        let collector = GroupCollector::new(waiting, collected, Duration::from_secs(60));
        (queue, groups, collector)
    }

    fn submit(queue: &mpsc::Sender<WaitingRequest>, now: u64) -> oneshot::Receiver<Answer> {
        let (reply, answered) = oneshot::channel();
        let submission = Submission::new(&"web1".parse().unwrap(), 9, None, now);
        let sent = queue.try_send(WaitingRequest {
            submission,
            now,
            reply,
        });
        assert!(sent.is_ok());
        answered
    }

    fn accepted(count: u64) -> Answer {
        Ok(BatchAnswer {
            accepted: count,
            duplicate: 0,
        })
    }

    #[tokio::test]
    async fn everybody_gets_the_answer_to_their_own_request() {
        let (queue, groups, collector) = collector();
        let collecting = tokio::spawn(collector.run());
        for first in [10, 20] {
            let waiting: Vec<_> = (first..first + 5).map(|now| submit(&queue, now)).collect();
            let answer = async {
                let group = loop {
                    match groups.try_recv() {
                        Ok(group) => break group,
                        Err(_) => tokio::task::yield_now().await,
                    }
                };
                let answers = group.requests.iter().map(|(_, now)| accepted(*now));
                group.answers.send(answers.collect()).unwrap();
                group.requests.len()
            };
            assert_eq!(answer.await, 5, "one group");
            for (now, answered) in (first..).zip(waiting) {
                assert_eq!(answered.await.unwrap().unwrap().accepted, now);
            }
        }
        drop(queue);
        collecting.await.unwrap();
        assert!(groups.recv().is_err(), "the thread is told to end");
    }

    /// The thread has panicked: whoever waits, or comes later, must not wait for ever.
    #[tokio::test]
    async fn nobody_waits_for_a_thread_that_is_gone() {
        let (queue, groups, collector) = collector();
        let waiting = submit(&queue, 1);
        let panics = std::thread::spawn(move || drop(groups.recv().unwrap()));
        collector.run().await;
        assert!(waiting.await.is_err());
        assert!(queue.is_closed());
        panics.join().unwrap();
    }

    /// The story: a group of several requests slept its whole window though everybody was there: 64
    /// clients that wait for their answers got 23,000 a second, with the processor idle. Then a
    /// group ended once it had as many as the last one, and groups stayed as small as they were.
    #[test]
    fn a_group_waits_while_more_come_and_no_longer() {
        let check = |arrived, turns, previous_requests, waits: bool| {
            let gathered = Gathered { arrived, turns };
            assert_eq!(
                gathered.waits_for_more(previous_requests),
                waits,
                "{gathered:?} {previous_requests}"
            );
        };
        // There was no request before: a lone request never waits, nor do two.
        check(1, 0, 0, false);
        check(1, 0, 2, false);
        // Some of the last group's are still to come, or others.
        check(1, 0, 3, true);
        check(5, 3, 64, true);
        check(64, 0, 64, true);
        check(1, 2, 64, true);
        // No more requests came.
        check(0, 1, 64, false);
        // They come one by one without end.
        check(1, TURNS_MAX, 64, false);
    }
}
