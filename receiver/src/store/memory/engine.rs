//! An engine that several processes share, in memory: what a Redis store's servers are to
//! [`redis`](super::super::redis). Shards are divided among primaries. A test moves its clock, and
//! decides what becomes of each request.
//!
//! Every write of a shard makes a revision of it; a failover goes back to an earlier one, with
//! journal, state, cursor, writers and lease together.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::super::error::{ErrorKind, StoreError};
use super::super::members::MemberRole;
use super::super::reader::EntryId;
use super::super::shard::{Fence, Position, Shard, ShardCount};
use super::super::state::{ShardChanges, ShardState, StoredHost};
use super::apply_to_hosts;
use crate::clock::StoredClock;

/// How long a shard stays with an owner that does not renew its lease.
pub const LEASE_MILLIS: u64 = 5_000;

/// The engine, for any number of stores on it.
#[derive(Debug, Clone)]
pub struct MemoryEngine(Arc<Mutex<EngineContents>>);

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Groups are appended.
    Append,
    /// Journals are read on.
    Read,
    /// A state is read.
    Load,
    /// A lease is taken, kept or given up.
    Lease,
    /// A state is committed.
    Commit,
    /// Members attend, or leave.
    Attend,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFate {
    /// It is done and answered.
    Answered,
    /// It does not reach the engine, and the caller knows.
    Refused,
    /// The connection breaks: the caller does not know whether it was done.
    Unknown {
        /// Whether it was.
        is_done: bool,
    },
    /// It is done, and too few replicas confirm it.
    Unconfirmed,
}

/// What a test does to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disturbance {
    /// So much time passes before the engine has it: milliseconds.
    pub late_millis: u64,
    /// Before that the primary of these shards fails over: how much of the past each of them
    /// forgets, in milliseconds.
    pub forgets: Vec<(Shard, u64)>,
    /// What becomes of it then.
    pub fate: RequestFate,
}

impl Disturbance {
    /// Nothing is wrong.
    pub const NONE: Self = Self {
        late_millis: 0,
        forgets: Vec::new(),
        fate: RequestFate::Answered,
    };
}

/// What has happened to a shard, in order.
#[derive(Debug, Clone)]
pub struct EngineEvent {
    /// Which one.
    pub shard: Shard,
    /// The engine's clock: milliseconds.
    pub at_millis: u64,
    /// Greater than that of every earlier event.
    pub revision: u64,
    /// What has happened.
    pub change: EngineChange,
}

/// What has happened to a shard.
#[derive(Debug, Clone)]
pub enum EngineChange {
    /// A group was appended.
    Appended {
        /// Where.
        position: Position,
        /// Who appended it.
        writer: Uuid,
        /// Its number among those of that writer.
        number: u64,
        /// What was appended.
        group: Arc<[u8]>,
    },
    /// A lease was taken, kept or given up.
    Leased {
        /// Whose it is.
        owner: Uuid,
        /// The fencing epoch.
        epoch: u64,
        /// How long it lasts from now on; 0 if it was given up.
        millis: u64,
    },
    /// A state was committed.
    Committed {
        /// By whom.
        owner: Uuid,
        /// The fencing epoch.
        epoch: u64,
        /// The last position whose effect is in it.
        cursor: Position,
    },
    /// Everything after the event with this revision was forgotten.
    Forgot {
        /// The last one that is left; 0 if none is.
        left: u64,
    },
}

/// A fault that a test asked for, or what it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EngineFault {
    #[error("the engine cannot be reached")]
    Away,
    #[error("the connection broke: whether it was done is unknown")]
    Unknown,
    #[error("too few replicas have confirmed it")]
    Unconfirmed,
    #[error(
        "another process has the shard, or the engine has lost its last commit or its journal's end"
    )]
    Fenced,
    #[error("an engine is not rebuilt from memory")]
    NotRebuilt,
}

impl EngineFault {
    /// Whether it may be sent once more.
    pub(super) fn is_worth_another(self) -> bool {
        matches!(self, Self::Away | Self::Unknown)
    }
}

impl From<EngineFault> for StoreError {
    fn from(fault: EngineFault) -> Self {
        let kind = match fault {
            EngineFault::Fenced => ErrorKind::Fenced,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, fault)
    }
}

/// By shard of a primary, what was asked for.
pub(super) type Asked<T> = Result<T, EngineFault>;

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

/// What a commit asks for.
pub(super) struct CommitRequest<'a> {
    pub(super) owner: Uuid,
    pub(super) fence: Fence,
    pub(super) previous: u64,
    pub(super) this: u64,
    pub(super) changes: &'a ShardChanges,
    /// What the owner read at the cursor, if that is known.
    pub(super) stands_there: Option<EntryId>,
    pub(super) written: BTreeMap<Uuid, u64>,
    pub(super) forgotten: &'a [Uuid],
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

    /// A request of a process to a primary, with all that it asks for.
    pub(super) fn ask<T>(
        &self,
        owner: Uuid,
        primary: u16,
        kind: RequestKind,
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
        let is_done = !matches!(
            disturbance.fate,
            RequestFate::Refused | RequestFate::Unknown { is_done: false }
        );
        let answer = is_done.then(|| act(&mut EngineRequest(&mut contents)));
        match (disturbance.fate, answer) {
            (RequestFate::Answered, Some(answer)) => Ok(answer),
            (RequestFate::Unconfirmed, _) => Err(EngineFault::Unconfirmed),
            (RequestFate::Unknown { .. }, _) => Err(EngineFault::Unknown),
            _ => Err(EngineFault::Away),
        }
    }
}

/// What one request may do.
pub(super) struct EngineRequest<'a>(&'a mut EngineContents);

impl EngineRequest<'_> {
    /// Adds an entry at the end.
    pub(super) fn append(&mut self, shard: Shard, id: EntryId, group: &Arc<[u8]>) -> Position {
        let contents = self.0.begin(shard);
        contents.last += 1;
        let position = Position::new(contents.last);
        let group = group.clone();
        contents.journal.push(JournalEntry {
            position,
            id,
            group: group.clone(),
        });
        let EntryId { writer, number, .. } = id;
        let change = EngineChange::Appended {
            position,
            writer,
            number,
            group,
        };
        self.0.note(shard, change);
        position
    }

    /// The shard as it is.
    pub(super) fn shard(&self, shard: Shard) -> &ShardContents {
        &self.0.shards[shard.index()].now
    }

    /// The new epoch, and the identifier of the last commit; none if another process owns the shard.
    pub(super) fn acquire(&mut self, shard: Shard, owner: Uuid) -> Option<(u64, u64)> {
        let now = self.0.now_millis;
        let held = self.shard(shard);
        if held.owner.is_some_and(|of| of != owner) && held.until_millis > now {
            return None;
        }
        let contents = self.0.begin(shard);
        contents.epoch += 1;
        contents.owner = Some(owner);
        contents.until_millis = now + LEASE_MILLIS;
        let (epoch, commit) = (contents.epoch, contents.commit);
        let millis = LEASE_MILLIS;
        let change = EngineChange::Leased {
            owner,
            epoch,
            millis,
        };
        self.0.note(shard, change);
        Some((epoch, commit))
    }

    /// Whether the lease was the caller's and had not ended. It lasts so long from now on.
    pub(super) fn renew(&mut self, fence: Fence, owner: Uuid, millis: u64) -> bool {
        let (shard, epoch) = (fence.shard(), fence.epoch());
        if !self.owns(fence, owner) {
            return false;
        }
        let now = self.0.now_millis;
        let until = if millis == 0 { 0 } else { now + millis };
        self.0.begin(shard).until_millis = until;
        let change = EngineChange::Leased {
            owner,
            epoch,
            millis,
        };
        self.0.note(shard, change);
        true
    }

    fn owns(&self, fence: Fence, owner: Uuid) -> bool {
        let held = self.shard(fence.shard());
        held.owner == Some(owner)
            && held.epoch == fence.epoch()
            && held.until_millis > self.0.now_millis
    }

    /// The second of the commit, which takes effect whole or not at all; one that is there already
    /// is not repeated.
    pub(super) fn commit(&mut self, request: &CommitRequest<'_>) -> Asked<u64> {
        let (owner, fence, changes) = (request.owner, request.fence, request.changes);
        let at = self.0.now_millis / 1_000;
        let shard = fence.shard();
        let held = self.shard(shard);
        if held.commit == request.this {
            return Ok(at);
        }
        let is_read = changes.cursor == held.cursor || {
            let there = held.entry_at(changes.cursor);
            there.is_some() && request.stands_there.is_none_or(|read| there == Some(read))
        };
        if !self.owns(fence, owner) || held.commit != request.previous || !is_read {
            return Err(EngineFault::Fenced);
        }
        let contents = self.0.begin(shard);
        apply_to_hosts(Arc::make_mut(&mut contents.hosts), changes);
        let writers = Arc::make_mut(&mut contents.writers);
        for (writer, number) in &request.written {
            writers.insert(*writer, (*number, at));
        }
        for writer in request.forgotten {
            writers.remove(writer);
        }
        contents.clock = changes.clock.or(contents.clock);
        contents.cursor = changes.cursor;
        contents.commit = request.this;
        contents
            .journal
            .retain(|entry| entry.position >= changes.cursor);
        let (epoch, cursor) = (fence.epoch(), changes.cursor);
        let change = EngineChange::Committed {
            owner,
            epoch,
            cursor,
        };
        self.0.note(shard, change);
        Ok(at)
    }

    /// Adds a member for so many milliseconds, or removes it (0). All that are there.
    pub(super) fn attend(
        &mut self,
        (role, member): (MemberRole, Uuid),
        text: &str,
        millis: u64,
    ) -> Vec<(Uuid, String)> {
        let now = self.0.now_millis;
        let said = (now + millis, text.to_owned());
        self.0.members.insert((role, member), said);
        self.0.members.retain(|_, (until, _)| *until > now);
        let members = self.0.members.iter();
        let there = members.filter(|((of, _), _)| *of == role);
        there
            .map(|((_, id), (_, text))| (*id, text.clone()))
            .collect()
    }

    /// Adds a key for so many milliseconds. All that are there.
    pub(super) fn publish(
        &mut self,
        keys: &[(String, String)],
        millis: u64,
    ) -> Vec<(String, String)> {
        let now = self.0.now_millis;
        for (id, statement) in keys {
            let said = (now + millis, statement.clone());
            self.0.keys.insert(id.clone(), said);
        }
        self.0.keys.retain(|_, (until, _)| *until > now);
        let keys = self.0.keys.iter();
        keys.map(|(id, (_, statement))| (id.clone(), statement.clone()))
            .collect()
    }

    /// The CRLs, by name.
    pub(super) fn crls(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.0.crls
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
