//! What is in a store, for people: who owns which shard, what waits to be counted, how the servers
//! are. Writes nothing, and needs no more rights than to read.

use std::collections::BTreeMap;

use redis::{Cmd, FromRedisValue, Value};
use uuid::Uuid;

use super::super::error::StoreError;
use super::super::members::MemberRole;
use super::super::record::read_group;
use super::super::shard::{Position, Shard};
use super::config::{Address, RedisConfig};
use super::entry::GroupEntry;
use super::error::RedisStoreError;
use super::info::EngineInfo;
use super::inspect;
use super::keys;
use super::nodes::Nodes;
use super::store_key::{self, StoreKey};

/// A whole store.
#[derive(Debug)]
pub struct SharedStoreStatus {
    /// What it is.
    pub store: StoreKey,
    /// Its shards, in order: one whose server is away has no figures.
    pub shards: Vec<(Shard, Result<ShardFigures, StoreError>)>,
    /// Who is there, by role.
    pub members: BTreeMap<MemberRole, Vec<MemberLease>>,
    /// Its primaries, and what they say of themselves.
    pub servers: Vec<(Address, Result<EngineInfo, StoreError>)>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardFigures {
    /// Where it is.
    pub primary: Address,
    /// Who may commit it, and for how long if nothing is done: milliseconds.
    pub owner: Option<(Uuid, u64)>,
    /// The fencing epoch of the last lease; 0 if there was none.
    pub epoch: u64,
    /// The last position whose effect is in the committed state.
    pub cursor: Position,
    /// How many groups the journal holds.
    pub journal_length: u64,
    /// How many of them are behind the cursor.
    pub uncommitted: u64,
    /// Since when the first of these waits, by the clocks of its receiver and of the server:
    /// seconds. None if there is none, or if it cannot be read.
    pub oldest_uncommitted_secs: Option<u64>,
    /// The server's clock: epoch milliseconds.
    pub now_millis: u64,
}

/// A member, and for how long it counts as there if it says nothing: milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLease {
    /// Its name.
    pub member: String,
    /// Milliseconds.
    pub left_millis: u64,
}

/// Reads all of it. An error if there is no store, or if no server tells.
pub fn status(config: RedisConfig) -> Result<SharedStoreStatus, StoreError> {
    let mut nodes = Nodes::open(config)?;
    let store = store_key::read(&mut nodes)?.ok_or(RedisStoreError::NoStore)?;
    let (count, _) = store.clone().known()?;
    nodes.set_shards(count);
    let mut members = BTreeMap::new();
    for role in [MemberRole::Receiver, MemberRole::Summarizer] {
        members.insert(role, members_of(&mut nodes, role)?);
    }
    let shards = count.all().map(|shard| {
        let figures = figures(&mut nodes, shard).map_err(StoreError::from);
        (shard, figures)
    });
    let shards = shards.collect();
    let servers = nodes.primaries()?.into_iter().map(|address| {
        let engine = inspect::engine(&mut nodes, &address).map_err(StoreError::from);
        (address, engine)
    });
    Ok(SharedStoreStatus {
        servers: servers.collect(),
        store,
        shards,
        members,
    })
}

fn command(name: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

fn millis(time: Value) -> Option<u64> {
    let (secs, micros) = <(u64, u64)>::from_redis_value(time).ok()?;
    Some(secs * 1_000 + micros / 1_000)
}

fn members_of(nodes: &mut Nodes, role: MemberRole) -> Result<Vec<MemberLease>, RedisStoreError> {
    let key = keys::members(role.name());
    let primary = nodes.primary_of_key(&key)?;
    let now = millis(nodes.ask(&primary, &redis::cmd("TIME"))?).unwrap_or(0);
    let stored = nodes.ask(&primary, &command("HGETALL", &key))?;
    let stored = BTreeMap::<String, String>::from_redis_value(stored).unwrap_or_default();
    let members = stored.into_iter().filter_map(|(member, until)| {
        let digits = until.split(|letter: char| !letter.is_ascii_digit()).next();
        let left_millis = digits?.parse::<u64>().ok()?.checked_sub(now)?;
        (left_millis > 0).then_some(MemberLease {
            member,
            left_millis,
        })
    });
    Ok(members.collect())
}

/// What `meta` says.
type Meta = (Option<String>, Option<u64>, Option<u64>, Option<u64>);

fn figures(nodes: &mut Nodes, shard: Shard) -> Result<ShardFigures, RedisStoreError> {
    let mut meta = command("HMGET", &keys::meta(shard));
    meta.arg(&["owner", "until", "epoch", "cursor"]);
    let mut answers = nodes
        .ask_all(shard, vec![redis::cmd("TIME"), meta])?
        .into_iter();
    let mut next = || answers.next().unwrap_or(Value::Nil);
    let now_millis = millis(next()).unwrap_or(0);
    let malformed = |why: &str| RedisStoreError::Malformed {
        key: keys::meta(shard),
        why: why.to_owned(),
    };
    let (owner, until, epoch, cursor) =
        Meta::from_redis_value(next()).map_err(|error| malformed(&error.to_string()))?;
    let cursor = Position::new(cursor.unwrap_or(0));
    let left = until.unwrap_or(0).saturating_sub(now_millis);
    let owner = owner.and_then(|owner| Uuid::parse_str(&owner).ok());
    let journal = journal(nodes, shard, cursor)?;
    let age = |taken_at: u64| (now_millis / 1_000).saturating_sub(taken_at);
    Ok(ShardFigures {
        primary: nodes.primary(shard)?,
        owner: owner.filter(|_| left > 0).map(|owner| (owner, left)),
        epoch: epoch.unwrap_or(0),
        cursor,
        journal_length: journal.length,
        uncommitted: journal.uncommitted,
        oldest_uncommitted_secs: journal.oldest_taken_at.map(age),
        now_millis,
    })
}

struct JournalFigures {
    length: u64,
    uncommitted: u64,
    oldest_taken_at: Option<u64>,
}

/// What is before the cursor is trimmed by its commit, so of what is left only the entry at the
/// cursor is committed.
fn journal(
    nodes: &mut Nodes,
    shard: Shard,
    cursor: Position,
) -> Result<JournalFigures, RedisStoreError> {
    let key = keys::journal(shard);
    let mut first = command("XRANGE", &key);
    first.arg(format!("0-{cursor}")).arg("+");
    first.arg("COUNT").arg(2);
    let mut answers = nodes.ask_all(shard, vec![command("XLEN", &key), first])?;
    let entries = answers.pop().unwrap_or(Value::Nil);
    let length = answers
        .pop()
        .and_then(|length| u64::from_redis_value(length).ok());
    let length = length.unwrap_or(0);
    let entries = match entries {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    let mut entries = entries
        .into_iter()
        .filter_map(|entry| GroupEntry::read(entry).ok())
        .peekable();
    let is_at_cursor = entries
        .next_if(|(position, _)| *position == cursor)
        .is_some();
    let oldest = entries.next().and_then(|(_, entry)| entry.ok());
    Ok(JournalFigures {
        length,
        uncommitted: length - u64::from(is_at_cursor).min(length),
        oldest_taken_at: oldest.and_then(|entry| taken_at(&entry.group)),
    })
}

/// When a receiver received the first of a group. Whether one signed it is not asked.
fn taken_at(group: &[u8]) -> Option<u64> {
    let submissions = read_group(group).ok()?;
    submissions
        .iter()
        .map(|submission| submission.taken_at)
        .min()
}
