//! Commits what has changed of a shard, by one script: see scripts.rs.

use std::collections::{BTreeSet, HashMap};

use redis::{FromRedisValue, ScriptInvocation, Value};
use uuid::Uuid;

use super::super::document::{DocumentKind, StoredDocument};
use super::super::history::{ChunkChange, HistoryRetention};
use super::super::reader::{EntryId, JournalReader};
use super::super::shard::{Fence, Shard};
use super::super::state::{ShardChanges, StoredHost, StoredSeries};
use super::super::writers::Writers;
use super::clock;
use super::error::RedisStoreError;
use super::history;
use super::host;
use super::keys::{self, HistoryKey};
use super::nodes::Nodes;
use super::ring;
use super::scripts::Scripts;

/// How many keys come before those of series.
const SHARD_KEYS: usize = 6;
/// The server takes no command of more arguments (2^20), so no commit has more.
const ARGUMENTS_MAX: usize = 1_000_000;

/// What the owner of a shard knows of its committed state.
#[derive(Debug, Default)]
pub(super) struct OwnedShard {
    /// The identifier of the last commit; empty before the first.
    pub(super) commit: String,
    /// By host, the labels of its series.
    pub(super) labels: HashMap<String, BTreeSet<Box<str>>>,
    /// The server's clock at the last commit: epoch seconds; 0 before the first.
    pub(super) committed_at: u64,
}

impl OwnedShard {
    /// As it was loaded: series are `HOST/LABEL`.
    pub(super) fn of(commit: String, series: &[String]) -> Self {
        let mut labels = HashMap::<_, BTreeSet<Box<str>>>::new();
        for (host, label) in series.iter().filter_map(|series| series.split_once('/')) {
            labels
                .entry(host.to_owned())
                .or_default()
                .insert(label.into());
        }
        Self {
            commit,
            labels,
            committed_at: 0,
        }
    }
}

/// What one commit asks of the script.
#[derive(Debug, Default)]
struct Operations {
    /// The keys of series.
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Operations {
    fn push(&mut self, operation: &str, arguments: &[&[u8]]) {
        self.arguments.push(operation.into());
        self.arguments
            .extend(arguments.iter().map(|argument| argument.to_vec()));
    }

    /// An operation on the string of a series.
    fn push_series(&mut self, operation: &str, key: String, arguments: &[&[u8]]) {
        if self.keys.last() != Some(&key) {
            self.keys.push(key);
        }
        let number = (SHARD_KEYS + self.keys.len()).to_string();
        self.push(operation, &[&[number.as_bytes()], arguments].concat());
    }
}

/// Commits the changes. An error leaves it open whether they took effect; the next commit of this
/// owner is then refused, if they did.
pub(super) fn commit(
    nodes: &mut Nodes,
    scripts: &Scripts,
    owner: &str,
    fence: Fence,
    owned: &mut OwnedShard,
    journal: &mut JournalReader,
    changes: &ShardChanges,
) -> Result<(), RedisStoreError> {
    let shard = fence.shard();
    let forgotten = journal.writers.expired(owned.committed_at);
    let mut operations = operations(shard, owned, &journal.writers, &forgotten, changes)?;
    for change in history::changes_of(nodes, shard, changes)? {
        push_chunk(&mut operations, shard, &change, &changes.retention);
    }
    check_length(shard, &operations)?;
    let this = new_id();
    let clock = changes.clock.as_ref().map(clock::encode).transpose();
    let clock = clock.map_err(|error| refused(shard, &error.to_string()))?;
    let mut script = scripts.commit.prepare_invoke();
    script
        .key(keys::meta(shard))
        .key(keys::journal(shard))
        .key(keys::writers(shard))
        .key(keys::hosts(shard))
        .key(keys::series_set(shard))
        .key(keys::documents(shard))
        .key(operations.keys)
        .arg(owner)
        .arg(fence.epoch())
        .arg(&owned.commit)
        .arg(&this)
        .arg(changes.cursor.get())
        .arg(clock.unwrap_or_default())
        .arg(
            journal
                .entry_at(changes.cursor)
                .map_or_else(Vec::new, stands_there),
        )
        .arg(operations.arguments);
    let (outcome, at) = run(nodes, shard, &script)?;
    if outcome != "OK" {
        return Err(RedisStoreError::fenced(shard));
    }
    owned.commit = this;
    owned.committed_at = at;
    journal.writers.committed(changes.cursor, &forgotten, at);
    owned.apply(changes);
    Ok(())
}

/// An entry as the script compares it.
fn stands_there(entry: EntryId) -> Vec<u8> {
    let numbers = format!(" {} {}", entry.number, entry.attempt);
    [entry.writer.as_bytes().as_slice(), numbers.as_bytes()].concat()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tells this commit from every other, also of the same owner"
)]
fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// Runs the script, and once more if the connection broke: what took effect already is recognised.
fn run(
    nodes: &mut Nodes,
    shard: Shard,
    script: &ScriptInvocation<'_>,
) -> Result<(String, u64), RedisStoreError> {
    let answer = match nodes.run(shard, script) {
        Err(error) if error.is_worth_another() => nodes.run(shard, script)?,
        answer => answer?,
    };
    understood(answer).ok_or_else(|| RedisStoreError::Malformed {
        key: keys::meta(shard),
        why: "another answer than the script gives".to_owned(),
    })
}

fn understood(answer: Value) -> Option<(String, u64)> {
    <(String, u64)>::from_redis_value(answer).ok()
}

fn refused(shard: Shard, why: &str) -> RedisStoreError {
    RedisStoreError::Malformed {
        key: keys::meta(shard),
        why: why.to_owned(),
    }
}

fn operations(
    shard: Shard,
    owned: &OwnedShard,
    writers: &Writers,
    forgotten: &[Uuid],
    changes: &ShardChanges,
) -> Result<Operations, RedisStoreError> {
    let mut operations = Operations::default();
    for host in &changes.hosts {
        push_host(&mut operations, shard, owned, host)?;
    }
    for (host, label) in &changes.ended_series {
        push_end(&mut operations, shard, host, label);
    }
    push_documents(&mut operations, "", &changes.documents);
    for host in &changes.ended_hosts {
        operations.push("X", &[host.as_bytes()]);
        for kind in DocumentKind::ALL {
            operations.push("G", &[document_field(host, kind).as_bytes()]);
        }
        for label in owned.labels.get(host).into_iter().flatten() {
            push_end(&mut operations, shard, host, label);
        }
    }
    for (writer, number) in writers.through(changes.cursor) {
        let (writer, number) = (writer.to_string(), number.to_string());
        operations.push("W", &[writer.as_bytes(), number.as_bytes()]);
    }
    for writer in forgotten {
        operations.push("F", &[writer.to_string().as_bytes()]);
    }
    Ok(operations)
}

fn check_length(shard: Shard, operations: &Operations) -> Result<(), RedisStoreError> {
    if operations.arguments.len() + operations.keys.len() > ARGUMENTS_MAX {
        let why = "one commit has more changes than Redis takes arguments: create a store with more shards";
        return Err(refused(shard, why));
    }
    Ok(())
}

fn push_chunk(
    operations: &mut Operations,
    shard: Shard,
    change: &ChunkChange,
    retention: &HistoryRetention,
) {
    let hash = HistoryKey::of(&change.chunk);
    let (key, label) = (hash.name(shard), change.chunk.label.as_bytes());
    if change.is_removed {
        operations.push_series("E", key, &[label]);
        return;
    }
    let expires = hash.expires(retention).to_string();
    let arguments = [label, &change.chunk.bytes, expires.as_bytes()];
    operations.push_series("K", key, &arguments);
}

fn push_host(
    operations: &mut Operations,
    shard: Shard,
    owned: &OwnedShard,
    host: &StoredHost,
) -> Result<(), RedisStoreError> {
    let record = host::encode(host).map_err(|error| refused(shard, &error.to_string()))?;
    operations.push("H", &[host.name.as_bytes(), record.as_bytes()]);
    push_documents(operations, &host.name, &host.documents);
    let known = owned.labels.get(&host.name);
    for StoredSeries { label, .. } in &host.series {
        if known.is_none_or(|known| !known.contains(label)) {
            operations.push("A", &[series(&host.name, label).as_bytes()]);
        }
    }
    if !host.is_whole {
        for changed in &host.series {
            let name = series(&host.name, &changed.label);
            let intervals = changed.series.intervals();
            for (tier, bucket, _) in intervals.filter(|(_, _, is_changed)| *is_changed) {
                if let Some(offset) = ring::offset(tier, &bucket) {
                    let key = keys::series(shard, &name);
                    let bucket = ring::encode(&bucket);
                    operations.push_series("R", key, &[offset.to_string().as_bytes(), &bucket]);
                }
            }
            let point = changed.series.last_point();
            if let Some(point) = point.filter(|_| changed.series.has_new_point()) {
                let (key, offset) = (keys::series(shard, &name), ring::point_offset());
                let point = ring::encode_point(point);
                operations.push_series("R", key, &[offset.to_string().as_bytes(), &point]);
            }
        }
        return Ok(());
    }
    for whole in &host.series {
        let key = keys::series(shard, &series(&host.name, &whole.label));
        operations.push_series("S", key, &[&ring::encode_all(&whole.series)]);
    }
    let labels: BTreeSet<_> = host.series.iter().map(|series| &series.label).collect();
    for label in known.into_iter().flatten() {
        if !labels.contains(label) {
            push_end(operations, shard, &host.name, label);
        }
    }
    Ok(())
}

fn push_documents(operations: &mut Operations, host: &str, documents: &[StoredDocument]) {
    for StoredDocument { kind, body } in documents {
        let field = document_field(host, *kind);
        if body.is_empty() {
            operations.push("G", &[field.as_bytes()]);
        } else {
            operations.push("N", &[field.as_bytes(), body]);
        }
    }
}

/// No node name has a slash.
pub(super) fn document_field(host: &str, kind: DocumentKind) -> String {
    format!("{host}/{}", kind.number())
}

fn push_end(operations: &mut Operations, shard: Shard, host: &str, label: &str) {
    let series = series(host, label);
    operations.push("M", &[series.as_bytes()]);
    operations.push_series("D", keys::series(shard, &series), &[]);
}

fn series(host: &str, label: &str) -> String {
    format!("{host}/{label}")
}

impl OwnedShard {
    /// These changes are committed.
    fn apply(&mut self, changes: &ShardChanges) {
        for host in &changes.hosts {
            let labels = self.labels.entry(host.name.clone()).or_default();
            if host.is_whole {
                labels.clear();
            }
            labels.extend(host.series.iter().map(|series| series.label.clone()));
        }
        for (host, label) in &changes.ended_series {
            if let Some(labels) = self.labels.get_mut(host) {
                labels.remove(label);
            }
        }
        for host in &changes.ended_hosts {
            self.labels.remove(host);
        }
    }
}
