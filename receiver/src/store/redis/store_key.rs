//! The key that says what a store is: `lizmon:{store}`.

use std::num::NonZeroU16;

use redis::{FromRedisValue, Value};
use uuid::Uuid;

use super::super::shard::ShardCount;
use super::error::RedisStoreError;
use super::keys;
use super::nodes::Nodes;
use super::scripts::Scripts;

/// The version of what is stored.
pub(super) const FORMAT: u64 = 2;
/// The version before, without points, and else the same. A store of it is marked as one of
/// [`FORMAT`] when a receiver or summarizer opens it: a program of then would take points for damage.
const WITHOUT_POINTS: u64 = 1;
/// How many shards a store gets when it is created.
pub(super) const SHARDS: u16 = 64;

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreKey {
    /// The version of what is stored.
    pub format: u64,
    /// How many shards it has.
    pub shards: u16,
    /// Its identifier.
    pub id: String,
    /// The copy into it that has not been completed, if there is one.
    pub copying: Option<String>,
}

impl StoreKey {
    /// Whether this program can use it: an error says why not.
    pub(super) fn usable(self) -> Result<(ShardCount, String), RedisStoreError> {
        if self.copying.is_some() {
            return Err(RedisStoreError::CopyIncomplete);
        }
        self.known()
    }

    /// The same of one that is being copied into.
    pub(super) fn known(self) -> Result<(ShardCount, String), RedisStoreError> {
        if !matches!(self.format, FORMAT | WITHOUT_POINTS) {
            let format = self.format;
            let why = format!("its format is {format}, and this program knows {FORMAT}");
            return Err(incompatible(&why));
        }
        let shards = NonZeroU16::new(self.shards).ok_or_else(|| incompatible("no shards"))?;
        Ok((ShardCount::new(shards), self.id))
    }
}

/// What is stored there; none where nothing is. Writes nothing.
pub(super) fn read(nodes: &mut Nodes) -> Result<Option<StoreKey>, RedisStoreError> {
    let primary = nodes.primary_of_key(keys::STORE)?;
    let mut exists = redis::cmd("EXISTS");
    exists.arg(keys::STORE);
    let exists = nodes.ask(&primary, &exists)?;
    if !bool::from_redis_value(exists).unwrap_or(true) {
        return Ok(None);
    }
    let mut get = redis::cmd("HMGET");
    get.arg(keys::STORE)
        .arg(&["format", "shards", "id", "copying"]);
    understood(nodes.ask(&primary, &get)?).map(Some)
}

/// What is stored there; where nothing is, an empty store.
pub(super) fn create(
    nodes: &mut Nodes,
    scripts: &Scripts,
    id: Uuid,
) -> Result<StoreKey, RedisStoreError> {
    let primary = nodes.primary_of_key(keys::STORE)?;
    let mut script = scripts.create.prepare_invoke();
    script
        .key(keys::STORE)
        .arg(FORMAT)
        .arg(SHARDS)
        .arg(id.to_string())
        .arg(WITHOUT_POINTS);
    understood(nodes.run_at(&primary, &script)?)
}

/// What is stored there, where nothing is an empty store, after it was marked with this copy. One
/// that is in use is left alone, and has no mark.
pub(super) fn begin_copy(
    nodes: &mut Nodes,
    scripts: &Scripts,
    copy: Uuid,
) -> Result<StoreKey, RedisStoreError> {
    let primary = nodes.primary_of_key(keys::STORE)?;
    let mut script = scripts.begin_copy.prepare_invoke();
    script
        .key(keys::STORE)
        .arg(FORMAT)
        .arg(SHARDS)
        .arg(copy.to_string())
        .arg(copy.to_string());
    understood(nodes.run_at(&primary, &script)?)
}

/// Takes this copy's mark away.
pub(super) fn complete_copy(
    nodes: &mut Nodes,
    scripts: &Scripts,
    copy: Uuid,
) -> Result<(), RedisStoreError> {
    let primary = nodes.primary_of_key(keys::STORE)?;
    let mut script = scripts.complete_copy.prepare_invoke();
    script.key(keys::STORE).arg(copy.to_string());
    let was_marked = nodes.run_at(&primary, &script)?;
    match bool::from_redis_value(was_marked) {
        Ok(true) => Ok(()),
        _ => Err(RedisStoreError::CopyOvertaken),
    }
}

fn understood(answer: Value) -> Result<StoreKey, RedisStoreError> {
    let (format, shards, id, copying) =
        <(u64, u16, String, Option<String>)>::from_redis_value(answer)
            .map_err(|_| incompatible("format, shards and id are missing or no numbers"))?;
    Ok(StoreKey {
        format,
        shards,
        id,
        copying,
    })
}

fn incompatible(why: &str) -> RedisStoreError {
    RedisStoreError::Incompatible {
        key: keys::STORE.to_owned(),
        why: why.to_owned(),
    }
}
