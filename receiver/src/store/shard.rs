//! How hosts are divided: every host belongs to one shard, every shard has a journal, a state and
//! at most one owner.

use std::num::NonZeroU16;

/// One part of the hosts: 0 to the store's [`ShardCount`] less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// The shard with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The same as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many shards a store has. Set when the store is created; it never changes after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCount(NonZeroU16);

impl ShardCount {
    /// So many shards.
    pub const fn new(count: NonZeroU16) -> Self {
        Self(count)
    }

    /// How many there are.
    pub const fn get(self) -> usize {
        self.0.get() as usize
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = Shard> {
        (0..self.0.get()).map(Shard)
    }

    /// The shard of a host: FNV-1a over its name. The hash must never change, because it says where
    /// a host's data is.
    pub fn shard_of(self, host: &str) -> Shard {
        let hash = host.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Shard((hash % u64::from(self.0.get())) as u16)
    }
}

/// The position of a group in the journal of its shard. Positions of one shard rise; those of
/// different shards say nothing of each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// Before the first group.
    pub const START: Self = Self(0);

    /// The position with this number; the first group of a shard has at least 1.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The first position that may follow it.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The right to load and commit one shard, valid until another process acquires that shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    shard: Shard,
    epoch: u64,
}

impl Fence {
    /// The fence that a store gives for a shard; `epoch` is greater than that of every earlier
    /// fence for it.
    pub const fn new(shard: Shard, epoch: u64) -> Self {
        Self { shard, epoch }
    }

    /// The shard it is for.
    pub const fn shard(self) -> Shard {
        self.shard
    }

    /// The fencing epoch (fencing token).
    pub const fn epoch(self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stays_in_its_shard() {
        let count = ShardCount::new(NonZeroU16::new(64).unwrap());
        let numbers = ["web1", "db1", "a"].map(|host| count.shard_of(host).number());
        assert_eq!(numbers, [0, 22, 12]);
        let mut hosts = [0; 64];
        for at in 0..64_000 {
            hosts[count.shard_of(&format!("node-{at}")).index()] += 1;
        }
        assert!(
            hosts.iter().all(|count| (700..1300).contains(count)),
            "{hosts:?}"
        );
    }
}
