//! What one request may do: what the scripts of a Redis store do in the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::super::super::members::MemberRole;
use super::super::super::reader::EntryId;
use super::super::super::shard::{Fence, Position, Shard};
use super::super::super::state::ShardChanges;
use super::super::history::apply_to_chunks;
use super::super::{apply_to_documents, apply_to_hosts};
use super::contents::{EngineContents, GroupOnItsWay, JournalEntry, LEASE_MILLIS, ShardContents};
use super::disturbance::{Asked, EngineChange, EngineFault};

/// What a commit asks for.
pub(in crate::store::memory) struct CommitRequest<'a> {
    pub(in crate::store::memory) owner: Uuid,
    pub(in crate::store::memory) fence: Fence,
    pub(in crate::store::memory) previous: u64,
    pub(in crate::store::memory) this: u64,
    pub(in crate::store::memory) changes: &'a ShardChanges,
    /// What the owner read at the cursor, if that is known.
    pub(in crate::store::memory) stands_there: Option<EntryId>,
    pub(in crate::store::memory) written: BTreeMap<Uuid, u64>,
    pub(in crate::store::memory) forgotten: &'a [Uuid],
}

/// What one request may do.
pub(in crate::store::memory) struct EngineRequest<'a>(pub(super) &'a mut EngineContents);

impl EngineContents {
    pub(super) fn let_delayed_arrive(&mut self, primary: u16) {
        let (arrived, delayed) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|(to, _)| *to == primary);
        self.delayed = delayed;
        let arrived: Vec<(u16, Vec<GroupOnItsWay>)> = arrived;
        for group in arrived.iter().flat_map(|(_, groups)| groups) {
            EngineRequest(self).append(group);
        }
    }
}

impl EngineRequest<'_> {
    /// Adds an entry at the end.
    pub(super) fn append(&mut self, appended: &GroupOnItsWay) -> Position {
        let GroupOnItsWay { shard, id, group } = appended.clone();
        let contents = self.0.begin(shard);
        contents.last += 1;
        let position = Position::new(contents.last);
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
    pub(in crate::store::memory) fn shard(&self, shard: Shard) -> &ShardContents {
        &self.0.shards[shard.index()].now
    }

    /// The new epoch, and the identifier of the last commit; none if another process owns the
    /// shard.
    pub(in crate::store::memory) fn acquire(
        &mut self,
        shard: Shard,
        owner: Uuid,
    ) -> Option<(u64, u64)> {
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
    pub(in crate::store::memory) fn renew(
        &mut self,
        fence: Fence,
        owner: Uuid,
        millis: u64,
    ) -> bool {
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
    pub(in crate::store::memory) fn commit(&mut self, request: &CommitRequest<'_>) -> Asked<u64> {
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
        if !changes.evicted.is_empty() || !changes.cuts.is_empty() {
            apply_to_chunks(Arc::make_mut(&mut contents.chunks), changes);
        }
        let writers = Arc::make_mut(&mut contents.writers);
        for (writer, number) in &request.written {
            writers.insert(*writer, (*number, at));
        }
        for writer in request.forgotten {
            writers.remove(writer);
        }
        contents.clock = changes.clock.or(contents.clock);
        apply_to_documents(&mut contents.documents, &changes.documents);
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
    pub(in crate::store::memory) fn attend(
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
    pub(in crate::store::memory) fn publish(
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
    pub(in crate::store::memory) fn crls(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.0.crls
    }
}
