//! What the engine has: every shard as it is and as it was, and what it shares among members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::super::super::document::StoredDocument;
use super::super::super::members::MemberRole;
use super::super::super::reader::EntryId;
use super::super::super::shard::{Position, Shard};
use super::super::super::state::{ShardState, StoredHost};
use super::super::history::MemoryChunks;
use super::disturbance::{Disturbance, EngineChange, EngineEvent, RequestKind};
use crate::clock::StoredClock;

/// How long a shard stays with an owner that does not renew its lease.
pub const LEASE_MILLIS: u64 = 5_000;

pub(super) type Decide = Box<dyn FnMut(RequestKind, u16) -> Disturbance + Send>;

pub(super) struct EngineContents {
    pub(super) shards: Vec<EngineShard>,
    pub(super) primaries: u16,
    pub(super) now_millis: u64,
    /// How far its clock has run ahead of what it was set to.
    pub(super) ahead_millis: u64,
    /// How much of the past may be forgotten.
    pub(super) kept_millis: u64,
    pub(super) away: BTreeSet<u16>,
    pub(super) dead: BTreeSet<Uuid>,
    /// What still is on its way to a primary.
    pub(super) delayed: Vec<(u16, Vec<GroupOnItsWay>)>,
    pub(super) decide: Option<Decide>,
    pub(super) members: BTreeMap<(MemberRole, Uuid), (u64, String)>,
    pub(super) keys: BTreeMap<String, (u64, String)>,
    pub(super) crls: BTreeMap<String, String>,
    pub(super) revisions: u64,
    pub(super) identifiers: u64,
    pub(super) events: Vec<EngineEvent>,
    pub(super) keeps_events: bool,
}

/// A shard as it is, and as it was.
#[derive(Debug, Default)]
pub(super) struct EngineShard {
    pub(super) now: ShardContents,
    /// In order; each with the moment until which it was so.
    pub(super) before: Vec<(u64, ShardContents)>,
}

/// Everything of a shard.
#[derive(Debug, Clone, Default)]
pub(in crate::store::memory) struct ShardContents {
    pub(super) revision: u64,
    /// The last position that was given.
    pub(super) last: u64,
    pub(in crate::store::memory) journal: Vec<JournalEntry>,
    pub(super) owner: Option<Uuid>,
    pub(super) epoch: u64,
    pub(super) until_millis: u64,
    /// The identifier of the last commit; 0 before the first.
    pub(in crate::store::memory) commit: u64,
    pub(in crate::store::memory) cursor: Position,
    /// By writer the number of its last group behind the cursor, and the second of that commit.
    pub(in crate::store::memory) writers: Arc<BTreeMap<Uuid, (u64, u64)>>,
    pub(super) hosts: Arc<BTreeMap<String, StoredHost>>,
    pub(super) clock: Option<StoredClock>,
    pub(super) documents: Vec<StoredDocument>,
    pub(in crate::store::memory) chunks: Arc<MemoryChunks>,
}

/// A group in its place.
#[derive(Debug, Clone)]
pub(in crate::store::memory) struct JournalEntry {
    pub(in crate::store::memory) position: Position,
    pub(in crate::store::memory) id: EntryId,
    pub(in crate::store::memory) group: Arc<[u8]>,
}

/// A group that is to be appended.
#[derive(Debug, Clone)]
pub(in crate::store::memory) struct GroupOnItsWay {
    pub(in crate::store::memory) shard: Shard,
    pub(in crate::store::memory) id: EntryId,
    pub(in crate::store::memory) group: Arc<[u8]>,
}

impl std::fmt::Debug for EngineContents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineContents")
            .field("now_millis", &self.now_millis)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl EngineContents {
    /// A shard that is about to change: it can be gone back to what it is.
    pub(super) fn begin(&mut self, shard: Shard) -> &mut ShardContents {
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

    pub(super) fn note(&mut self, shard: Shard, change: EngineChange) {
        if self.keeps_events {
            self.events.push(EngineEvent {
                shard,
                at_millis: self.now_millis,
                revision: self.revisions,
                change,
            });
        }
    }

    pub(super) fn forget(&mut self, forgets: &[(Shard, u64)]) {
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
    pub(in crate::store::memory) fn entry_at(&self, position: Position) -> Option<EntryId> {
        let at = self.first_from(position);
        let entry = self.journal.get(at)?;
        (entry.position == position).then_some(entry.id)
    }

    /// The index of the first entry from this position on.
    pub(super) fn first_from(&self, position: Position) -> usize {
        self.journal
            .partition_point(|entry| entry.position < position)
    }

    /// So many entries behind this position, at most.
    pub(in crate::store::memory) fn entries_after(
        &self,
        position: Position,
        most: usize,
    ) -> Vec<JournalEntry> {
        let behind = &self.journal[self.first_from(position.next())..];
        behind.iter().take(most).cloned().collect()
    }

    pub(in crate::store::memory) fn state(&self, shard: Shard) -> ShardState {
        ShardState {
            shard,
            cursor: self.cursor,
            hosts: self.hosts.values().cloned().collect(),
            clock: self.clock,
            documents: self.documents.clone(),
            evicted: Vec::new(),
        }
    }
}
