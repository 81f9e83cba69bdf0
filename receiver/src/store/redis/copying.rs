//! A store as the source or the target of a copy: see `copy.rs` of the stores.

use redis::FromRedisValue;
use uuid::Uuid;

use super::super::engine::CopyTarget;
use super::super::error::StoreError;
use super::super::history::StoredChunk;
use super::super::shard::{Fence, Shard, ShardCount};
use super::super::signing::{GroupKeys, GroupRefusal, GroupVerifier, PublishedKey};
use super::RedisStore;
use super::check;
use super::config::{Address, RedisConfig};
use super::error::RedisStoreError;
use super::history;
use super::keys;
use super::nodes::Nodes;
use super::scripts::Scripts;
use super::store_key;

/// How long replicas have to get the end of a copy.
const WAIT_MILLIS: u64 = 1_000;
const WAIT_ATTEMPTS: usize = 30;
/// How long a copied history is there at least: a source may have kept it for longer than others
/// do.
const COPY_KEPT_SECS: u64 = 31 * 86_400;

/// A copy has no trust by which to judge groups: it counts none of a shared journal.
#[derive(Debug)]
struct TrustsNobody;

impl GroupVerifier for TrustsNobody {
    fn trusts(&self, _store: &str, _key: &PublishedKey) -> bool {
        false
    }

    fn verify(
        &self,
        _store: &str,
        _key: &PublishedKey,
        _message: &[u8],
        _signature: &[u8],
    ) -> Result<(), GroupRefusal> {
        Err(GroupRefusal::UntrustedKey)
    }
}

/// Neither appends nor reads groups.
pub(in crate::store) fn no_keys() -> GroupKeys {
    GroupKeys {
        signer: None,
        verifier: std::sync::Arc::new(TrustsNobody),
    }
}

impl RedisStore {
    /// Opens a store that is only read. It is not created, and its servers are not judged.
    pub(crate) fn open_source(config: RedisConfig, owner: Uuid) -> Result<Self, StoreError> {
        let mut nodes = Nodes::open(config)?;
        let store = store_key::read(&mut nodes)?.ok_or(RedisStoreError::NoStore)?;
        let identity = store.usable()?;
        Ok(Self::of(
            nodes,
            Scripts::new(),
            identity,
            owner,
            no_keys(),
            Vec::new(),
        ))
    }

    /// Opens an empty store that is marked as incomplete, or one that still is.
    pub(crate) fn open_target(config: RedisConfig, owner: Uuid) -> Result<Self, StoreError> {
        let (accepts_lossy, url) = (config.accepts_lossy, config.url.to_string());
        let mut nodes = Nodes::open(config)?;
        let warnings = check::accepted(&mut nodes, accepts_lossy)?;
        if store_key::read(&mut nodes)?.is_none() {
            refuse_remains(&mut nodes)?;
        }
        let scripts = Scripts::new();
        let store = store_key::begin_copy(&mut nodes, &scripts, owner)?;
        if store.copying.is_none() {
            return Err(RedisStoreError::NotEmpty { url }.into());
        }
        let identity = store.known()?;
        Ok(Self::of(
            nodes,
            scripts,
            identity,
            owner,
            no_keys(),
            warnings,
        ))
    }

    /// The server's clock: epoch seconds.
    fn server_secs(&mut self, shard: Shard) -> Result<u64, RedisStoreError> {
        let answer = self.nodes.ask_all(shard, vec![redis::cmd("TIME")])?.pop();
        let time = answer.map(<(u64, u64)>::from_redis_value);
        match time {
            Some(Ok((secs, _))) => Ok(secs),
            _ => Err(RedisStoreError::Malformed {
                key: "TIME".to_owned(),
                why: "not a time".to_owned(),
            }),
        }
    }

    fn complete(&mut self) -> Result<(), RedisStoreError> {
        // A server counts the replicas that have what this connection wrote, and it may be a new
        // one: what is written now comes after all else.
        self.touch_shards()?;
        for address in self.nodes.primaries()? {
            wait_for_replicas(&mut self.nodes, &address)?;
        }
        store_key::complete_copy(&mut self.nodes, &self.scripts, self.owner)?;
        let primary = self.nodes.primary_of_key(keys::STORE)?;
        wait_for_replicas(&mut self.nodes, &primary)
    }
}

/// What is left of a store whose own key is gone would be mixed with the copy.
fn refuse_remains(nodes: &mut Nodes) -> Result<(), RedisStoreError> {
    let shards = std::num::NonZeroU16::new(store_key::SHARDS).map(ShardCount::new);
    let Some(count) = shards else { return Ok(()) };
    nodes.set_shards(count);
    for shard in count.all() {
        let all: [fn(Shard) -> String; 4] =
            [keys::meta, keys::journal, keys::hosts, keys::series_set];
        let mut exists = redis::cmd("EXISTS");
        exists.arg(&all.map(|key| key(shard)));
        let found = nodes.ask_all(shard, vec![exists])?.pop();
        let found = found.and_then(|found| u64::from_redis_value(found).ok());
        if found != Some(0) {
            let shard = shard.number();
            return Err(RedisStoreError::Remains { shard });
        }
    }
    Ok(())
}

/// What this connection wrote is in as many replicas as the site asks for.
fn wait_for_replicas(nodes: &mut Nodes, address: &Address) -> Result<(), RedisStoreError> {
    let wanted = nodes.replicas_min();
    let mut replicas = 0;
    for _ in 0..WAIT_ATTEMPTS {
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(WAIT_MILLIS);
        replicas = i64::from_redis_value(nodes.ask(address, &wait)?).unwrap_or(0);
        if replicas >= i64::from(wanted) {
            return Ok(());
        }
    }
    let address = address.clone();
    Err(RedisStoreError::TooFewReplicas {
        address,
        replicas,
        wanted,
    })
}

impl CopyTarget for RedisStore {
    fn complete_copy(&mut self) -> Result<(), StoreError> {
        Ok(self.complete()?)
    }

    fn put_chunks(&mut self, fence: Fence, chunks: &[StoredChunk]) -> Result<(), StoreError> {
        let until = self
            .server_secs(fence.shard())?
            .saturating_add(COPY_KEPT_SECS);
        Ok(history::put_chunks(
            &mut self.nodes,
            fence.shard(),
            chunks,
            until,
        )?)
    }

    fn clear_chunks(&mut self, fence: Fence) -> Result<(), StoreError> {
        Ok(history::clear_chunks(&mut self.nodes, fence.shard())?)
    }
}
