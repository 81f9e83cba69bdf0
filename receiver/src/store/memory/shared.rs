//! A store on a [`MemoryEngine`], for one process of several.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::super::engine::Store;
use super::super::error::StoreError;
use super::super::history::{ChunkQuery, HistoryReader, HistoryRetention, StoredChunk};
use super::super::journal::{JournalRead, JournalStore};
use super::super::members::{Member, MemberRole, Members, SharedTrust};
use super::super::reader::{EntryId, JournalReader};
use super::super::shard::{Fence, Position, Shard, ShardCount};
use super::super::signing::PublishedKey;
use super::super::state::{ShardChanges, ShardState, StateStore};
use super::super::writers::Writers;
use super::engine::{
    Asked, CommitRequest, EngineFault, GroupOnItsWay, JournalEntry, LEASE_MILLIS, MemoryEngine,
    RequestKind,
};
use super::history::{MemoryChunks, read_chunks, stored_chunks};

/// How many entries of a shard are read at once: few, so that much happens between.
const ENTRIES_MAX: usize = 16;
/// Where members and keys are.
const GROUP_PRIMARY: u16 = 0;

/// A store on such an engine, with the owner's identifier. Its groups are not signed.
#[derive(Debug)]
pub struct SharedMemoryStore {
    engine: MemoryEngine,
    /// Who owns what this acquires, and writes what this appends.
    owner: Uuid,
    /// By shard, the number of the last group.
    numbers: HashMap<Shard, u64>,
    readers: HashMap<Shard, JournalReader>,
    owned: HashMap<Shard, OwnedShard>,
    fences: HashMap<Shard, Fence>,
}

/// What the owner of a shard knows of its committed state.
#[derive(Debug, Default, Clone, Copy)]
struct OwnedShard {
    /// The identifier of the last commit; 0 before the first.
    commit: u64,
    /// The engine's clock then: seconds; 0 before the first.
    committed_at: u64,
}

impl SharedMemoryStore {
    /// `owner` is unlike that of every other store that was ever opened.
    pub fn open(engine: MemoryEngine, owner: Uuid) -> Self {
        Self {
            engine,
            owner,
            numbers: HashMap::new(),
            readers: HashMap::new(),
            owned: HashMap::new(),
            fences: HashMap::new(),
        }
    }

    /// Sends these groups to their primaries.
    fn send<'a>(
        &self,
        groups: impl Iterator<Item = (usize, &'a GroupOnItsWay)>,
        results: &mut [Asked<Position>],
    ) {
        let mut by_primary = BTreeMap::<_, Vec<_>>::new();
        for (at, sealed) in groups {
            let primary = self.engine.primary_of(sealed.shard);
            by_primary.entry(primary).or_default().push((at, sealed));
        }
        for (primary, sealed) in by_primary {
            let (at, groups): (Vec<usize>, Vec<&GroupOnItsWay>) = sealed.into_iter().unzip();
            let appended = self.engine.append(self.owner, primary, &groups);
            for (index, at) in at.into_iter().enumerate() {
                let position = appended.as_ref().map(|all| all[index]);
                results[at] = position.map_err(|fault| *fault);
            }
        }
    }

    fn lease<T>(
        &self,
        shard: Shard,
        act: impl FnOnce(&mut super::engine::EngineRequest<'_>) -> T,
    ) -> Asked<T> {
        let primary = self.engine.primary_of(shard);
        self.engine
            .ask(self.owner, primary, RequestKind::Lease, act)
    }

    fn attend_for(
        &self,
        role: MemberRole,
        member: Uuid,
        text: &str,
        millis: u64,
    ) -> Asked<Vec<(Uuid, String)>> {
        self.engine
            .ask(self.owner, GROUP_PRIMARY, RequestKind::Attend, |request| {
                request.attend((role, member), text, millis)
            })
    }

    fn crls<T>(&self, act: impl FnOnce(&mut BTreeMap<String, String>) -> T) -> Asked<T> {
        self.engine
            .ask(self.owner, GROUP_PRIMARY, RequestKind::Attend, |request| {
                act(request.crls())
            })
    }
}

impl JournalStore for SharedMemoryStore {
    fn shard_count(&self) -> ShardCount {
        self.engine.shard_count()
    }

    /// Where the outcome is unknown, a group goes again under its number.
    fn append(&mut self, groups: &[(Shard, &[u8])]) -> Vec<Result<Position, StoreError>> {
        let mut sealed = Vec::with_capacity(groups.len());
        for (shard, group) in groups {
            let number = self.numbers.entry(*shard).or_default();
            *number += 1;
            let id = EntryId {
                writer: self.owner,
                number: *number,
                attempt: 0,
            };
            let (shard, group) = (*shard, Arc::from(*group));
            sealed.push(GroupOnItsWay { shard, id, group });
        }
        let mut results = vec![Err(EngineFault::Away); groups.len()];
        self.send(sealed.iter().enumerate(), &mut results);
        let mut again = Vec::new();
        for (at, (one, result)) in sealed.iter_mut().zip(&results).enumerate() {
            if result.is_err_and(EngineFault::is_worth_another) {
                one.id.attempt += 1;
                again.push((at, &*one));
            }
        }
        self.send(again.into_iter(), &mut results);
        let results = results.into_iter();
        results
            .map(|result| result.map_err(StoreError::from))
            .collect()
    }

    fn read_after(
        &mut self,
        after: &[(Shard, Position)],
        each: &mut dyn FnMut(Shard, Position, &[u8]),
    ) -> JournalRead {
        let mut report = JournalRead::default();
        for (shard, position) in after {
            let reader = self.readers.entry(*shard).or_default();
            if reader.position() != *position {
                *reader = JournalReader::at(*position, None, Writers::default());
            }
        }
        let mut open: Vec<_> = after.iter().map(|(shard, _)| *shard).collect();
        while !open.is_empty() {
            let mut more = Vec::new();
            for (shard, entries) in self.ask_for_entries(&open, &mut report) {
                let Some(reader) = self.readers.get_mut(&shard) else {
                    continue;
                };
                let count = entries.len();
                for JournalEntry {
                    position,
                    id,
                    group,
                } in entries
                {
                    reader.pass(position, Some(id));
                    if reader.writers.is_new(position, id.writer, id.number) {
                        each(shard, position, &group);
                    }
                }
                if count > 0 {
                    report.through.retain(|(of, _)| *of != shard);
                    report.through.push((shard, reader.position()));
                }
                if count == ENTRIES_MAX {
                    more.push(shard);
                }
            }
            open = more;
        }
        report
    }
}

impl SharedMemoryStore {
    /// What follows in these shards, if they continue where they were read last.
    fn ask_for_entries(
        &self,
        open: &[Shard],
        report: &mut JournalRead,
    ) -> Vec<(Shard, Vec<JournalEntry>)> {
        let mut by_primary = BTreeMap::<_, Vec<_>>::new();
        for shard in open {
            let reader = self.readers.get(shard).map(|reader| (*shard, reader));
            let primary = self.engine.primary_of(*shard);
            by_primary.entry(primary).or_default().extend(reader);
        }
        let mut found = Vec::with_capacity(open.len());
        for (primary, readers) in by_primary {
            let answers = self
                .engine
                .ask(self.owner, primary, RequestKind::Read, |request| {
                    let read = |(shard, reader): &(Shard, &JournalReader)| {
                        let (contents, from) = (request.shard(*shard), reader.position());
                        let there = contents.entry_at(from);
                        let continues = reader.continues(there, Some(contents.cursor));
                        (continues, contents.entries_after(from, ENTRIES_MAX))
                    };
                    readers.iter().map(read).collect::<Vec<_>>()
                });
            match answers {
                Ok(answers) => {
                    for ((shard, _), (continues, entries)) in readers.iter().zip(answers) {
                        match continues {
                            true => found.push((*shard, entries)),
                            false => report.rewound.push(*shard),
                        }
                    }
                }
                Err(fault) => {
                    let unread = readers.iter().map(|(shard, _)| (*shard, fault.into()));
                    report.unread.extend(unread);
                }
            }
        }
        found
    }
}

impl StateStore for SharedMemoryStore {
    fn acquire(&mut self, shards: &[Shard]) -> Result<Vec<Fence>, StoreError> {
        let mut fences = Vec::with_capacity(shards.len());
        for shard in shards {
            let acquired = self.lease(*shard, |request| request.acquire(*shard, self.owner))?;
            let Some((epoch, commit)) = acquired else {
                continue;
            };
            let fence = Fence::new(*shard, epoch);
            self.fences.insert(*shard, fence);
            let owned = self.owned.entry(*shard).or_default();
            if owned.commit != commit {
                let committed_at = 0;
                *owned = OwnedShard {
                    commit,
                    committed_at,
                };
            }
            fences.push(fence);
        }
        Ok(fences)
    }

    fn renew(&mut self, fences: &[Fence]) -> Result<Vec<Fence>, StoreError> {
        let mut kept = Vec::with_capacity(fences.len());
        for fence in fences {
            let renewed = self.lease(fence.shard(), |request| {
                request.renew(*fence, self.owner, LEASE_MILLIS)
            });
            // Where the engine is away, the next commit tells whether it is still ours.
            match renewed.unwrap_or(true) {
                true => kept.push(*fence),
                false => drop(self.fences.remove(&fence.shard())),
            }
        }
        Ok(kept)
    }

    fn release(&mut self, fences: &[Fence]) -> Result<(), StoreError> {
        let mut failure = Ok(());
        for fence in fences {
            self.fences.remove(&fence.shard());
            let released = self.lease(fence.shard(), |request| {
                request.renew(*fence, self.owner, 0)
            });
            if let Err(fault) = released {
                failure = Err(fault.into());
            }
        }
        failure
    }

    fn committed(&mut self, shard: Shard) -> Result<Option<Position>, StoreError> {
        let primary = self.engine.primary_of(shard);
        let cursor = self
            .engine
            .ask(self.owner, primary, RequestKind::Load, |request| {
                request.shard(shard).cursor
            })?;
        Ok(Some(cursor))
    }

    fn load(&mut self, shards: &[Shard], _now: u64) -> Result<Vec<ShardState>, StoreError> {
        let mut states = Vec::with_capacity(shards.len());
        for shard in shards {
            let primary = self.engine.primary_of(*shard);
            let contents = self
                .engine
                .ask(self.owner, primary, RequestKind::Load, |request| {
                    request.shard(*shard).clone()
                })?;
            let stored = contents.writers.iter();
            let stored = stored.map(|(writer, (number, at))| (*writer, *number, *at));
            let (cursor, entry) = (contents.cursor, contents.entry_at(contents.cursor));
            let reader = JournalReader::at(cursor, entry, Writers::restore(stored));
            self.readers.insert(*shard, reader);
            let owned = OwnedShard {
                commit: contents.commit,
                committed_at: 0,
            };
            self.owned.insert(*shard, owned);
            states.push(contents.state(*shard));
        }
        Ok(states)
    }

    /// Where the outcome is unknown, it is asked for again: what took effect is recognised.
    fn commit(&mut self, fence: Fence, changes: &ShardChanges) -> Result<(), StoreError> {
        let shard = fence.shard();
        let owned = self.owned.entry(shard).or_default();
        let reader = self.readers.entry(shard).or_default();
        let forgotten = reader.writers.expired(owned.committed_at);
        let request = CommitRequest {
            owner: self.owner,
            fence,
            previous: owned.commit,
            this: self.engine.new_identifier(),
            changes,
            stands_there: reader.entry_at(changes.cursor),
            written: reader.writers.through(changes.cursor),
            forgotten: &forgotten,
        };
        let primary = self.engine.primary_of(shard);
        let commit = || {
            let act = |to: &mut super::engine::EngineRequest<'_>| to.commit(&request);
            let asked = self
                .engine
                .ask(self.owner, primary, RequestKind::Commit, act);
            asked.and_then(|committed| committed)
        };
        let committed = match commit() {
            Err(fault) if fault.is_worth_another() => commit(),
            committed => committed,
        };
        let committed_at = committed?;
        *owned = OwnedShard {
            commit: request.this,
            committed_at,
        };
        reader
            .writers
            .committed(changes.cursor, &forgotten, committed_at);
        Ok(())
    }
}

impl Members for SharedMemoryStore {
    fn attend(
        &mut self,
        role: MemberRole,
        member: Uuid,
        text: &str,
        millis: u64,
    ) -> Result<Vec<Member>, StoreError> {
        let there = self.attend_for(role, member, text, millis.max(1))?;
        let there = there.into_iter();
        Ok(there.map(|(id, text)| Member { id, text }).collect())
    }

    fn present(&mut self, role: MemberRole) -> Result<usize, StoreError> {
        Ok(self.attend_for(role, Uuid::nil(), "", 0)?.len())
    }

    fn leave(&mut self, role: MemberRole, member: Uuid) -> Result<(), StoreError> {
        Ok(self.attend_for(role, member, "", 0).map(drop)?)
    }
}

impl SharedTrust for SharedMemoryStore {
    fn store_id(&self) -> &str {
        "memory"
    }

    fn publish_keys(
        &mut self,
        keys: &[PublishedKey],
        millis: u64,
    ) -> Result<Vec<PublishedKey>, StoreError> {
        let keys = keys.iter();
        let keys: Vec<_> = keys
            .map(|key| (key.id.clone(), key.statement.clone()))
            .collect();
        let there = self
            .engine
            .ask(self.owner, GROUP_PRIMARY, RequestKind::Attend, |request| {
                request.publish(&keys, millis.max(1))
            })?;
        let key = |(id, statement)| PublishedKey { id, statement };
        Ok(there.into_iter().map(key).collect())
    }

    fn crl_names(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(self.crls(|crls| crls.keys().cloned().collect())?)
    }

    fn crl(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let crl = self.crls(|crls| crls.get(name).cloned())?;
        Ok(crl.map(String::into_bytes))
    }

    fn add_crl(&mut self, name: &str, pem: &str) -> Result<(), StoreError> {
        Ok(self.crls(|crls| drop(crls.insert(name.to_owned(), pem.to_owned())))?)
    }

    fn remove_crl(&mut self, name: &str) -> Result<(), StoreError> {
        Ok(self.crls(|crls| drop(crls.remove(name)))?)
    }
}

/// Asks the engine.
#[derive(Debug)]
struct EngineHistory {
    engine: MemoryEngine,
    owner: Uuid,
}

impl EngineHistory {
    fn ask<T>(&self, shard: Shard, read: impl FnOnce(&MemoryChunks) -> T) -> Result<T, StoreError> {
        let primary = self.engine.primary_of(shard);
        let act =
            |request: &mut super::engine::EngineRequest<'_>| read(&request.shard(shard).chunks);
        let asked = self.engine.ask(self.owner, primary, RequestKind::Load, act);
        Ok(asked?)
    }
}

impl HistoryReader for EngineHistory {
    fn chunks(&self, query: &ChunkQuery<'_>) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.ask(query.shard, |chunks| read_chunks(chunks, query))
    }

    fn knows(
        &self,
        shard: Shard,
        host: &str,
        _retention: &HistoryRetention,
        _now: u64,
    ) -> Result<bool, StoreError> {
        self.ask(shard, |chunks| chunks.keys().any(|(of, ..)| **of == *host))
    }
}

impl Store for SharedMemoryStore {
    fn history(&self) -> Result<Box<dyn HistoryReader>, StoreError> {
        Ok(Box::new(EngineHistory {
            engine: self.engine.clone(),
            owner: self.owner,
        }))
    }

    fn all_chunks(
        &mut self,
        shards: &[Shard],
        each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for shard in shards {
            let primary = self.engine.primary_of(*shard);
            let read = |request: &mut super::engine::EngineRequest<'_>| {
                stored_chunks(&request.shard(*shard).chunks).collect::<Vec<_>>()
            };
            let asked = self
                .engine
                .ask(self.owner, primary, RequestKind::Load, read);
            asked?.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        for shard in self.engine.shard_count().all() {
            self.lease(shard, |_| ())?;
        }
        Ok(())
    }

    fn rebuild(
        &mut self,
        _fences: &[Fence],
        _states: Vec<ShardState>,
        _fault: &str,
        _now: u64,
    ) -> Result<(), StoreError> {
        Err(EngineFault::NotRebuilt.into())
    }
}

impl Drop for SharedMemoryStore {
    /// Others need not wait for the leases to end.
    fn drop(&mut self) {
        let fences: Vec<_> = self.fences.values().copied().collect();
        let _or_they_wait = self.release(&fences);
    }
}

#[cfg(test)]
mod tests;
