//! A store on Redis or Valkey: one server, a master with Sentinels, or a cluster. Any number of
//! receivers append to it; each shard is summarized by the process that has its lease.
//!
//! ```text
//! config.rs      where the servers are
//! connection.rs  one server: send, receive      nodes.rs  which one is the primary of a shard
//! keys.rs        the names of the keys          scripts.rs  what runs in the server
//! store_key.rs   what a store is
//! entry.rs       a group in its stream          append.rs, read.rs  the journal
//! history.rs     what is kept longer
//! host.rs, ring.rs, clock.rs  the state         load.rs, commit.rs
//! leases.rs      who may commit which shard, for how long
//! members.rs     who shares the store, their token keys and CRLs
//! info.rs, judge.rs  what a server says of itself, and whether it would lose what is acknowledged
//! inspect.rs, check.rs  asks all servers that   status.rs  what is in a store, for people
//! watch.rs       how much memory servers have left, and how far shards are behind
//! copying.rs     what a copy needs besides
//! ```
//!
//! What holds:
//!
//! - Keys of a shard are in one slot, so a failover forgets the end of all of it together.
//! - Nothing is sent a second time without something to recognise it by: a group has its writer's
//!   number, a commit its identifier.
//! - A commit takes effect only for the owner of an unexpired lease whose last commit is the last
//!   one the server knows, and only where the journal has at its cursor what the owner read there.
//! - What is read was signed by a trusted receiver, for this shard of this store.

mod append;
pub mod check;
mod clock;
mod commit;
pub mod config;
mod connection;
mod copying;
mod entry;
mod error;
mod history;
mod host;
pub mod info;
mod inspect;
pub mod judge;
mod keys;
mod leases;
mod load;
mod members;
mod nodes;
mod read;
mod ring;
mod scripts;
pub mod status;
pub mod store_key;
mod watch;

use std::collections::HashMap;

#[cfg(test)]
pub(super) use self::copying::no_keys;

use ::redis::FromRedisValue;
use lizmon_mtls::rate_limited_log::RateLimitedLog;
use uuid::Uuid;

use self::append::Appender;
use self::commit::OwnedShard;
use self::config::RedisConfig;
use self::error::RedisStoreError;
use self::history::RedisHistory;
use self::leases::{LEASE_MILLIS, Leases};
use self::nodes::Nodes;
use self::read::{ReadContext, Refusals, ShardReader};
use self::scripts::Scripts;
use super::damage::Damage;
use super::document::DocumentKind;
use super::engine::Store;
use super::error::StoreError;
use super::history::{HistoryReader, StoredChunk};
use super::journal::{JournalRead, JournalStore};
use super::shard::{Fence, Position, Shard, ShardCount};
use super::signing::{GroupKeys, GroupRefusal};
use super::state::{ShardChanges, ShardState, StateStore};
use super::watch::StoreWatch;

/// A store on Redis or Valkey, with connections of its own.
#[derive(Debug)]
pub struct RedisStore {
    nodes: Nodes,
    scripts: Scripts,
    /// Who owns what this acquires, and writes what this appends.
    owner: Uuid,
    /// The store's identifier.
    id: String,
    shards: ShardCount,
    appender: Appender,
    keys: GroupKeys,
    readers: HashMap<Shard, ShardReader>,
    owned: HashMap<Shard, OwnedShard>,
    leases: Leases,
    refusals: Refusals,
    /// Whoever can write to the servers can add any number of groups.
    refusal_log: RateLimitedLog,
    /// What is wrong with the servers, and was accepted.
    warnings: Vec<String>,
    damage: Vec<Damage>,
}

impl RedisStore {
    /// Opens the store on these servers, or creates it. `owner` is unlike that of every other store
    /// that was ever opened.
    pub fn open(config: RedisConfig, owner: Uuid, keys: GroupKeys) -> Result<Self, StoreError> {
        Ok(Self::connect(config, owner, keys)?)
    }

    fn connect(config: RedisConfig, owner: Uuid, keys: GroupKeys) -> Result<Self, RedisStoreError> {
        let accepts_lossy = config.accepts_lossy;
        let mut nodes = Nodes::open(config)?;
        let warnings = check::accepted(&mut nodes, accepts_lossy)?;
        let scripts = Scripts::new();
        let identity = store_key::create(&mut nodes, &scripts, owner)?.usable()?;
        Ok(Self::of(nodes, scripts, identity, owner, keys, warnings))
    }

    /// The store with this number of shards and this identifier.
    fn of(
        mut nodes: Nodes,
        scripts: Scripts,
        (shards, id): (ShardCount, String),
        owner: Uuid,
        keys: GroupKeys,
        warnings: Vec<String>,
    ) -> Self {
        nodes.set_shards(shards);
        let replicas_min = nodes.replicas_min();
        Self {
            appender: Appender::new(id.clone(), owner, shards.get(), replicas_min),
            nodes,
            scripts,
            owner,
            id,
            shards,
            keys,
            readers: HashMap::new(),
            owned: HashMap::new(),
            leases: Leases::of(owner),
            refusals: Refusals::new(),
            refusal_log: RateLimitedLog::default(),
            warnings,
            damage: Vec::new(),
        }
    }

    fn acquire_shard(&mut self, shard: Shard) -> Result<Option<Fence>, RedisStoreError> {
        let mut script = self.scripts.acquire.prepare_invoke();
        script
            .key(keys::meta(shard))
            .arg(self.owner.to_string())
            .arg(LEASE_MILLIS);
        let answer = self.nodes.run(shard, &script)?;
        let (epoch, commit) =
            <(u64, String)>::from_redis_value(answer).map_err(|_| unknown_answer(shard))?;
        if epoch == 0 {
            return Ok(None);
        }
        let fence = Fence::new(shard, epoch);
        self.leases.fences.insert(shard, fence);
        let owned = self.owned.entry(shard).or_default();
        if owned.commit != commit {
            *owned = OwnedShard::of(commit, &[]);
        }
        Ok(Some(fence))
    }

    fn renew_lease(&mut self, fence: Fence, millis: u64) -> Result<bool, RedisStoreError> {
        let (nodes, scripts) = (&mut self.nodes, &self.scripts);
        self.leases.renew(nodes, scripts, fence, millis)
    }

    /// A write to every shard.
    fn touch_shards(&mut self) -> Result<(), RedisStoreError> {
        for shard in self.shards.all() {
            let mut write = ::redis::cmd("HSET");
            write.arg(keys::meta(shard)).arg("probe").arg(1);
            self.nodes.ask_all(shard, vec![write])?;
        }
        Ok(())
    }

    fn load_shard(&mut self, shard: Shard, now: u64) -> Result<ShardState, RedisStoreError> {
        let loaded = load::load(&mut self.nodes, shard, now)?;
        self.readers.insert(shard, loaded.reader);
        let owned = OwnedShard::of(loaded.commit, &loaded.series);
        self.owned.insert(shard, owned);
        self.damage.retain(|damage| damage.is_reported(now));
        self.damage.extend(loaded.damage);
        Ok(loaded.state)
    }

    fn commit_shard(
        &mut self,
        fence: Fence,
        changes: &ShardChanges,
    ) -> Result<(), RedisStoreError> {
        let shard = fence.shard();
        let owned = self.owned.entry(shard).or_default();
        let reader = self.readers.entry(shard).or_default();
        commit::commit(
            &mut self.nodes,
            &self.scripts,
            &self.owner.to_string(),
            fence,
            owned,
            &mut reader.journal,
            changes,
        )
    }
}

/// Connects to the servers of a store with so many shards, to look at it.
pub(super) fn open_watch(
    config: RedisConfig,
    shards: ShardCount,
) -> Result<impl StoreWatch, StoreError> {
    watch::RedisWatch::open(config, shards)
}

fn unknown_answer(shard: Shard) -> RedisStoreError {
    RedisStoreError::Malformed {
        key: keys::meta(shard),
        why: "another answer than the script gives".to_owned(),
    }
}

impl JournalStore for RedisStore {
    fn shard_count(&self) -> ShardCount {
        self.shards
    }

    fn append(&mut self, groups: &[(Shard, &[u8])]) -> Vec<Result<Position, StoreError>> {
        let Some(signer) = &self.keys.signer else {
            return vec![Err(RedisStoreError::NoSigningKey.into()); groups.len()];
        };
        let appended = self.appender.append(&mut self.nodes, &**signer, groups);
        let appended = appended.into_iter();
        appended
            .map(|result| result.map_err(StoreError::from))
            .collect()
    }

    fn read_after(
        &mut self,
        after: &[(Shard, Position)],
        each: &mut dyn FnMut(Shard, Position, &[u8]),
    ) -> JournalRead {
        let context = ReadContext {
            store: &self.id,
            verifier: &*self.keys.verifier,
        };
        let mut keep = |nodes: &mut Nodes| self.leases.keep(nodes, &self.scripts);
        let (nodes, readers) = (&mut self.nodes, &mut self.readers);
        let (read, refused) = read::read(nodes, &context, readers, after, each, &mut keep);
        for (refusal, groups) in refused {
            let total = self.refusals.entry(refusal).or_default();
            *total += groups;
            let (total, reason) = (*total, refusal.name());
            self.refusal_log.say(|unsaid| {
                tracing::error!(
                    reason,
                    groups,
                    total,
                    unsaid,
                    "journal groups are not counted: {refusal}"
                );
            });
        }
        read
    }
}

impl StateStore for RedisStore {
    fn acquire(&mut self, shards: &[Shard]) -> Result<Vec<Fence>, StoreError> {
        let mut fences = Vec::with_capacity(shards.len());
        for shard in shards {
            fences.extend(self.acquire_shard(*shard)?);
        }
        Ok(fences)
    }

    fn renew(&mut self, fences: &[Fence]) -> Result<Vec<Fence>, StoreError> {
        let mut kept = Vec::with_capacity(fences.len());
        for fence in fences {
            match self.renew_lease(*fence, LEASE_MILLIS) {
                Ok(false) => {
                    self.leases.fences.remove(&fence.shard());
                }
                Ok(true) => kept.push(*fence),
                // Its server is away. Whether it is still ours, the next commit tells; the other
                // servers' shards are kept all the same.
                Err(error) => {
                    tracing::debug!(shard = fence.shard().number(), %error, "a lease was not renewed");
                    kept.push(*fence);
                }
            }
        }
        Ok(kept)
    }

    fn release(&mut self, fences: &[Fence]) -> Result<(), StoreError> {
        let mut failure = Ok(());
        for fence in fences {
            self.leases.fences.remove(&fence.shard());
            if let Err(error) = self.renew_lease(*fence, 0) {
                failure = Err(error.into());
            }
        }
        failure
    }

    fn documents(
        &mut self,
        shard: Shard,
        hosts: &[&str],
        kind: DocumentKind,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(load::documents(&mut self.nodes, shard, hosts, kind)?)
    }

    fn committed(&mut self, shard: Shard) -> Result<Option<Position>, StoreError> {
        let mut cursor = ::redis::cmd("HGET");
        cursor.arg(keys::meta(shard)).arg("cursor");
        let answer = self.nodes.ask_all(shard, vec![cursor])?.pop();
        let cursor = answer.map(Option::<u64>::from_redis_value);
        let cursor = cursor.and_then(Result::ok).flatten();
        Ok(Some(Position::new(cursor.unwrap_or(0))))
    }

    fn load(&mut self, shards: &[Shard], now: u64) -> Result<Vec<ShardState>, StoreError> {
        let load = |shard: &Shard| Ok(self.load_shard(*shard, now)?);
        shards.iter().map(load).collect()
    }

    fn commit(&mut self, fence: Fence, changes: &ShardChanges) -> Result<(), StoreError> {
        Ok(self.commit_shard(fence, changes)?)
    }
}

impl Store for RedisStore {
    fn probe(&mut self) -> Result<(), StoreError> {
        Ok(self.touch_shards()?)
    }

    fn history(&self) -> Result<Box<dyn HistoryReader>, StoreError> {
        let (config, shards) = (self.nodes.config().clone(), self.shards);
        Ok(Box::new(RedisHistory::new(config, shards)))
    }

    fn all_chunks(
        &mut self,
        shards: &[Shard],
        each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for shard in shards {
            history::all_chunks(&mut self.nodes, *shard, each)?;
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
        Err(RedisStoreError::NotRebuilt.into())
    }

    fn damage(&self) -> &[Damage] {
        &self.damage
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn refused_groups(&self) -> Vec<(GroupRefusal, u64)> {
        let refusals = self.refusals.iter();
        refusals.map(|(why, groups)| (*why, *groups)).collect()
    }
}

impl Drop for RedisStore {
    /// Others need not wait for the leases to end.
    fn drop(&mut self) {
        let fences: Vec<_> = self.leases.fences.values().copied().collect();
        if let Err(error) = self.release(&fences) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "leases could not be given up: others wait until they end"
            );
        }
    }
}

#[cfg(test)]
mod tests;
