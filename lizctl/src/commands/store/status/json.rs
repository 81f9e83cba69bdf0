//! The whole status as JSON. Times are seconds; keys do not change.

use lizmon_receiver::store::redis::config::Address;
use lizmon_receiver::store::redis::info::{AppendFsync, EngineInfo, EngineReplica};
use lizmon_receiver::store::redis::status::{MemberLease, ShardFigures, SharedStoreStatus};
use lizmon_receiver::store::{MemberRole, Shard, StoreError};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct StatusJson {
    url: String,
    id: String,
    format: u64,
    shard_count: u16,
    /// Whether a copy into it has not been completed.
    copy_incomplete: bool,
    receivers: Vec<MemberJson>,
    summarizers: Vec<MemberJson>,
    servers: Vec<ServerJson>,
    shards: Vec<ShardJson>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct MemberJson {
    member: String,
    left_secs: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ServerJson {
    address: String,
    /// Why there is nothing else.
    error: Option<String>,
    product: Option<String>,
    version: Option<String>,
    used_memory_bytes: Option<u64>,
    maxmemory_bytes: Option<u64>,
    append_only_file: Option<bool>,
    append_only_file_written: Option<bool>,
    append_only_file_rewritten: Option<bool>,
    appendfsync: Option<&'static str>,
    replicas: Vec<ReplicaJson>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ReplicaJson {
    address: String,
    online: bool,
    lag_secs: Option<u64>,
    bytes_behind: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ShardJson {
    shard: u16,
    /// Why there is nothing else.
    error: Option<String>,
    server: Option<String>,
    owner: Option<String>,
    /// By the server's clock.
    lease_end: Option<f64>,
    lease_left_secs: Option<f64>,
    epoch: Option<u64>,
    cursor: Option<u64>,
    journal_length: Option<u64>,
    uncommitted: Option<u64>,
    oldest_uncommitted_secs: Option<u64>,
}

impl StatusJson {
    pub(super) fn new(url: &str, status: &SharedStoreStatus) -> Self {
        let members = |role| status.members.get(&role).into_iter().flatten();
        Self {
            url: url.to_owned(),
            id: status.store.id.clone(),
            format: status.store.format,
            shard_count: status.store.shards,
            copy_incomplete: status.store.copying.is_some(),
            receivers: members(MemberRole::Receiver).map(member).collect(),
            summarizers: members(MemberRole::Summarizer).map(member).collect(),
            servers: status.servers.iter().map(server).collect(),
            shards: status.shards.iter().map(shard).collect(),
        }
    }
}

fn secs(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

fn member(member: &MemberLease) -> MemberJson {
    MemberJson {
        member: member.member.clone(),
        left_secs: secs(member.left_millis),
    }
}

fn server((address, read): &(Address, Result<EngineInfo, StoreError>)) -> ServerJson {
    let engine = read.as_ref().ok();
    ServerJson {
        address: address.to_string(),
        error: read.as_ref().err().map(StoreError::in_full),
        product: engine.map(|engine| engine.product.to_string()),
        version: engine.map(|engine| engine.version.to_string()),
        used_memory_bytes: engine.and_then(|engine| engine.used_memory_bytes),
        maxmemory_bytes: engine.and_then(|engine| engine.maxmemory_bytes),
        append_only_file: engine.and_then(|engine| engine.has_append_only_file),
        append_only_file_written: engine.and_then(|engine| engine.is_append_only_file_written),
        append_only_file_rewritten: engine.and_then(|engine| engine.is_append_only_file_rewritten),
        appendfsync: engine.and_then(|engine| engine.append_fsync).map(fsync),
        replicas: engine
            .map_or(&[][..], |engine| &engine.replicas)
            .iter()
            .map(replica)
            .collect(),
    }
}

pub(super) fn fsync(fsync: AppendFsync) -> &'static str {
    match fsync {
        AppendFsync::Always => "always",
        AppendFsync::EverySecond => "everysec",
        AppendFsync::Never => "no",
    }
}

fn replica(replica: &EngineReplica) -> ReplicaJson {
    ReplicaJson {
        address: replica.address.clone(),
        online: replica.is_online,
        lag_secs: replica.lag_secs,
        bytes_behind: replica.bytes_behind,
    }
}

fn shard((shard, read): &(Shard, Result<ShardFigures, StoreError>)) -> ShardJson {
    let figures = read.as_ref().ok();
    let owner = figures.and_then(|figures| figures.owner);
    let end = |figures: &ShardFigures| Some(secs(figures.now_millis + figures.owner?.1));
    ShardJson {
        shard: shard.number(),
        error: read.as_ref().err().map(StoreError::in_full),
        server: figures.map(|figures| figures.primary.to_string()),
        owner: owner.map(|(owner, _)| owner.to_string()),
        lease_end: figures.and_then(end),
        lease_left_secs: owner.map(|(_, left)| secs(left)),
        epoch: figures.map(|figures| figures.epoch),
        cursor: figures.map(|figures| figures.cursor.get()),
        journal_length: figures.map(|figures| figures.journal_length),
        uncommitted: figures.map(|figures| figures.uncommitted),
        oldest_uncommitted_secs: figures.and_then(|figures| figures.oldest_uncommitted_secs),
    }
}
