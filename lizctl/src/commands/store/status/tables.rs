//! The status for people: the sums, the servers, and the shards that are worth a look.

use std::collections::BTreeSet;

use lizmon_receiver::store::redis::config::Address;
use lizmon_receiver::store::redis::info::{EngineInfo, EngineReplica};
use lizmon_receiver::store::redis::status::{ShardFigures, SharedStoreStatus};
use lizmon_receiver::store::{MemberRole, Shard, StoreError};

use super::json::fsync;
use crate::output;

/// How many shards are listed if not all are asked for.
const SHARDS_SHOWN_MAX: usize = 10;

type ReadShard = (Shard, Result<ShardFigures, StoreError>);

pub(super) fn show(url: &str, status: &SharedStoreStatus, all: bool) -> anyhow::Result<()> {
    sums(url, status)?;
    output::line("")?;
    servers(status)?;
    let mut listed: Vec<&ReadShard> = status.shards.iter().collect();
    if !all {
        listed.retain(|shard| is_worth_a_look(shard));
        listed.sort_by_key(|shard| std::cmp::Reverse(weight(shard)));
    }
    let more = match all {
        true => 0,
        false => listed.len().saturating_sub(SHARDS_SHOWN_MAX),
    };
    listed.truncate(listed.len() - more);
    if listed.is_empty() {
        return Ok(());
    }
    output::line("")?;
    shards(&listed)?;
    if more > 0 {
        output::note(format_args!("and {more} more: --shards lists all"));
    }
    Ok(())
}

fn sums(url: &str, status: &SharedStoreStatus) -> anyhow::Result<()> {
    let store = &status.store;
    let (id, count) = (&store.id, store.shards);
    output::line(format_args!("{url}: store {id}, format {}", store.format))?;
    if store.copying.is_some() {
        output::line("incomplete: a copy into it was interrupted; run `lizctl store copy` again")?;
    }
    let read = || {
        status
            .shards
            .iter()
            .filter_map(|(_, read)| read.as_ref().ok())
    };
    let owners: BTreeSet<_> = read().filter_map(|shard| Some(shard.owner?.0)).collect();
    let without = read().filter(|shard| shard.owner.is_none()).count();
    let unread = status.shards.len() - read().count();
    let unread = match unread {
        0 => String::new(),
        unread => format!(", {unread} cannot be read"),
    };
    let owners = owners.len();
    output::line(format_args!(
        "shards: {count}, by {owners} owners, {without} without owner{unread}"
    ))?;
    let uncommitted: u64 = read().map(|shard| shard.uncommitted).sum();
    let oldest = read()
        .filter_map(|shard| shard.oldest_uncommitted_secs)
        .max();
    let oldest = oldest.map_or_else(String::new, |secs| format!(", the oldest for {secs} s"));
    output::line(format_args!(
        "journal: {uncommitted} groups wait to be committed{oldest}"
    ))?;
    let members = |role| status.members.get(&role).map_or(0, Vec::len);
    output::line(format_args!(
        "members: {} receivers, {} summarizers",
        members(MemberRole::Receiver),
        members(MemberRole::Summarizer)
    ))
}

fn servers(status: &SharedStoreStatus) -> anyhow::Result<()> {
    let head = ["SERVER", "ENGINE", "MEMORY", "LIMIT", "LOG", "REPLICAS"];
    output::table(head, status.servers.iter().map(server).collect())
}

fn server((address, read): &(Address, Result<EngineInfo, StoreError>)) -> [String; 6] {
    let dash = || "-".to_owned();
    let engine = match read {
        Ok(engine) => engine,
        Err(error) => {
            return [
                address.to_string(),
                error.in_full(),
                dash(),
                dash(),
                dash(),
                dash(),
            ];
        }
    };
    let limit = engine.maxmemory_bytes.map(|bytes| match bytes {
        0 => "none".to_owned(),
        bytes => mebibytes(bytes),
    });
    let replicas: Vec<_> = engine.replicas.iter().map(replica).collect();
    [
        address.to_string(),
        format!("{} {}", engine.product, engine.version),
        engine.used_memory_bytes.map_or_else(dash, mebibytes),
        limit.unwrap_or_else(dash),
        log(engine),
        if replicas.is_empty() {
            "none".to_owned()
        } else {
            replicas.join(", ")
        },
    ]
}

/// The append-only file.
fn log(engine: &EngineInfo) -> String {
    let is_written = engine.is_append_only_file_written != Some(false);
    match (engine.has_append_only_file, is_written) {
        (None, _) => "-".to_owned(),
        (Some(false), _) => "none".to_owned(),
        (Some(true), false) => "unwritten".to_owned(),
        (Some(true), true) => engine.append_fsync.map_or("yes", fsync).to_owned(),
    }
}

fn replica(replica: &EngineReplica) -> String {
    let lag = replica.lag_secs.map(|secs| format!("{secs} s"));
    let behind = replica
        .bytes_behind
        .map(|bytes| format!("{bytes} B behind"));
    let words: Vec<_> = [lag, behind].into_iter().flatten().collect();
    match replica.is_online {
        true => format!("{} ({})", replica.address, words.join(", ")),
        false => format!("{} (not online)", replica.address),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn is_worth_a_look((_, read): &ReadShard) -> bool {
    !matches!(read, Ok(shard) if shard.owner.is_some() && shard.uncommitted == 0)
}

/// Shards without an owner first, then those that wait longest.
fn weight((shard, read): &ReadShard) -> (bool, bool, u64, u64, std::cmp::Reverse<u16>) {
    let figures = read.as_ref().ok();
    (
        figures.is_none(),
        figures.is_some_and(|shard| shard.owner.is_none()),
        figures
            .and_then(|shard| shard.oldest_uncommitted_secs)
            .unwrap_or(0),
        figures.map_or(0, |shard| shard.uncommitted),
        std::cmp::Reverse(shard.number()),
    )
}

fn shards(listed: &[&ReadShard]) -> anyhow::Result<()> {
    let head = [
        "SHARD", "OWNER", "LEASE", "EPOCH", "CURSOR", "JOURNAL", "WAITING", "OLDEST",
    ];
    let dash = || "-".to_owned();
    let rows = listed.iter().map(|(shard, read)| {
        let number = shard.number().to_string();
        let figures = match read {
            Ok(figures) => figures,
            Err(error) => {
                let why = error.in_full();
                return [number, why, dash(), dash(), dash(), dash(), dash(), dash()];
            }
        };
        let owner = figures.owner.map(|(owner, _)| owner.to_string());
        let lease = figures
            .owner
            .map(|(_, left)| format!("{:.1} s", left as f64 / 1_000.0));
        let oldest = figures
            .oldest_uncommitted_secs
            .map(|secs| format!("{secs} s"));
        [
            number,
            owner.unwrap_or_else(|| "none".to_owned()),
            lease.unwrap_or_else(dash),
            figures.epoch.to_string(),
            figures.cursor.to_string(),
            figures.journal_length.to_string(),
            figures.uncommitted.to_string(),
            oldest.unwrap_or_else(dash),
        ]
    });
    output::table(head, rows.collect())
}
