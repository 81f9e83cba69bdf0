//! The journal: what was acknowledged and is not yet part of the committed state.

use super::error::StoreError;
use super::shard::{Position, Shard, ShardCount};

/// One journal per shard, to which any number of writers append.
///
/// # In Redis
///
/// The journal of shard `p` is the stream `lizmon:{p}:journal`; the hash tag keeps it in one slot
/// with the shard's state. An entry is a group with its writer, the writer's number and a signature
/// (`redis/entry.rs`).
///
/// - [`append`](Self::append): one `XADD lizmon:{p}:journal 0-* …` for each group, pipelined per
///   primary on a connection of its own, then `WAIT n t` in the same pipeline if replicas are asked
///   for. `0-*` (Redis 7.0) has the server number the entries, so several receivers may write, and
///   the sequence is the [`Position`]. If the connection breaks, the outcome for that primary's
///   shards is unknown: the groups are appended once more under their writer's numbers, by which a
///   reader recognises them. If that fails too, or too few replicas confirm, it is an error, and
///   the client sends again. Other shards' outcomes do not depend on it, which is why every group
///   has a result of its own.
/// - [`read_after`](Self::read_after): for each shard the entry that was read last and those behind
///   it (`XRANGE`), pipelined per primary. What no trusted receiver signed for this shard is
///   skipped and counted.
///
/// A failover may forget the end of a shard, and the server then numbers other entries with the
/// same positions. So the entry at the position read last is compared with what it was:
/// [`JournalRead::rewound`].
///
/// Entries behind the cursor are trimmed by the commit: see [`StateStore`](super::StateStore).
pub trait JournalStore {
    /// How many shards there are.
    fn shard_count(&self) -> ShardCount;

    /// Appends groups that [`Group::seal`](super::record::Group::seal) made, at most one for each
    /// shard. A group whose position is returned is durable. One whose error is returned does not
    /// count: it is not there, or will be overwritten. Results are in the order of `groups`.
    fn append(&mut self, groups: &[(Shard, &[u8])]) -> Vec<Result<Position, StoreError>>;

    /// Reads, for each shard named, every group after the position given, in that shard's order. A
    /// group that was appended more than once, because its outcome was unknown, is given once.
    fn read_after(
        &mut self,
        after: &[(Shard, Position)],
        each: &mut dyn FnMut(Shard, Position, &[u8]),
    ) -> JournalRead;
}

/// What one read of the journal came to, beside the groups.
#[derive(Debug, Default)]
pub struct JournalRead {
    /// The shards with something new, and the last position read. It may be behind the last group
    /// given: what the reader must not apply is left out.
    pub through: Vec<(Shard, Position)>,
    /// Shards whose journal does not continue at the position given: the store has forgotten what
    /// stood there, or dropped what came after it. They have to be loaded again.
    pub rewound: Vec<Shard>,
    /// Shards that could not be read, or not to their end.
    pub unread: Vec<(Shard, StoreError)>,
}

impl JournalRead {
    /// None of these shards could be read, all for this error.
    pub(super) fn failed(after: &[(Shard, Position)], error: &StoreError) -> Self {
        let unread = after.iter().map(|(shard, _)| (*shard, error.clone()));
        Self {
            unread: unread.collect(),
            ..Self::default()
        }
    }

    /// An error if a shard could not be read. For a store that never forgets.
    pub fn complete(self) -> Result<(), StoreError> {
        self.unread
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }
}
