//! The history of series: see the stores' history.rs. A hash has one chunk of each series of a
//! host, by label, and expires when nothing in it is kept any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use lizmon_protocol::history::HistoryTier;
use redis::{Cmd, FromRedisValue, Value};

use super::super::error::StoreError;
use super::super::history::{
    ChunkChange, ChunkKey, ChunkQuery, ChunkSource, ChunksOfHost, HistoryReader, HistoryRetention,
    OwnedKey, StoredChunk, needed_keys, plan,
};
use super::super::shard::{Shard, ShardCount};
use super::super::state::ShardChanges;
use super::config::RedisConfig;
use super::error::RedisStoreError;
use super::keys::{self, HistoryKey};
use super::nodes::Nodes;

/// How many commands are sent at once, and how many keys a step of a scan looks at: some
/// milliseconds of the server's time.
const COMMANDS_MAX: usize = 128;
const SCAN_COUNT: usize = 5_000;
/// How many connections readers keep.
const READERS_KEPT: usize = 4;

fn values<T: FromRedisValue>(key: &str, value: Value) -> Result<T, RedisStoreError> {
    T::from_redis_value(value).map_err(|error| RedisStoreError::Malformed {
        key: key.to_owned(),
        why: error.to_string(),
    })
}

/// What a commit needs to know of the history, read before the commit: nobody else writes it while
/// the commit is not refused.
struct Source<'a> {
    nodes: &'a mut Nodes,
    shard: Shard,
    fetched: HashMap<OwnedKey, Option<Vec<u8>>>,
    /// The hashes of hosts that are cut.
    hashes: BTreeMap<Box<str>, Vec<HistoryKey>>,
}

/// The chunks that a commit changes, and to what.
pub(super) fn changes_of(
    nodes: &mut Nodes,
    shard: Shard,
    changes: &ShardChanges,
) -> Result<Vec<ChunkChange>, RedisStoreError> {
    if changes.evicted.is_empty() && changes.cuts.is_empty() {
        return Ok(Vec::new());
    }
    let mut source = Source {
        nodes,
        shard,
        fetched: HashMap::new(),
        hashes: BTreeMap::new(),
    };
    source.fetch(needed_keys(changes))?;
    if !changes.cuts.is_empty() {
        let cut: BTreeSet<&str> = changes.cuts.iter().map(|(host, _)| &**host).collect();
        for hash in hashes(source.nodes, shard)? {
            if cut.contains(&*hash.host) {
                source
                    .hashes
                    .entry(hash.host.clone())
                    .or_default()
                    .push(hash);
            }
        }
    }
    plan(changes, &mut source)
}

impl Source<'_> {
    /// Reads all of these chunks.
    fn fetch(&mut self, wanted: BTreeSet<OwnedKey>) -> Result<(), RedisStoreError> {
        let mut of_hash = BTreeMap::<HistoryKey, Vec<Box<str>>>::new();
        for (host, label, tier, start) in wanted {
            let hash = HistoryKey { host, tier, start };
            of_hash.entry(hash).or_default().push(label);
        }
        let of_hash: Vec<_> = of_hash.into_iter().collect();
        for some in of_hash.chunks(COMMANDS_MAX) {
            let get = some.iter().map(|(hash, labels)| {
                let mut get = redis::cmd("HMGET");
                let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
                get.arg(hash.name(self.shard)).arg(labels);
                get
            });
            let answers = self.nodes.ask_all(self.shard, get.collect())?;
            for ((hash, labels), answer) in some.iter().zip(answers) {
                let chunks: Vec<Option<Vec<u8>>> = values(&hash.name(self.shard), answer)?;
                for (label, chunk) in labels.iter().zip(chunks) {
                    let key = (hash.host.clone(), label.clone(), hash.tier, hash.start);
                    self.fetched.insert(key, chunk);
                }
            }
        }
        Ok(())
    }
}

impl ChunkSource for Source<'_> {
    type Error = RedisStoreError;

    fn read(&mut self, key: &ChunkKey<'_>) -> Result<Option<Vec<u8>>, RedisStoreError> {
        let owned = (key.host.into(), key.label.into(), key.tier, key.start);
        if !self.fetched.contains_key(&owned) {
            self.fetch(BTreeSet::from([owned.clone()]))?;
        }
        Ok(self.fetched.get(&owned).cloned().flatten())
    }

    fn ending_after(&mut self, host: &str, from: u64) -> Result<ChunksOfHost, RedisStoreError> {
        let mut all = Vec::new();
        for hash in self.hashes.get(host).into_iter().flatten() {
            if hash.end() <= from {
                continue;
            }
            let mut labels = redis::cmd("HKEYS");
            labels.arg(hash.name(self.shard));
            for answer in self.nodes.ask_all(self.shard, vec![labels])? {
                let labels: Vec<String> = values(&hash.name(self.shard), answer)?;
                let labels = labels.into_iter();
                all.extend(labels.map(|label| (label.into(), hash.tier, hash.start)));
            }
        }
        Ok(all)
    }

    /// Nothing else could be done about it; what is lost is in the log.
    fn damaged(&mut self, key: &ChunkKey<'_>) -> Result<(), RedisStoreError> {
        let (host, label, start, end) = (key.host, key.label, key.start, key.end());
        let tier = key.tier.as_str();
        tracing::error!(
            host,
            label,
            tier,
            start,
            end,
            "a part of the history is not what lizmon wrote, and is lost"
        );
        Ok(())
    }
}

/// All hashes of a shard.
fn hashes(nodes: &mut Nodes, shard: Shard) -> Result<Vec<HistoryKey>, RedisStoreError> {
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor)
            .arg("MATCH")
            .arg(keys::history_pattern(shard))
            .arg("COUNT")
            .arg(SCAN_COUNT);
        let answer = nodes.ask_all(shard, vec![scan])?.pop();
        let answer = answer.unwrap_or(Value::Nil);
        let (next, names): (String, Vec<String>) = values("SCAN", answer)?;
        found.extend(
            names
                .iter()
                .filter_map(|name| HistoryKey::parse(shard, name)),
        );
        if next == "0" {
            return Ok(found.into_iter().collect());
        }
        cursor = next;
    }
}

/// All chunks of a shard, a hash at a time.
pub(super) fn all_chunks(
    nodes: &mut Nodes,
    shard: Shard,
    each: &mut dyn FnMut(StoredChunk) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for hash in hashes(nodes, shard)? {
        let mut all = redis::cmd("HGETALL");
        all.arg(hash.name(shard));
        let answer = nodes.ask_all(shard, vec![all])?.pop();
        let answer = answer.unwrap_or(Value::Nil);
        let chunks: BTreeMap<String, Vec<u8>> = values(&hash.name(shard), answer)?;
        for (label, bytes) in chunks {
            each(StoredChunk {
                host: hash.host.clone(),
                label: label.into(),
                tier: hash.tier,
                start: hash.start,
                bytes,
            })?;
        }
    }
    Ok(())
}

/// Writes chunks of a copy. Each is kept until `until` at least, however old it is.
pub(super) fn put_chunks(
    nodes: &mut Nodes,
    shard: Shard,
    chunks: &[StoredChunk],
    until: u64,
) -> Result<(), RedisStoreError> {
    let retention = HistoryRetention::default();
    for some in chunks.chunks(COMMANDS_MAX) {
        let mut commands = Vec::with_capacity(2 * some.len());
        for chunk in some {
            let hash = HistoryKey::of(chunk);
            let mut set = redis::cmd("HSET");
            set.arg(hash.name(shard))
                .arg(&*chunk.label)
                .arg(&chunk.bytes);
            let mut expire = redis::cmd("EXPIREAT");
            let ends = hash.expires(&retention).max(until);
            expire.arg(hash.name(shard)).arg(ends);
            commands.extend([set, expire]);
        }
        nodes.ask_all(shard, commands)?;
    }
    Ok(())
}

/// Removes all chunks of a shard.
pub(super) fn clear_chunks(nodes: &mut Nodes, shard: Shard) -> Result<(), RedisStoreError> {
    let hashes = hashes(nodes, shard)?;
    for some in hashes.chunks(COMMANDS_MAX) {
        let remove = some.iter().map(|hash| {
            let mut remove = redis::cmd("DEL");
            remove.arg(hash.name(shard));
            remove
        });
        nodes.ask_all(shard, remove.collect())?;
    }
    Ok(())
}

/// Reads the history over connections of its own, a few at most: what else the process does waits
/// for none of it.
pub(super) struct RedisHistory {
    config: RedisConfig,
    shards: ShardCount,
    idle: Mutex<Vec<Nodes>>,
}

impl std::fmt::Debug for RedisHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisHistory").finish_non_exhaustive()
    }
}

impl RedisHistory {
    pub(super) fn new(config: RedisConfig, shards: ShardCount) -> Self {
        Self {
            config,
            shards,
            idle: Mutex::default(),
        }
    }

    /// Asks with connections that nobody else uses meanwhile; once more if they broke.
    fn ask<T>(
        &self,
        ask: impl Fn(&mut Nodes) -> Result<T, RedisStoreError>,
    ) -> Result<T, RedisStoreError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut nodes = match kept {
            Some(nodes) => nodes,
            None => {
                let mut nodes = Nodes::open(self.config.clone())?;
                nodes.set_shards(self.shards);
                nodes
            }
        };
        let answer = match ask(&mut nodes) {
            Err(error) if error.is_worth_another() => ask(&mut nodes),
            answer => answer,
        }?;
        let mut idle = idle();
        if idle.len() < READERS_KEPT {
            idle.push(nodes);
        }
        Ok(answer)
    }
}

impl HistoryReader for RedisHistory {
    fn chunks(&self, query: &ChunkQuery<'_>) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let span = ChunkKey::span_secs(query.tier);
        let first = ChunkKey::start_of(query.tier, query.from);
        let starts = (first..query.to).step_by(usize::try_from(span).unwrap_or(usize::MAX));
        let starts: Vec<u64> = starts.collect();
        let read = |nodes: &mut Nodes| {
            let mut found = Vec::new();
            for some in starts.chunks(COMMANDS_MAX) {
                let get = some.iter().map(|start| {
                    let hash = HistoryKey {
                        host: query.host.into(),
                        tier: query.tier,
                        start: *start,
                    };
                    let mut get = redis::cmd("HGET");
                    get.arg(hash.name(query.shard)).arg(query.label);
                    get
                });
                let answers = nodes.ask_all(query.shard, get.collect())?;
                for (start, answer) in some.iter().zip(answers) {
                    let chunk: Option<Vec<u8>> = values("history", answer)?;
                    found.extend(chunk.map(|chunk| (*start, chunk)));
                }
                if found.len() >= query.chunks_max {
                    break;
                }
            }
            found.truncate(query.chunks_max);
            Ok(found)
        };
        Ok(self.ask(read)?)
    }

    fn knows(
        &self,
        shard: Shard,
        host: &str,
        retention: &HistoryRetention,
        now: u64,
    ) -> Result<bool, StoreError> {
        let mut names = Vec::new();
        for tier in HistoryTier::ALL {
            let from = retention.ended_by(tier, now).min(now);
            let first = ChunkKey::start_of(tier, from);
            let span = usize::try_from(ChunkKey::span_secs(tier)).unwrap_or(usize::MAX);
            names.extend((first..=now).step_by(span).map(|start| {
                let host = host.into();
                HistoryKey { host, tier, start }.name(shard)
            }));
        }
        let exists = |names: &[String]| {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(names);
            exists
        };
        let commands: Vec<Cmd> = names.chunks(COMMANDS_MAX).map(exists).collect();
        let count = |nodes: &mut Nodes| {
            let answers = nodes.ask_all(shard, commands.clone())?;
            let counts = answers
                .into_iter()
                .map(|answer| values::<u64>("history", answer));
            counts.sum::<Result<u64, _>>()
        };
        Ok(self.ask(count)? > 0)
    }
}
