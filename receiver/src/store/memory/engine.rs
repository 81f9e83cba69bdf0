//! An engine that several processes share, in memory: what a Redis store's servers are to
//! [`redis`](super::super::redis). Shards are divided among primaries. A test moves its clock, and
//! decides what becomes of each request.
//!
//! Every write of a shard makes a revision of it; a failover goes back to an earlier one, with
//! journal, state, cursor, writers and lease together.

mod contents;
mod disturbance;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::super::shard::{Position, Shard, ShardCount};

pub use self::contents::LEASE_MILLIS;
use self::contents::{EngineContents, EngineShard};
pub(super) use self::contents::{GroupOnItsWay, JournalEntry};
pub(super) use self::disturbance::{Asked, EngineFault};
pub use self::disturbance::{Disturbance, EngineChange, EngineEvent, RequestFate, RequestKind};
pub(super) use self::request::{CommitRequest, EngineRequest};

/// The engine, for any number of stores on it.
#[derive(Debug, Clone)]
pub struct MemoryEngine(Arc<Mutex<EngineContents>>);

impl MemoryEngine {
    /// An engine with so many shards on so many primaries.
    pub fn new(shards: NonZeroU16, primaries: NonZeroU16) -> Self {
        Self(Arc::new(Mutex::new(EngineContents {
            shards: (0..shards.get()).map(|_| EngineShard::default()).collect(),
            primaries: primaries.get(),
            now_millis: 0,
            ahead_millis: 0,
            kept_millis: 0,
            away: BTreeSet::new(),
            dead: BTreeSet::new(),
            delayed: Vec::new(),
            decide: None,
            members: BTreeMap::new(),
            keys: BTreeMap::new(),
            crls: BTreeMap::new(),
            revisions: 0,
            identifiers: 0,
            events: Vec::new(),
            keeps_events: false,
        })))
    }

    /// Sets its clock: it never goes back, and time that passed while requests were late is ahead
    /// of this.
    pub fn set_now(&self, millis: u64) {
        let mut contents = self.contents();
        contents.now_millis = contents.now_millis.max(millis + contents.ahead_millis);
    }

    /// From now on this decides what becomes of every request to a primary.
    pub fn set_fates(&self, decide: impl FnMut(RequestKind, u16) -> Disturbance + Send + 'static) {
        self.contents().decide = Some(Box::new(decide));
    }

    /// From now on a primary cannot be reached, or can.
    pub fn set_away(&self, primary: u16, is_away: bool) {
        let mut contents = self.contents();
        match is_away {
            true => contents.away.insert(primary),
            false => contents.away.remove(&primary),
        };
    }

    /// The process with this store is dead: nothing of it reaches the engine any more.
    pub fn kill(&self, owner: Uuid) {
        self.contents().dead.insert(owner);
    }

    /// From now on as much of the past is kept, so that it can be gone back to.
    pub fn keep_revisions(&self, millis: u64) {
        self.contents().kept_millis = millis;
    }

    /// The primary of these shards fails over: each forgets so many milliseconds of the past.
    pub fn fail_over(&self, forgets: &[(Shard, u64)]) {
        self.contents().forget(forgets);
    }

    /// What has happened since the last call, from the first one on.
    pub fn take_events(&self) -> Vec<EngineEvent> {
        let mut contents = self.contents();
        contents.keeps_events = true;
        std::mem::take(&mut contents.events)
    }

    fn contents(&self) -> MutexGuard<'_, EngineContents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shard_count(&self) -> ShardCount {
        let shards = self.contents().shards.len() as u16;
        ShardCount::new(NonZeroU16::new(shards).unwrap_or(NonZeroU16::MIN))
    }

    /// Unlike every other.
    pub(super) fn new_identifier(&self) -> u64 {
        let mut contents = self.contents();
        contents.identifiers += 1;
        contents.identifiers
    }

    pub(super) fn primary_of(&self, shard: Shard) -> u16 {
        shard.number() % self.contents().primaries
    }

    /// Appends groups to shards of one primary.
    pub(super) fn append(
        &self,
        owner: Uuid,
        primary: u16,
        groups: &[&GroupOnItsWay],
    ) -> Asked<Vec<Position>> {
        let mut fate = RequestFate::Answered;
        let appended = self.ask_as(owner, primary, RequestKind::Append, &mut fate, |request| {
            let append = |one: &&GroupOnItsWay| request.append(one);
            groups.iter().map(append).collect()
        });
        if fate == RequestFate::Delayed {
            let groups = groups.iter().map(|one| (*one).clone());
            self.contents().delayed.push((primary, groups.collect()));
        }
        appended
    }

    /// A request of a process to a primary, with all that it asks for.
    pub(super) fn ask<T>(
        &self,
        owner: Uuid,
        primary: u16,
        kind: RequestKind,
        act: impl FnOnce(&mut EngineRequest<'_>) -> T,
    ) -> Asked<T> {
        self.ask_as(owner, primary, kind, &mut RequestFate::Answered, act)
    }

    fn ask_as<T>(
        &self,
        owner: Uuid,
        primary: u16,
        kind: RequestKind,
        fate: &mut RequestFate,
        act: impl FnOnce(&mut EngineRequest<'_>) -> T,
    ) -> Asked<T> {
        let mut contents = self.contents();
        if contents.dead.contains(&owner) || contents.away.contains(&primary) {
            return Err(EngineFault::Away);
        }
        let decide = contents.decide.as_mut();
        let disturbance = decide.map_or(Disturbance::NONE, |decide| decide(kind, primary));
        contents.ahead_millis += disturbance.late_millis;
        contents.now_millis += disturbance.late_millis;
        contents.forget(&disturbance.forgets);
        // Behind whatever was sent once more.
        if kind != RequestKind::Append {
            contents.let_delayed_arrive(primary);
        }
        *fate = disturbance.fate;
        let is_done = !matches!(
            fate,
            RequestFate::Refused | RequestFate::Delayed | RequestFate::Unknown { is_done: false }
        );
        let answer = is_done.then(|| act(&mut EngineRequest(&mut contents)));
        match (*fate, answer) {
            (RequestFate::Answered, Some(answer)) => Ok(answer),
            (RequestFate::Unconfirmed, _) => Err(EngineFault::Unconfirmed),
            (RequestFate::Unknown { .. } | RequestFate::Delayed, _) => Err(EngineFault::Unknown),
            _ => Err(EngineFault::Away),
        }
    }
}
