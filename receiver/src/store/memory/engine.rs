//! An engine that several processes share, in memory: what a Redis store's servers are to
//! [`redis`](super::super::redis). Shards are divided among primaries. A test moves its clock, and
//! decides what becomes of each request.
//!
//! Every write of a shard makes a revision of it; a failover goes back to an earlier one, with
//! journal, state, cursor, writers and lease together.

mod disturbance;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::super::members::MemberRole;
use super::super::reader::EntryId;
use super::super::shard::{Position, Shard, ShardCount};
use super::super::state::{ShardState, StoredHost};
use crate::clock::StoredClock;

pub(super) use self::disturbance::{Asked, EngineFault};
pub use self::disturbance::{Disturbance, EngineChange, EngineEvent, RequestFate, RequestKind};
pub(super) use self::request::{CommitRequest, EngineRequest};

/// How long a shard stays with an owner that does not renew its lease.
pub const LEASE_MILLIS: u64 = 5_000;

/// The engine, for any number of stores on it.
#[derive(Debug, Clone)]
pub struct MemoryEngine(Arc<Mutex<EngineContents>>);

type Decide = Box<dyn FnMut(RequestKind, u16) -> Disturbance + Send>;

struct EngineContents {
    shards: Vec<EngineShard>,
    primaries: u16,
    now_millis: u64,
    /// How far its clock has run ahead of what it was set to.
    ahead_millis: u64,
    /// How much of the past may be forgotten.
    kept_millis: u64,
    away: BTreeSet<u16>,
    dead: BTreeSet<Uuid>,
    /// What still is on its way to a primary.
    delayed: Vec<(u16, Vec<GroupOnItsWay>)>,
    decide: Option<Decide>,
    members: BTreeMap<(MemberRole, Uuid), (u64, String)>,
    keys: BTreeMap<String, (u64, String)>,
    crls: BTreeMap<String, String>,
    revisions: u64,
    identifiers: u64,
    events: Vec<EngineEvent>,
    keeps_events: bool,
}

/// A shard as it is, and as it was.
#[derive(Debug, Default)]
struct EngineShard {
    now: ShardContents,
    /// In order; each with the moment until which it was so.
    before: Vec<(u64, ShardContents)>,
}

/// Everything of a shard.
#[derive(Debug, Clone, Default)]
pub(super) struct ShardContents {
    revision: u64,
    /// The last position that was given.
    last: u64,
    pub(super) journal: Vec<JournalEntry>,
    owner: Option<Uuid>,
    epoch: u64,
    until_millis: u64,
    /// The identifier of the last commit; 0 before the first.
    pub(super) commit: u64,
    pub(super) cursor: Position,
    /// By writer the number of its last group behind the cursor, and the second of that commit.
    pub(super) writers: Arc<BTreeMap<Uuid, (u64, u64)>>,
    hosts: Arc<BTreeMap<String, StoredHost>>,
    clock: Option<StoredClock>,
}

/// A group in its place.
#[derive(Debug, Clone)]
pub(super) struct JournalEntry {
    pub(super) position: Position,
    pub(super) id: EntryId,
    pub(super) group: Arc<[u8]>,
}

/// A group that is to be appended.
#[derive(Debug, Clone)]
pub(super) struct GroupOnItsWay {
    pub(super) shard: Shard,
    pub(super) id: EntryId,
    pub(super) group: Arc<[u8]>,
}

impl std::fmt::Debug for EngineContents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineContents")
            .field("now_millis", &self.now_millis)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

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

impl EngineContents {
    /// A shard that is about to change: it can be gone back to what it is.
    fn begin(&mut self, shard: Shard) -> &mut ShardContents {
        let (now, kept) = (self.now_millis, self.kept_millis);
        self.revisions += 1;
        let shard = &mut self.shards[shard.index()];
        if kept > 0 {
            shard.before.push((now, shard.now.clone()));
            if shard.before.len().is_multiple_of(64) {
                let oldest = now.saturating_sub(kept);
                shard.before.retain(|(until, _)| *until >= oldest);
            }
        }
        shard.now.revision = self.revisions;
        &mut shard.now
    }

    fn let_delayed_arrive(&mut self, primary: u16) {
        let (arrived, delayed) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|(to, _)| *to == primary);
        self.delayed = delayed;
        let arrived: Vec<(u16, Vec<GroupOnItsWay>)> = arrived;
        for group in arrived.iter().flat_map(|(_, groups)| groups) {
            EngineRequest(self).append(group);
        }
    }

    fn note(&mut self, shard: Shard, change: EngineChange) {
        if self.keeps_events {
            self.events.push(EngineEvent {
                shard,
                at_millis: self.now_millis,
                revision: self.revisions,
                change,
            });
        }
    }

    fn forget(&mut self, forgets: &[(Shard, u64)]) {
        for (shard, millis) in forgets {
            let back_to = self.now_millis.saturating_sub(*millis);
            let of = &mut self.shards[shard.index()];
            // What was so at that moment: the first that was changed after it.
            let at = of.before.partition_point(|(until, _)| *until <= back_to);
            let then = of.before.drain(at..).next();
            if let Some((_, then)) = then {
                of.now = then;
                let left = of.now.revision;
                self.revisions += 1;
                self.note(*shard, EngineChange::Forgot { left });
            }
        }
    }
}

impl ShardContents {
    pub(super) fn entry_at(&self, position: Position) -> Option<EntryId> {
        let at = self.first_from(position);
        let entry = self.journal.get(at)?;
        (entry.position == position).then_some(entry.id)
    }

    /// The index of the first entry from this position on.
    fn first_from(&self, position: Position) -> usize {
        self.journal
            .partition_point(|entry| entry.position < position)
    }

    /// So many entries behind this position, at most.
    pub(super) fn entries_after(&self, position: Position, most: usize) -> Vec<JournalEntry> {
        let behind = &self.journal[self.first_from(position.next())..];
        behind.iter().take(most).cloned().collect()
    }

    pub(super) fn state(&self, shard: Shard) -> ShardState {
        ShardState {
            shard,
            cursor: self.cursor,
            hosts: self.hosts.values().cloned().collect(),
            clock: self.clock,
        }
    }
}
