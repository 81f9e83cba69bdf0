//! What reads a shared store on, and commits the shards that it owns: a thread of a receiver, or a
//! process of its own.

use std::sync::Arc;

use fastrand::Rng;
use lizmon_receiver::clock::ClockReading;
use lizmon_receiver::store::StoreError;
use lizmon_receiver::store::memory::engine::MemoryEngine;
use lizmon_receiver::store::memory::shared::SharedMemoryStore;
use lizmon_receiver::summarize::SummaryTable;
use lizmon_receiver::summarize::group::{GroupMember, GroupRole};
use uuid::Uuid;

/// It maintains leases and commits so often: milliseconds.
const MAINTAINED_EVERY_MS: u64 = 1_000;

/// A member of the group, while it runs.
pub(crate) struct SharedSummarizer {
    engine: MemoryEngine,
    owner: Uuid,
    member: GroupMember,
    maintained_at_ms: u64,
}

impl SharedSummarizer {
    pub(crate) fn start(
        engine: &MemoryEngine,
        role: GroupRole,
        names: &mut Rng,
        at: ClockReading,
    ) -> Result<Self, StoreError> {
        let mut name = || Uuid::from_u128(names.u128(..));
        let (owner, member) = (name(), name());
        let store = SharedMemoryStore::open(engine.clone(), owner);
        Ok(Self {
            engine: engine.clone(),
            owner,
            member: GroupMember::open(Box::new(store), role, member, at)?,
            maintained_at_ms: 0,
        })
    }

    pub(crate) fn table(&self) -> Arc<SummaryTable> {
        self.member.table()
    }

    pub(crate) fn read_on(&mut self, at: ClockReading) {
        self.member.read_on(at.wall);
    }

    /// One round of its thread.
    pub(crate) fn turn(&mut self, at: ClockReading, now_ms: u64) {
        self.read_on(at);
        if now_ms >= self.maintained_at_ms + MAINTAINED_EVERY_MS {
            self.maintained_at_ms = now_ms;
            self.member.maintain(at);
        }
    }

    /// kill -9: nothing of it reaches the engine any more.
    pub(crate) fn kill(&mut self) {
        self.engine.kill(self.owner);
    }

    /// SIGTERM.
    pub(crate) fn finish(self) {
        let _it_is_in_the_journal = self.member.finish();
    }
}
