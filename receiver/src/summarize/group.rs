//! Several processes on one store: each reads the journals on, and the summarizers among them
//! commit the shards that they own.
//!
//! ```text
//!            read on (every 50 ms)           commit (every 10 s)
//!  journal ─────────────────────> summaries ─────────────────────> state, by owned shard
//!                                     │
//!                    receivers: queries and admission
//! ```
//!
//! A shard's owner keeps its lease (every second). It gives up what is more than its share, and
//! acquires what is free until it has its share: a process that comes or goes moves no more shards
//! than that. What the store has forgotten, or another process has committed, is loaded again.

mod counts;
mod share;
mod thread;

use std::collections::BTreeSet;
use std::sync::Arc;

use lizmon_mtls::rate_limited_log::RateLimitedLog;
use uuid::Uuid;

pub use self::counts::GroupCounts;
use self::share::Share;
pub use self::thread::GroupWork;
use super::{Summarizer, SummaryTable};
use crate::alarms::AlarmEvaluator;
use crate::clock::{ClockReading, ClockVerdict, EndingClock, StepDetector};
use crate::store::{
    ErrorKind, Fence, HistoryRetention, MemberRole, Shard, SharedStore, StoreError,
};

/// A round of commits begins after so long. What changed in one round is committed in the next.
const COMMIT_EVERY_SECS: u64 = 10;
/// A summarizer that does not attend for so long is gone, and its share is distributed.
const ATTENDANCE_MILLIS: u64 = 5_000;

/// How often it is asked whether receivers are there.
const RECEIVERS_EVERY_SECS: u64 = 5;

/// How many series are loaded before leases are looked at again: a second or so.
const SERIES_AT_ONCE_MAX: usize = 10_000;
/// After how many commits leases are renewed in between: a second or so, with the largest shards.
const COMMITS_AT_ONCE_MAX: usize = 8;

/// What a process does with the summaries of a shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRole {
    /// It answers queries, so it reads all shards.
    pub reads: bool,
    /// It owns shards and commits them.
    pub summarizes: bool,
}

/// A process that shares a store. No thread and no clock: readings are arguments.
pub struct GroupMember {
    store: Box<dyn SharedStore>,
    summarizer: Summarizer,
    role: GroupRole,
    member: Uuid,
    clock: StepDetector,
    ending_clock: EndingClock,
    /// Shards that have to be loaded.
    unloaded: BTreeSet<Shard>,
    /// Members of the last second, and the next shard to try.
    next_try: usize,
    round_began_at: u64,
    round_appends: u64,
    failures: RateLimitedLog,
    counts: Arc<GroupCounts>,
    alarms: Option<AlarmEvaluator>,
    /// The shards that were not read on the last time.
    unread: BTreeSet<Shard>,
    /// Whether receivers are there, and when that was asked.
    receivers: (bool, u64),
}

impl std::fmt::Debug for GroupMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupMember")
            .field("role", &self.role)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl GroupMember {
    /// A member that has read everything there is, if it reads.
    pub fn open(
        store: Box<dyn SharedStore>,
        role: GroupRole,
        member: Uuid,
        at: ClockReading,
    ) -> Result<Self, StoreError> {
        let summarizer = Summarizer::empty(store.shard_count());
        let mut this = Self {
            clock: StepDetector::new(None, at),
            ending_clock: EndingClock::default(),
            unloaded: BTreeSet::new(),
            next_try: (member.as_u128() % summarizer.progress.len() as u128) as usize,
            round_began_at: at.wall,
            round_appends: 0,
            failures: RateLimitedLog::default(),
            counts: Arc::default(),
            alarms: None,
            unread: BTreeSet::new(),
            receivers: (true, at.wall),
            store,
            summarizer,
            role,
            member,
        };
        if role.reads {
            this.unloaded = this.store.shard_count().all().collect();
            while !this.unloaded.is_empty() {
                this.load_missing(at.wall)?;
            }
        }
        Ok(this)
    }

    /// Judges the hosts of the shards that it owns, and shows those of the others.
    pub fn judging(self, alarms: AlarmEvaluator) -> Self {
        Self {
            alarms: Some(alarms.shared()),
            ..self
        }
    }

    /// Keeps the history of its shards for so long.
    #[must_use]
    pub fn keeping(self, retention: HistoryRetention) -> Self {
        Self {
            summarizer: self.summarizer.keeping(retention),
            ..self
        }
    }

    /// The summaries, for readers.
    pub fn table(&self) -> Arc<SummaryTable> {
        self.summarizer.table()
    }

    /// What it has done, while it does more.
    pub fn counts(&self) -> Arc<GroupCounts> {
        self.counts.clone()
    }

    /// The shards that it owns.
    pub fn owned(&self) -> Vec<Fence> {
        let progress = self.summarizer.progress.iter();
        progress.filter_map(|progress| progress.fence).collect()
    }

    /// Reads the journals on. To be called many times a second.
    pub fn read_on(&mut self, now: u64) {
        self.summarizer.table.begin_read();
        let before = self.summarizer.appends();
        let read = self.summarizer.read_on(&mut *self.store);
        let groups = self.summarizer.appends() - before;
        self.counts.groups_read.inc_by(groups);
        for shard in &read.rewound {
            tracing::warn!(
                shard = shard.number(),
                "the journal does not continue where it was read last: loading the shard again"
            );
        }
        let unread: BTreeSet<_> = read.unread.iter().map(|(shard, _)| *shard).collect();
        if let Some((shard, error)) = read.unread.first() {
            let error = error as &dyn std::error::Error;
            let (shard, shards) = (shard.number(), unread.len());
            self.failures.say(|unsaid| {
                tracing::warn!(shard, shards, error, unsaid, "journals cannot be read");
            });
        }
        for shard in read.rewound {
            self.load_again(shard);
        }
        self.try_to("load shards", |this| this.load_missing(now));
        self.counts.note_refused(&self.store.refused_groups(), now);
        let lagging = |shard: Shard| unread.contains(&shard) || self.unloaded.contains(&shard);
        self.summarizer.table.end_read(now, &lagging);
        self.unread = unread.into_iter().chain(self.unloaded.clone()).collect();
    }

    /// Keeps leases, takes its share of the shards, commits. To be called every second or so.
    pub fn maintain(&mut self, at: ClockReading) {
        let clock = self.clock.look(at);
        let table = self.summarizer.table.clone();
        let newest = || table.newest_epoch();
        let ended = self.ending_clock.look(newest, at.wall, at.monotonic);
        let expiry = ended.filter(|_| clock.expiry().is_some());
        if self.role.summarizes {
            self.try_to("renew leases", Self::renew);
            self.try_to("take its share", |this| this.take_share(at.wall));
            self.counts.owned.set(self.owned().len() as i64);
        }
        self.judge_alarms(clock, expiry);
        self.commit_round(at.wall, expiry);
        if let Some(now) = expiry {
            self.try_to("remove what has ended", |this| {
                let shard = this.summarizer.next_sweep();
                let swept = this.summarizer.sweep_next(&mut *this.store, now);
                this.unless_fenced(shard, swept)
            });
        }
    }

    /// Commits everything that it owns, and gives it up at once.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let committed = self.commit_changed(u64::MAX, None);
        let owned = self.owned();
        let released = self.store.release(&owned);
        if self.role.summarizes {
            self.store.leave(MemberRole::Summarizer, self.member)?;
        }
        committed.and(released)
    }

    fn try_to(&mut self, what: &str, act: impl FnOnce(&mut Self) -> Result<(), StoreError>) {
        let Err(error) = act(self) else { return };
        let error = &error as &dyn std::error::Error;
        self.failures
            .say(|unsaid| tracing::warn!(error, unsaid, "the store failed: could not {what}"));
    }

    /// A shard that has to be loaded, before it is read on or committed.
    fn load_again(&mut self, shard: Shard) {
        self.summarizer.set_unloaded(shard);
        self.unloaded.insert(shard);
    }

    /// Loads shards until they are all there, or were many series: leases end meanwhile, and
    /// nothing is read on.
    fn load_missing(&mut self, now: u64) -> Result<(), StoreError> {
        let mut failure = Ok(());
        let mut series = 0;
        for shard in self.unloaded.clone() {
            match self.summarizer.reload(&mut *self.store, shard, now) {
                Ok(()) => {
                    self.unloaded.remove(&shard);
                    series += self.summarizer.series_of(shard);
                }
                Err(error) => failure = Err(error),
            }
            if series >= SERIES_AT_ONCE_MAX {
                break;
            }
        }
        failure
    }

    fn renew(&mut self) -> Result<(), StoreError> {
        let owned = self.owned();
        let kept = self.store.renew(&owned)?;
        for fence in owned.iter().filter(|fence| !kept.contains(fence)) {
            self.lost(fence.shard(), "its lease has ended");
        }
        Ok(())
    }

    fn take_share(&mut self, now: u64) -> Result<(), StoreError> {
        let (store, member) = (&mut self.store, self.member);
        let members = store.attend(MemberRole::Summarizer, member, "", ATTENDANCE_MILLIS)?;
        let members: Vec<_> = members.iter().map(|member| member.id).collect();
        let owned = self.owned();
        match share::of(
            self.summarizer.progress.len(),
            &members,
            member,
            owned.len(),
        ) {
            Share::Right => Ok(()),
            Share::Over(surplus) => self.give_up(&owned[owned.len() - surplus..]),
            Share::Under(missing) => self.acquire(missing, now),
        }
    }

    fn give_up(&mut self, fences: &[Fence]) -> Result<(), StoreError> {
        for some in fences.chunks(COMMITS_AT_ONCE_MAX) {
            for fence in some {
                self.commit(*fence, None)?;
            }
            self.renew()?;
        }
        self.store.release(fences)?;
        self.counts.given_up.inc_by(fences.len() as u64);
        for fence in fences {
            self.disown(fence.shard());
        }
        let shards = fences.len();
        tracing::info!(shards, "gave up shards: other summarizers have a share");
        Ok(())
    }

    fn acquire(&mut self, missing: usize, now: u64) -> Result<(), StoreError> {
        let count = self.summarizer.progress.len();
        let mut acquired = 0;
        let mut failure = Ok(());
        for _ in 0..count {
            let at = self.next_try % count;
            self.next_try = at + 1;
            if self.summarizer.progress[at].fence.is_some() {
                continue;
            }
            // A server that is away does not keep others' shards from being acquired.
            match self.store.acquire(&[Shard::new(at as u16)]) {
                Err(error) => failure = Err(error),
                Ok(fences) => {
                    for fence in fences {
                        self.summarizer.own(fence);
                        self.load_again(fence.shard());
                        acquired += 1;
                    }
                }
            }
            if acquired == missing {
                break;
            }
        }
        if acquired > 0 {
            self.counts.acquired.inc_by(acquired as u64);
            tracing::info!(shards = acquired, "acquired shards");
        }
        self.load_missing(now).and(failure)
    }

    /// Another process has the shard, or the store has lost our last commit.
    fn lost(&mut self, shard: Shard, why: &str) {
        tracing::warn!(shard = shard.number(), why, "lost a shard");
        self.counts.lost.inc();
        self.disown(shard);
        if self.role.reads {
            self.load_again(shard);
        }
    }

    fn disown(&mut self, shard: Shard) {
        if !self.role.reads {
            self.unloaded.remove(&shard);
        }
        self.summarizer.disown(shard, self.role.reads);
    }

    fn commit(&mut self, fence: Fence, expiry: Option<u64>) -> Result<(), StoreError> {
        let store = &mut *self.store;
        let committed = self.summarizer.commit(store, fence, expiry, false);
        match &committed {
            Ok(()) => self.counts.commits.inc(),
            Err(_) => self.counts.commit_failures.inc(),
        };
        self.unless_fenced(fence.shard(), committed)
    }

    fn unless_fenced(
        &mut self,
        shard: Shard,
        committed: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match committed {
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.lost(shard, &error.to_string());
                Ok(())
            }
            committed => committed,
        }
    }

    /// Hosts are judged while samples of them can come and be read. What is new is told once it is
    /// committed.
    fn judge_alarms(&mut self, clock: ClockVerdict, expiry: Option<u64>) {
        let Some(mut alarms) = self.alarms.take() else {
            return;
        };
        let now = clock.now;
        if now.abs_diff(self.receivers.1) >= RECEIVERS_EVERY_SECS {
            self.try_to("see which receivers are there", |this| {
                let there = this.store.present(MemberRole::Receiver)?;
                this.receivers = (there > 0, now);
                Ok(())
            });
        }
        let was_set = !clock.is_steady() && clock.other.is_some();
        let prevented = match () {
            () if was_set => Some("the clock was set, or the machine had just started"),
            () if !self.receivers.0 => Some("no receiver was running"),
            () => None,
        };
        let unread = &self.unread;
        let unread = |shard| {
            unread
                .contains(&shard)
                .then_some("the store could not be read")
        };
        let of_shard = |shard: Shard| prevented.or_else(|| unread(shard));
        for shard in alarms.judge(&mut self.summarizer, now, expiry, &of_shard) {
            self.try_to("commit alarms", |this| {
                if let Some(fence) = this.summarizer.progress[shard.index()].fence {
                    this.commit(fence, None)?;
                }
                // Otherwise another process owns it now, and tells.
                if this.summarizer.generation(shard).is_some() {
                    alarms.committed(shard);
                }
                Ok(())
            });
        }
        if self.role.reads {
            self.try_to("read the alarms of other processes' shards", |this| {
                alarms.show_others(&this.summarizer, &mut *this.store, now)
            });
        }
        self.alarms = Some(alarms);
    }

    /// Commits what had changed when the round began, then begins the next.
    fn commit_round(&mut self, now: u64, expiry: Option<u64>) {
        // A clock that was set back must not delay commits until it reaches the old time again.
        self.round_began_at = self.round_began_at.min(now);
        let through = self.round_appends;
        self.try_to("commit summaries", |this| {
            this.commit_changed(through, expiry)
        });
        if now - self.round_began_at >= COMMIT_EVERY_SECS {
            self.round_began_at = now;
            self.round_appends = self.summarizer.appends();
        }
    }

    /// Commits each shard that has changed by a group through `through`. One whose server is away
    /// does not keep the others from being committed; it is in the journal, and its turn comes
    /// again.
    fn commit_changed(&mut self, through: u64, expiry: Option<u64>) -> Result<(), StoreError> {
        let mut failure = Ok(());
        for (at, fence) in (1..).zip(self.summarizer.changed(through)) {
            if let Err(error) = self.commit(fence, expiry) {
                failure = Err(error);
            }
            if at % COMMITS_AT_ONCE_MAX == 0 {
                failure = failure.and(self.renew());
            }
        }
        failure
    }
}

#[cfg(test)]
mod tests;
