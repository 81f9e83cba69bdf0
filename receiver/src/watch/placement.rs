//! Which of the journal's threads appends to which shard. The shards of one server have the same
//! thread, as far as there are enough: an append to one server waits for no other's answer.

use std::cmp::Reverse;
use std::sync::{PoisonError, RwLock};

use crate::store::{ServerReading, Shard, ShardCount};

/// The threads of the shards, by where the servers said that these are.
#[derive(Debug)]
pub struct Placement {
    count: ShardCount,
    placed: RwLock<Placed>,
}

#[derive(Debug)]
struct Placed {
    threads: usize,
    /// By server, its shards. One that did not answer last is left out.
    servers: Vec<Vec<Shard>>,
    /// By shard, its thread.
    of_shard: Vec<usize>,
}

impl Placement {
    /// One thread for all of so many shards.
    pub(super) fn new(count: ShardCount) -> Self {
        Self {
            count,
            placed: RwLock::new(Placed {
                threads: 1,
                servers: Vec::new(),
                of_shard: vec![0; count.get()],
            }),
        }
    }

    /// How many servers have shards, as far as is known: at least one.
    pub fn servers(&self) -> usize {
        self.read(|placed| placed.servers.len().max(1))
    }

    /// From now on there are so many threads.
    pub(crate) fn divide(&self, threads: usize) {
        self.write(|placed| {
            placed.threads = threads.max(1);
            placed.place();
        });
    }

    /// Takes up what the servers said.
    pub(super) fn note(&self, servers: &[ServerReading]) {
        let servers: Vec<_> = servers.iter().map(|server| &server.shards).collect();
        let is_same = self.read(|placed| placed.servers.iter().eq(servers.iter().copied()));
        if !is_same {
            self.write(|placed| {
                placed.servers = servers.into_iter().cloned().collect();
                placed.place();
            });
        }
    }

    /// The thread of the shard with this host.
    pub(crate) fn thread_of(&self, host: &str) -> usize {
        let shard = self.count.shard_of(host).index();
        self.read(|placed| placed.of_shard.get(shard).copied().unwrap_or(0))
    }

    fn read<T>(&self, read: impl FnOnce(&Placed) -> T) -> T {
        // Whatever a panic left is a thread that there is.
        read(&self.placed.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut Placed)) {
        write(&mut self.placed.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Placed {
    /// Gives each server's shards a thread: one that no other server has, if there is any, and of
    /// these the one that has most of the shards. So a failover, which gives shards another server,
    /// changes nothing.
    fn place(&mut self) {
        let mut servers_of = vec![0; self.threads];
        // Where a server does not answer, its shards stay where they are.
        let is_told = |shard: usize| {
            let mut told = self.servers.iter().flatten();
            told.any(|told| told.index() == shard)
        };
        for (shard, thread) in self.of_shard.iter().enumerate() {
            if *thread < self.threads && !is_told(shard) {
                servers_of[*thread] = 1;
            }
        }
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|shards| Reverse(shards.len()));
        for shards in servers {
            let has = |thread: usize| {
                let here = shards
                    .iter()
                    .filter_map(|shard| self.of_shard.get(shard.index()));
                here.filter(|of| **of == thread).count()
            };
            let threads = 0..self.threads;
            let thread = threads.min_by_key(|thread| (servers_of[*thread], Reverse(has(*thread))));
            let thread = thread.unwrap_or(0);
            servers_of[thread] += 1;
            for shard in shards {
                if let Some(of) = self.of_shard.get_mut(shard.index()) {
                    *of = thread;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    /// Six shards, and the threads of all after the servers said that they have these.
    fn check(placement: &Placement, servers: &[&[u16]], expected: [usize; 6]) {
        let readings: Vec<_> = servers
            .iter()
            .map(|shards| ServerReading {
                name: "a server".to_owned(),
                shards: shards.iter().copied().map(Shard::new).collect(),
                used_bytes: 0,
                limit_bytes: None,
            })
            .collect();
        placement.note(&readings);
        let placed = placement.read(|placed| placed.of_shard.clone());
        assert_eq!(placed, expected, "{servers:?}");
    }

    #[test]
    fn shards_of_one_server_have_one_thread() {
        let placement = Placement::new(ShardCount::new(NonZeroU16::new(6).unwrap()));
        assert_eq!(placement.servers(), 1);
        check(&placement, &[&[0, 1], &[2, 3], &[4, 5]], [0; 6]);
        assert_eq!(placement.servers(), 3);
        placement.divide(3);
        check(&placement, &[&[0, 1], &[2, 3], &[4, 5]], [0, 0, 1, 1, 2, 2]);
        // A failover: another server says that it has them, and says so later than the others.
        check(&placement, &[&[4, 5], &[2, 3]], [0, 0, 1, 1, 2, 2]);
        check(&placement, &[&[2, 3], &[4, 5], &[0, 1]], [0, 0, 1, 1, 2, 2]);
        // One gets most of another's, and one is new. There are as many threads as before.
        check(&placement, &[&[0, 1, 2], &[3], &[4, 5]], [0, 0, 0, 1, 2, 2]);
        check(
            &placement,
            &[&[0, 1], &[2], &[3], &[4, 5]],
            [0, 0, 1, 1, 2, 2],
        );
        // Fewer servers than threads.
        check(&placement, &[&[0, 1, 2, 3, 4, 5]], [0; 6]);
    }
}
