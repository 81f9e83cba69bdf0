//! Whether an engine keeps what it acknowledges: pure, from what it says in `INFO`.
//!
//! What `INFO` cannot tell: `appendfsync`, which takes `CONFIG GET`, and whether Amazon
//! ElastiCache's durability is on, which only AWS's own API tells.

use std::fmt;

use super::info::{
    AppendFsync, EngineHosting, EngineInfo, EngineMode, EngineProduct, EngineRole, EngineVersion,
};

#[cfg(test)]
mod tests;

/// Streams, functions and ACLs as this store uses them.
const REDIS_VERSION_MIN: EngineVersion = EngineVersion(7, 0, 0);
const VALKEY_VERSION_MIN: EngineVersion = EngineVersion(8, 0, 0);
/// From this version on ElastiCache can keep writes through failovers.
const ELASTICACHE_DURABLE_MIN: EngineVersion = EngineVersion(9, 0, 0);

/// A store of a few hosts and a minute without a summarizer.
const MAXMEMORY_MIN_BYTES: u64 = 64 << 20;
/// More of the limit in use than this is too much for a start.
const USED_MEMORY_MAX_PERCENT: u64 = 80;
/// More of the machine's memory than this leaves nothing for copies at a rewrite of the log.
const MAXMEMORY_OF_TOTAL_MAX_PERCENT: u64 = 90;
/// What is suggested of the machine's memory.
const MAXMEMORY_OF_TOTAL_PERCENT: u64 = 75;

const CHECK_DURABILITY: &str = "aws elasticache describe-replication-groups --replication-group-id NAME --query 'ReplicationGroups[].EffectiveDurability'";

/// What the operator asks of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requirements {
    /// How many replicas must have a group before it is acknowledged.
    pub min_replicas: u32,
    /// The operator says that AWS's `durability` is `sync`: `INFO` does not. It counts only where
    /// it can be so.
    pub is_durable_by_service: bool,
}

/// Whether a finding stops a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Acknowledged samples would be lost, or none would be taken: only `--accept-lossy-store` goes
    /// on.
    Refuse,
    /// Told at the start and in health.
    Warning,
}

/// One thing that is wrong with an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A name for programs: it does not change.
    pub code: &'static str,
    /// Whether it stops a start.
    pub severity: Severity,
    /// What is wrong, with the setting's name and value.
    pub what: String,
    /// What would be lost by it.
    pub why: &'static str,
    /// What to do: the line of redis.conf, the command, or the parameter of AWS.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.remedy)
    }
}

/// Everything that is wrong with this engine, the worst first.
pub fn judge(engine: &EngineInfo, wanted: &Requirements) -> Vec<Finding> {
    if engine.mode == EngineMode::Sentinel {
        return vec![is_sentinel()];
    }
    let mut findings: Vec<Finding> = [
        version(engine),
        loading(engine),
        replica(engine),
        lua(engine),
        eviction(engine),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.extend(durability(engine, wanted));
    findings.extend(replication(engine, wanted));
    findings.extend(memory(engine));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn refuse(code: &'static str, what: String, why: &'static str, remedy: String) -> Finding {
    Finding {
        code,
        severity: Severity::Refuse,
        what,
        why,
        remedy,
    }
}

fn warn(code: &'static str, what: String, why: &'static str, remedy: String) -> Finding {
    Finding {
        severity: Severity::Warning,
        ..refuse(code, what, why, remedy)
    }
}

fn is_sentinel() -> Finding {
    refuse(
        "sentinel",
        "this is a Sentinel (redis_mode:sentinel)".to_owned(),
        "a Sentinel stores nothing",
        "name the Sentinels as such, or give the primary's address".to_owned(),
    )
}

fn version(engine: &EngineInfo) -> Option<Finding> {
    let (product, version) = (engine.product, engine.version);
    let least = match product {
        EngineProduct::Redis => REDIS_VERSION_MIN,
        EngineProduct::Valkey => VALKEY_VERSION_MIN,
    };
    (version < least).then(|| {
        refuse(
            "version",
            format!("{product} {version} is too old"),
            "its streams, scripts and failovers are not those that this store was tested with",
            match engine.hosting {
                EngineHosting::Own => {
                    "install Redis 7.0 or newer, or Valkey 8.0 or newer".to_owned()
                }
                _ => "set engine_version to Valkey 8.0 or newer".to_owned(),
            },
        )
    })
}

fn loading(engine: &EngineInfo) -> Option<Finding> {
    engine.is_loading.then(|| {
        refuse(
            "loading",
            "the engine is reading its files (loading:1)".to_owned(),
            "it refuses every command until it has read them",
            "wait until `INFO persistence` says loading:0".to_owned(),
        )
    })
}

/// A Cluster's clients find the primaries by themselves.
fn replica(engine: &EngineInfo) -> Option<Finding> {
    match &engine.role {
        Some(EngineRole::Replica { primary }) if engine.mode != EngineMode::Cluster => {
            Some(refuse(
                "replica",
                format!("this is a replica of {primary} (role:slave)"),
                "it refuses writes, and what it would take is lost when it follows its primary",
                format!("give the address of its primary, {primary}, or those of the Sentinels"),
            ))
        }
        _ => None,
    }
}

fn lua(engine: &EngineInfo) -> Option<Finding> {
    (engine.has_lua == Some(false)).then(|| {
        refuse(
            "no-lua",
            "the engine has no Lua (INFO scriptingengines)".to_owned(),
            "summaries are committed by a script, so nothing would ever be summarized",
            "load its Lua module, or install a build with Lua".to_owned(),
        )
    })
}

fn eviction(engine: &EngineInfo) -> Option<Finding> {
    let policy = engine.maxmemory_policy.as_deref().unwrap_or("unknown");
    (policy != "noeviction").then(|| {
        refuse(
            "eviction",
            format!("maxmemory-policy is {policy}"),
            "an engine that is full drops whole keys: a shard's journal, state or delivery sets",
            setting(engine.hosting, "maxmemory-policy", "noeviction"),
        )
    })
}

/// What is left after a crash of the engine.
fn durability(engine: &EngineInfo, wanted: &Requirements) -> Vec<Finding> {
    match engine.hosting {
        EngineHosting::MemoryDb => Vec::new(),
        EngineHosting::ElastiCache => elasticache(engine, wanted).into_iter().collect(),
        EngineHosting::Own if engine.has_append_only_file == Some(true) => {
            append_only_file(engine, wanted)
        }
        EngineHosting::Own => vec![refuse(
            "no-append-only-file",
            match engine.has_append_only_file {
                Some(_) => "the engine has no append-only file (aof_enabled:0)".to_owned(),
                None => "the engine does not say that it has an append-only file".to_owned(),
            },
            "after a restart it is as empty as at its last snapshot: all acknowledged samples since \
             then are gone",
            setting(engine.hosting, "appendonly", "yes"),
        )],
    }
}

fn elasticache(engine: &EngineInfo, wanted: &Requirements) -> Option<Finding> {
    let can_be_durable = engine.product == EngineProduct::Valkey
        && engine.version >= ELASTICACHE_DURABLE_MIN
        && engine.mode == EngineMode::Cluster;
    match (can_be_durable, wanted.is_durable_by_service) {
        (true, true) => None,
        (true, false) => Some(refuse(
            "durability-unknown",
            "INFO of ElastiCache does not say whether its durability is sync".to_owned(),
            "without it a failover forgets acknowledged samples, and the loss of a shard all of them",
            format!(
                "set durability = \"sync\"; `{CHECK_DURABILITY}` shows it; then say so by \
                 --store-durability service"
            ),
        )),
        (false, _) => Some(refuse(
            "no-durability",
            format!(
                "ElastiCache with {} {}{} has no durability",
                engine.product,
                engine.version,
                match engine.mode {
                    EngineMode::Cluster => "",
                    _ => ", cluster mode disabled,",
                }
            ),
            "a failover forgets acknowledged samples, and the loss of a shard all of them",
            "use Valkey 9.0 or newer with cluster mode, Multi-AZ and durability = \"sync\", not \
             serverless, or MemoryDB"
                .to_owned(),
        )),
    }
}

fn append_only_file(engine: &EngineInfo, wanted: &Requirements) -> Vec<Finding> {
    let mut findings = Vec::new();
    if engine.is_append_only_file_written == Some(false) {
        findings.push(refuse(
            "append-only-file-unwritten",
            "the last write to the append-only file failed (aof_last_write_status:err)".to_owned(),
            "the engine refuses writes, or what it took since is not in the file",
            "see the engine's log: the disk of its `dir` is full or broken".to_owned(),
        ));
    }
    if engine.is_append_only_file_rewritten == Some(false) {
        findings.push(warn(
            "append-only-file-grows",
            "the last rewrite of the append-only file failed (aof_last_bgrewrite_status:err)"
                .to_owned(),
            "the file grows until its disk is full, and then nothing is taken",
            "see the engine's log for why (often vm.overcommit_memory=0, or a full disk), then \
             `BGREWRITEAOF`"
                .to_owned(),
        ));
    }
    if engine.is_snapshot_saved == Some(false) {
        findings.push(warn(
            "snapshot-unsaved",
            "the last snapshot failed (rdb_last_bgsave_status:err)".to_owned(),
            "with stop-writes-on-bgsave-error the engine refuses writes until one works",
            "see the engine's log, then `BGSAVE`; or `CONFIG SET save \"\"`: the append-only file is \
             enough"
                .to_owned(),
        ));
    }
    findings.extend(syncing(engine, wanted));
    findings
}

fn syncing(engine: &EngineInfo, wanted: &Requirements) -> Option<Finding> {
    let always = || setting(engine.hosting, "appendfsync", "always");
    match engine.append_fsync {
        Some(AppendFsync::Never) => Some(refuse(
            "never-synced",
            "appendfsync is no".to_owned(),
            "a power failure forgets half a minute of acknowledged samples and more",
            setting(engine.hosting, "appendfsync", "everysec"),
        )),
        // What replicas have too outlives the power failure of one machine.
        _ if wanted.min_replicas > 0 => None,
        Some(AppendFsync::Always) => None,
        Some(AppendFsync::EverySecond) => Some(warn(
            "synced-each-second",
            "appendfsync is everysec, and no replica must have a group".to_owned(),
            "a power failure forgets the last second or two: monitors send that again, other clients' \
             samples are lost",
            always(),
        )),
        None => Some(warn(
            "sync-unknown",
            "CONFIG GET appendfsync is refused, and INFO does not tell it".to_owned(),
            "unless it is always, a power failure forgets what was acknowledged last",
            format!("allow the user +config|get, or see to it: {}", always()),
        )),
    }
}

/// What is left after a failover.
fn replication(engine: &EngineInfo, wanted: &Requirements) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (online, least) = (engine.replicas_online, wanted.min_replicas);
    let is_primary = matches!(engine.role, None | Some(EngineRole::Primary));
    let is_durable = match engine.hosting {
        EngineHosting::MemoryDb => true,
        EngineHosting::ElastiCache => wanted.is_durable_by_service,
        EngineHosting::Own => false,
    };
    if is_primary && online < least {
        findings.push(warn(
            "too-few-replicas",
            format!("{online} replicas are online, --min-replicas is {least}"),
            "nothing is acknowledged until enough replicas are there",
            "start more replicas, or lower --min-replicas".to_owned(),
        ));
    }
    if is_primary && online > 0 && least == 0 && !is_durable {
        findings.push(warn(
            "no-replica-awaited",
            format!("{online} replicas are online, --min-replicas is 0"),
            "a failover forgets what was acknowledged before the replica had it",
            "set --min-replicas 1".to_owned(),
        ));
    }
    if engine.is_cluster_whole == Some(false) {
        findings.push(warn(
            "cluster-down",
            "the Cluster is not whole (cluster_state:fail)".to_owned(),
            "nothing is acknowledged until each slot has a primary",
            "`redis-cli --cluster check HOST:PORT` says what is missing, `--cluster fix` mends slots"
                .to_owned(),
        ));
    }
    findings
}

fn memory(engine: &EngineInfo) -> Option<Finding> {
    let limit = engine.maxmemory_bytes?;
    let used = engine.used_memory_bytes.unwrap_or(0);
    let total = engine.total_memory_bytes.filter(|total| *total > 0);
    // AWS sets it by the type of the nodes.
    let remedy = |bytes: u64| match engine.hosting {
        EngineHosting::Own => setting(engine.hosting, "maxmemory", &format!("{}mb", bytes >> 20)),
        _ => "use a larger node type, or more shards".to_owned(),
    };
    let share = |bytes: u64, percent: u64| bytes / 100 * percent;
    let suggested = total.map_or(1 << 30, |total| share(total, MAXMEMORY_OF_TOTAL_PERCENT));
    if limit == 0 {
        return Some(warn(
            "no-memory-limit",
            "maxmemory is 0: nothing limits the engine's memory".to_owned(),
            "without summarizers it grows until the kernel kills it; with a limit the receivers \
             answer 503 first",
            remedy(suggested),
        ));
    }
    if limit < MAXMEMORY_MIN_BYTES {
        return Some(warn(
            "memory-limit-low",
            format!("maxmemory is {} MiB", limit >> 20),
            "the receivers answer 503 as soon as summarizers pause",
            remedy(suggested.max(MAXMEMORY_MIN_BYTES)),
        ));
    }
    if used > share(limit, USED_MEMORY_MAX_PERCENT) {
        return Some(warn(
            "memory-nearly-full",
            format!(
                "{} of {} MiB of maxmemory are in use",
                used >> 20,
                limit >> 20
            ),
            "the receivers answer 503 soon, before the engine refuses writes",
            format!("see that summarizers run; {}", remedy(limit * 2)),
        ));
    }
    match total {
        Some(total) if limit > share(total, MAXMEMORY_OF_TOTAL_MAX_PERCENT) => Some(warn(
            "memory-limit-high",
            format!(
                "maxmemory is {} of the machine's {} MiB",
                limit >> 20,
                total >> 20
            ),
            "the kernel may kill the engine before its limit is reached, above all while it rewrites \
             its append-only file",
            remedy(suggested),
        )),
        _ => None,
    }
}

/// How to give a setting this value.
fn setting(hosting: EngineHosting, name: &str, value: &str) -> String {
    match hosting {
        EngineHosting::Own => format!(
            "`{name} {value}` in redis.conf, or `CONFIG SET {name} {value}` and `CONFIG REWRITE`"
        ),
        _ => format!("set {name} = {value} in its parameter group"),
    }
}
