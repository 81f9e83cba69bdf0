//! Judges the shards that this process commits. No thread and no clock: readings are arguments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lizmon_alarms::board::AlarmBoard;
use lizmon_alarms::channel::NoticeQueues;

use super::matcher::Matcher;
use super::shard::{Judges, ShardAlarms, stored_entries};
use crate::store::{Shard, ShardCount, StateStore, StoreError};
use crate::summarize::Summarizer;

/// In how many seconds the shards of other processes are looked at, all of them once.
const SHOW_OTHERS_SECS: usize = 4;

/// Judges hosts, and tells what is committed.
pub struct AlarmEvaluator {
    queues: Arc<dyn NoticeQueues>,
    board: Arc<AlarmBoard>,
    /// By which the receiver's own alarms are named.
    own_name: String,
    /// Whether other processes commit shards as well: then each shard knows when it was last seen.
    is_shared: bool,
    matcher: Matcher,
    shards: Vec<ShardAlarms>,
    /// Whether everyone is refused.
    refuses_everyone: Arc<AtomicBool>,
    next_shown: usize,
    /// The second in which it last judged.
    judged_at: Option<u64>,
}

impl std::fmt::Debug for AlarmEvaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlarmEvaluator")
            .field("own_name", &self.own_name)
            .finish_non_exhaustive()
    }
}

impl AlarmEvaluator {
    /// An evaluator for a store of which this process commits all shards.
    pub fn new(
        queues: Arc<dyn NoticeQueues>,
        board: Arc<AlarmBoard>,
        own_name: String,
        count: ShardCount,
    ) -> Self {
        Self {
            matcher: Matcher::new(queues.rules()),
            queues,
            board,
            own_name,
            is_shared: false,
            shards: count.all().map(|_| ShardAlarms::default()).collect(),
            refuses_everyone: Arc::default(),
            next_shown: 0,
            judged_at: None,
        }
    }

    /// Nothing can be seen while this is true.
    pub(super) fn unless(self, refuses_everyone: Arc<AtomicBool>) -> Self {
        Self {
            refuses_everyone,
            ..self
        }
    }

    /// For a store that other processes commit as well.
    pub fn shared(self) -> Self {
        Self {
            is_shared: true,
            ..self
        }
    }

    /// Judges what is due, at most once a second. `expiry` is the time by which hosts end, if any
    /// may, and `prevented` why nothing can be seen of a shard's hosts, if that is so. The shards
    /// that are to be committed now; [`Self::committed`] then tells what is new.
    pub(crate) fn judge(
        &mut self,
        summarizer: &mut Summarizer,
        now: u64,
        expiry: Option<u64>,
        prevented: &dyn Fn(Shard) -> Option<&'static str>,
    ) -> Vec<Shard> {
        if self.judged_at.replace(now) == Some(now) {
            return Vec::new();
        }
        self.matcher.take(self.queues.rules());
        self.load(summarizer);
        self.take_accepted(summarizer);
        let mut to_commit = Vec::new();
        let refused = self.refuses_everyone.load(Ordering::Relaxed);
        let refused = refused.then_some("a CRL had expired, so that everyone was refused");
        let mut sees_since = None;
        let count = self.shards.len();
        for at in 0..count {
            let shard = Shard::new(at as u16);
            if summarizer.generation(shard).is_none() {
                continue;
            }
            let own = &mut self.shards[at];
            let mut judges = Judges {
                matcher: &mut self.matcher,
                now,
                expiry,
                sees_since: now,
                own_name: &self.own_name,
                shards: count,
            };
            if self.is_shared || at == 0 {
                let blind = own.sight.look(now, refused.or_else(|| prevented(shard)));
                // One process says it, whoever owns the first shard.
                if let Some(blind) = blind.filter(|_| at == 0) {
                    own.tell_blind(summarizer, shard, &blind, &judges);
                }
                sees_since = own.sight.since();
                if sees_since.is_some() {
                    own.store_sight(summarizer, shard, now);
                }
            }
            if let Some(since) = sees_since {
                judges.sees_since = since;
                own.judge(summarizer, shard, &mut judges, &self.board);
            }
            match own.needs_commit {
                true => to_commit.push(shard),
                // What no queue took before.
                false => own.tell(&*self.queues, &self.own_name),
            }
        }
        to_commit
    }

    /// A shard is committed, with all that was judged.
    pub(crate) fn committed(&mut self, shard: Shard) {
        let own = &mut self.shards[shard.index()];
        own.needs_commit = false;
        own.tell(&*self.queues, &self.own_name);
    }

    /// Shows the alarms that other processes have committed of their shards: a few shards each time.
    pub(crate) fn show_others(
        &mut self,
        summarizer: &Summarizer,
        store: &mut dyn StateStore,
        now: u64,
    ) -> Result<(), StoreError> {
        for _ in 0..self.shards.len().div_ceil(SHOW_OTHERS_SECS) {
            let shard = Shard::new(self.next_shown as u16);
            self.next_shown = (self.next_shown + 1) % self.shards.len().max(1);
            if summarizer.generation(shard).is_none() {
                let entries = stored_entries(summarizer, store, shard, now)?;
                self.board.replace(shard.number(), entries);
            }
        }
        Ok(())
    }

    fn load(&mut self, summarizer: &Summarizer) {
        for (own, shard) in self.shards.iter_mut().zip((0..).map(Shard::new)) {
            match summarizer.generation(shard) {
                Some(generation) => own.load(summarizer, shard, generation, &self.own_name),
                None => own.leave(shard, &self.board),
            }
        }
    }

    fn take_accepted(&mut self, summarizer: &mut Summarizer) {
        for told in self.queues.take_accepted() {
            // The receiver's own are in the first shard.
            let of_host = summarizer.shard_of(&told.host);
            for shard in [of_host, Shard::new(0)] {
                if summarizer.generation(shard).is_some() {
                    self.shards[shard.index()].accepted(summarizer, shard, &told);
                }
            }
        }
    }
}
