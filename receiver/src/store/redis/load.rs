//! Reads the committed state of a shard.
//!
//! The shard may be committed while it is read, by its owner. So the identifier of the last commit
//! is read before and after.

use std::collections::BTreeMap;

use redis::{FromRedisValue, Value};
use uuid::Uuid;

use super::super::damage::Damage;
use super::super::document::{DOCUMENT_BYTES_MAX, DocumentKind, StoredDocument};
use super::super::shard::{Position, Shard};
use super::super::state::{ShardState, StoredHost, StoredSeries};
use super::super::writers::Writers;
use super::clock;
use super::error::RedisStoreError;
use super::host;
use super::keys;
use super::nodes::Nodes;
use super::read::{ShardReader, last_entry};
use super::ring;
use crate::clock::StoredClock;

/// How many series are asked for at once: some 3 MB.
const SERIES_MAX: usize = 1_000;
/// How often a shard that is committed meanwhile is read.
const ATTEMPTS: usize = 20;

/// A shard as it was read.
#[derive(Debug)]
pub(super) struct LoadedShard {
    pub(super) state: ShardState,
    pub(super) reader: ShardReader,
    /// The identifier of the last commit; empty before the first.
    pub(super) commit: String,
    /// `HOST/LABEL` of every series.
    pub(super) series: Vec<String>,
    /// What could not be read.
    pub(super) damage: Vec<Damage>,
}

/// Reads a shard.
pub(super) fn load(
    nodes: &mut Nodes,
    shard: Shard,
    now: u64,
) -> Result<LoadedShard, RedisStoreError> {
    for _ in 0..ATTEMPTS {
        let loaded = load_once(nodes, shard, now)?;
        let mut get = redis::cmd("HGET");
        get.arg(keys::meta(shard)).arg("commit");
        let commit = nodes.ask_all(shard, vec![get])?.pop();
        let commit = commit.and_then(|commit| Option::<String>::from_redis_value(commit).ok());
        if commit.flatten().unwrap_or_default() == loaded.commit {
            return Ok(loaded);
        }
    }
    Err(RedisStoreError::Changing {
        shard: shard.number(),
    })
}

/// What the shard's `meta` says of the last commit.
#[derive(Debug, Default)]
struct Committed {
    cursor: Position,
    commit: String,
    clock: Option<StoredClock>,
}

fn load_once(nodes: &mut Nodes, shard: Shard, now: u64) -> Result<LoadedShard, RedisStoreError> {
    let mut meta = redis::cmd("HMGET");
    meta.arg(keys::meta(shard))
        .arg(&["cursor", "commit", "clock"]);
    let [answer] = ask(nodes, shard, [meta])?;
    let committed = committed(shard, answer)?;
    let command = |name: &str, key: String| {
        let mut command = redis::cmd(name);
        command.arg(key);
        command
    };
    let id = format!("0-{}", committed.cursor);
    let mut last = command("XRANGE", keys::journal(shard));
    last.arg(&id).arg(&id);
    let [last, writers, hosts, documents, series] = ask(
        nodes,
        shard,
        [
            last,
            command("HGETALL", keys::writers(shard)),
            command("HGETALL", keys::hosts(shard)),
            command("HGETALL", keys::documents(shard)),
            command("SMEMBERS", keys::series_set(shard)),
        ],
    )?;
    let mut damage = Vec::new();
    let writers = writers_of(shard, writers)?;
    let mut found = hosts_of(shard, hosts, now, &mut damage)?;
    let documents = documents_of(shard, documents, &mut found, now, &mut damage)?;
    let series = strings(shard, "series", series)?;
    for names in series.chunks(SERIES_MAX) {
        let mut get = redis::cmd("MGET");
        for name in names {
            get.arg(keys::series(shard, name));
        }
        let [answer] = ask(nodes, shard, [get])?;
        let rings: Vec<Option<Vec<u8>>> = parse(shard, "series", answer)?;
        for (name, ring) in names.iter().zip(rings) {
            let (host, label) = name.split_once('/').unwrap_or((name, ""));
            let series = ring::decode(&ring.unwrap_or_default());
            match (found.get_mut(host), series) {
                (Some(_), Some(series)) if series.has_nothing() => (),
                (Some(host), Some(series)) => host.series.push(StoredSeries {
                    label: label.into(),
                    series,
                }),
                _ => damage.push(Damage {
                    label: Some(label.to_owned()),
                    ..Damage::of_host(now, host, "a series that lizmon did not write")
                }),
            }
        }
    }
    let entry = last_entry(last);
    Ok(LoadedShard {
        state: ShardState {
            shard,
            cursor: committed.cursor,
            hosts: found.into_values().collect(),
            clock: committed.clock,
            evicted: Vec::new(),
            documents,
        },
        reader: ShardReader::at(committed.cursor, entry, writers),
        commit: committed.commit,
        series,
        damage,
    })
}

/// Documents of a kind, by host.
pub(super) fn documents(
    nodes: &mut Nodes,
    shard: Shard,
    hosts: &[&str],
    kind: DocumentKind,
) -> Result<Vec<Option<Vec<u8>>>, RedisStoreError> {
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    let mut get = redis::cmd("HMGET");
    get.arg(keys::documents(shard));
    for host in hosts {
        get.arg(super::commit::document_field(host, kind));
    }
    let [documents] = ask(nodes, shard, [get])?;
    parse(shard, "documents", documents)
}

fn ask<const N: usize>(
    nodes: &mut Nodes,
    shard: Shard,
    commands: [redis::Cmd; N],
) -> Result<[Value; N], RedisStoreError> {
    let answers = nodes.ask_all(shard, commands.into())?;
    answers
        .try_into()
        .map_err(|_| malformed(shard, "state", "another number of answers"))
}

fn malformed(shard: Shard, key: &str, why: &str) -> RedisStoreError {
    RedisStoreError::Malformed {
        key: format!("lizmon:{{{}}}:{key}", shard.number()),
        why: why.to_owned(),
    }
}

fn parse<T: FromRedisValue>(shard: Shard, key: &str, value: Value) -> Result<T, RedisStoreError> {
    T::from_redis_value(value).map_err(|error| malformed(shard, key, &error.to_string()))
}

fn strings(shard: Shard, key: &str, value: Value) -> Result<Vec<String>, RedisStoreError> {
    let mut strings: Vec<String> = parse(shard, key, value)?;
    strings.sort_unstable();
    Ok(strings)
}

fn committed(shard: Shard, answer: Value) -> Result<Committed, RedisStoreError> {
    let (cursor, commit, clock): (Option<u64>, Option<String>, Option<Vec<u8>>) =
        parse(shard, "meta", answer)?;
    let clock = clock.map(|json| clock::decode(&json)).transpose();
    Ok(Committed {
        cursor: Position::new(cursor.unwrap_or(0)),
        commit: commit.unwrap_or_default(),
        clock: clock.map_err(|error| malformed(shard, "meta", &error.to_string()))?,
    })
}

/// By writer `NUMBER SECONDS`. What is damaged here could count groups twice, so it is an error.
fn writers_of(shard: Shard, answer: Value) -> Result<Writers, RedisStoreError> {
    let stored: BTreeMap<String, String> = parse(shard, "writers", answer)?;
    let writer = |(id, of): (String, String)| {
        let (number, at) = of.split_once(' ')?;
        Some((
            Uuid::parse_str(&id).ok()?,
            number.parse().ok()?,
            at.parse().ok()?,
        ))
    };
    let writers: Option<Vec<_>> = stored.into_iter().map(writer).collect();
    let writers = writers.ok_or_else(|| malformed(shard, "writers", "not a writer's number"))?;
    Ok(Writers::restore(writers.into_iter()))
}

/// Gives the documents of hosts to these, and those of the shard back.
fn documents_of(
    shard: Shard,
    answer: Value,
    hosts: &mut BTreeMap<String, StoredHost>,
    now: u64,
    damage: &mut Vec<Damage>,
) -> Result<Vec<StoredDocument>, RedisStoreError> {
    let stored: BTreeMap<String, Vec<u8>> = parse(shard, "documents", answer)?;
    let mut of_shard = Vec::new();
    for (field, body) in stored {
        let (host, kind) = field.split_once('/').unwrap_or((&field, ""));
        let kind = kind.parse().ok().and_then(DocumentKind::from_number);
        let kind = kind.filter(|_| body.len() <= DOCUMENT_BYTES_MAX);
        let Some(kind) = kind else {
            damage.push(Damage::of_host(
                now,
                host,
                "a document that lizmon did not write",
            ));
            continue;
        };
        let body = body.into();
        let document = StoredDocument { kind, body };
        match hosts.get_mut(host) {
            Some(host) => host.documents.push(document),
            None if host.is_empty() => of_shard.push(document),
            None => damage.push(Damage::of_host(now, host, kind.loss())),
        }
    }
    Ok(of_shard)
}

fn hosts_of(
    shard: Shard,
    answer: Value,
    now: u64,
    damage: &mut Vec<Damage>,
) -> Result<BTreeMap<String, StoredHost>, RedisStoreError> {
    let stored: BTreeMap<String, Vec<u8>> = parse(shard, "hosts", answer)?;
    let mut hosts = BTreeMap::new();
    for (name, json) in stored {
        match host::decode(name.clone(), &json) {
            Ok(host) => {
                hosts.insert(name, host);
            }
            Err(error) => {
                let what = format!("its record was not written by lizmon: {error}");
                damage.push(Damage::of_host(now, &name, what));
            }
        }
    }
    Ok(hosts)
}
