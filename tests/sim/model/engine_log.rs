//! What a shared engine has done, by its own account: which groups are in its journals and count,
//! and whether only owners of leases have committed.

use std::collections::HashMap;
use std::sync::Arc;

use lizmon_receiver::store::memory::engine::{EngineChange, EngineEvent};
use uuid::Uuid;

use crate::Violation;

/// All of its shards.
#[derive(Debug)]
pub(crate) struct EngineLog {
    shards: Vec<ShardLog>,
    /// How often a shard has forgotten something.
    pub(crate) forgot: u64,
    pub(crate) commits: u64,
    pub(crate) takeovers: u64,
}

/// One shard, with everything that it has not forgotten, in order.
#[derive(Debug, Default)]
struct ShardLog {
    groups: Vec<Logged>,
    leases: Vec<Lease>,
    cursors: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Logged {
    revision: u64,
    position: u64,
    writer: Uuid,
    number: u64,
    group: Arc<[u8]>,
}

/// A lease, as it was taken or renewed last.
#[derive(Debug, Clone, Copy)]
struct Lease {
    revision: u64,
    owner: Uuid,
    epoch: u64,
    until_ms: u64,
}

/// What an event means for what is counted.
pub(crate) enum Counted {
    /// Nothing changes.
    Same,
    /// This group is new.
    One(Arc<[u8]>),
    /// Some were forgotten.
    Fewer,
}

impl EngineLog {
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            shards: (0..shards).map(|_| ShardLog::default()).collect(),
            forgot: 0,
            commits: 0,
            takeovers: 0,
        }
    }

    pub(crate) fn apply(&mut self, event: EngineEvent) -> Result<Counted, Violation> {
        let (revision, at_ms) = (event.revision, event.at_millis);
        let shard = &mut self.shards[event.shard.index()];
        match event.change {
            EngineChange::Appended {
                position,
                writer,
                number,
                group,
            } => {
                let is_counted = shard.last_number(writer) < number;
                shard.groups.push(Logged {
                    revision,
                    position: position.get(),
                    writer,
                    number,
                    group: group.clone(),
                });
                return Ok(match is_counted {
                    true => Counted::One(group),
                    false => Counted::Same,
                });
            }
            EngineChange::Leased {
                owner,
                epoch,
                millis,
            } => {
                let until_ms = at_ms + millis;
                let lease = Lease {
                    revision,
                    owner,
                    epoch,
                    until_ms,
                };
                self.takeovers += u64::from(shard.lease(lease, at_ms)?);
            }
            EngineChange::Committed {
                owner,
                epoch,
                cursor,
            } => {
                shard.commit((owner, epoch), (revision, cursor.get()), at_ms)?;
                self.commits += 1;
            }
            EngineChange::Forgot { left } => {
                shard.forget(left);
                self.forgot += 1;
                return Ok(Counted::Fewer);
            }
        }
        Ok(Counted::Same)
    }

    /// Every group that counts.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.iter().flat_map(ShardLog::counted)
    }
}

impl ShardLog {
    fn last_number(&self, writer: Uuid) -> u64 {
        let of_writer = self.groups.iter().filter(|group| group.writer == writer);
        of_writer.map(|group| group.number).max().unwrap_or(0)
    }

    /// A writer's groups count in the order of their numbers: one that is not above those before it
    /// was appended again, or was given up and came late.
    fn counted(&self) -> impl Iterator<Item = &[u8]> {
        let mut last = HashMap::new();
        self.groups.iter().filter_map(move |group| {
            let last = last.entry(group.writer).or_insert(0);
            let is_counted = group.number > *last;
            *last = group.number.max(*last);
            is_counted.then_some(&*group.group)
        })
    }

    /// A lease is taken or renewed. Whether it had another owner before.
    fn lease(&mut self, new: Lease, at_ms: u64) -> Result<bool, Violation> {
        let held = self.leases.last().copied();
        self.leases.push(new);
        let Some(held) = held else { return Ok(false) };
        let has_ended = held.until_ms <= at_ms;
        let is_renewed = (held.owner, held.epoch) == (new.owner, new.epoch);
        let is_right = match is_renewed {
            true => !has_ended,
            false => new.epoch > held.epoch && (has_ended || held.owner == new.owner),
        };
        match is_right {
            true => Ok(held.owner != new.owner),
            false => Err(Violation(format!(
                "at {at_ms} {new:?} takes the place of {held:?}"
            ))),
        }
    }

    fn commit(
        &mut self,
        by: (Uuid, u64),
        (revision, cursor): (u64, u64),
        at_ms: u64,
    ) -> Result<(), Violation> {
        let is_owner = |held: &Lease| (held.owner, held.epoch) == by && at_ms < held.until_ms;
        if !self.leases.last().is_some_and(is_owner) {
            return Err(Violation(format!(
                "{by:?} commits at {at_ms}, and the lease is {:?}",
                self.leases.last()
            )));
        }
        let before = self.cursors.last().map_or(0, |(_, cursor)| *cursor);
        let last = self.groups.last().map_or(0, |group| group.position);
        if !(before..=last).contains(&cursor) {
            return Err(Violation(format!(
                "a commit moves the cursor from {before} to {cursor} of {last}"
            )));
        }
        self.cursors.push((revision, cursor));
        Ok(())
    }

    fn forget(&mut self, left: u64) {
        self.groups.retain(|group| group.revision <= left);
        self.leases.retain(|lease| lease.revision <= left);
        self.cursors.retain(|(revision, _)| *revision <= left);
    }
}
