//! The groups of one append.

use super::super::shard::{Shard, ShardCount};
use super::write::Group;

/// How much memory each shard's buffer keeps from one append to the next.
const BYTES_KEPT_MAX: usize = 4 << 10;

/// The groups of one append, by shard. Their buffers are reused.
#[derive(Debug, Default)]
pub struct ShardGroups {
    groups: Vec<Group>,
    used: Vec<Shard>,
}

impl ShardGroups {
    /// None yet, for a store with so many shards.
    pub fn new(count: ShardCount) -> Self {
        Self {
            groups: count.all().map(|_| Group::default()).collect(),
            used: Vec::new(),
        }
    }

    /// The group of this shard.
    pub fn group(&mut self, shard: Shard) -> &mut Group {
        let group = &mut self.groups[shard.index()];
        if group.is_empty() {
            self.used.push(shard);
        }
        group
    }

    /// The shards that have a group, in the order of [`seal`](Self::seal).
    pub fn shards(&self) -> &[Shard] {
        &self.used
    }

    /// The groups as they are stored.
    pub fn seal(&mut self) -> Vec<(Shard, &[u8])> {
        self.used.sort_unstable();
        self.used.dedup();
        for shard in &self.used {
            self.groups[shard.index()].seal();
        }
        let groups = &self.groups;
        let sealed = |shard: &Shard| (*shard, groups[shard.index()].as_bytes());
        self.used.iter().map(sealed).collect()
    }

    /// Empties all of them.
    pub fn clear(&mut self) {
        for shard in self.used.drain(..) {
            self.groups[shard.index()].clear(BYTES_KEPT_MAX);
        }
    }
}
